"""What `extauthz doctor` says of a running Envoy: nothing of the printed configuration, and one thing of each fault.

One Envoy has a listener and a cluster for each fault, so that what is judged is what Envoy itself tells.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauthz.addresses import Address
from extauthz.cli import main
from extauthz.config.loader import Configuration, load
from extauthz.doctor import envoy_admin, envoy_cluster, envoy_dump, envoy_filter
from extauthz.doctor.envoy_dump import Dump
from extauthz.doctor.findings import Finding, Level
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config.bootstrap import Edge
from extauthz.envoy_config.reading import domains_of, sidecar_of
from tests.support.envoy import START_TIMEOUT, running_envoy, running_sidecar
from tests.support.ports import free_port
from tests.support.waiting import eventually

OK, WARNING, PROBLEM = Level
EXT_AUTHZ = "envoy.filters.http.ext_authz"
TYPE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
ROUTER = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
EARLY = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HOSTS = ("localhost", "127.0.0.1", "api.example.com")


@dataclass
class Parts:
    """What a fault is put into."""

    manager: dict[str, Any]
    cluster: dict[str, Any]

    @property
    def filters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.manager["http_filters"]
        return found

    @property
    def check(self) -> dict[str, Any]:
        found: dict[str, Any] = next(entry for entry in self.filters if entry["name"] == EXT_AUTHZ)["typed_config"]
        return found

    @property
    def removals(self) -> dict[str, Any]:
        found: dict[str, Any] = self.filters[0]["typed_config"]["mutations"]
        return found

    @property
    def host(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manager["route_config"]["virtual_hosts"][0]
        return found

    @property
    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manager["common_http_protocol_options"]
        return found

    def endpoint(self, port: int) -> dict[str, Any]:
        return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster["load_assignment"]["endpoints"][0]
        return found


Fault = Callable[[Parts], object]
Told = list[tuple[str, Level]]


def rules(regex: str, *, is_error: bool = True) -> dict[str, Any]:
    return {"disallow_all": True, "disallow_is_error": is_error, "allow_expression": {"regex": regex}}


def tls(**common: Any) -> dict[str, Any]:
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": TLS, "common_tls_context": common}}


def per_route(config: dict[str, Any], name: str = EXT_AUTHZ) -> dict[str, Any]:
    return {"typed_per_filter_config": {name: config}}


def renamed(parts: Parts, name: str, *, authority: bool) -> None:
    """Give the cluster another name, which is the authority of what Envoy asks unless it is told one."""
    asked, checked = parts.check["grpc_service"]["envoy_grpc"], parts.cluster["health_checks"][0]["grpc_health_check"]
    asked["cluster_name"] = parts.cluster["name"] = parts.cluster["load_assignment"]["cluster_name"] = name
    if not authority:
        del asked["authority"], checked["authority"]


DISABLED = {"@type": TYPE, "disabled": True}
WEIGHTED = {"clusters": [{"name": "upstream", "weight": 1, **per_route(DISABLED)}]}
WITHOUT_BACK_OFF = {"num_retries": 1, "retry_on": "reset"}

FAULTS: dict[str, tuple[Fault, Told]] = {
    "nothing": (lambda parts: None, []),
    "default-timeout": (lambda parts: parts.check["grpc_service"].pop("timeout"), []),
    "context-extensions": (
        lambda parts: parts.host.update(per_route({"@type": TYPE, "check_settings": {"context_extensions": {"a": "b"}}})),
        [],
    ),
    # The filter
    "disabled": (lambda parts: parts.filters[1].update(disabled=True), [("envoy.disabled", PROBLEM)]),
    "sampled": (
        lambda parts: parts.check.update(filter_enabled={"default_value": {"numerator": 50}}),
        [("envoy.disabled", PROBLEM)],
    ),
    "failure-mode": (lambda parts: parts.check.update(failure_mode_allow=True), [("envoy.failure_mode_allow", PROBLEM)]),
    "shadow": (lambda parts: parts.check.update(shadow_mode=True), [("envoy.shadow_mode", PROBLEM)]),
    "allowed-headers": (
        lambda parts: parts.check.update(allowed_headers={"patterns": [{"exact": "authorization"}]}),
        [("envoy.allowed_headers", PROBLEM)],
    ),
    "disallowed-headers": (
        lambda parts: parts.check.update(disallowed_headers={"patterns": [{"prefix": "x-"}]}),
        [("envoy.disallowed_headers", PROBLEM)],
    ),
    "joined-headers": (lambda parts: parts.check.pop("encode_raw_headers"), [("envoy.encode_raw_headers", WARNING)]),
    "unvalidated": (lambda parts: parts.check.pop("validate_mutations"), [("envoy.validate_mutations", WARNING)]),
    "forbidden-on-error": (lambda parts: parts.check.pop("status_on_error"), [("envoy.status_on_error", WARNING)]),
    "rerouted": (lambda parts: parts.check.update(clear_route_cache=True), [("envoy.clear_route_cache", WARNING)]),
    "with-body": (
        lambda parts: parts.check.update(with_request_body={"max_request_bytes": 1024}),
        [("envoy.with_request_body", WARNING)],
    ),
    "no-rules": (
        lambda parts: parts.check.pop("decoder_header_mutation_rules"),
        [("envoy.decoder_header_mutation_rules", PROBLEM)],
    ),
    "old-rules": (
        lambda parts: parts.check.update(decoder_header_mutation_rules=rules("^(authorization|x-extauthz-.+)$")),
        [("envoy.decoder_header_mutation_rules", PROBLEM)],
    ),
    "silent-rules": (
        lambda parts: parts.check.update(decoder_header_mutation_rules=rules("^x.*$", is_error=False)),
        [("envoy.decoder_header_mutation_rules", PROBLEM)],
    ),
    "wide-rules": (
        lambda parts: parts.check.update(decoder_header_mutation_rules=rules("^(authorization|(x|script|path).*)$")),
        [("envoy.decoder_header_mutation_rules", WARNING)],
    ),
    "over-http": (
        lambda parts: (
            parts.check.pop("grpc_service"),
            parts.check.update(http_service={"server_uri": {"uri": "http://127.0.0.1", "cluster": "upstream", "timeout": "1s"}}),
        ),
        [("envoy.grpc_service", PROBLEM)],
    ),
    "google-grpc": (
        lambda parts: parts.check.update(
            grpc_service={"google_grpc": {"target_uri": "127.0.0.1:9001", "stat_prefix": "x"}, "timeout": "0.2s"}
        ),
        [("envoy.grpc_service", WARNING)],
    ),
    "short-timeout": (lambda parts: parts.check["grpc_service"].update(timeout="0.15s"), [("envoy.timeout", PROBLEM)]),
    "no-timeout": (lambda parts: parts.check["grpc_service"].update(timeout="0s"), [("envoy.timeout", WARNING)]),
    "no-retry": (lambda parts: parts.check["grpc_service"].pop("retry_policy"), [("envoy.retry_policy", WARNING)]),
    "retry-inside": (
        lambda parts: parts.check["grpc_service"]["envoy_grpc"].update(
            retry_policy=parts.check["grpc_service"].pop("retry_policy"),
        ),
        [("envoy.retry_policy", WARNING)],
    ),
    "slow-retry": (
        lambda parts: parts.check["grpc_service"].update(retry_policy=WITHOUT_BACK_OFF),
        [("envoy.retry_policy", WARNING)],
    ),
    "short-tries": (
        lambda parts: parts.check["grpc_service"]["retry_policy"]["retry_back_off"].update(max_interval="0.02s"),
        [("envoy.retry_policy", WARNING)],
    ),
    # The cluster
    "odd-name": (
        lambda parts: renamed(parts, "outbound|9001||authz", authority=False),
        [("envoy.authority", WARNING), ("envoy.authority", WARNING)],
    ),
    "odd-name-and-authority": (lambda parts: renamed(parts, "extension/ns/authz", authority=True), []),
    "plain-name": (lambda parts: renamed(parts, "authz.example_1", authority=False), []),
    "elsewhere": (
        lambda parts: parts.endpoints.update(lb_endpoints=[parts.endpoint(9)]),
        [("envoy.addresses", PROBLEM), ("envoy.health", PROBLEM)],
    ),
    "stale": (
        lambda parts: parts.endpoints["lb_endpoints"].append(parts.endpoint(9)),
        [("envoy.addresses", WARNING), ("envoy.health", PROBLEM)],
    ),
    "unhealthy-unseen": (lambda parts: parts.cluster.pop("health_checks"), [("envoy.health_check", WARNING)]),
    "tcp-health": (
        lambda parts: [
            parts.cluster["health_checks"][0].pop("grpc_health_check"),
            parts.cluster["health_checks"][0].update(tcp_health_check={}),
        ],
        [("envoy.health_check", WARNING)],
    ),
    "rare-health": (
        lambda parts: parts.cluster["health_checks"][0].pop("no_traffic_interval"),
        [("envoy.health_check", WARNING)],
    ),
    "panic": (lambda parts: parts.cluster.pop("common_lb_config"), [("envoy.panic_threshold", WARNING)]),
    "panic-at-30": (
        lambda parts: parts.cluster.update(common_lb_config={"healthy_panic_threshold": {"value": 30}}),
        [("envoy.panic_threshold", WARNING)],
    ),
    "http-1": (
        lambda parts: (parts.cluster.pop("typed_extension_protocol_options"), parts.cluster.pop("health_checks")),
        [("envoy.health_check", WARNING), ("envoy.http2", PROBLEM)],
    ),
    "narrow": (
        lambda parts: parts.cluster["circuit_breakers"]["thresholds"][0].update(max_requests=100),
        [("envoy.circuit_breakers", WARNING)],
    ),
    "tls-unwanted": (
        lambda parts: parts.cluster.update(transport_socket=tls()),
        [("envoy.health", PROBLEM), ("envoy.tls", PROBLEM)],
    ),
    # Around it
    "paths": (
        lambda parts: [parts.manager.pop(key) for key in ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action")],
        [("envoy.path", WARNING)],
    ),
    "underscores": (lambda parts: parts.options.pop("headers_with_underscores_action"), [("envoy.underscores", WARNING)]),
    "for-ever": (lambda parts: parts.options.pop("max_stream_duration"), [("envoy.max_stream_duration", WARNING)]),
    "nothing-removed": (lambda parts: parts.filters.pop(0), [("envoy.header_mutation", WARNING)] * 2),
    "removed-too-late": (lambda parts: parts.filters.insert(1, parts.filters.pop(0)), [("envoy.header_mutation", WARNING)] * 2),
    "prefix-not-removed": (lambda parts: parts.removals["request_mutations"].pop(0), [("envoy.header_mutation", WARNING)]),
    "trailers-not-removed": (lambda parts: parts.removals.pop("request_trailers_mutations"), [("envoy.header_mutation", WARNING)]),
    # What comes before a route is chosen counts too; it does not see trailers.
    "removed-early": (
        lambda parts: parts.manager.update(
            early_header_mutation_extensions=[
                {
                    "name": "envoy.http.early_header_mutation.header_mutation",
                    "typed_config": {
                        "@type": EARLY,
                        "mutations": parts.filters.pop(0)["typed_config"]["mutations"]["request_mutations"],
                    },
                }
            ]
        ),
        [("envoy.header_mutation", WARNING)],
    ),
    # It answers 404 to everybody.
    "empty-host": (
        lambda parts: parts.manager["route_config"]["virtual_hosts"].append({"name": "blackhole", "domains": ["*"]}),
        [],
    ),
    "host-with-port": (lambda parts: parts.host.update(domains=["api.example.com:*", "localhost:8080", "127.0.0.1"]), []),
    "any-host-with-port": (lambda parts: parts.host.update(domains=["*:8080"]), [("envoy.domains", WARNING)]),
    "any-host": (lambda parts: parts.host.update(domains=["*"]), [("envoy.domains", WARNING)]),
    "unchecked-host": (lambda parts: parts.host.update(per_route(DISABLED)), [("envoy.per_route", WARNING)]),
    "unchecked-route": (lambda parts: parts.host["routes"][0].update(per_route(DISABLED)), [("envoy.per_route", WARNING)]),
    "unchecked-by-name": (
        lambda parts: parts.manager["route_config"].update(per_route({"@type": ROUTER, "disabled": True, "config": {}})),
        [("envoy.per_route", WARNING)],
    ),
    "unchecked-inside": (
        lambda parts: parts.host.update(per_route({"@type": ROUTER, "config": DISABLED})),
        [("envoy.per_route", WARNING)],
    ),
    "unchecked-share": (
        lambda parts: parts.host["routes"][0].update(route={"weighted_clusters": WEIGHTED}),
        [("envoy.per_route", WARNING)],
    ),
    "asks-another": (
        lambda parts: parts.host.update(
            per_route({"@type": TYPE, "check_settings": {"grpc_service": {"envoy_grpc": {"cluster_name": "upstream"}}}})
        ),
        [("envoy.per_route", WARNING)],
    ),
    "asks-nobody": (lambda parts: parts.filters.pop(1), [("envoy.ext_authz", WARNING)]),
    "twice": (
        lambda parts: parts.filters.insert(2, copy.deepcopy(parts.filters[1]) | {"name": f"{EXT_AUTHZ}.again"}),
        [("envoy.checked_twice", PROBLEM)],
    ),
    "redirects": (
        lambda parts: parts.host["routes"][0]["route"].update(internal_redirect_policy={"max_internal_redirects": 1}),
        [("envoy.checked_twice", WARNING)],
    ),
    # Worth something only to who reads the client's address from a header: see below.
    "no-edge": (lambda parts: parts.manager.update(use_remote_address=False), []),
    "no-append": (lambda parts: parts.manager.update(skip_xff_append=True), []),
    "one-proxy": (lambda parts: parts.manager.update(xff_num_trusted_hops=1), []),
    "two-faults": (
        lambda parts: (parts.check.update(failure_mode_allow=True), parts.options.pop("max_stream_duration")),
        [("envoy.failure_mode_allow", PROBLEM), ("envoy.max_stream_duration", WARNING)],
    ),
}

# With `hosts` in a route file, and no other file.
HOST_FAULTS: dict[str, tuple[tuple[str, ...], Told]] = {
    "the same": (("api.example.com", "localhost", "127.0.0.1"), []),
    "one more host": (("api.example.com", "localhost", "127.0.0.1", "b.example.com"), [("envoy.domains", WARNING)]),
    "one more domain": (("api.example.com", "localhost"), [("envoy.domains", WARNING)]),
}


@dataclass
class Installed:
    """A sidecar that runs, its configuration, and what an Envoy with a listener for each fault tells."""

    file: Path
    admin: Path
    dump: Dump

    @property
    def configuration(self) -> Configuration:
        return load(self.file)

    @property
    def listen(self) -> str:
        return str(self.configuration.settings.server.listen)

    def told(self, fault: str, configuration: Configuration | None = None) -> list[Finding]:
        """Judge the listener of one fault."""
        # That nobody is asked is worth a warning where others are.
        kept = (fault, "nothing") if fault == "asks-nobody" else (fault,)
        managers = (each for each in self.dump.managers if each.where in [f"listener {name}" for name in kept])
        alone = replace(self.dump, managers=tuple(managers))
        found = list(envoy_admin.judge(alone, configuration or self.configuration))
        return [each for each in found if each.name != "envoy.version" and each.where in ("", f"listener {fault}")]


def configured(folder: Path, listen: str, *, ops: int = 9090, hosts: tuple[str, ...] = (), **server: Any) -> Path:
    (folder / "routes.yaml").write_text(
        (f"hosts: {json.dumps(hosts)}\n" if hosts else "") + 'routes: [{match: "GET /healthz", public: true}]'
    )
    listening = {"listen": listen, "ops": f"127.0.0.1:{ops}", "drain": "0s"}
    settings = {"version": 1, "server": listening | server, "scopes": ["SEARCH"], "routes": ["routes.yaml"]}
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def with_faults(printed: str, admin: Path) -> str:
    """Return a bootstrap with a listener and a cluster for each fault."""
    data = yaml.safe_load(printed)
    (listener,), (cluster, upstream) = data["static_resources"]["listeners"], data["static_resources"]["clusters"]
    listeners, clusters = [], [upstream]
    for name, (fault, _) in FAULTS.items():
        own, other = copy.deepcopy(listener), copy.deepcopy(cluster)
        own["name"], own["address"] = name, {"pipe": {"path": f"@extauthz-{admin.parent.name}-{name}"}}
        parts = Parts(own["filter_chains"][0]["filters"][0]["typed_config"], other)
        parts.manager["stat_prefix"] = name
        other["name"] = other["load_assignment"]["cluster_name"] = f"extauthz-{name}"
        parts.check["grpc_service"]["envoy_grpc"]["cluster_name"] = other["name"]
        # On a machine that is busy no answer is late.
        other["health_checks"][0]["timeout"] = "30s"
        fault(parts)
        listeners.append(own)
        clusters.append(other)
    data["static_resources"] = {"listeners": listeners, "clusters": clusters}
    return yaml.safe_dump(data)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("d")
    ops, listen, admin = free_port(), free_port(), folder / "admin.sock"
    file = configured(folder, f"127.0.0.1:{listen}", ops=ops)
    loaded = load(file)
    printed = bootstrap.text(sidecar_of(loaded), Edge(admin=Address(path=str(admin)), domains=domains_of(loaded)))
    with running_sidecar(file, ops), running_envoy(folder, with_faults(printed, admin), admin):
        documents = asyncio.run(envoy_admin.documents(f"unix://{admin}"))
        yield Installed(file, admin, envoy_dump.read_dump(*documents))


@pytest.mark.envoy
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_nothing_else(installed: Installed, fault: str) -> None:
    found = installed.told(fault)
    expected = FAULTS[fault][1]
    assert sorted((each.name, each.level) for each in found) == sorted(expected or [("envoy.ext_authz", OK)])
    assert all(bool(each.advice) == (each.level is not OK) for each in found)


@pytest.mark.envoy
@pytest.mark.parametrize("fault", HOST_FAULTS)
def test_domains_are_compared_with_hosts(installed: Installed, fault: str, tmp_path: Path) -> None:
    hosts, expected = HOST_FAULTS[fault]
    loaded = load(configured(tmp_path, installed.listen, hosts=hosts))
    found = [(each.name, each.level) for each in installed.told("nothing", loaded)]
    # This Envoy was printed for a configuration without `hosts`: it does not remove what names another host.
    names = ["envoy.decoder_header_mutation_rules", "envoy.header_mutation", "envoy.header_mutation"] if hosts else []
    assert found == ([*((name, WARNING) for name in names), *expected] or [("envoy.ext_authz", OK)])
    assert ("envoy.domains", PROBLEM) in [(each.name, each.level) for each in installed.told("any-host", loaded)]


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("listen", "changes", "expected"),
    [
        ("127.0.0.1:PORT", {"max_in_flight": 2000}, [("envoy.circuit_breakers", WARNING)]),
        ("127.0.0.1:PORT", {"check_timeout": "200ms"}, [("envoy.timeout", PROBLEM)]),
        ("127.0.0.1:PORT", {"tls": {"certificate": "a", "key": "b"}}, [("envoy.tls", PROBLEM)]),
        ("127.0.0.1:9", {}, [("envoy.addresses", PROBLEM)]),
        ("unix:///tmp/extauthz/check.sock", {}, [("envoy.addresses", PROBLEM)]),
        ("0.0.0.0:9", {}, [("envoy.addresses", WARNING)]),
        ("0.0.0.0:PORT", {}, [("envoy.ext_authz", OK)]),
        ("localhost:PORT", {}, [("envoy.ext_authz", OK)]),
    ],
)
def test_another_configuration_of_the_sidecar_is_noticed(
    installed: Installed, listen: str, changes: dict[str, Any], expected: Told, tmp_path: Path
) -> None:
    where = listen.replace("PORT", installed.listen.rpartition(":")[2])
    loaded = load(configured(tmp_path, where, **changes))
    assert [(each.name, each.level) for each in installed.told("nothing", loaded)] == expected


@pytest.mark.envoy
def test_an_envoy_that_rejects_what_a_route_takes_is_noticed(installed: Installed, tmp_path: Path) -> None:
    file = configured(tmp_path, installed.listen)
    (tmp_path / "routes.yaml").write_text('routes: [{match: "GET /a/{id}", public: true, encoded_slashes: true}]')
    (found,) = installed.told("nothing", load(file))
    assert (found.name, found.level) == ("envoy.path", WARNING)
    assert found.advice == "write path_with_escaped_slashes_action: KEEP_UNCHANGED"


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("fault", "setting", "expected"),
    [
        ("nothing", "x-envoy-external-address", OK),
        ("no-edge", "x-envoy-external-address", PROBLEM),
        ("no-append", "x-envoy-external-address", WARNING),
        ("one-proxy", "x-envoy-external-address", OK),
        ("one-proxy", {"trusted_hops": 1}, OK),
        ("one-proxy", {"trusted_hops": 2}, WARNING),
        ("nothing", {"trusted_hops": 1}, WARNING),
    ],
)
def test_the_address_of_the_client_is_where_it_is_read(
    installed: Installed, fault: str, setting: Any, expected: Level, tmp_path: Path
) -> None:
    file = configured(tmp_path, installed.listen)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"envoy": {"client_address": setting}}))
    found = [(each.name, each.level) for each in installed.told(fault, load(file))]
    assert found == [("envoy.ext_authz", OK) if expected is OK else ("envoy.client_address", expected)]


@pytest.mark.envoy
@pytest.mark.parametrize("fault", ["twice", "redirects"])
def test_a_second_check_that_finds_the_credential_is_none(installed: Installed, fault: str, tmp_path: Path) -> None:
    file = configured(tmp_path, installed.listen)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"identity": {"keep": ["authorization"]}}))
    assert "envoy.checked_twice" not in [found.name for found in installed.told(fault, load(file))]


def test_names_that_no_rule_can_hold(tmp_path: Path) -> None:
    file = configured(tmp_path, "127.0.0.1:9001")
    printed = yaml.safe_load(bootstrap.text(sidecar_of(load(file)), Edge()))
    check = printed["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][1]
    data = yaml.safe_load(file.read_text()) | {
        "act_as": {"headers": [f"x-on-behalf-of-somebody-{name}" for name in "abcdefgh" * 2]}
    }
    data["act_as"]["headers"] += ["y" * 60]
    file.write_text(yaml.safe_dump(data))
    filters = envoy_dump.Filter("a", EXT_AUTHZ, check["typed_config"])
    (found,) = envoy_filter.look(filters, sidecar_of(load(file)), "listener a")
    assert (found.name, found.level) == ("envoy.decoder_header_mutation_rules", PROBLEM)
    assert "name fewer act-as headers" in found.found


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"alpn_protocols": ["h2"], "validation_context": {"trusted_ca": {}}}, ["envoy.tls"]),
        ({"alpn_protocols": ["h2"]}, ["envoy.tls"]),
        ({"validation_context": {"trusted_ca": {"filename": "a"}, "match_typed_subject_alt_names": [{}]}}, ["envoy.tls"]),
        ({"alpn_protocols": ["h2"], "validation_context_sds_secret_config": {"name": "a"}}, []),
        (
            {
                "alpn_protocols": ["h2"],
                "validation_context": {"trusted_ca": {"filename": "a"}, "match_typed_subject_alt_names": [{}]},
            },
            [],
        ),
    ],
)
def test_tls_of_the_cluster(cluster: dict[str, Any], expected: list[str]) -> None:
    assert [each.name for each in envoy_cluster._tls({"common_tls_context": cluster}, "listener a")] == expected


@pytest.mark.envoy
def test_the_shipped_configuration_has_no_findings_in_a_running_envoy(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("s")
    ops, listen, admin = free_port(), free_port(), folder / "admin.sock"
    file = configured(folder, f"127.0.0.1:{listen}", ops=ops)
    shipped = (Path(__file__).parents[1] / "envoy" / "envoy.yaml").read_text()
    for old, new in (("port_value: 9001", f"port_value: {listen}"), ("port_value: 10000", f"port_value: {free_port()}")):
        assert shipped.count(old) == 1
        shipped = shipped.replace(old, new)
    shipped = shipped.replace("/tmp/extauthz-envoy-admin.sock", str(admin))  # noqa: S108
    with running_sidecar(file, ops), running_envoy(folder, shipped, admin):
        flags = ["doctor", "--config", str(file), "--envoy-admin", f"unix://{admin}", "--json"]
        told = ""

        def is_healthy() -> bool:
            """Ask: on a machine that is busy a health check may fail once."""
            nonlocal told
            told = CliRunner().invoke(main, flags).stdout
            return "envoy.health" not in told

        eventually(is_healthy, seconds=START_TIMEOUT, pause=0.2, what=lambda: told)
    found = {(each["name"], each["level"], each["where"]) for each in json.loads(told)["findings"]}
    of_envoy = {each for each in found if each[0].startswith("envoy.")}
    assert of_envoy == {("envoy.version", "ok", ""), ("envoy.ext_authz", "ok", "listener http")}
    assert ("server.ops", "ok", "") in found


@pytest.mark.envoy
def test_the_command_tells_what_is_wrong_with_a_running_envoy(installed: Installed) -> None:
    flags = ["doctor", "--config", str(installed.file), "--envoy-admin", f"unix://{installed.admin}"]
    result = CliRunner().invoke(main, flags)
    assert result.exit_code == 1
    assert "problem  envoy.failure_mode_allow listener failure-mode: failure_mode_allow is true" in result.stdout
    assert "→ write failure_mode_allow: false" in result.stdout


def told_of(server_info: Any, config_dump: Any, clusters: Any, configuration: Configuration) -> list[tuple[str, Level]]:
    found = envoy_admin.judge(envoy_dump.read_dump(server_info, config_dump, clusters), configuration)
    return [(each.name, each.level) for each in found]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"version": "abc/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE"}, OK),
        ({"version": "abc/1.37.0-dev/Clean/RELEASE/BoringSSL", "state": "LIVE"}, OK),
        ({"version": "abc/1.36.9/Clean/RELEASE/BoringSSL", "state": "LIVE"}, WARNING),
        ({"version": "abc/1.40.0/Clean/RELEASE/BoringSSL", "state": "DRAINING"}, WARNING),
        ({}, WARNING),
        (None, WARNING),
    ],
)
def test_the_version(info: Any, expected: Level, tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, "127.0.0.1:9001"))
    found = told_of(info, {"configs": []}, {}, loaded)
    assert found == [("envoy.version", expected), ("envoy.ext_authz", PROBLEM)]


@pytest.mark.parametrize("nonsense", [None, [], {}, {"configs": None}, {"configs": [None, 1, {"@type": 5}]}, "text"])
def test_a_dump_that_is_none_is_no_check(nonsense: Any, tmp_path: Path) -> None:
    """Nothing found is a problem, never silence."""
    loaded = load(configured(tmp_path, "127.0.0.1:9001"))
    assert ("envoy.ext_authz", PROBLEM) in told_of(nonsense, nonsense, nonsense, loaded)


def dynamic(printed: str, **changes: Any) -> dict[str, Any]:
    """Return the dump of an Envoy that has listeners, routes, clusters and filters from a control plane."""
    data = yaml.safe_load(printed)["static_resources"]
    listener, cluster = data["listeners"][0], data["clusters"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager.pop("route_config")
    manager["rds"] = {"route_config_name": routes["name"]}
    check = manager["http_filters"][1]
    extension = {"name": check["name"], "typed_config": check.pop("typed_config")}
    check["config_discovery"] = {}
    kind = "type.googleapis.com/envoy.admin.v3."
    found = {
        "ListenersConfigDump": {"dynamic_listeners": [{"name": "http", "active_state": {"listener": listener}}]},
        "RoutesConfigDump": {"dynamic_route_configs": [{"route_config": routes}]},
        "ClustersConfigDump": {"dynamic_active_clusters": [{"cluster": cluster}]},
        "EcdsConfigDump": {"ecds_filters": [{"ecds_filter": extension}]},
    } | changes
    return {"configs": [{"@type": kind + name, **content} for name, content in found.items()]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("envoy.ext_authz", OK)]),
        ({"RoutesConfigDump": {}}, [("envoy.routes", WARNING)]),
        ({"ClustersConfigDump": {}}, [("envoy.cluster", PROBLEM)]),
        ({"EcdsConfigDump": {}}, [("envoy.ext_authz", PROBLEM)]),
    ],
)
def test_what_a_control_plane_sent_is_looked_at_too(changes: dict[str, Any], expected: Told, tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, "127.0.0.1:9001"))
    printed = bootstrap.text(sidecar_of(loaded), Edge(domains=domains_of(loaded)))
    info = {"version": "abc/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE"}
    status = {"name": "extauthz", "host_statuses": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9001}}}]}
    assert told_of(info, dynamic(printed, **changes), {"cluster_statuses": [status]}, loaded)[1:] == expected


@pytest.mark.parametrize("admin", ["http://127.0.0.1:1", "unix:///nowhere/admin.sock", "http://10.0.0.1:9901", "somewhere"])
def test_an_admin_interface_that_cannot_be_asked_is_a_problem(admin: str, tmp_path: Path) -> None:
    (found,) = asyncio.run(envoy_admin.look(load(configured(tmp_path, "127.0.0.1:9001")), admin))
    assert (found.name, found.level) == ("envoy.admin", PROBLEM)
    assert admin in found.found
