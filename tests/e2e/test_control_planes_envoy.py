"""The Envoys that control planes make of the printed manifests, real ones: no request gets through that should not.

One Envoy has a listener and a cluster for each control plane, with and without what only a patch can set; one sidecar is asked by
all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauthz.cli import main
from extauthz.config.loader import load
from extauthz.doctor import envoy_admin, envoy_dump, envoy_planes
from extauthz.doctor.findings import Finding, Level
from extauthz.envoy_config.control_planes import ControlPlane
from tests.support.control_planes import FILTER_CONFIG as SWITCHED
from tests.support.control_planes import PER_ROUTE, PLANES, Made
from tests.support.envoy import Reply, running_envoy, running_sidecar, running_upstream, send
from tests.support.ports import free_port

pytestmark = pytest.mark.envoy

HOST = "api.example.com"
ROUTES = """
hosts: [api.example.com]
routes:
  - {match: "GET|HEAD /healthz", public: true}
  - {match: "POST /search", scope: SEARCH}
  - {match: "* /admin/**", deny: true}
"""
SETTINGS: dict[str, Any] = {
    "version": 1,
    "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    "act_as": {"allow": ["*@acme.com"], "deny": ["ceo@acme.com"]},
    "scopes": ["SEARCH"],
    "routes": ["routes.yaml"],
}
EVERYWHERE = tuple(PLANES)
PATCHED = tuple(name for name in PLANES if "," in name)
# Refused by Envoy before anybody is asked.
AT_EDGE = {name: (400, "envoy") for name in PLANES if name.startswith("envoy-gateway") or name in PATCHED}


@dataclass
class Live:
    """Six listeners, a token, and the sidecar's end."""

    ports: dict[str, int]
    token: str
    stop_sidecar: Callable[[], None]
    admin: Path
    dump: list[Any]
    configuration: Path

    def send(self, plane: str, line: str, *headers: tuple[str, str]) -> Reply:
        credential = ("Authorization", f"Bearer {self.token}")
        pairs = [credential if pair == TOKEN else pair for pair in headers]
        return send(self.ports[plane], line, [("Host", HOST), ("Content-Length", "0"), *pairs])


TOKEN = ("Authorization", "TOKEN")
ANA = ("X-Scio-ActAs", "ana@acme.com")


def made_token(file: Path) -> str:
    order = ("--permission", "GLOBAL", "--scope", "SEARCH", "--description", "t", "--expires", "1d", "--json")
    done = CliRunner().invoke(main, ["token", "create", *order, "--config", str(file)])
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)["token"])


def manifests(file: Path, plane: str) -> str:
    done = CliRunner().invoke(main, ["envoy-config", "--config", str(file), "--for", plane])
    assert done.exit_code == 0, done.output
    return done.stdout


def with_own_name(made: Made, index: int) -> Made:
    """Give a cluster a name that no other one has, and that still looks as its control plane writes it."""
    name, own = json.dumps(made.cluster["name"]), json.dumps(f"{made.cluster['name']}{index}")
    return Made(*(json.loads(json.dumps(each).replace(name, own)) for each in (made.listener, made.cluster)))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("p")
    sidecar, ops, upstream = free_port(), free_port(), free_port()
    (folder / "routes.yaml").write_text(ROUTES)
    files = {}
    # As a service of its own it would listen on every address: here that is only what the manifests are printed for.
    for name, host in (("extauthz.yaml", "127.0.0.1"), ("printed.yaml", "0.0.0.0")):  # noqa: S104
        # On a machine that is busy no check is late.
        server = {
            "listen": f"{host}:{sidecar}",
            "ops": f"127.0.0.1:{ops}",
            "drain": "0s",
            "check_timeout": "5s",
            "transport": "nghttp2",
        }
        files[name] = folder / name
        files[name].write_text(yaml.safe_dump(SETTINGS | {"server": server}))
    endpoint = {"socket_address": {"address": "127.0.0.1", "port_value": sidecar}}
    ports = {name: free_port() for name in PLANES}
    printed = {plane.value: manifests(files["printed.yaml"], plane.value) for plane in ControlPlane}
    listeners, clusters = [], []
    for index, (name, (plane, translate)) in enumerate(PLANES.items()):
        made = with_own_name(translate(printed[plane], endpoint), index)
        address = {"socket_address": {"address": "127.0.0.1", "port_value": ports[name]}}
        listeners.append(made.listener | {"name": name, "address": address})
        clusters.append(made.cluster)
    behind = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    api = {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": behind}}]}]}
    admin = folder / "admin.sock"
    bootstrap = {
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {
            "listeners": listeners,
            "clusters": [*clusters, {"name": "upstream", "type": "STATIC", "load_assignment": api}],
        },
    }
    token = made_token(files["extauthz.yaml"])
    with contextlib.ExitStack() as stack:
        stack.enter_context(running_upstream(upstream))
        running = stack.enter_context(contextlib.ExitStack())
        running.enter_context(running_sidecar(files["extauthz.yaml"], ops))
        stack.enter_context(running_envoy(folder, yaml.safe_dump(bootstrap), admin))
        dump = asyncio.run(envoy_admin.documents(f"unix://{admin}"))
        yield Live(ports, token, running.close, admin, dump, files["printed.yaml"])


@dataclass(frozen=True)
class Case:
    """A request, the answer, and where another one is right. A reason of None is an allow, "envoy" an answer of Envoy's own."""

    title: str
    line: str
    headers: tuple[tuple[str, str], ...]
    status: int
    reason: str | None = None
    elsewhere: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    user: str = "ana@acme.com"

    def expected(self, plane: str) -> tuple[int, str | None]:
        return self.elsewhere.get(plane, (self.status, self.reason))


SEARCH, HEALTH = "POST /search", "GET /healthz"
CEO = "ceo@acme.com"
CASES = [
    Case("act as ana", SEARCH, (TOKEN, ANA), 200),
    Case("public", HEALTH, (), 200),
    # Whose identity?
    Case("own identity", SEARCH, (TOKEN, ANA, ("X-Extauthz-User", CEO)), 200),
    Case("own identity twice", SEARCH, (TOKEN, ANA, ("x-extauthz-user", CEO), ("X-EXTAUTHZ-USER", CEO)), 200),
    Case("own identity, public", HEALTH, (("x-extauthz-user", CEO), ("x-extauthz-scopes", CEO)), 200),
    Case("own identity in another spelling", SEARCH, (TOKEN, ANA, ("x.extauthz.user", CEO)), 200),
    Case("own identity with underscores", SEARCH, (TOKEN, ANA, ("x_extauthz_user", CEO)), 200, None, AT_EDGE),
    Case("own identity with underscores, public", HEALTH, (("x_extauthz_user", CEO),), 200, None, AT_EDGE),
    Case("another method", SEARCH, (TOKEN, ANA, ("X-HTTP-Method-Override", "DELETE " + CEO)), 200),
    Case("mode of failure", SEARCH, (TOKEN, ANA, ("x-envoy-auth-failure-mode-allowed", "true")), 200),
    # Doubled lines
    Case("credential twice", SEARCH, (TOKEN, TOKEN, ANA), 400, "authorization_malformed"),
    Case("credential twice, one is wrong", SEARCH, (TOKEN, ("Authorization", "Bearer x"), ANA), 400, "authorization_malformed"),
    Case("act-as twice", SEARCH, (TOKEN, ANA, ANA), 400, "act_as_malformed"),
    Case(
        "auth type twice", SEARCH, (TOKEN, ("X-Glean-Auth-Type", "OAUTH"), ("X-Glean-Auth-Type", "OAUTH")), 400, "auth_type_unknown"
    ),
    # Odd bytes
    Case("odd byte in act-as", SEARCH, (TOKEN, ("X-Scio-ActAs", "an\xe9@acme.com")), 400, "act_as_malformed"),
    Case("odd byte in the credential", SEARCH, (("Authorization", "Bearer an\xe9"), ANA), 400, "authorization_malformed"),
    Case("odd byte in the auth type", SEARCH, (TOKEN, ANA, ("X-Glean-Auth-Type", "\xe9")), 400, "auth_type_unknown"),
    Case("odd byte in another header", SEARCH, (TOKEN, ANA, ("X-Other", "\xe9")), 200),
    Case("odd byte in the path", "POST /sear%E9ch", (TOKEN, ANA), 400, "path_ambiguous"),
    # Act-as
    Case("act for nobody", SEARCH, (TOKEN,), 400, "act_as_missing"),
    Case("act for two", SEARCH, (TOKEN, ANA, ("X-Glean-ActAs", "eve@acme.com")), 400, "act_as_conflict"),
    Case("act for the boss", SEARCH, (TOKEN, ("X-Scio-ActAs", CEO)), 403, "act_as_forbidden"),
    Case("act for another company", SEARCH, (TOKEN, ("X-Scio-ActAs", "ana@evil.com")), 403, "act_as_forbidden"),
    # Without raw headers a '!' may stand for an odd byte.
    Case(
        *("a mark that may stand for an odd byte", SEARCH, (TOKEN, ("X-Scio-ActAs", "an!a@acme.com")), 400, "act_as_malformed"),
        elsewhere=dict.fromkeys(PATCHED, (200, None)),
        user="an!a@acme.com",
    ),
    # Denials
    Case("no credential", SEARCH, (ANA,), 401, "credential_missing"),
    Case("made-up token", SEARCH, (("Authorization", "Bearer x"), ANA), 401, "token_invalid"),
    Case("unknown route", "GET /nowhere", (TOKEN, ANA), 403, "route_unknown"),
    Case("another method of the route", "DELETE /search", (TOKEN, ANA), 403, "route_unknown"),
    Case("denied route", "GET /admin/users", (TOKEN, ANA), 403, "route_unknown"),
    Case("token in the query", "POST /search?access_token=x", (TOKEN, ANA), 400, "token_in_query"),
    # Paths
    Case("dots", "POST /healthz/../search", (TOKEN, ANA), 200),
    Case("dots into the denied", "GET /healthz/../admin/users", (), 403, "route_unknown"),
    Case("two slashes", "POST //search", (TOKEN, ANA), 200),
    Case("encoded slash", "GET /healthz%2f..%2fadmin", (), 400, "path_ambiguous", AT_EDGE),
    Case("encoded dots with a parameter", "GET /healthz/%2e%2e;x=1/admin", (), 400, "path_ambiguous"),
    Case("encoded twice", "GET /%252e%252e/healthz", (), 400, "path_ambiguous"),
]
IDENTITY = {f"x-extauthz-{part}" for part in ("user", "actor", "auth-type", "scopes", "decision-id")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
@pytest.mark.parametrize("plane", PLANES)
def test_a_request_is_answered_as_it_should_be(live: Live, plane: str, case: Case) -> None:
    reply = live.send(plane, case.line, *case.headers)
    status, reason = case.expected(plane)
    answered = reply.body.get("reason") if isinstance(reply.body, dict) else "envoy"
    assert (reply.status, answered) == (status, reason), reply.body
    if reason is None:
        seen = reply.body["headers"]
        assert CEO not in str(reply.body)
        assert {name for name in seen if name.startswith("x-extauthz")} == (
            IDENTITY if case.line != HEALTH else {"x-extauthz-decision-id"}
        )
        assert seen.get("x-extauthz-user") == (case.user if case.line != HEALTH else None)
        assert not {"authorization", "x-scio-actas", "x-http-method-override"} & seen.keys()
        # Only Envoy itself may say so; it is no header of ours, and stays where nothing is removed before the check.
        if plane in AT_EDGE:
            assert "x-envoy-auth-failure-mode-allowed" not in seen


@pytest.mark.parametrize("plane", PLANES)
def test_a_host_that_no_route_file_names_is_not_served(live: Live, plane: str) -> None:
    assert send(live.ports[plane], HEALTH, [("Host", "other.example.com")]).status == 404


# What the doctor says of them

LIMITED = ("envoy.limits", Level.OK)
WARNING, PROBLEM = Level.WARNING, Level.PROBLEM
FINDINGS: dict[str, list[tuple[str, Level]]] = {
    "envoy-gateway": [
        ("envoy.decoder_header_mutation_rules", WARNING),
        ("envoy.encode_raw_headers", WARNING),
        ("envoy.header_mutation", WARNING),
        ("envoy.validate_mutations", WARNING),
        LIMITED,
    ],
    "envoy-gateway, patched": [("envoy.ext_authz", Level.OK), LIMITED],
    "envoy-gateway, by route": [("envoy.ext_authz", Level.OK), LIMITED],
    "istio": [
        ("envoy.decoder_header_mutation_rules", WARNING),
        ("envoy.encode_raw_headers", WARNING),
        *[("envoy.header_mutation", WARNING)] * 2,
        *[(f"envoy.{name}", WARNING) for name in ("health_check", "max_stream_duration", "path", "retry_policy", "underscores")],
        ("envoy.validate_mutations", WARNING),
    ],
    "istio, patched": [("envoy.ext_authz", Level.OK)],
    "contour": [("envoy.ext_authz", Level.OK), LIMITED],
}
# With these the resources of each control plane begin.
RESOURCES = {
    "envoy-gateway": ("SecurityPolicy", "ClientTrafficPolicy", "EnvoyPatchPolicy", "BackendTLSPolicy", "HTTPRoute"),
    "istio": ("meshConfig", "AuthorizationPolicy", "EnvoyFilter", "DestinationRule", "Service", "Gateway"),
    "contour": ("HTTPProxy", "ExtensionService", "Contour's configuration"),
}


def judged(
    live: Live, plane: str, change: Callable[[Any], object] = lambda _: None, configuration: Path | None = None
) -> list[Finding]:
    """Judge one listener of the running Envoy, after a change of its configuration."""
    documents = copy.deepcopy(live.dump)
    for config in documents[1]["configs"]:
        for entry in config.get("static_listeners", ()):
            if entry["listener"]["name"] == plane:
                change(entry["listener"]["filter_chains"][0]["filters"][0]["typed_config"])
    dump = envoy_dump.read_dump(*documents)
    alone = replace(dump, managers=tuple(each for each in dump.managers if each.where == f"listener {plane}"))
    findings = envoy_admin.judge(alone, load(configuration or live.configuration), ControlPlane(PLANES[plane][0]))
    return [each for each in findings if each.name != "envoy.version"]


@pytest.mark.parametrize("plane", PLANES)
def test_the_doctor_reports_what_can_be_changed_and_nothing_else(live: Live, plane: str) -> None:
    findings = judged(live, plane)
    assert sorted((each.name, each.level) for each in findings) == sorted(FINDINGS[plane])
    assert [each.advice for each in findings if each.advice and not each.advice.startswith(RESOURCES[PLANES[plane][0]])] == []


def check_of(manager: Any) -> Any:
    return next(each["typed_config"] for each in manager["http_filters"] if "ext_authz" in each["name"])


def route_of(manager: Any) -> Any:
    return manager["route_config"]["virtual_hosts"][0]["routes"][0]


CHANGES: dict[str, tuple[str, Callable[[Any], object], tuple[str, Level, str]]] = {
    "fail open": (
        "envoy-gateway, patched",
        lambda manager: check_of(manager).update(failure_mode_allow=True),
        ("envoy.failure_mode_allow", PROBLEM, "SecurityPolicy: write spec.extAuth.failOpen: false"),
    ),
    "fail open in the mesh": (
        "istio, patched",
        lambda manager: check_of(manager).update(failure_mode_allow=True),
        ("envoy.failure_mode_allow", PROBLEM, "meshConfig.extensionProviders[].envoyExtAuthzGrpc: write failOpen: false"),
    ),
    "fail open for a host": (
        "contour",
        lambda manager: check_of(manager).update(failure_mode_allow=True),
        ("envoy.failure_mode_allow", PROBLEM, "HTTPProxy spec.virtualhost.authorization: write failOpen: false"),
    ),
    "hidden headers": (
        "envoy-gateway, patched",
        lambda manager: check_of(manager).update(allowed_headers={"patterns": [{"exact": "authorization"}]}),
        ("envoy.allowed_headers", PROBLEM, "SecurityPolicy: remove spec.extAuth.headersToExtAuth"),
    ),
    "too short": (
        "envoy-gateway, patched",
        lambda manager: check_of(manager)["grpc_service"].update(timeout="0.1s"),
        ("envoy.timeout", PROBLEM, "SecurityPolicy: write spec.extAuth.timeout: 5100ms, or change server.check_timeout"),
    ),
    "too short for a route": (
        "envoy-gateway, by route",
        lambda manager: next(iter(route_of(manager)["typed_per_filter_config"].values()))["config"]["check_settings"][
            "grpc_service"
        ].update(timeout="0.1s"),
        ("envoy.timeout", PROBLEM, "SecurityPolicy: write spec.extAuth.timeout: 5100ms, or change server.check_timeout"),
    ),
    "too short in the mesh": (
        "istio, patched",
        lambda manager: check_of(manager)["grpc_service"].update(timeout="0.1s"),
        (
            "envoy.timeout",
            PROBLEM,
            "meshConfig.extensionProviders[].envoyExtAuthzGrpc: write timeout: 5.1s, or change server.check_timeout",
        ),
    ),
    "a route without a policy": (
        "envoy-gateway, patched",
        lambda manager: manager["route_config"]["virtual_hosts"][0]["routes"].append({"match": {"prefix": "/x"}, "name": "bare"}),
        (
            "envoy.per_route",
            WARNING,
            "give the SecurityPolicy of that route the same spec.extAuth, or mergeType: StrategicMerge",
        ),
    ),
    "a rule with a condition": (
        "istio, patched",
        lambda manager: [
            policy.update(permissions=[{"and_rules": {"rules": [{"url_path": {"path": {"exact": "/a"}}}]}}])
            for each in manager["http_filters"]
            if each["name"] == "envoy.filters.http.rbac"
            for policy in each["typed_config"]["shadow_rules"]["policies"].values()
        ],
        (
            "envoy.disabled",
            PROBLEM,
            "AuthorizationPolicy: write spec.rules: [{}], and `public: true` in extauthz for what is to pass",
        ),
    ),
    "a policy that marks nothing": (
        "istio, patched",
        lambda manager: manager["http_filters"].pop(1),
        (
            "envoy.disabled",
            PROBLEM,
            "AuthorizationPolicy: write spec.rules: [{}], and `public: true` in extauthz for what is to pass",
        ),
    ),
    "a route that is not checked": (
        "contour",
        lambda manager: route_of(manager).update(
            typed_per_filter_config={"envoy.filters.http.ext_authz": {"@type": PER_ROUTE, "disabled": True}}
        ),
        ("envoy.per_route", WARNING, "HTTPProxy: remove authPolicy.disabled, and write `public: true` for the route in extauthz"),
    ),
    "any host": (
        "istio, patched",
        lambda manager: manager["route_config"]["virtual_hosts"][0].update(domains=["api.example.com", "*:8080"]),
        (
            "envoy.domains",
            PROBLEM,
            "Gateway and VirtualService: write spec.hosts, or spec.hostnames of the HTTPRoute, as in the route files",
        ),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_doctor_finds_a_fault_and_names_the_resource(live: Live, name: str) -> None:
    plane, change, expected = CHANGES[name]
    findings = [(each.name, each.level, each.advice) for each in judged(live, plane, change) if each.level is not Level.OK]
    assert findings == [expected]


def test_what_is_fixed_is_reported_once(live: Live) -> None:
    """A retry that Envoy Gateway cannot hurry, and a health check that begins late."""
    settings = yaml.safe_load(live.configuration.read_text())
    settings["server"]["check_timeout"] = "150ms"
    file = live.configuration.with_name("quick.yaml")
    file.write_text(yaml.safe_dump(settings))
    plane = "envoy-gateway, patched"
    findings = judged(live, plane, lambda manager: check_of(manager)["grpc_service"].update(timeout="0.2s"), file)
    assert [(each.name, each.level) for each in findings] == [("envoy.ext_authz", Level.OK), LIMITED]
    assert "the wait before another try of a check is up to a second" in findings[1].found
    assert "a sidecar that starts after Envoy may stay out for a minute" in findings[1].found


def test_each_policy_of_envoy_gateway_is_judged(live: Live) -> None:
    """Two SecurityPolicies on one listener: no request is checked twice, and the fault of one is not that of the other."""

    def change(manager: Any) -> None:
        other = copy.deepcopy(manager["http_filters"][1])
        other["name"] += "-2"
        other["typed_config"]["failure_mode_allow"] = True
        manager["http_filters"].insert(2, other)
        route = copy.deepcopy(route_of(manager))
        route |= {"name": "second", "typed_per_filter_config": {other["name"]: {"@type": SWITCHED, "config": {}}}}
        manager["route_config"]["virtual_hosts"][0]["routes"].append(route)

    findings = [each for each in judged(live, "envoy-gateway, patched", change) if each.level is not Level.OK]
    assert [each.name for each in findings] == ["envoy.failure_mode_allow"]
    assert findings[0].where.endswith("securitypolicy/default/extauthz-2")


def test_a_listener_that_asks_nobody_is_found(live: Live) -> None:
    """Every route without its policy, no provider, no authorization: never silence."""
    without = {
        "envoy-gateway": lambda manager: route_of(manager).pop("typed_per_filter_config"),
        "istio": lambda manager: manager["http_filters"].pop(1),
        "contour": lambda manager: manager["http_filters"].pop(2),
    }
    for plane, change in without.items():
        assert ("envoy.ext_authz", PROBLEM) in [(each.name, each.level) for each in judged(live, plane, change)]


def test_what_belongs_to_the_control_plane_is_left_out(live: Live) -> None:
    dump = envoy_dump.read_dump(*live.dump)
    manager = next(each for each in dump.managers if each.where == "listener contour")
    bare = replace(manager, filters=())
    redirect = {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "redirect": {}}]}]}
    own = {
        ControlPlane.ENVOY_GATEWAY: [replace(bare, where="listener envoy-gateway-proxy-ready-0.0.0.0-19003")],
        ControlPlane.ISTIO: [replace(bare, where="listener 0.0.0.0:15021"), replace(bare, where="listener 0.0.0.0_15090")],
        ControlPlane.CONTOUR: [replace(bare, where="listener stats-health"), replace(bare, where="listener b", routes=redirect)],
    }
    for plane, managers in own.items():
        assert envoy_planes.adapt(replace(dump, managers=tuple(managers)), plane)[0].managers == ()
        served = replace(bare, where="listener 0.0.0.0_8080")
        assert envoy_planes.adapt(replace(dump, managers=(served,)), plane)[0].managers == (served,)
    inbound, outbound = replace(bare, where="listener virtualInbound, filter chain a"), replace(bare, where="listener 10.0.0.1_80")
    beside = replace(dump, managers=(outbound, inbound))
    assert envoy_planes.adapt(beside, ControlPlane.ISTIO)[0].managers == (inbound,)


def test_tls_of_endpoints_that_are_matched_is_what_is_looked_at(live: Live) -> None:
    dump = envoy_dump.read_dump(*live.dump)
    context = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
    sockets = {
        "transport_socket": {"name": "dummy", "typed_config": context},
        "transport_socket_matches": [
            {"transport_socket": {"name": "raw", "typed_config": {"@type": "type.googleapis.com/a.RawBuffer"}}},
            {"transport_socket": {"name": "tls", "typed_config": context | {"sni": "extauthz"}}},
        ],
    }
    changed = replace(dump, clusters={"a": sockets, "b": {"name": "b"}})
    clusters = envoy_planes.adapt(changed, ControlPlane.ENVOY_GATEWAY)[0].clusters
    assert clusters["a"]["transport_socket"]["name"] == "tls"
    assert clusters["b"] == {"name": "b"}
    # Istio's are for its own TLS between proxies, which says nothing of server.tls.
    assert envoy_planes.adapt(changed, ControlPlane.ISTIO)[0].clusters == changed.clusters


def test_the_command_takes_a_profile(live: Live) -> None:
    flags = [
        "doctor",
        "--config",
        str(live.configuration),
        "--envoy-admin",
        f"unix://{live.admin}",
        "--profile",
        "contour",
        "--json",
    ]
    reported = json.loads(CliRunner().invoke(main, flags).stdout)["findings"]
    (limits,) = (each for each in reported if each["name"] == "envoy.limits")
    assert limits["level"] == "ok"
    assert limits["found"].startswith("known limits of Contour, see docs/contour.md: ")
    assert "clients get 403 when no sidecar answers" in limits["found"]
    result = CliRunner().invoke(main, ["doctor", "--config", str(live.configuration), "--profile", "contour"])
    assert result.exit_code == 2
    assert "--profile needs --envoy-admin" in result.output


@pytest.mark.parametrize("plane", PLANES)
def test_nobody_gets_through_without_the_sidecar(live: Live, plane: str) -> None:
    """The last test that sends: it stops the sidecar. Contour fixes 403, where the others tell clients to try again."""
    live.stop_sidecar()
    for line, headers in ((SEARCH, (TOKEN, ANA)), (HEALTH, ())):
        reply = live.send(plane, line, *headers)
        assert (reply.status, reply.body) == (403 if plane == "contour" else 503, "")
