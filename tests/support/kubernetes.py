"""Manifests and the chart as data."""

from __future__ import annotations

import re
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
RECIPES = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
    if path.name != "example-values.yaml"
}
"""Values that are laid over those of the example, as `helm install -f … -f …` does it."""
EVERYTHING = (
    {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard", "migrate")}
    | RECIPES["admin"]
    | {"autoscaling": {"enabled": True}}
)
FOLDERS = ("overlays/sidecar", "overlays/standalone", "migrate", "console", "admin")
Manifest = dict[str, Any]


def documents(text: str) -> Iterator[Manifest]:
    """Yield the manifests of a text; the reader in C takes a tenth of the time."""
    yield from filter(None, yaml.load_all(text, Loader=yaml.CSafeLoader))


@cache
def built(folder: str) -> tuple[Manifest, ...]:
    """Return what `kubectl kustomize` makes of a folder."""
    call = [Path(sys.executable).with_name("kubectl"), "kustomize", KUBERNETES / folder]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(documents(done.stdout))


def texts(values: dict[str, Any]) -> dict[str, str]:
    """Return what Helm writes for these values, by template; raises HelmError."""
    with helm_python.Chart.load(CHART) as chart:
        made = chart.render(values, name="authz", namespace="prod")
    return {name.rpartition("/")[2]: text for name, text in made.items() if text.strip()}


def rendered(**values: Any) -> dict[str, list[Manifest]]:
    """Return what Helm makes of the chart, by template."""
    with helm_python.Chart.load(CHART) as chart:
        made = chart.render(EXAMPLE | values, name="authz", namespace="prod")
    return {name.rpartition("/")[2]: list(documents(text)) for name, text in made.items() if name.endswith(".yaml")}


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
    """Return the only manifest of a kind from a place; of the chart's console at `helm console`, of its admin at `helm admin`."""
    place, part = f"{where.split()[0]} {kind} ", where.split("/")[-1].split()[-1]
    others = {"-console", "-admin"} - {f"-{part}"}
    (found,) = (
        manifest
        for name, manifest in MANIFESTS.items()
        if name.startswith(place) and not name.endswith(tuple(others)) and (part not in ("console", "admin") or name.endswith(part))
    )
    return found


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge values as Helm does: mappings key by key, everything else whole."""
    both = {key: laid_over(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return below | above | both


def with_all_workloads(values: dict[str, Any]) -> dict[str, Any]:
    """Return the example with every workload, and these values."""
    return laid_over(laid_over(laid_over(EXAMPLE, RECIPES["admin"]), {"migrate": {"enabled": True}}), values)


def pod_of(manifests: list[Manifest]) -> Manifest:
    """Return the pod of the only manifest that runs one."""
    (spec,) = (manifest["spec"] for manifest in manifests if manifest["kind"] in ("Deployment", "Job", "CronJob"))
    pod: Manifest = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]
    return pod


def secret(place: str) -> str:
    """Return what a secret holds, 64 characters by the name of its file."""
    return (Path(place).name * 64)[:64]


def laid_out(manifests: list[Manifest], pod: Manifest, folder: Path) -> Path:
    """Lay out /etc/extauthz of a pod, with secrets that differ by their names, also those that come to an absolute path."""
    maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap"}
    (folder / "secrets").mkdir(parents=True)
    for source in pod["volumes"][0]["projected"]["sources"]:
        wanted = source.get("configMap", {})
        for name in {item["key"] for item in wanted.get("items", [])} or maps.get(wanted.get("name"), {}):
            text = maps[wanted["name"]][name]
            for place in re.findall(r"file: (/[\w./-]+)", text):
                text = text.replace(f"file: {place}", f"file: secrets{place.replace('/', '-')}")
                (folder / f"secrets{place.replace('/', '-')}").write_text(secret(place))
            (folder / name).write_text(text)
        for item in source.get("secret", {}).get("items", ()):
            (folder / item["path"]).parent.mkdir(exist_ok=True)
            (folder / item["path"]).write_text(secret(item["path"]))
    return folder / "extauthz.yaml"
