"""Who makes room on a listener that is full: who has asked nothing, then who rests, and nobody whose request is under way."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Evictable(Protocol):
    """A connection that holds one of the places."""

    used: float
    """When it last asked, or connected, on the monotonic clock."""

    @property
    def silent(self) -> bool:
        """Return whether it has asked nothing, and nothing that it sent waits to be read."""

    @property
    def resting(self) -> bool:
        """Return whether no request of it is under way here."""


T = TypeVar("T", bound=Evictable)


def evictable(holders: Iterable[T]) -> T | None:
    """Return who has to go, None if nobody may be asked to; `holders` come in the order in which they connected."""
    resting: list[T] = []
    for holder in holders:
        if holder.silent:
            return holder
        if holder.resting:
            resting.append(holder)
    return min(resting, key=lambda holder: holder.used, default=None)


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Return whether bytes of the peer wait in the kernel: many connect within one turn of the loop, some with a request."""
    looked = select.poll()
    try:
        looked.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(looked.poll(0))
    except (AttributeError, OSError, ValueError):
        # Closed, although its end was not told yet.
        return False
