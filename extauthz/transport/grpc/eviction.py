"""Which connection makes room on a full listener: one without a request, then one that rests, and none with a request under way."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Evictable(Protocol):
    """A connection that holds one of the places."""

    used_at: float
    """When its last request came, or when it connected, on the monotonic clock."""

    @property
    def silent(self) -> bool:
        """Return whether it has sent no request, and nothing that it sent waits to be read."""

    @property
    def resting(self) -> bool:
        """Return whether no request of it is under way here."""


T = TypeVar("T", bound=Evictable)


def evictable(holders: Iterable[T]) -> T | None:
    """Return the one to be closed, None if none may be; `holders` come in the order in which they connected."""
    resting: list[T] = []
    for holder in holders:
        if holder.silent:
            return holder
        if holder.resting:
            resting.append(holder)
    return min(resting, key=lambda holder: holder.used_at, default=None)


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Return whether bytes of the peer wait in the kernel: many connect within one turn of the loop, some with a request."""
    poll = select.poll()
    try:
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):
        # Closed, although its end was not reported yet.
        return False
