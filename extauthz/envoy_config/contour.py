"""Manifests for Contour: an ExtensionService, and an HTTPProxy for each host."""

from __future__ import annotations

import re

from extauthz.envoy_config.bootstrap import Sidecar
from extauthz.envoy_config.placement import Placement, cluster_settings, ports
from extauthz.envoy_config.templates import block, duration, filled, resource_name, scalar
from extauthz.responses.client_headers import spelled

_NAMED = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*").fullmatch
_CLIENT_CERTIFICATE = "With client_ca Envoy shows a certificate: `tls.envoy-client-certificate` of Contour's own configuration."
_NO_CLIENT_CERTIFICATE = "Envoy needs no certificate of its own: server.tls has no client_ca."


def text(sidecar: Sidecar, placement: Placement) -> str:
    """Return the manifests; raises ValueError for an address or a host that Contour does not take."""
    service = placement.service
    if not placement.is_service(sidecar):
        raise ValueError(
            f"server.listen is {sidecar.addresses[0]}: Contour asks a Kubernetes Service and nothing else; listen on 0.0.0.0:9001"
        )
    limits = cluster_settings(sidecar)["circuit_breakers"]["thresholds"][0]
    return filled(
        "contour",
        placement.names
        | {
            "trusted_hops": str(placement.trusted_hops),
            "credentials": ", ".join(map(spelled, sidecar.identity.credentials)),
            "prefix": sidecar.identity.prefix,
            "protocol": "h2" if sidecar.tls else "h2c",
            "services": block([{"name": service.name, "port": port} for port in ports(sidecar)]),
            **{name: str(limits[name]) for name in ("max_connections", "max_pending_requests", "max_requests", "max_retries")},
            "validation": _validation(sidecar),
            "virtual_hosts": "".join(_virtual_host(sidecar, placement, host) for host in placement.domains),
        },
    )


def _validation(sidecar: Sidecar) -> str:
    if sidecar.tls is None:
        return ""
    client_certificate = _CLIENT_CERTIFICATE if sidecar.tls.certificate else _NO_CLIENT_CERTIFICATE
    return filled("contour_validation", {"name": scalar(sidecar.tls.name), "client_certificate": client_certificate})


def _virtual_host(sidecar: Sidecar, placement: Placement, host: str) -> str:
    if not _NAMED(host):
        raise ValueError(f"{host!r} is no host of an HTTPProxy: leave it out of `hosts` and --domain, or use another control plane")
    values = {
        "name": scalar(host),
        "fqdn": scalar(host),
        "timeout": duration(sidecar.timeout),
        "upstream": resource_name(placement.upstream_service),
        "port": str(placement.upstream.port),
    }
    return filled("contour_virtual_host", placement.names | values)
