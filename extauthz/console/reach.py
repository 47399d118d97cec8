"""How many sidecars know of a change that was just made, by what they say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from extauthz.console.collecting import Collector
from extauthz.console.metrics_text import SidecarFacts

Knows = Callable[[SidecarFacts], bool]

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


def has_read(row: int) -> Knows:
    """Return whether a sidecar has read a row of the audit."""
    return lambda facts: facts.audit_position is not None and facts.audit_position >= row


def has_settings(version: int) -> Knows:
    """Return whether a sidecar serves a version of the settings."""
    return lambda facts: facts.settings_version == version


async def reach_of(collector: Collector, knows: Knows, *, monotonic: Callable[[], float]) -> Reach | None:
    """Look a few times how many sidecars know it; None where the configuration names none."""
    begin, reach = monotonic(), None
    for pause in PAUSES:
        await asyncio.sleep(pause)
        await collector.collect()
        sidecars = collector.sidecars
        if not sidecars:
            return None
        knowing = sum(state.answers and state.facts is not None and knows(state.facts) for state in sidecars)
        reach = Reach(knowing, len(sidecars), monotonic() - begin)
        if reach.is_whole:
            break
    return reach
