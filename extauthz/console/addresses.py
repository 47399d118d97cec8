"""From which address a request comes: that of the connection, or what a trusted proxy says of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.requests import Request

UNKNOWN = "unknown"


def client_address(request: Request, trusted_proxies: Sequence[str]) -> str:
    """Return the address of the client; of X-Forwarded-For the last one that no trusted proxy has."""
    peer = request.client.host if request.client is not None else ""
    networks = [ipaddress.ip_network(network) for network in trusted_proxies]
    forwarded = [name.strip() for value in request.headers.getlist("x-forwarded-for") for name in value.split(",")]
    current = _address(peer)
    while current is not None and forwarded and any(current in network for network in networks):
        current = _address(forwarded.pop())
    return UNKNOWN if current is None else str(current)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
