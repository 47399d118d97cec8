"""Spans of a real Envoy and of the sidecar are one trace."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.demo.launcher import find_envoy
from tests.support.collector import Collector
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.sidecar import Sidecar, sidecar
from tests.support.tracing_served import CLIENTS, SAMPLED, collector, traced_sidecar
from tests.support.transports import NAMES, Name
from tests.support.waiting import eventually

__all__ = ["collector", "sidecar"]

ENVOY_FILE = ROOT / "envoy" / "envoy.yaml"


def bootstrap(sidecar: Sidecar, collector: Collector, port: int, folder: Path) -> dict[str, Any]:
    """Return the shipped bootstrap with a tracer, on free ports; the upstream is a fixed answer."""
    data: dict[str, Any] = yaml.safe_load(ENVOY_FILE.read_text())
    data["admin"]["address"]["pipe"]["path"] = str(folder / "admin.sock")
    runtime = {"tracing.opentelemetry.min_flush_spans": 1}
    data["layered_runtime"] = {"layers": [{"name": "static", "static_layer": runtime}]}
    resources = data["static_resources"]
    (listener,) = resources["listeners"]
    listener["address"]["socket_address"]["port_value"] = port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    exporter = {"http_uri": {"uri": collector.endpoint, "cluster": "collector", "timeout": "5s"}}
    manager["tracing"] = {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "service_name": "envoy",
                "http_service": exporter,
            },
        },
    }
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "upstream"}}}
    ]
    for filter_ in manager["http_filters"]:
        if filter_["name"] == "envoy.filters.http.ext_authz":
            filter_["typed_config"]["grpc_service"]["timeout"] = "5s"
    (authz,) = [cluster for cluster in resources["clusters"] if cluster["name"] == "extauthz"]
    where = authz["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    where["port_value"] = int(sidecar.target.rpartition(":")[2])
    address = {"socket_address": {"address": "127.0.0.1", "port_value": collector.port}}
    ends = {"cluster_name": "collector", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    resources["clusters"] = [authz, {"name": "collector", "type": "STATIC", "connect_timeout": "1s", "load_assignment": ends}]
    return data


def status_of(port: int, headers: dict[str, str]) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/search", b"{}", {"content-type": "text/plain", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@pytest.mark.envoy
@pytest.mark.parametrize("transport", NAMES)
def test_a_check_is_below_the_span_of_envoy(sidecar: Sidecar, collector: Collector, transport: Name, tmp_path: Path) -> None:
    sidecar.settings["server"]["transport"] = transport
    token = traced_sidecar(sidecar, collector)
    port, file = free_port(), tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(bootstrap(sidecar, collector, port, tmp_path)))
    command = [find_envoy(), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with (tmp_path / "envoy.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as envoy:
        try:
            known = {"Authorization": f"Bearer {token}"}
            eventually(
                lambda: status_of(port, known | {"traceparent": SAMPLED[:-1] + "0"}) == 200,
                seconds=30,
                what=lambda: (tmp_path / "envoy.log").read_text()[-2000:],
            )
            assert collector.named("check") == []
            assert status_of(port, known | {"traceparent": CLIENTS}) == 200
            assert status_of(port, {"traceparent": CLIENTS}) == 401
            eventually(lambda: len(collector.named("check")) == 2, seconds=20, what=lambda: collector.spans)
            eventually(
                lambda: {span.parent_id for span in collector.named("check")} <= {span.span_id for span in collector.spans},
                seconds=20,
                what=lambda: collector.spans,
            )
            spans = {span.span_id: span for span in collector.spans}
        finally:
            envoy.terminate()
    checks = collector.named("check")
    assert {span.trace_id for span in checks} == {"c" * 32}
    assert {span.parent_id for span in checks} & {"d" * 16} == set()
    assert {spans[span.parent_id].service for span in checks} == {"envoy"}
    assert sorted(span.attributes["extauthz.reason"] for span in checks) == ["allowed", "credential_missing"]
