"""How many sidecars know of a change that was just made: they say up to which row of the audit they have read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from extauthz.console.collecting import Collector

PAUSES = (0.05, 0.2, 0.4, 0.8)
"""Seconds before each look; a sidecar takes some of its time to answer one."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How many of all sidecars know it, and the seconds until they did: of the last look where some do not."""

    count: int
    total: int
    seconds: float

    @property
    def is_whole(self) -> bool:
        """Whether every sidecar knows it."""
        return self.count == self.total


async def reach_of(collector: Collector, row: int, *, monotonic: Callable[[], float]) -> Reach | None:
    """Look a few times how many sidecars know a row of the audit; None where the configuration names none."""
    begin, reach = monotonic(), None
    for pause in PAUSES:
        await asyncio.sleep(pause)
        await collector.collect()
        positions = [state.facts.audit_position if state.answers and state.facts else None for state in collector.sidecars]
        if not positions:
            return None
        knowing = sum(position is not None and position >= row for position in positions)
        reach = Reach(knowing, len(positions), monotonic() - begin)
        if reach.is_whole:
            break
    return reach
