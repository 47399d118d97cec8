"""Two sidecars and their database: how soon a revocation counts, and what clients see when it is away for too long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.fleet import ALLOWED, REVOKED, Database, Fleet, Token, database_of, fleet, make, revoke
from tests.support.outage import outage
from tests.support.postgresql import MakePlace, PostgresServer

pytest_plugins = ["tests.support.postgresql"]

VERDICT_TTL, MAX_STALENESS = 0.5, 1.5
SHORT = {"poll_interval": "250ms", "verdict_ttl": "500ms", "max_staleness": "1500ms"}
PROMISE = 1.0
"""Seconds within which a revocation is honoured."""
ROUND_TRIPS = 100
"""On a machine so busy that a check takes longer than ten milliseconds, a revocation may take as many of them."""


async def revocations(it: Fleet, database: Database, tokens: list[Token]) -> list[float]:
    """Revoke one token after the other, each when all sidecars have honoured the last; return how long each took.

    So each but the first is made just after the sidecars have read: what is longer than a promise in the product cannot hide
    behind a lucky moment.
    """
    taken = []
    for token in tokens:
        done = await asyncio.to_thread(revoke, database.place, token)
        taken.append(max(at for _, at in await it.all_become(token, [REVOKED], until_then=[ALLOWED])) - done)
    return taken


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_revocation_is_honoured_within_a_second_and_an_outage_ends_what_it_may_not_outlast(
    make_place: MakePlace, postgresql: PostgresServer, tmp_path: Path, kind: str
) -> None:
    place = make_place(kind)
    database = database_of(place, postgresql, tmp_path)
    known = make(database.place, 6)
    async with fleet(database.address, tmp_path, known, sidecars=2) as it:
        round_trip = await it.round_trip()
        # A verdict counts for a minute: nothing but the feed tells of them.
        taken = await revocations(it, database, known[:3])
        await it.reconfigure(SHORT)
        phases = await outage(it, database, known[3:])
    limit = max(PROMISE, ROUND_TRIPS * round_trip)
    assert min(taken[1:]) <= limit, f"a check took {round_trip:.3f} s"
    # Served longer than a verdict counts while the store is there, and not much longer than the store may be away.
    assert min(phases.served) > phases.leaving + VERDICT_TTL
    assert max(phases.served) <= phases.leaving + MAX_STALENESS + 2 * limit
    assert min(phases.honoured + phases.back) <= 2 * limit
