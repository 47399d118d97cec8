"""What each control plane lets its users change, in its own words, and what it fixes.

An entry is about the findings of a name, or with `only` about those whose text has these words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from extauthz.doctor.findings import Level
from extauthz.envoy_config.control_planes import ControlPlane


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to write where; `{timeout}` is that of this configuration, in the form that the control plane reads."""

    text: str
    only: str = ""
    level: Level | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What follows from something that nobody can change here."""

    text: str
    only: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """How a running Envoy of a control plane is judged; `own_listeners` are those that serve the control plane itself."""

    title: str
    own_listeners: re.Pattern[str]
    advice: Mapping[str, tuple[Advice, ...]]
    limits: Mapping[str, Limit]


def _advice(entries: Mapping[str, str | tuple[Advice, ...]]) -> dict[str, tuple[Advice, ...]]:
    return {f"envoy.{name}": (Advice(text=entry),) if isinstance(entry, str) else entry for name, entry in entries.items()}


def _limits(entries: Mapping[str, str | Limit]) -> dict[str, Limit]:
    return {f"envoy.{name}": Limit(text=entry) if isinstance(entry, str) else entry for name, entry in entries.items()}


_GRPC = "SecurityPolicy spec.extAuth.grpc"
_PATCH = "EnvoyPatchPolicy: add {} to the filter, as 'extauthz envoy-config --for envoy-gateway' prints it"
_ENVOY_GATEWAY = Profile(
    "Envoy Gateway",
    re.compile(r"listener envoy-gateway-proxy-"),
    _advice(
        {
            "ext_authz": "let a SecurityPolicy with spec.extAuth target this Gateway",
            "per_route": "give the SecurityPolicy of that route the same spec.extAuth, or mergeType: StrategicMerge",
            "failure_mode_allow": "SecurityPolicy: write spec.extAuth.failOpen: false",
            "allowed_headers": "SecurityPolicy: remove spec.extAuth.headersToExtAuth",
            "status_on_error": "SecurityPolicy: write spec.extAuth.statusOnError: 503",
            "clear_route_cache": "SecurityPolicy: remove spec.extAuth.recomputeRoute",
            "with_request_body": "SecurityPolicy: remove spec.extAuth.bodyToExtAuth",
            "grpc_service": f"{_GRPC}: write it in place of spec.extAuth.http",
            "timeout": "SecurityPolicy: write spec.extAuth.timeout: {timeout}, or change server.check_timeout",
            "retry_policy": f"{_GRPC}.backendSettings: write retry: {{{{numRetries: 1}}}}",
            "cluster": f"{_GRPC}.backendRefs: look at the status of the policy, and for the ReferenceGrant",
            "addresses": f"{_GRPC}.backendRefs: name every port of the sidecar",
            "health_check": f"{_GRPC}.backendSettings.healthCheck: write active: {{{{type: GRPC, interval: 1s, …}}}}",
            "panic_threshold": f"{_GRPC}.backendSettings.healthCheck: write panicThreshold: 0",
            "circuit_breakers": f"{_GRPC}.backendSettings.circuitBreaker: raise maxParallelRequests",
            "http2": f"{_GRPC}: it speaks HTTP/2 by itself; remove the patch of the cluster",
            "tls": (
                Advice(only="alpn_protocols", text="EnvoyProxy: write spec.backendTLS.alpnProtocols: [h2]"),
                Advice(text="BackendTLSPolicy: let one target the Service of the sidecar exactly when server.tls is set"),
            ),
            "path": "ClientTrafficPolicy: write spec.path as 'envoy-config --for envoy-gateway' prints it",
            "underscores": "ClientTrafficPolicy: write spec.headers.withUnderscoresAction: RejectRequest",
            "max_stream_duration": "ClientTrafficPolicy: write spec.connection.connectionLimit.maxStreamDuration: 3600s",
            "domains": "HTTPRoute: write spec.hostnames, the same as `hosts` of the route files",
            "client_address": "ClientTrafficPolicy: write spec.clientIPDetection.xForwardedFor.numTrustedHops",
            "encode_raw_headers": _PATCH.format("/encode_raw_headers"),
            "validate_mutations": _PATCH.format("/validate_mutations"),
            "decoder_header_mutation_rules": (
                Advice(only="no rules", text=_PATCH.format("/decoder_header_mutation_rules"), level=Level.WARNING),
                Advice(text=_PATCH.format("/decoder_header_mutation_rules")),
            ),
            "header_mutation": (
                Advice(only="these headers", text="ClientTrafficPolicy: write spec.headers.earlyRequestHeaders"),
                Advice(only="these trailers", text=_PATCH.format("the filter header_mutation before ext_authz, not")),
            ),
        }
    ),
    _limits(
        {
            "retry_policy": Limit(
                only="the wait before another try", text="the wait before another try of a check is up to a second"
            ),
            "authority": "the authority of a health check is the name of the cluster",
            "health_check": Limit(only="no_traffic_interval", text="a sidecar that starts after Envoy may stay out for a minute"),
        }
    ),
)

_PROVIDER = "meshConfig.extensionProviders[].envoyExtAuthzGrpc"
_FILTER = "EnvoyFilter: MERGE {} into HTTP_FILTER envoy.filters.http.ext_authz, as 'extauthz envoy-config --for istio' prints it"
_CLUSTER = "EnvoyFilter: MERGE {} into the CLUSTER of the sidecar, as 'extauthz envoy-config --for istio' prints it"
_MANAGER = "EnvoyFilter: MERGE {} into NETWORK_FILTER envoy.filters.network.http_connection_manager"
_ISTIO = Profile(
    "Istio",
    # The agent's own, for probes and metrics.
    re.compile(r"listener .*(?<!\d)150(21|90)\b"),
    _advice(
        {
            "ext_authz": "let an AuthorizationPolicy with action: CUSTOM and this provider select the workload",
            "disabled": "AuthorizationPolicy: write spec.rules: [{{}}], and `public: true` in extauthz for what is to pass",
            "per_route": "remove the EnvoyFilter that switches the check off, and write `public: true` for the route in extauthz",
            "failure_mode_allow": f"{_PROVIDER}: write failOpen: false",
            "status_on_error": f'{_PROVIDER}: write statusOnError: "503"',
            "clear_route_cache": f"{_PROVIDER}: remove clearRouteCache",
            "with_request_body": f"{_PROVIDER}: remove includeRequestBodyInCheck",
            "grpc_service": f"{_PROVIDER}: write it in place of envoyExtAuthzHttp",
            "timeout": f"{_PROVIDER}: write timeout: {{timeout}}, or change server.check_timeout",
            "cluster": f"{_PROVIDER}: correct service and port",
            "addresses": f"{_PROVIDER}: correct service and port, or the endpoints of the ServiceEntry",
            "http2": "Service: name the port grpc, or write appProtocol: grpc",
            "tls": "DestinationRule: write spec.trafficPolicy.tls for the host of the sidecar exactly when server.tls is set",
            "circuit_breakers": "DestinationRule: raise spec.trafficPolicy.connectionPool.http.http2MaxRequests",
            "retry_policy": _FILTER.format("grpc_service.retry_policy"),
            "encode_raw_headers": _FILTER.format("encode_raw_headers"),
            "validate_mutations": _FILTER.format("validate_mutations"),
            "decoder_header_mutation_rules": (
                Advice(only="no rules", text=_FILTER.format("decoder_header_mutation_rules"), level=Level.WARNING),
                Advice(text=_FILTER.format("decoder_header_mutation_rules")),
            ),
            "header_mutation": "EnvoyFilter: INSERT_FIRST header_mutation, as 'extauthz envoy-config --for istio' prints it",
            "health_check": _CLUSTER.format("health_checks"),
            "panic_threshold": _CLUSTER.format("common_lb_config"),
            "authority": _CLUSTER.format("health_checks"),
            "path": f"meshConfig.pathNormalization: write MERGE_SLASHES; {_MANAGER.format('path_with_escaped_slashes_action')}",
            "underscores": _MANAGER.format("common_http_protocol_options.headers_with_underscores_action"),
            "max_stream_duration": _MANAGER.format("common_http_protocol_options.max_stream_duration"),
            "domains": "Gateway and VirtualService: write spec.hosts, or spec.hostnames of the HTTPRoute, as in the route files",
            "client_address": "meshConfig.defaultConfig.gatewayTopology: write numTrustedProxies",
        }
    ),
    _limits({}),
)

_AUTHORIZATION = "HTTPProxy spec.virtualhost.authorization"
_CONTOUR = Profile(
    "Contour",
    re.compile(r"listener (stats|stats-health|envoy-admin|health)\b"),
    _advice(
        {
            "ext_authz": "HTTPProxy: write spec.virtualhost.authorization, which needs virtualhost.tls, and no permitInsecure",
            "per_route": "HTTPProxy: remove authPolicy.disabled, and write `public: true` for the route in extauthz",
            "failure_mode_allow": f"{_AUTHORIZATION}: write failOpen: false",
            "with_request_body": f"{_AUTHORIZATION}: remove withRequestBody",
            "grpc_service": f"{_AUTHORIZATION}: write serviceType: grpc",
            "timeout": f"{_AUTHORIZATION}: write responseTimeout: {{timeout}}, or change server.check_timeout",
            "cluster": f"{_AUTHORIZATION}.extensionRef: look at the status of the ExtensionService",
            "addresses": "ExtensionService: name every port of the sidecar in spec.services",
            "http2": "ExtensionService: write spec.protocol: h2c, or h2 with server.tls",
            "tls": "ExtensionService: write spec.protocol: h2 and spec.validation exactly when server.tls is set",
            "circuit_breakers": "ExtensionService: raise spec.circuitBreakerPolicy.maxRequests",
            "domains": "HTTPProxy: write spec.virtualhost.fqdn, the same as `hosts` of the route files",
            "client_address": "Contour's configuration: write network.num-trusted-hops",
        }
    ),
    _limits(
        {
            "status_on_error": "clients get 403 when no sidecar answers",
            "authority": "the authority of a check is written by Contour",
            "clear_route_cache": "the route is chosen again after the check",
            "encode_raw_headers": "headers reach extauthz joined",
            "validate_mutations": "answers are not validated",
            "decoder_header_mutation_rules": Limit(only="no rules", text="no rules bound what an answer may change"),
            "header_mutation": "nothing is removed before the check",
            "retry_policy": "a check is not tried again",
            "health_check": "the sidecar's health is not asked",
            "underscores": "names with underscores reach extauthz",
            "path": "encoded slashes reach extauthz",
            "max_stream_duration": "nothing bounds streams but timeoutPolicy of the routes",
        }
    ),
)

PROFILES: Mapping[ControlPlane, Profile] = {
    ControlPlane.ENVOY_GATEWAY: _ENVOY_GATEWAY,
    ControlPlane.ISTIO: _ISTIO,
    ControlPlane.CONTOUR: _CONTOUR,
}
