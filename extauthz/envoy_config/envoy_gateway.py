"""Manifests for Envoy Gateway: its policies, a patch for what they cannot say, and where the sidecar is."""

from __future__ import annotations

from typing import Any

from extauthz.envoy_config import mutations
from extauthz.envoy_config.bootstrap import Sidecar
from extauthz.envoy_config.placement import Placement, check_settings, cluster_settings, header_filter, ports
from extauthz.envoy_config.templates import block, duration, filled, scalar

CHECK = '..http_filters[?(@.name=~"envoy.filters.http.ext_authz")].typed_config'
"""Every ext_authz filter; its name ends with that of the policy, or with a hash."""

_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
_NO_CLIENT_CERTIFICATE = "Envoy needs no certificate of its own: server.tls has no client_ca."
_CLIENT_CERTIFICATE = (
    "With client_ca Envoy shows a certificate: `backendTLS: {clientCertificateRef: {kind: Secret, name: …}}` of the EnvoyProxy."
)


def text(sidecar: Sidecar, placement: Placement) -> str:
    """Return the manifests; raises ValueError for an address that Envoy Gateway does not reach, or names that do not fit."""
    limits = cluster_settings(sidecar)["circuit_breakers"]["thresholds"][0]
    identity = sidecar.identity
    return filled(
        "envoy_gateway",
        placement.names
        | {
            "domains": placement.shown_domains,
            "timeout": duration(sidecar.timeout),
            "backends": block(_backends(sidecar, placement)),
            **{name: str(limits[name]) for name in ("max_connections", "max_pending_requests", "max_requests", "max_retries")},
            "removed": f"[{', '.join(mutations.header_removals(identity))}]",
            "prefix": identity.prefix,
            **mutations.spellings_of_user(identity),
            "escaped_slashes": sidecar.escaped_slashes_action.title().replace("_", ""),
            "client_address": _client_address(placement.trusted_hops),
            "sidecar": _sidecar(sidecar, placement),
            "patches": block(list(_patches(sidecar, placement))),
        },
    )


def _backends(sidecar: Sidecar, placement: Placement) -> list[dict[str, Any]]:
    if sidecar.addresses[0].path:
        if sidecar.tls is not None:
            raise ValueError(
                f"server.listen is {sidecar.addresses[0]} with server.tls: in one pod a socket needs none; "
                "remove server.tls, or listen on 0.0.0.0:9001 as a service"
            )
        return [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "extauthz"}]
    if not placement.is_service(sidecar):
        raise ValueError(
            f"server.listen is {sidecar.addresses[0]}: Envoy Gateway reaches no loopback address; listen on 0.0.0.0:9001 as a "
            "service, or on a unix socket in the pod of Envoy"
        )
    service = placement.service
    names = {"group": "", "kind": "Service", "name": service.name, "namespace": service.namespace}
    return [names | {"port": port} for port in ports(sidecar)]


def _client_address(hops: int) -> str:
    setting = f"clientIPDetection: {{xForwardedFor: {{numTrustedHops: {hops or 1}}}}}\n"
    return setting if hops else f"# {setting}"


def _sidecar(sidecar: Sidecar, placement: Placement) -> str:
    """Write what tells Envoy Gateway where the sidecar is, and how to trust it."""
    names = placement.names
    if sidecar.addresses[0].path:
        endpoints = [{"unix": {"path": address.path}} for address in sidecar.addresses]
        return filled("gateway_backend", names | {"endpoints": block(endpoints)})
    granted = filled("gateway_reference_grant", names) if placement.service.namespace != placement.namespace else ""
    if sidecar.tls is None:
        return granted
    client_certificate = _CLIENT_CERTIFICATE if sidecar.tls.certificate else _NO_CLIENT_CERTIFICATE
    return granted + filled("gateway_tls", names | {"client_certificate": client_certificate, "tls_name": scalar(sidecar.tls.name)})


def _patches(sidecar: Sidecar, placement: Placement) -> list[dict[str, Any]]:
    """Return patches of the listener: settings of the filter, and a filter before it."""
    name = f"{placement.namespace}/{placement.gateway}/{placement.listener}"
    settings = check_settings(
        sidecar,
        *("encode_raw_headers", "validate_mutations", "enforce_response_header_limits", "max_denied_response_body_bytes"),
        "decoder_header_mutation_rules",
    )
    operations = [{"op": "add", "jsonPath": CHECK, "path": f"/{key}", "value": value} for key, value in settings.items()]
    operations.append({"op": "add", "jsonPath": "..http_filters[0]", "value": header_filter(sidecar)})
    return [{"type": _LISTENER, "name": name, "operation": operation} for operation in operations]
