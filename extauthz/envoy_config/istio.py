"""Manifests for Istio: provider, AuthorizationPolicy, an EnvoyFilter for what they cannot say, and where the sidecar is."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent
from typing import Any

from extauthz.envoy_config.bootstrap import Sidecar
from extauthz.envoy_config.placement import Placement, check_settings, cluster_settings, header_filter
from extauthz.envoy_config.templates import block, filled, scalar, seconds

LOCAL = "extauthz.local"
"""The host of a sidecar that no Service leads to."""
LOCAL_PORT = 9001

_EXT_AUTHZ = "envoy.filters.http.ext_authz"
_MANAGER = "envoy.filters.network.http_connection_manager"
_TYPES = "type.googleapis.com/envoy.extensions.filters"
_CONNECTION = {
    "merge_slashes": True,
    "strip_trailing_host_dot": True,
    "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST", "max_stream_duration": "3600s"},
}


def text(sidecar: Sidecar, placement: Placement) -> str:
    """Return the manifests; raises ValueError for names that do not fit."""
    host, port = _reached_at(sidecar, placement)
    provider = {"service": host, "port": port, "timeout": seconds(sidecar.timeout), "failOpen": False, "statusOnError": "503"}
    mesh: dict[str, Any] = {
        "pathNormalization": {"normalization": "MERGE_SLASHES"},
        "extensionProviders": [{"name": "extauthz", "envoyExtAuthzGrpc": provider}],
    }
    if placement.trusted_hops:
        mesh["defaultConfig"] = {"gatewayTopology": {"numTrustedProxies": placement.trusted_hops}}
    return filled(
        "istio",
        placement.names
        | {
            "domains": placement.shown_domains,
            "mesh": indent(block({"meshConfig": mesh}), "#   "),
            "sidecar": _sidecar(sidecar, placement, host, port),
            "patches": block(list(_patches(sidecar, host, port))),
        },
    )


def _reached_at(sidecar: Sidecar, placement: Placement) -> tuple[str, int]:
    """Return the host in Istio's registry, and the port."""
    if placement.is_service(sidecar):
        return f"{placement.service.host}.cluster.local", sidecar.addresses[0].port
    return LOCAL, sidecar.addresses[0].port or LOCAL_PORT


def _sidecar(sidecar: Sidecar, placement: Placement, host: str, port: int) -> str:
    entry, rule = "", ""
    if not placement.is_service(sidecar):
        endpoints: list[dict[str, Any]] = [
            {"address": str(address)} if address.path else {"address": address.host, "ports": {"grpc": address.port}}
            for address in sidecar.addresses
        ]
        values = {"host": host, "port": str(port), "endpoints": block(endpoints)}
        entry = filled("istio_service_entry", placement.names | values)
    if sidecar.tls is not None:
        mode, keys = ("MUTUAL", ", tls.crt and tls.key") if sidecar.tls.certificate else ("SIMPLE", "")
        values = {"host": host, "mode": mode, "keys": keys, "name": scalar(sidecar.tls.name)}
        rule = filled("istio_tls", placement.names | values)
    return entry + rule


def _patches(sidecar: Sidecar, host: str, port: int) -> Iterator[dict[str, Any]]:
    paths = {"path_with_escaped_slashes_action": sidecar.escaped_slashes_action}
    manager = _typed("network.http_connection_manager.v3.HttpConnectionManager", _CONNECTION | paths)
    yield _patch("NETWORK_FILTER", _listener(), "MERGE", manager)
    settings = check_settings(
        sidecar,
        *("encode_raw_headers", "validate_mutations", "enforce_response_header_limits", "max_denied_response_body_bytes"),
        *("decoder_header_mutation_rules", "grpc_service"),
    )
    service = settings["grpc_service"]
    # What the provider says itself stays: cluster, authority and timeout.
    settings["grpc_service"] = {"retry_policy": service["retry_policy"]}
    yield _patch("HTTP_FILTER", _listener(_EXT_AUTHZ), "MERGE", _typed("http.ext_authz.v3.ExtAuthz", settings))
    yield _patch("HTTP_FILTER", _listener(), "INSERT_FIRST", header_filter(sidecar))
    cluster = cluster_settings(sidecar)
    settings_of_cluster = {key: cluster[key] for key in ("connect_timeout", "common_lb_config", "health_checks")}
    yield _patch("CLUSTER", {"context": "GATEWAY", "cluster": {"service": host, "portNumber": port}}, "MERGE", settings_of_cluster)


def _patch(where: str, match: dict[str, Any], operation: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"applyTo": where, "match": match, "patch": {"operation": operation, "value": value}}


def _listener(below: str | None = None) -> dict[str, Any]:
    http_filter: dict[str, Any] = {"name": _MANAGER}
    if below is not None:
        http_filter["subFilter"] = {"name": below}
    return {"context": "GATEWAY", "listener": {"filterChain": {"filter": http_filter}}}


def _typed(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"typed_config": {"@type": f"{_TYPES}.{kind}", **config}}
