"""`extauthz envoy-config --for …`: each manifest keeps its schema, follows the configuration, and says what cannot be said."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from extauthz.cli import main
from extauthz.config.loader import load
from extauthz.core.identity import FORWARDED_HOST_HEADERS, OVERRIDE_HEADERS
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.envoy_config.templates import duration, resource_name
from tests.support import cel
from tests.support.control_planes import documents, mesh
from tests.support.custom_resources import definition, faults, kinds, rules
from tests.support.envoy_config import configured
from tests.support.project import ROOT

PLANES = tuple(plane.value for plane in ControlPlane)
ANYWHERE = {"listen": "0.0.0.0:9001"}
UNIX = {"listen": "unix:///run/extauthz/check.sock"}
Manifest = dict[str, Any]


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["envoy-config", "--config", str(file), *arguments])


def printed(file: Path, plane: str, *arguments: str) -> str:
    result = run(file, "--for", plane, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@dataclass(frozen=True)
class Wanted:
    """A configuration, flags, and who can do it."""

    changes: dict[str, Any]
    flags: tuple[str, ...] = ()
    planes: tuple[str, ...] = PLANES


TLS = {"certificate": "server.crt", "key": "server.key"}
SLASHED = 'routes: [{match: "GET /projects/{id}", public: true, encoded_slashes: true, name: NAME}]'
WANTED = {
    "default": Wanted({"server": ANYWHERE}),
    "elsewhere": Wanted({"server": ANYWHERE}, ("--namespace", "gateways", "--gateway", "public", "--service", "authz/checks")),
    "one namespace": Wanted({"server": ANYWHERE}, ("--namespace", "extauthz")),
    "names like values": Wanted({"server": ANYWHERE}, ("--namespace", "on", "--gateway", "1e3", "--service", "null/y")),
    "workers": Wanted({"server": ANYWHERE | {"workers": 4}}),
    "one address": Wanted({"server": {"listen": "10.1.2.3:7000"}}),
    "prefix": Wanted({"server": ANYWHERE, "identity": {"prefix": "x-acme-gateway-"}}),
    "act-as": Wanted({"server": ANYWHERE, "act_as": {"headers": ["X-Acme-User", "On-Behalf-Of", "X-User"]}}),
    "hops": Wanted({"server": ANYWHERE, "envoy": {"client_address": {"trusted_hops": 1}}}),
    "kept": Wanted({"server": ANYWHERE, "identity": {"keep": ["Authorization", "X-Http-Method-Override"]}}),
    "slow": Wanted({"server": ANYWHERE | {"check_timeout": "3s", "max_in_flight": 5000}}),
    "encoded slashes": Wanted({"server": ANYWHERE, "routes": SLASHED}),
    "hosts": Wanted({"server": ANYWHERE, "hosts": ("api.acme.com", "www.acme.com"), "others": False}),
    "upstream": Wanted({"server": ANYWHERE}, ("--upstream", "search.apis.svc:8443", "--domain", "api.acme.com")),
    "tls": Wanted({"server": ANYWHERE | {"tls": TLS}}),
    "mtls": Wanted({"server": ANYWHERE | {"tls": TLS | {"client_ca": "ca.crt"}}}, ("--tls-name", "checks.acme.com")),
    "unix": Wanted({"server": UNIX | {"workers": 2}}, planes=("envoy-gateway", "istio")),
    "loopback": Wanted({"server": {"listen": "127.0.0.1:9001", "workers": 2}}, planes=("istio",)),
}
ASKED = [(plane, name) for name, wanted in WANTED.items() for plane in wanted.planes]

# Kinds whose definition is not here: their fields, by hand.
FIELDS = {
    "ReferenceGrant": {"from": {"group", "kind", "namespace"}, "to": {"group", "kind", "name"}},
    "Backend": {"endpoints": {"unix"}},
    "BackendTLSPolicy": {"targetRefs": {"group", "kind", "name"}, "validation": {"caCertificateRefs", "hostname"}},
    "ServiceEntry": {
        "hosts": set[str](),
        "location": set[str](),
        "resolution": set[str](),
        "ports": {"number", "name", "protocol"},
        "endpoints": {"address", "ports"},
    },
    "DestinationRule": {"host": set[str](), "trafficPolicy": {"tls"}},
}


@pytest.mark.parametrize(("plane", "name"), ASKED)
def test_every_manifest_keeps_its_schema_and_its_rules(plane: str, name: str, tmp_path: Path) -> None:
    wanted = WANTED[name]
    text = printed(configured(tmp_path, **wanted.changes), plane, *wanted.flags)
    assert re.findall(r"\$[a-z_]{2,}", text) == [], "a place that was not filled in"
    for manifest in filter(None, yaml.safe_load_all(text)):
        if manifest["kind"] in kinds():
            assert faults(manifest) == []
            continue
        assert all(isinstance(value, str) for value in manifest["metadata"].values())
        for field, value in manifest["spec"].items():
            allowed = FIELDS[manifest["kind"]][field]
            entries = value if isinstance(value, list) else [value]
            assert {key for entry in entries if isinstance(entry, dict) for key in entry} <= allowed


@pytest.mark.parametrize("plane", PLANES)
def test_json_is_a_list_of_the_same(plane: str, tmp_path: Path) -> None:
    file = configured(tmp_path, server=ANYWHERE)
    items = json.loads(printed(file, plane, "--format", "json"))
    assert (items["apiVersion"], items["kind"]) == ("v1", "List")
    assert items["items"] == [each for each in yaml.safe_load_all(printed(file, plane)) if each]


# The schemas and rules can refuse


def policy(file: Path) -> Manifest:
    return documents(printed(file, "envoy-gateway"))["SecurityPolicy"]


WRONG: dict[str, tuple[Callable[[Manifest], object], str]] = {
    "unknown field": (lambda spec: spec["extAuth"].update(failureModeAllow=False), "'failureModeAllow' was unexpected"),
    "unknown field, deep": (lambda spec: spec["extAuth"]["grpc"].update(cluster="x"), "'cluster' was unexpected"),
    "not a duration": (lambda spec: spec["extAuth"].update(timeout="0.2s"), "does not match"),
    "not a status": (lambda spec: spec["extAuth"].update(statusOnError=200), "200 is not one of"),
    "http too": (lambda spec: spec["extAuth"].update(http={"backendRefs": [{"name": "a", "port": 1}]}), "only one of grpc or http"),
    "no service": (lambda spec: spec["extAuth"].pop("grpc"), "one of grpc or http must be specified"),
    "no target": (lambda spec: spec.pop("targetRefs"), "either targetRef or targetRefs must be used"),
    "another target": (lambda spec: spec["targetRefs"][0].update(kind="Service"), "can only have a targetRefs[*].kind of Gateway"),
    "no port": (lambda spec: spec["extAuth"]["grpc"]["backendRefs"][0].pop("port"), "Must have port for Service reference"),
    "grpc over tcp": (
        lambda spec: spec["extAuth"]["grpc"]["backendSettings"]["healthCheck"]["active"].update(type="TCP"),
        "If Health Checker type is TCP, tcp field needs to be set.",
    ),
    "slow pings": (
        lambda spec: spec["extAuth"]["grpc"]["backendSettings"]["http2"]["connectionKeepalive"].update(timeout="2m"),
        "timeout must be less than interval",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest_is_found(name: str, tmp_path: Path) -> None:
    manifest = copy.deepcopy(policy(configured(tmp_path, server=ANYWHERE)))
    change, expected = WRONG[name]
    change(manifest["spec"])
    errors = faults(manifest)
    assert any(expected in each for each in errors), errors


def test_rules_are_evaluated(tmp_path: Path) -> None:
    """Keeps the tests above from passing because no rule is reached."""
    manifest = policy(configured(tmp_path, server=ANYWHERE))
    assert len(list(rules(definition("SecurityPolicy")["schema"], manifest))) > 25


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("has(self.a) && !has(self.b)", {"a": 1}, True),
        ("has(self.a.b) || has(self.c)", {"a": {}}, False),
        ("self.a == 'x' ? has(self.b) : !has(self.b)", {"a": "x"}, False),
        ("self.a in ['x', \"y\"]", {"a": "y"}, True),
        ("(has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0) <= 1", {"a": 1, "b": 1}, False),
        ("self.all(k, k.size() != 0 && !k.contains('*'))", {"a*": 1}, False),
        ("self.exists(k, k == 'a')", ["b", "a"], True),
        ("size(self) > 0 && duration('1m30s') < duration('2m')", [1], True),
        ("[has(self.a), has(self.b)].filter(x, x).size() == 1", {"a": 1, "b": 1}, False),
        ("0 < self && self <= 65535", 65536, False),
        ("has(self.a) ? self.a[0] == self.b : true", {"a": ["x"], "b": "x"}, True),
    ],
)
def test_a_rule_says_what_it_says(rule: str, value: Any, expected: bool) -> None:
    assert cel.evaluate(rule, value) is expected


MISUNDERSTOOD = {
    "self.a.matches('x')": "no method 'matches'",
    "self.a": "is not true or false",
    "has(self.a": "'\\)' is missing",
    "self.a ~ 1": "not understood: ' ~ 1'",
    "self.a == 1 1": "not understood: \\['1'\\]",
}


@pytest.mark.parametrize("rule", MISUNDERSTOOD)
def test_a_rule_that_is_not_understood_passes_nowhere(rule: str) -> None:
    with pytest.raises(ValueError, match=MISUNDERSTOOD[rule]):
        cel.evaluate(rule, {"a": 1})


# What follows the configuration


def test_envoy_gateway_follows_the_configuration(tmp_path: Path) -> None:
    file = configured(
        tmp_path,
        server=ANYWHERE | {"check_timeout": "900ms", "workers": 2, "max_in_flight": 3000},
        identity={"prefix": "x-acme-", "keep": ["x-rewrite-url"]},
        hosts=("api.acme.com",),
    )
    text = printed(file, "envoy-gateway", "--namespace", "gateways", "--gateway", "public", "--gateway-listener", "https")
    assert "Hosts that extauthz has routes for: api.acme.com\n" in text
    manifests = documents(text)
    assert {each["metadata"]["namespace"] for kind, each in manifests.items() if kind != "ReferenceGrant"} == {"gateways"}
    auth = manifests["SecurityPolicy"]["spec"]["extAuth"]
    assert (auth["timeout"], auth["failOpen"], auth["statusOnError"]) == ("1s", False, 503)
    assert not {"headersToExtAuth", "recomputeRoute", "bodyToExtAuth"} & auth.keys()
    assert [each["port"] for each in auth["grpc"]["backendRefs"]] == [9001, 9002]
    assert auth["grpc"]["backendSettings"]["circuitBreaker"]["maxParallelRequests"] > 6000
    early = manifests["ClientTrafficPolicy"]["spec"]["headers"]["earlyRequestHeaders"]
    assert early["removeOnMatch"] == [{"type": "Prefix", "value": "x-acme-"}]
    assert set(OVERRIDE_HEADERS) - set(early["remove"]) == {"x-rewrite-url"}
    (grant,) = manifests["ReferenceGrant"]["spec"]["from"]
    assert (manifests["ReferenceGrant"]["metadata"]["namespace"], grant["namespace"]) == ("extauthz", "gateways")
    patches = manifests["EnvoyPatchPolicy"]["spec"]["jsonPatches"]
    assert {patch["name"] for patch in patches} == {"gateways/public/https"}
    assert [patch["operation"].get("path") for patch in patches] == [
        *("/encode_raw_headers", "/validate_mutations", "/enforce_response_header_limits", "/max_denied_response_body_bytes"),
        *("/decoder_header_mutation_rules", None),
    ]
    assert "acme" in patches[4]["operation"]["value"]["allow_expression"]["regex"]


def test_istio_follows_the_configuration(tmp_path: Path) -> None:
    file = configured(tmp_path, server=ANYWHERE | {"check_timeout": "900ms"}, identity={"prefix": "x-acme-"})
    text = printed(file, "istio", "--service", "authz/checks")
    (provider,) = mesh(text)["extensionProviders"]
    assert provider["envoyExtAuthzGrpc"] == {
        "service": "checks.authz.svc.cluster.local",
        "port": 9001,
        "timeout": "1s",
        "failOpen": False,
        "statusOnError": "503",
    }
    manifests = documents(text)
    assert manifests["AuthorizationPolicy"]["spec"]["rules"] == [{}]
    patches = {
        (each["applyTo"], each["patch"]["operation"]): each["patch"]["value"]
        for each in manifests["EnvoyFilter"]["spec"]["configPatches"]
    }
    config = patches["HTTP_FILTER", "MERGE"]["typed_config"]
    assert config["encode_raw_headers"] is True
    # What the provider says is said there only.
    assert config["grpc_service"].keys() == {"retry_policy"}
    assert patches["HTTP_FILTER", "INSERT_FIRST"]["typed_config"]["mutations"]["request_mutations"][0] == {
        "remove_on_match": {"key_matcher": {"prefix": "x-acme-", "ignore_case": True}}
    }
    assert patches["CLUSTER", "MERGE"]["health_checks"][0]["no_traffic_interval"] == "1s"


@pytest.mark.parametrize("encoded", [False, True])
def test_encoded_slashes_pass_where_a_route_takes_them(tmp_path: Path, *, encoded: bool) -> None:
    """And with `hosts` what names another host is removed early, for there may be no room in the rule."""
    routes = SLASHED if encoded else SLASHED.replace("encoded_slashes: true, ", "")
    file = configured(tmp_path, server=ANYWHERE, hosts=("api.acme.com",), others=False, routes=routes)
    policy = documents(printed(file, "envoy-gateway"))["ClientTrafficPolicy"]["spec"]
    assert policy["path"]["escapedSlashesAction"] == ("KeepUnchanged" if encoded else "RejectRequest")
    assert set(FORWARDED_HOST_HEADERS) <= set(policy["headers"]["earlyRequestHeaders"]["remove"])
    manager = documents(printed(file, "istio"))["EnvoyFilter"]["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]
    assert manager["path_with_escaped_slashes_action"] == ("KEEP_UNCHANGED" if encoded else "REJECT_REQUEST")


def test_contour_follows_the_configuration(tmp_path: Path) -> None:
    file = configured(
        tmp_path, server=ANYWHERE | {"check_timeout": "900ms", "workers": 2}, hosts=("b.acme.com", "a.acme.com"), others=False
    )
    manifests = [each for each in yaml.safe_load_all(printed(file, "contour", "--upstream", "search.apis.svc:8443")) if each]
    service, *proxies = manifests
    assert [each["port"] for each in service["spec"]["services"]] == [9001, 9002]
    assert (service["metadata"]["namespace"], service["spec"]["protocol"]) == ("extauthz", "h2c")
    assert [proxy["spec"]["virtualhost"]["fqdn"] for proxy in proxies] == ["a.acme.com", "b.acme.com"]
    for proxy in proxies:
        authorization = proxy["spec"]["virtualhost"]["authorization"]
        assert (authorization["responseTimeout"], authorization["failOpen"]) == ("1s", False)
        assert not {"withRequestBody", "authPolicy", "httpSettings"} & authorization.keys()
        assert proxy["spec"]["routes"][0]["services"] == [{"name": "search", "port": 8443}]


def test_proxies_in_front_are_counted_as_the_sidecar_does(tmp_path: Path) -> None:
    file = configured(tmp_path, server=ANYWHERE, envoy={"client_address": {"trusted_hops": 2}})
    detection = {"xForwardedFor": {"numTrustedHops": 2}}
    assert documents(printed(file, "envoy-gateway"))["ClientTrafficPolicy"]["spec"]["clientIPDetection"] == detection
    assert mesh(printed(file, "istio"))["defaultConfig"]["gatewayTopology"] == {"numTrustedProxies": 2}
    assert "network: {num-trusted-hops: 2}" in printed(file, "contour")
    flagged = documents(printed(file, "envoy-gateway", "--trusted-hops", "3"))["ClientTrafficPolicy"]["spec"]["clientIPDetection"]
    assert flagged == {"xForwardedFor": {"numTrustedHops": 3}}
    peer = configured(tmp_path, server=ANYWHERE)
    assert "clientIPDetection" not in documents(printed(peer, "envoy-gateway"))["ClientTrafficPolicy"]["spec"]
    assert "defaultConfig" not in mesh(printed(peer, "istio"))


def test_tls_is_what_each_has_for_it(tmp_path: Path) -> None:
    file = configured(tmp_path, server=ANYWHERE | {"tls": TLS | {"client_ca": "ca.crt"}})
    gateway = printed(file, "envoy-gateway")
    assert documents(gateway)["BackendTLSPolicy"]["spec"]["validation"]["hostname"] == "extauthz.extauthz.svc"
    assert "With client_ca Envoy shows a certificate: `backendTLS:" in gateway
    tls = documents(printed(file, "istio"))["DestinationRule"]["spec"]["trafficPolicy"]["tls"]
    assert (tls["mode"], tls["sni"], tls["subjectAltNames"]) == ("MUTUAL", "extauthz.extauthz.svc", ["extauthz.extauthz.svc"])
    contour = documents(printed(file, "contour"))["ExtensionService"]["spec"]
    assert contour["protocol"] == "h2"
    names = {"subjectName": "extauthz.extauthz.svc", "subjectNames": ["extauthz.extauthz.svc"]}
    assert contour["validation"] == {"caSecret": "extauthz-ca"} | names
    one_sided = configured(tmp_path, server=ANYWHERE | {"tls": TLS})
    assert documents(printed(one_sided, "istio"))["DestinationRule"]["spec"]["trafficPolicy"]["tls"]["mode"] == "SIMPLE"


def test_a_sidecar_in_the_pod_of_envoy(tmp_path: Path) -> None:
    file = configured(tmp_path, server=UNIX | {"workers": 2})
    paths = ["/run/extauthz/check-0.sock", "/run/extauthz/check-1.sock"]
    manifests = documents(printed(file, "envoy-gateway"))
    assert [each["unix"]["path"] for each in manifests["Backend"]["spec"]["endpoints"]] == paths
    assert manifests["SecurityPolicy"]["spec"]["extAuth"]["grpc"]["backendRefs"] == [
        {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "extauthz"}
    ]
    assert "ReferenceGrant" not in manifests
    text = printed(file, "istio")
    entry = documents(text)["ServiceEntry"]["spec"]
    assert [each["address"] for each in entry["endpoints"]] == [f"unix://{path}" for path in paths]
    assert mesh(text)["extensionProviders"][0]["envoyExtAuthzGrpc"]["service"] == entry["hosts"][0]


def test_the_service_is_the_one_of_the_overlay(tmp_path: Path) -> None:
    """What is printed without flags finds what deploy/kubernetes/overlays/standalone makes."""
    folder = ROOT / "deploy" / "kubernetes" / "overlays" / "standalone"
    service = yaml.safe_load((folder / "service.yaml").read_text())
    namespace = yaml.safe_load((folder / "kustomization.yaml").read_text())["namespace"]
    (backend,) = policy(configured(tmp_path, server=ANYWHERE))["spec"]["extAuth"]["grpc"]["backendRefs"]
    assert (backend["name"], backend["namespace"]) == (service["metadata"]["name"], namespace)
    assert backend["port"] in [each["port"] for each in service["spec"]["ports"] if each["name"] == "grpc"]


# What cannot be said

SAID = {
    "envoy-gateway": [
        "no_traffic_interval",
        "authority of a health check",
        "perRetry.backOff",
        "SecurityPolicy of an HTTPRoute replaces",
        "enableEnvoyPatchPolicy",
    ],
    "istio": ["one port", "ten minutes", "outside of what Istio promises", "Several AuthorizationPolicies"],
    "contour": [
        *("status_on_error is 403", "clear_route_cache is true", "No validate_mutations and no mutation rules", "Encoded slashes"),
        *(
            "underscores",
            "authPolicy: {disabled: true}",
            "in trailers",
            "No health check",
            "No max_stream_duration",
            "permitInsecure",
        ),
    ],
}
UNPATCHED = ['"!" for bytes that are not UTF-8', "could change the path, the host or the framing", "in trailers reach the API"]


@pytest.mark.parametrize("plane", PLANES)
def test_what_a_control_plane_cannot_express_is_said_in_a_comment(plane: str, tmp_path: Path) -> None:
    text = printed(configured(tmp_path, server=ANYWHERE), plane)
    comments = " ".join(line.strip().removeprefix("#").strip() for line in text.splitlines() if line.strip().startswith("#"))
    assert [each for each in (*SAID[plane], *UNPATCHED) if each not in comments] == []
    assert f"docs/{plane}.md" in comments
    assert (ROOT / "docs" / f"{plane}.md").is_file()


LONG = [f"X-On-Behalf-Of-{name}" for name in ("Somebody", "Anybody", "Everybody", "Nobody")]


@pytest.mark.parametrize(
    ("changes", "flags", "code", "message"),
    [
        ({"server": UNIX}, ("--for", "contour"), 1, "Contour asks a Kubernetes Service and nothing else; listen on 0.0.0.0:9001"),
        ({"server": UNIX | {"tls": TLS}}, ("--for", "envoy-gateway"), 1, "in one pod a socket needs none; remove server.tls"),
        ({}, ("--for", "contour"), 1, "server.listen is 127.0.0.1:9001: Contour asks a Kubernetes Service"),
        ({}, ("--for", "envoy-gateway"), 1, "server.listen is 127.0.0.1:9001: Envoy Gateway reaches no loopback address"),
        ({"server": ANYWHERE, "act_as": {"headers": LONG}}, ("--for", "istio"), 1, "act_as.headers: Envoy would need"),
        ({"server": ANYWHERE, "hosts": ("[::1]",), "others": False}, ("--for", "contour"), 1, "'[::1]' is no host of an HTTPProxy"),
        ({"server": ANYWHERE}, ("--for", "kong"), 2, "'kong' is not one of"),
        ({"server": ANYWHERE}, ("--for", "istio", "--part", "filter"), 2, "--part does nothing with --for istio"),
        ({"server": ANYWHERE}, ("--for", "istio", "--sidecar", "a"), 2, "--sidecar does nothing with --for istio"),
        ({"server": ANYWHERE}, ("--for", "istio", "--cors", "https://a"), 2, "--cors does nothing with --for istio"),
        ({}, ("--gateway", "public"), 2, "--gateway needs --for"),
        ({}, ("--gateway-listener", "http"), 2, "--gateway-listener needs --for"),
        ({"server": ANYWHERE}, ("--for", "istio", "--namespace", "a: b"), 2, "write lower-case letters, digits and '-'"),
        ({"server": ANYWHERE}, ("--for", "istio", "--service", "checks"), 2, "write NAMESPACE/NAME, like extauthz/extauthz"),
        ({"server": ANYWHERE, "scopes": []}, ("--for", "istio"), 3, "1 error"),
    ],
)
def test_what_cannot_be_printed_says_why(
    changes: dict[str, Any], flags: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    result = run(configured(tmp_path, **changes), *flags)
    assert result.exit_code == code
    assert message in " ".join(result.output.split())


def test_workers_that_istio_does_not_ask_are_worth_a_warning(tmp_path: Path) -> None:
    file = configured(tmp_path, server=ANYWHERE | {"workers": 4})
    assert "warning: server.workers is 4, and Istio asks the first one only" in run(file, "--for", "istio").stderr
    assert "workers" not in run(file, "--for", "envoy-gateway").stderr
    assert load(file).settings.server.workers == 4


@pytest.mark.parametrize(("value", "text"), [(0.2, "200ms"), (1.0, "1s"), (3.1, "3100ms"), (59.5, "59500ms"), (60.1, "61s")])
def test_a_duration_is_whole_and_never_shorter(value: float, text: str) -> None:
    assert duration(value) == text
    assert cel.seconds(text) >= value


@pytest.mark.parametrize("value", ["on", "y", "null", "1e3", "0x1f", "true", "a", "gateway", "my-gateway.x"])
def test_a_name_stays_a_name(value: str) -> None:
    assert yaml.safe_load(f"{{name: {resource_name(value)}}}") == {"name": value}
