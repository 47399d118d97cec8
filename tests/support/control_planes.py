"""What control planes make of the manifests that `extauthz envoy-config --for …` prints, as far as it concerns the check.

Written after the translators of Envoy Gateway, Istio and Contour as of summer 2026: each reads the fields that it is given, so that
a manifest that says something else gives another Envoy. Left out is what does not touch a request: access logs, EDS in place of
static endpoints, downstream TLS.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.cel import seconds

Config = dict[str, Any]

KIND = "type.googleapis.com/envoy.extensions.filters.http"
EXT_AUTHZ = f"{KIND}.ext_authz.v3.ExtAuthz"
PER_ROUTE = f"{KIND}.ext_authz.v3.ExtAuthzPerRoute"
FILTER_CONFIG = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
EARLY = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{KIND}.router.v3.Router"}}
STATUSES = {403: "Forbidden", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class Made:
    """What a control plane gives Envoy: a listener, and the cluster of the sidecar."""

    listener: Config
    cluster: Config


def documents(printed: str) -> dict[str, Config]:
    """Return the manifests by their kind; the last one where there are several."""
    return {each["kind"]: each for each in yaml.safe_load_all(printed) if each}


def mesh(printed: str) -> Config:
    """Return the mesh configuration, which stands in a comment."""
    block = re.search(r"^#   meshConfig:\n(?:#     .*\n)+", printed, re.MULTILINE)
    assert block is not None
    config: Config = yaml.safe_load(block[0].replace("#   ", "", 1).replace("\n#   ", "\n"))["meshConfig"]
    return config


def _duration(text: str) -> str:
    return f"{seconds(text):g}s"


def _cluster(name: str, address: Config, **more: Any) -> Config:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    options = {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {HTTP_OPTIONS: options},
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    } | more


def _listener(name: str, filters: list[Config], route: Config, domains: list[str], **manager: Any) -> Config:
    """Return a listener without an address."""
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}, **route}]
    config = {
        "@type": MANAGER,
        "stat_prefix": name,
        "use_remote_address": True,
        "http_filters": [*filters, ROUTER],
        "route_config": {
            "name": name,
            "ignore_port_in_host_matching": True,
            "virtual_hosts": [{"name": name, "domains": domains, "routes": routes}],
        },
    } | manager
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}
    return {"name": name, "filter_chains": [{"filters": [network]}]}


# Envoy Gateway


def envoy_gateway(printed: str, sidecar: Config, *, patched: bool, by_route: bool = False) -> Made:
    """Translate its policies; `by_route` as releases do that write the service to each route."""
    manifests = documents(printed)
    policy, client = manifests["SecurityPolicy"], manifests["ClientTrafficPolicy"]["spec"]
    names = f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"
    auth, settings = policy["spec"]["extAuth"], policy["spec"]["extAuth"]["grpc"]["backendSettings"]
    (backend,) = auth["grpc"]["backendRefs"]
    cluster = f"securitypolicy/{names}/0"
    service: Config = {
        "envoy_grpc": {"cluster_name": cluster, "authority": f"{backend['name']}.{backend['namespace']}:{backend['port']}"},
        "timeout": _duration(auth.get("timeout", "10s")),
        "retry_policy": {
            "num_retries": settings["retry"]["numRetries"],
            "retry_on": ",".join(settings["retry"]["retryOn"]["triggers"]),
        },
    }
    check: Config = {
        "@type": EXT_AUTHZ,
        "transport_api_version": "V3",
        "failure_mode_allow": auth["failOpen"],
        "status_on_error": {"code": STATUSES[auth.get("statusOnError", 403)]},
        "grpc_service": service,
    }
    name = f"envoy.filters.http.ext_authz/{'0a1b2c3d4e5f6071' if by_route else f'securitypolicy/{names}'}"
    switched: Config = {"@type": FILTER_CONFIG, "config": {}}
    if by_route:
        # The first policy's service stands in the filter; that of each route is the one that counts.
        check["grpc_service"] = service | {"envoy_grpc": service["envoy_grpc"] | {"authority": "placeholder"}}
        switched["config"] = {"@type": PER_ROUTE, "check_settings": {"grpc_service": service}}
    listener = _listener(
        f"{policy['metadata']['namespace']}/{policy['spec']['targetRefs'][0]['name']}/http",
        [{"name": name, "disabled": True, "typed_config": check}],
        {"typed_per_filter_config": {name: switched}, "name": "httproute/default/api/rule/0/match/0/api_example_com"},
        ["api.example.com"],
        **_client_traffic(client),
    )
    if patched:
        for patch in manifests["EnvoyPatchPolicy"]["spec"]["jsonPatches"]:
            assert patch["name"] == listener["name"]
            json_patch(listener, patch["operation"])
    return Made(listener, _cluster(cluster, sidecar, **_backend(settings)))


def _client_traffic(spec: Config) -> Config:
    headers, early = spec["headers"], spec["headers"]["earlyRequestHeaders"]
    mutations = [{"remove": name} for name in early["remove"]] + [
        {"remove_on_match": {"key_matcher": {each["type"].lower(): each["value"], "ignore_case": True}}}
        for each in early["removeOnMatch"]
    ]
    times = spec["timeout"]["http"]
    return {
        "normalize_path": True,
        "merge_slashes": not spec["path"]["disableMergeSlashes"],
        "path_with_escaped_slashes_action": {"RejectRequest": "REJECT_REQUEST"}[spec["path"]["escapedSlashesAction"]],
        "strip_trailing_host_dot": headers["host"]["stripTrailingHostDot"],
        "max_request_headers_kb": int(headers["maxRequestHeaderLimit"].removesuffix("Ki")),
        "common_http_protocol_options": {
            "headers_with_underscores_action": {"RejectRequest": "REJECT_REQUEST"}[headers["withUnderscoresAction"]],
            "max_stream_duration": _duration(spec["connection"]["connectionLimit"]["maxStreamDuration"]),
            "idle_timeout": _duration(times["idleTimeout"]),
        },
        "request_timeout": _duration(times["requestReceivedTimeout"]),
        "request_headers_timeout": _duration(times["requestHeadersReceivedTimeout"]),
        "stream_idle_timeout": _duration(times["streamIdleTimeout"]),
        "server_header_transformation": "PASS_THROUGH",
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {"@type": EARLY, "mutations": mutations},
            }
        ],
    }


def _backend(settings: Config) -> Config:
    limits, health = settings["circuitBreaker"], settings["healthCheck"]
    active = health["active"]
    assert active["type"] == "GRPC"
    return {
        "connect_timeout": _duration(settings["timeout"]["tcp"]["connectTimeout"]),
        "lb_policy": {"RoundRobin": "ROUND_ROBIN"}[settings["loadBalancer"]["type"]],
        "common_lb_config": {"healthy_panic_threshold": {"value": health["panicThreshold"]}},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": limits["maxConnections"],
                    "max_pending_requests": limits["maxPendingRequests"],
                    "max_requests": limits["maxParallelRequests"],
                    "max_retries": limits["maxParallelRetries"],
                }
            ]
        },
        "health_checks": [
            {
                "timeout": _duration(active["timeout"]),
                "interval": _duration(active["interval"]),
                "unhealthy_threshold": active["unhealthyThreshold"],
                "healthy_threshold": active["healthyThreshold"],
                "grpc_health_check": {"service_name": active["grpc"]["service"]},
            }
        ],
    }


def json_patch(document: Config, operation: Config) -> None:
    """Add what an operation of an EnvoyPatchPolicy adds, in the two forms that are printed."""
    assert operation["op"] == "add"
    lists = list(_lists(document, "http_filters"))
    by_name = re.fullmatch(r'\.\.http_filters\[\?\(@\.name=~"([^"]+)"\)\]\.typed_config', operation["jsonPath"])
    if by_name is None:
        assert operation["jsonPath"] == "..http_filters[0]"
        for filters in lists:
            filters.insert(0, copy.deepcopy(operation["value"]))
        return
    chosen = [each["typed_config"] for filters in lists for each in filters if re.search(by_name[1], each["name"])]
    assert chosen, "a patch that finds nothing is an error in Envoy Gateway"
    for config in chosen:
        config[operation["path"].removeprefix("/")] = copy.deepcopy(operation["value"])


def _lists(value: Any, name: str) -> Iterator[list[Config]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name:
                yield inner
            yield from _lists(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _lists(inner, name)


# Istio


def istio(printed: str, sidecar: Config, *, patched: bool) -> Made:
    """Translate provider, AuthorizationPolicy and, if it is applied, EnvoyFilter."""
    manifests, configured = documents(printed), mesh(printed)
    (provider,) = configured["extensionProviders"]
    settings, policy = provider["envoyExtAuthzGrpc"], manifests["AuthorizationPolicy"]
    assert (policy["spec"]["action"], policy["spec"]["provider"]["name"]) == ("CUSTOM", provider["name"])
    cluster = f"outbound|{settings['port']}||{settings['service']}"
    any_permission = {"and_rules": {"rules": [{"any": True}]}}
    any_principal = {"and_ids": {"ids": [{"any": True}]}}
    prefix = f"istio-ext-authz-ns[{policy['metadata']['namespace']}]-policy[{policy['metadata']['name']}]"
    rules = {
        f"{prefix}-rule[{index}]": {"permissions": [any_permission], "principals": [any_principal]}
        for index, rule in enumerate(policy["spec"]["rules"])
        if rule == {}
    }
    matching: Config = {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{KIND}.rbac.v3.RBAC",
            "shadow_rules": {"action": "DENY", "policies": rules},
            "shadow_rules_stat_prefix": "istio_ext_authz_",
        },
    }
    check: Config = {
        "@type": EXT_AUTHZ,
        "transport_api_version": "V3",
        "failure_mode_allow": settings["failOpen"],
        "status_on_error": {"code": STATUSES[int(settings["statusOnError"])]},
        "grpc_service": {
            "envoy_grpc": {"cluster_name": cluster, "authority": cluster.replace("|", "_.")},
            "timeout": settings["timeout"],
        },
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": "istio-ext-authz"}},
        },
    }
    listener = _listener(
        "0.0.0.0_8080",
        [matching, {"name": "envoy.filters.http.ext_authz", "typed_config": check}],
        {},
        ["api.example.com"],
        normalize_path=True,
        merge_slashes=configured["pathNormalization"]["normalization"] in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"),
        server_name="istio-envoy",
    )
    made = Made(listener, _cluster(cluster, sidecar, connect_timeout="10s", lb_policy="LEAST_REQUEST"))
    if patched:
        for patch in manifests["EnvoyFilter"]["spec"]["configPatches"]:
            envoy_filter(made, patch)
    return made


def envoy_filter(made: Made, patch: Config) -> None:
    """Apply one patch of an EnvoyFilter, as merging messages does."""
    match, operation, value = patch["match"], patch["patch"]["operation"], copy.deepcopy(patch["patch"]["value"])
    assert match["context"] == "GATEWAY"
    (network,) = made.listener["filter_chains"][0]["filters"]
    filters = network["typed_config"]["http_filters"]
    if patch["applyTo"] == "CLUSTER":
        chosen = match["cluster"]
        assert made.cluster["name"] == f"outbound|{chosen['portNumber']}||{chosen['service']}"
        merge(made.cluster, value)
        return
    selected = match["listener"]["filterChain"]["filter"]
    assert selected["name"] == network["name"]
    match patch["applyTo"], operation:
        case "NETWORK_FILTER", "MERGE":
            merge(network, value)
        case "HTTP_FILTER", "MERGE":
            (target,) = (each for each in filters if each["name"] == selected["subFilter"]["name"])
            merge(target, value)
        case "HTTP_FILTER", "INSERT_FIRST":
            filters.insert(0, value)
        case other:
            raise AssertionError(other)


def merge(into: Config, value: Config) -> None:
    """Merge as protobuf does: messages into messages, lists behind lists, anything else in place of what was there."""
    for key, inner in value.items():
        if isinstance(inner, dict) and isinstance(into.get(key), dict):
            merge(into[key], inner)
        elif isinstance(inner, list) and isinstance(into.get(key), list):
            into[key] += inner
        else:
            into[key] = inner


# Contour


def contour(printed: str, sidecar: Config) -> Made:
    """Translate ExtensionService and HTTPProxy."""
    manifests = documents(printed)
    service, proxy = manifests["ExtensionService"], manifests["HTTPProxy"]["spec"]
    host, limits = proxy["virtualhost"], service["spec"]["circuitBreakerPolicy"]
    settings = host["authorization"]
    assert settings["extensionRef"]["name"] == service["metadata"]["name"]
    assert settings["extensionRef"]["namespace"] == service["metadata"]["namespace"]
    assert service["spec"]["protocol"] == "h2c"
    cluster = f"extension/{service['metadata']['namespace']}/{service['metadata']['name']}"
    check: Config = {
        "@type": EXT_AUTHZ,
        "transport_api_version": "V3",
        "failure_mode_allow": settings["failOpen"],
        "grpc_service": {
            "envoy_grpc": {"cluster_name": cluster, "authority": cluster.replace("/", ".")},
            "timeout": _duration(settings["responseTimeout"]),
        },
        # These three are fixed.
        "status_on_error": {"code": STATUSES[403]},
        "clear_route_cache": True,
        "include_peer_certificate": True,
    }
    listener = _listener(
        "ingress_https",
        [
            {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": f"{KIND}.grpc_web.v3.GrpcWeb"}},
            {"name": "envoy.filters.http.rbac", "typed_config": {"@type": f"{KIND}.rbac.v3.RBAC"}},
            {"name": "envoy.filters.http.ext_authz", "typed_config": check},
        ],
        {},
        [host["fqdn"]],
        normalize_path=True,
        merge_slashes=True,
        preserve_external_request_id=True,
        http_protocol_options={"accept_http_10": True},
    )
    thresholds = {
        "max_connections": limits["maxConnections"],
        "max_pending_requests": limits["maxPendingRequests"],
        "max_requests": limits["maxRequests"],
        "max_retries": limits["maxRetries"],
    }
    common = {"healthy_panic_threshold": {"value": 0}}
    more = {"connect_timeout": "2s", "lb_policy": "ROUND_ROBIN", "common_lb_config": common}
    return Made(listener, _cluster(cluster, sidecar, circuit_breakers={"thresholds": [thresholds]}, **more))


Translate = Callable[[str, Config], Made]
PLANES: dict[str, tuple[str, Translate]] = {
    "envoy-gateway": ("envoy-gateway", lambda printed, sidecar: envoy_gateway(printed, sidecar, patched=False)),
    "envoy-gateway, patched": ("envoy-gateway", lambda printed, sidecar: envoy_gateway(printed, sidecar, patched=True)),
    "envoy-gateway, by route": (
        "envoy-gateway",
        lambda printed, sidecar: envoy_gateway(printed, sidecar, patched=True, by_route=True),
    ),
    "istio": ("istio", lambda printed, sidecar: istio(printed, sidecar, patched=False)),
    "istio, patched": ("istio", lambda printed, sidecar: istio(printed, sidecar, patched=True)),
    "contour": ("contour", contour),
}
"""What is played: the control plane, and how its manifests become an Envoy."""
