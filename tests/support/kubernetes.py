"""Manifests and the chart as data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

from tests.support.project import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "extauthz"
EXAMPLE = yaml.safe_load((CHART / "ci" / "example-values.yaml").read_text())
EVERYTHING = {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard", "migrate")}
FOLDERS = ("overlays/sidecar", "overlays/standalone", "migrate", "console")
Manifest = dict[str, Any]


@cache
def built(folder: str) -> tuple[Manifest, ...]:
    """Return what `kubectl kustomize` makes of a folder."""
    call = [Path(sys.executable).with_name("kubectl"), "kustomize", KUBERNETES / folder]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(yaml.safe_load_all(done.stdout))


def rendered(**values: Any) -> dict[str, list[Manifest]]:
    """Return what Helm makes of the chart, by template."""
    with helm_python.Chart.load(CHART) as chart:
        made = chart.render(EXAMPLE | values, name="authz", namespace="prod")
    return {
        name.rpartition("/")[2]: [document for document in yaml.safe_load_all(text) if document]
        for name, text in made.items()
        if name.endswith(".yaml")
    }


@cache
def charts() -> tuple[Manifest, ...]:
    """Return everything that the chart can make."""
    return tuple(manifest for manifests in rendered(**EVERYTHING).values() for manifest in manifests)


def all_manifests() -> Iterator[tuple[str, Manifest]]:
    """Yield every manifest with where it comes from."""
    for folder in FOLDERS:
        yield from ((f"{folder} {manifest['kind']} {manifest['metadata']['name']}", manifest) for manifest in built(folder))
    yield from ((f"helm {manifest['kind']} {manifest['metadata']['name']}", manifest) for manifest in charts())


MANIFESTS = dict(all_manifests())


def named(where: str, kind: str) -> Manifest:
    """Return the only manifest of a kind from a place; of the chart's console at `helm console`."""
    of_console = where.endswith("console")
    place = f"{where.split()[0]} {kind} "
    (found,) = (
        manifest for name, manifest in MANIFESTS.items() if name.startswith(place) and name.endswith("-console") == of_console
    )
    return found
