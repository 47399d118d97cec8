"""Printed Envoy configurations, validated and run by a real Envoy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauthz.addresses import parse_address
from extauthz.cli import main
from extauthz.config.loader import load
from extauthz.core.identity import IdentityHeaders
from extauthz.demo.wiring import write_certificates
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config.bootstrap import Edge, Sidecar
from tests.support.envoy import Reply, refusal, running_envoy, running_sidecar, running_upstream, send
from tests.support.envoy_config import (
    ALL_OVERRIDES,
    ROUTES,
    SEPARATORS,
    WANTED,
    certificates,
    configured,
    file_and_flags,
    identity,
    manager_of,
    part_of,
    printed,
)
from tests.support.ports import free_port

__all__ = ["certificates"]


@pytest.mark.envoy
@pytest.mark.parametrize("name", WANTED)
def test_envoy_starts_with_what_is_printed(name: str, tmp_path: Path, certificates: Path) -> None:
    file, flags = file_and_flags(tmp_path, WANTED[name], certificates)
    whole = printed(file, *flags)
    assert refusal(tmp_path, whole) == ""
    # The parts are those of the whole.
    data = yaml.safe_load(whole)
    manager, (listener,) = manager_of(whole), data["static_resources"]["listeners"]
    filters, (host,) = manager["http_filters"], manager["route_config"]["virtual_hosts"]
    assert part_of(file, flags, "filter") == filters[:-1]
    assert part_of(file, flags, "manager") == without(manager, "@type", "stat_prefix", "codec_type", "http_filters", "route_config")
    assert part_of(file, flags, "virtual-host") == without(host, "name", "routes")
    assert part_of(file, flags, "listener") == without(listener, "name", "address", "filter_chains")
    assert part_of(file, flags, "cluster") == data["static_resources"]["clusters"][:1]
    rules = {"decoder_header_mutation_rules": filters[-2]["typed_config"]["decoder_header_mutation_rules"]}
    assert part_of(file, flags, "mutation") == rules


def without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    assert settings.keys() >= set(names)
    return {name: value for name, value in settings.items() if name not in names}


@pytest.mark.envoy
@pytest.mark.parametrize("listen", ["127.0.0.1:9001", "unix:///tmp/extauthz/check.sock"])
def test_every_worker_is_an_endpoint(listen: str, tmp_path: Path) -> None:
    addresses = parse_address(listen).of_workers(4)
    sidecar = Sidecar(identity=identity(), addresses=addresses, check_timeout=0.15, max_in_flight=4000)
    text = bootstrap.text(sidecar, Edge())
    assert refusal(tmp_path, text) == ""
    cluster = yaml.safe_load(text)["static_resources"]["clusters"][0]
    endpoints = [entry["endpoint"]["address"] for entry in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]
    if "unix" in listen:
        assert endpoints == [{"pipe": {"path": f"/tmp/extauthz/check-{index}.sock"}} for index in range(4)]  # noqa: S108
    else:
        assert [entry["socket_address"]["port_value"] for entry in endpoints] == [9001, 9002, 9003, 9004]
    thresholds = cluster["circuit_breakers"]["thresholds"][0]
    assert thresholds["max_requests"] > 4000
    assert thresholds["max_retries"] >= 1000


@dataclass
class Live:
    """A running Envoy with a printed bootstrap, and a token for each host."""

    port: int
    token: str
    rules: IdentityHeaders

    def send(self, line: str, *headers: tuple[str, str], host: str = "api.acme.com") -> Reply:
        return send(self.port, line, [("Host", host), ("Content-Length", "0"), *headers])

    def search(self, *headers: tuple[str, str]) -> Reply:
        return self.send("POST /search", ("Authorization", f"Bearer {self.token}"), *headers)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Another prefix, hosts, another act-as header, mutual TLS: nothing is as the shipped file has it."""
    folder = tmp_path_factory.mktemp("l")
    write_certificates(folder)
    ports = {name: free_port() for name in ("sidecar", "ops", "upstream", "envoy")}
    more = '[{match: "GET /projects/{id}", public: true, encoded_slashes: true, name: projects}, '
    file = configured(
        folder,
        hosts=("api.acme.com",),
        others=False,
        routes=ROUTES.replace("[", more, 1),
        server={
            "listen": f"127.0.0.1:{ports['sidecar']}",
            "ops": f"127.0.0.1:{ports['ops']}",
            "drain": "0s",
            "check_timeout": "900ms",
            "tls": {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt"},
        },
        identity={"prefix": "x-acme-gateway-"},
        act_as={"headers": ["X-Acme-Behalf"]},
    )
    order = ("--permission", "GLOBAL", "--scope", "SEARCH", "--description", "t", "--expires", "1d", "--json")
    made = CliRunner().invoke(main, ["token", "create", *order, "--config", str(file)])
    assert made.exit_code == 0, made.output
    admin = folder / "admin.sock"
    flags = [
        "--listener",
        f"127.0.0.1:{ports['envoy']}",
        "--upstream",
        f"127.0.0.1:{ports['upstream']}",
        "--admin",
        f"unix://{admin}",
    ]
    for flag, name in (("--tls-ca", "ca.crt"), ("--tls-certificate", "client.crt"), ("--tls-key", "client.key")):
        flags += [flag, str(folder / name)]
    text = printed(file, *flags)
    with running_upstream(ports["upstream"]), running_sidecar(file, ports["ops"]), running_envoy(folder, text, admin):
        yield Live(ports["envoy"], json.loads(made.stdout)["token"], load(file).policy.identity)


ANA = ("X-Acme-Behalf", "ana@acme.com")


@pytest.mark.envoy
def test_the_identity_has_its_own_prefix(live: Live) -> None:
    seen = live.search(ANA)
    assert seen.status == 200
    headers = seen.body["headers"]
    assert headers["x-acme-gateway-user"] == "ana@acme.com"
    assert {name for name in headers if name.startswith("x-acme")} == {
        f"x-acme-gateway-{part}" for part in ("user", "actor", "auth-type", "scopes", "decision-id")
    }
    assert "authorization" not in headers


@pytest.mark.envoy
@pytest.mark.parametrize("separator", [character for character in SEPARATORS if character != "_"])
@pytest.mark.parametrize("public", [False, True], ids=["token", "public"])
def test_every_name_that_the_sidecar_may_set_or_remove_passes_envoy(live: Live, separator: str, *, public: bool) -> None:
    rules = live.rules
    names = [name for name in rules.always_listed if name != "authorization"] + [
        f"{rules.prefix}more",
        rules.prefix,
        *ALL_OVERRIDES,
    ]
    spelled = {name.replace("-", separator) for name in names}
    if not public:
        # In their own spelling these are read, and then refused.
        spelled -= {"x-glean-auth-type", *rules.act_as}
    sent = [(name, "ceo@acme.com") for name in spelled]
    reply = live.send("GET /healthz", *sent) if public else live.search(ANA, *sent)
    assert reply.status == 200, reply.body
    reached = {name for name, value in reply.body["headers"].items() if "ceo@acme.com" in value}
    assert reached == set()


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/projects/a%2Fb", 200),
        ("/projects/a%2fb%2F%20c?x=%2F", 200),
        ("/projects/a", 200),
        *((f"/projects/{name}", 400) for name in ("a%2F..%2Fb", "..%2Fadmin", "a%2F", "%2Fa", "a%252Fb", "a%5Cb")),
        ("/projects/%2e%2e%2Fhealthz", 400),
        ("/healthz%2Fa", 400),
        ("/projects%2Fa", 400),
    ],
)
def test_an_encoded_slash_comes_to_the_routes_that_take_it_and_to_no_other(live: Live, path: str, status: int) -> None:
    """And to the upstream as it was sent."""
    reply = live.send(f"GET {path}")
    assert reply.status == status
    if status == 200:
        assert reply.body["path"] == path
    else:
        assert reply.body["reason"] == "path_ambiguous"


@pytest.mark.envoy
def test_only_the_hosts_of_the_route_files_come_in(live: Live) -> None:
    assert live.send("GET /healthz").status == 200
    assert live.send("GET /healthz", host="API.acme.com.:8080").status == 200
    assert live.send("GET /healthz", host="localhost").status == 404
