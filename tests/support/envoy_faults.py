"""Envoy configurations with one fault each, and what the doctor says of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from extauthz.doctor.findings import Level

OK, WARNING, PROBLEM = Level
EXT_AUTHZ = "envoy.filters.http.ext_authz"
TYPE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
ROUTER = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
EARLY = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


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


def configured(folder: Path, listen: str, *, ops: int = 9090, hosts: tuple[str, ...] = (), **server: Any) -> Path:
    (folder / "routes.yaml").write_text(
        (f"hosts: {json.dumps(hosts)}\n" if hosts else "") + 'routes: [{match: "GET /healthz", public: true}]'
    )
    listening = {"listen": listen, "ops": f"127.0.0.1:{ops}", "drain": "0s"}
    settings = {"version": 1, "server": listening | server, "scopes": ["SEARCH"], "routes": ["routes.yaml"]}
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
