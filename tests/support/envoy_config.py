"""A configuration of ours to print an Envoy configuration for, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from extauthz.cli import main
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE
from extauthz.core.identity import FORWARDED_HOST_HEADERS, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.demo.wiring import write_certificates

# What a header name may have besides letters and digits (RFC 9110 5.6.2).
SEPARATORS = "!#$%&'*+-.^_`|~"


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["envoy-config", "--config", str(file), *arguments])


def printed(file: Path, *arguments: str) -> str:
    result = run(file, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


ALL_OVERRIDES = (*OVERRIDE_HEADERS, *FORWARDED_HOST_HEADERS)


def identity(prefix: str = "x-extauthz-", *act_as: str, hosts: bool = False, auth_type: str = AUTH_TYPE) -> IdentityHeaders:
    overrides = ALL_OVERRIDES if hosts else OVERRIDE_HEADERS
    return IdentityHeaders(prefix, frozenset(), tuple(dict.fromkeys((*ACT_AS_HEADERS, *act_as))), overrides, auth_type)


@dataclass(frozen=True)
class Wanted:
    """A configuration and flags."""

    changes: dict[str, Any]
    flags: tuple[str, ...] = ()
    tls: bool = False


WANTED = {
    "default": Wanted({}),
    "unix": Wanted({"server": {"listen": "unix:///tmp/extauthz/check.sock"}}, ("--admin", "127.0.0.1:9901")),
    "workers": Wanted({"server": {"listen": "unix:///run/extauthz/check.sock", "workers": 4}}),
    "ipv6": Wanted({"server": {"listen": "[::1]:9001"}}, ("--listener", "[::]:10000", "--upstream", "[2001:db8::7]:80")),
    "localhost": Wanted({"server": {"listen": "localhost:9001"}}, ("--upstream", "localhost:8080")),
    "names": Wanted(
        {"server": {"listen": "0.0.0.0:9001"}},
        ("--sidecar", "a.extauthz.internal", "--sidecar", "b.extauthz.internal", "--upstream", "api.internal:443"),
    ),
    "hosts": Wanted({"hosts": ("api.acme.com", "[::1]", "on", "1e3"), "others": False}),
    "domains": Wanted({"hosts": ("api.acme.com",)}, ("--domain", "www.acme.com", "--domain", "127.0.0.1")),
    "prefix": Wanted({"identity": {"prefix": "x-acme-gateway-"}}),
    "act-as": Wanted({"act_as": {"headers": ["X-Acme-User", "On-Behalf-Of", "X-User"]}}),
    "names-of-ones-own": Wanted(
        {
            "identity": {"prefix": "x-acme-"},
            "act_as": {"headers": ["On-Behalf-Of"], "only": True},
            "auth_type": {"header": "Token-Kind", "oauth": "sso"},
        }
    ),
    "kept": Wanted({"identity": {"keep": ["Authorization", "X-Scio-ActAs", "X-Http-Method-Override"]}}),
    "traffic": Wanted(
        {},
        (
            *("--websocket", "--grpc-web", "--trusted-hops", "2", "--proxy-protocol", "--limit-denials", "60"),
            *("--cors", "https://app.acme.com", "--cors", "http://localhost:3000"),
        ),
    ),
    "slow": Wanted({"server": {"check_timeout": "3s", "max_in_flight": 5000}}),
    "tls": Wanted({"server": {"tls": {"certificate": "server.crt", "key": "server.key"}}}, tls=True),
    "mtls": Wanted(
        {"server": {"tls": {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt"}}},
        ("--tls-name", "127.0.0.1"),
        tls=True,
    ),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


def file_and_flags(folder: Path, wanted: Wanted, certificates: Path) -> tuple[Path, list[str]]:
    if not wanted.tls:
        return configured(folder, **wanted.changes), list(wanted.flags)
    keys = {name: str(certificates / file) for name, file in wanted.changes["server"]["tls"].items()}
    flags = ("--tls-ca", "ca.crt", "--tls-certificate", "client.crt", "--tls-key", "client.key")
    placed = [str(certificates / flag) if flag.endswith((".crt", ".key")) else flag for flag in flags]
    return configured(folder, server={"tls": keys}), [*wanted.flags, *placed]


def part_of(file: Path, flags: Sequence[str], part: str) -> Any:
    return yaml.safe_load(printed(file, *flags, "--part", part))


def manager_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0][
        "typed_config"
    ]
    return found


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
