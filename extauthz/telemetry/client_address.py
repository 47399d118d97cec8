"""The address of a client behind proxies: what Envoy wrote of it into a header, believed only where Envoy shows that it did.

A client may send the same headers. An Envoy that is the edge (`use_remote_address: true`) adds its peer to x-forwarded-for, and
that is looked for; where it is missing, nothing of the headers is believed, and the peer is the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

FORWARDED_FOR, EXTERNAL_ADDRESS, INTERNAL = "x-forwarded-for", "x-envoy-external-address", "x-envoy-internal"
MAX_ADDRESS = 45
"""Characters of the longest address, IPv4 in IPv6."""


@dataclass(frozen=True, slots=True)
class ForwardedClient:
    """Reads x-envoy-external-address or, with `trusted_hops`, the entry of x-forwarded-for in front of those of so many proxies."""

    trusted_hops: int | None = None

    def address(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the client's address; `peer`, that of the TCP connection, when the headers do not tell it."""
        hops = self.trusted_hops or 0
        entries = headers.get(FORWARDED_FOR, "").rsplit(",", hops + 1)
        if not _added_by_envoy(entries[-1], peer):
            return peer
        if self.trusted_hops is None:
            # Envoy leaves the header as it came when it takes the peer for one of its own network.
            text = "" if INTERNAL in headers else headers.get(EXTERNAL_ADDRESS, "")
        else:
            text = entries[-1 - hops] if len(entries) > hops else ""
        client = read_address(text)
        return peer if client is None else str(client)


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read one IP address without port and zone; None for anything else."""
    text = text.strip(" \t")
    if len(text) > MAX_ADDRESS or "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _added_by_envoy(entry: str, peer: str) -> bool:
    """Tell whether an entry is the one that Envoy adds for its peer; for a loopback one it writes an address of its own."""
    added, connected = read_address(entry), read_address(peer)
    if added is None or connected is None:
        return False
    return connected.is_loopback or added == connected
