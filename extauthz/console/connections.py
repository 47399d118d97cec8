"""Connections of browsers and programs to the console: whom they make room for, and when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from extauthz.console.throttle import network_of
from extauthz.transport.http.ops import BoundedConnection


class ConsoleConnection(BoundedConnection):
    """A connection that is cut only while it waits for its client: a request that came completely is answered, however long.

    A client, for IPv6 its /64, has `most_of_client` of them; the proxies in `shared`, by which many clients come, may have all.
    """

    most = 200
    most_of_client = 40
    shared: Sequence[IPv4Network | IPv6Network] = ()
    lifetime = 300.0
    network = ""

    @property
    def resting(self) -> bool:
        """Return whether it was answered, or its body has not come completely."""
        return super().resting or (self._has_request and self.cycle.more_body)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Learn whose it is, and take a place."""
        peer: Any = transport.get_extra_info("peername")
        host = str(peer[0]) if peer else ""
        self.network = "" if self._is_shared(host) else network_of(host)
        super().connection_made(transport)

    def _has_place(self) -> bool:
        own = {one for one in self.connections if isinstance(one, ConsoleConnection) and one.network == self.network != ""}
        return (len(own) <= self.most_of_client or self._make_room(own)) and super()._has_place()

    def _evictable(self, others: Sequence[BoundedConnection]) -> BoundedConnection | None:
        """Choose the one as everywhere; without one, an answer that its client does not take."""
        stalled = (one for one in others if one.flow.write_paused)
        return super()._evictable(others) or next(stalled, None)

    def _cut(self) -> None:
        if not self._has_request or self.resting:
            super()._cut()

    def _is_shared(self, host: str) -> bool:
        try:
            return any(ip_address(host) in network for network in self.shared)
        except ValueError:
            return False
