"""A configuration to print an Envoy configuration for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROUTES = (
    'routes: [{match: "GET|HEAD /healthz", public: true, name: NAME}, {match: "POST /search", scope: SEARCH, name: NAME-search}]'
)
SETTINGS: dict[str, Any] = {
    "version": 1,
    "server": {"listen": "127.0.0.1:9001"},
    "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    "act_as": {"allow": ["*@acme.com"]},
    "scopes": ["SEARCH"],
    "routes": ["routes.yaml"],
}


def configured(folder: Path, *, hosts: tuple[str, ...] = (), others: bool = True, routes: str = ROUTES, **changes: Any) -> Path:
    """Write a configuration: with `hosts` those of a file of their own; without `others` it is the only one."""
    files = {}
    if hosts:
        files["hosts.yaml"] = f"hosts: {json.dumps(hosts)}\n{routes.replace('NAME', 'h')}"
    if others:
        files["routes.yaml"] = routes.replace("NAME", "r")
    for name, text in files.items():
        (folder / name).write_text(text)
    settings = SETTINGS | changes | {"routes": list(files)}
    settings["server"] = SETTINGS["server"] | changes.get("server", {})
    settings["act_as"] = SETTINGS["act_as"] | changes.get("act_as", {})
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
