"""YAML in documents."""

from __future__ import annotations

import copy
import functools
import re
import textwrap
from typing import Any

import yaml

from extauthz.config.loader import load
from tests.support.project import ROOT

CONFIG = ROOT / "config"
EXAMPLE = CONFIG / "extauthz.yaml"
ENTRIES = {"reasons": "route_unknown", "headers": "authorization"}
"""The entry of a mapping that an example is put into."""
CERTIFICATE = {"certificate": "tls.crt", "key": "tls.key", "client_ca": "ca.pem"}
SIBLINGS: dict[str, Any] = {
    "server": {"tls": CERTIFICATE, "ops_tls": dict(CERTIFICATE)},
    "oauth": {"proxy": {"url": "http://127.0.0.1:3128", "user": "a", "password": {"file": "b"}}},
    "internal_token": {"keys": [{"id": "k1", "file": "a"}]},
    "console": {
        "tls": {"certificate": "tls.crt", "key": "tls.key"},
        "oidc": {"issuer": "https://login.acme.com", "client_id": "c", "client_secret": {"file": "a"}},
        "sidecar_tls": {"certificate": "tls.crt", "key": "tls.key"},
    },
}
"""What a key needs beside it, where the example configuration has it in a comment only."""


@functools.cache
def example() -> dict[str, Any]:
    """Read the example configuration."""
    data: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return data


def placed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return the example configuration with a value at the path of a key: in the first entry, where there are several."""
    data = copy.deepcopy(example())
    for section, siblings in SIBLINGS.items():
        data[section] |= copy.deepcopy(siblings)
    if path == ("oauth", "providers"):
        data["oauth"] = {}
    here: Any = data
    for part in path[:-1]:
        name = part.removesuffix("[]")
        if not isinstance(here.get(name), (dict, list)):
            here[name] = {}
        here = here[name]
        if part.endswith("[]"):
            here = here[0] if isinstance(here, list) else here.setdefault(ENTRIES[name], {})
    for other in {"env", "file", "socket"} if path[-1] in {"env", "file", "socket"} else ():
        here.pop(other, None)
    here[path[-1]] = value
    return data


def yaml_blocks(text: str) -> list[str]:
    """Return the YAML code blocks of a Markdown text."""
    found = re.findall(r"^( *)```ya?ml[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


@functools.cache
def whole_vocabulary() -> tuple[str, ...]:
    """Return the scopes of the example and those that the head of the file of newer scopes adds to them."""
    head = (CONFIG / "routes" / "glean-newer-scopes.yaml").read_text().partition("\n#   2. ")[0].partition("\n#   1. ")[2]
    return (*load(EXAMPLE).settings.scopes, *re.findall(r"[A-Z_:]{3,}", head))
