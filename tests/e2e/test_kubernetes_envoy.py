"""The Envoy of the manifests and the chart, as Envoy itself reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from extauthz.demo.wiring import write_certificates
from tests.support.deployment import changed
from tests.support.kubernetes import named
from tests.support.project import ROOT


@pytest.mark.envoy
@pytest.mark.parametrize("file", ["deploy/kubernetes/overlays/sidecar/envoy.yaml", "deploy/compose/envoy.yaml"])
def test_envoy_accepts_its_configuration(file: str) -> None:
    call = [Path(sys.executable).with_name("envoy"), "--mode", "validate", "-c", ROOT / file, "--use-dynamic-base-id"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.envoy
def test_envoy_accepts_the_cluster_of_the_documents(tmp_path: Path) -> None:
    """The cluster for mutual TLS with the service, in place of the first lines of the shipped one."""
    cluster = re.search(r"```yaml\n(  - name: extauthz\n.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    assert cluster is not None
    write_certificates(tmp_path)
    files = {"tls.crt": "client.crt", "tls.key": "client.key", "ca.crt": "ca.crt"}
    block = re.sub("/etc/envoy/tls/([a-z.]+)", lambda found: str(tmp_path / files[found[1]]), cluster[1])
    text = changed((ROOT / "envoy" / "envoy.yaml").read_text(), (("  - name: extauthz\n    type: STATIC\n", block),))
    (tmp_path / "envoy.yaml").write_text(text)
    call = [Path(sys.executable).with_name("envoy"), "--mode", "validate", "-c", tmp_path / "envoy.yaml", "--use-dynamic-base-id"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    service = named("overlays/standalone", "Service")["metadata"]
    assert f"exact: {service['name']}.{service['namespace']}.svc" in cluster[1]
