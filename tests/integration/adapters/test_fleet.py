"""A fleet of sidecars on one token store: revocations under load, and a database that goes away; run by `make fleet`.

The small form of it, which `make test` runs, is `test_outage.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from extauthz.adapters.store.records import Change
from extauthz.adapters.store.sql import SqlTokenStore
from tests.support.fleet import (
    ALLOWED,
    AUDIT,
    REVOKED,
    STALE,
    UNAVAILABLE,
    Database,
    Fleet,
    Killed,
    MovedFile,
    Paused,
    ShutDoor,
    Stalled,
    Token,
    database_of,
    fleet,
    make,
    now,
)
from tests.support.outage import outage
from tests.support.postgresql import MakePlace, Place, PostgresServer

pytest_plugins = ["tests.support.postgresql"]
pytestmark = pytest.mark.fleet

SIDECARS, TOKENS = 8, 200
POLL = 2.0
VERDICT_TTL, MAX_STALENESS = 2.0, 8.0


@dataclass
class Answers:
    """Reasons of answers, and how long each of them took."""

    reasons: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def limit(self, promise: float) -> float:
        """Return what may be waited for: a promise, or where checks take long under the same load, twenty times the slow ones."""
        return max(promise, 20 * nearly_all(self.seconds))


def nearly_all(seconds: list[float]) -> float:
    """Return the 99th percentile."""
    return sorted(seconds)[int(len(seconds) * 0.99)]


@contextlib.asynccontextmanager
async def loaded(it: Fleet, tokens: list[Token]) -> AsyncIterator[Answers]:
    """Ask the sidecars about tokens all the time; what is given are the answers so far."""
    answers = Answers()

    async def load() -> None:
        while True:
            started = time.monotonic()
            reason = await it.ask(secrets.randbelow(len(it.channels)), secrets.choice(tokens))
            answers.seconds.append(time.monotonic() - started)
            answers.reasons[reason] += 1

    loading = [asyncio.create_task(load()) for _ in range(4)]
    try:
        yield answers
        assert not any(task.done() for task in loading)
    finally:
        for task in loading:
            task.cancel()
        await asyncio.wait(loading)


def told(what: str, seconds: list[float]) -> str:
    """Put figures into words."""
    return f"{what}: p50 {statistics.median(seconds):.3f} s, p99 {nearly_all(seconds):.3f} s, last {max(seconds):.3f} s"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_fleet_honours_revocations_within_a_second(
    make_place: MakePlace, postgresql: PostgresServer, tmp_path: Path, kind: str
) -> None:
    database = database_of(make_place(kind), postgresql, tmp_path)
    tokens = make(database.place, TOKENS)
    async with fleet(database.address, tmp_path, tokens, sidecars=SIDECARS) as it:
        admins = [SqlTokenStore(database.place, audit=AUDIT) for _ in range(2)]
        taken: list[float] = []
        waiting: list[asyncio.Task[None]] = []

        async def follow(sidecar: int, token: Token, revoked_at: float) -> None:
            # What is refused for another reason is no revocation that was honoured.
            _, at = await it.becomes(sidecar, token, [REVOKED], until_then=[ALLOWED])
            taken.append(at - revoked_at)

        async def revoke(admin: int, token: Token) -> None:
            change = Change(now(), f"admin-{admin}", "fleet test")
            await asyncio.to_thread(admins[admin].revoke, [token.id], "fleet test", change)
            revoked_at = time.monotonic()
            waiting.extend(asyncio.create_task(follow(sidecar, token, revoked_at)) for sidecar in range(SIDECARS))

        async with loaded(it, tokens) as answers:
            for first, second in zip(tokens[::2], tokens[1::2], strict=True):
                # They set out together: each wants its number while the other one has not committed.
                await asyncio.gather(revoke(0, first), revoke(1, second))
                await asyncio.sleep(0.2)  # why: the rate of revocations
            await asyncio.gather(*waiting)
        for admin in admins:
            with closing(admin):
                assert admin.verify_audit({"p1": AUDIT.key}) is None
    assert set(answers.reasons) == {ALLOWED, REVOKED}
    assert len(taken) == SIDECARS * TOKENS
    figures = told("after", taken), told("checks took", answers.seconds)
    sys.stdout.write(f"\n{kind}: {len(taken)} revocations honoured by {SIDECARS} sidecars, {'; '.join(figures)}\n")
    assert nearly_all(taken) <= 1.0
    assert max(taken) <= POLL + 1.0


@pytest.mark.parametrize("opened", [ShutDoor, Stalled, Killed], ids=["cut", "paused", "killed"])
async def test_known_tokens_outlast_a_database_in_trouble(
    make_place: MakePlace, postgresql: PostgresServer, tmp_path: Path, opened: type[ShutDoor]
) -> None:
    """Connections that are cut, and a server that is away for three seconds: less than the ten minutes of `max_staleness`."""
    database = opened(make_place("postgresql"), postgresql, tmp_path)
    known = make(database.place, 20)
    async with fleet(database.address, tmp_path, known, sidecars=2) as it:
        unknown = make(database.place, 5)
        async with loaded(it, known) as answers:
            await asyncio.to_thread(database.leave)
            left = time.monotonic()
            if opened is not ShutDoor:
                await it.miss_the_store()
                assert {await it.ask(0, token) for token in unknown} == {UNAVAILABLE}
                while time.monotonic() < left + 3:  # noqa: ASYNC110 - as long as the server is away
                    await asyncio.sleep(0.05)  # why: the server is away for so long
            await asyncio.to_thread(database.reach)
            await asyncio.to_thread(database.come_back)
            for token in unknown:
                await it.all_become(token, [ALLOWED], until_then=[UNAVAILABLE])
            seen = answers.reasons.total()
            while answers.reasons.total() < seen + 100:  # noqa: ASYNC110 - answers of other processes are counted
                await asyncio.sleep(0.01)  # why: answers of other processes are counted
    assert set(answers.reasons) == {ALLOWED}


Make = Callable[[Place, PostgresServer, Path], Database]
AWAY: dict[str, tuple[str, Make]] = {
    "file-moved": ("sqlite", lambda place, _, __: MovedFile(place)),
    "door-shut": ("postgresql", ShutDoor),
    "paused": ("postgresql", Paused),
    "killed": ("postgresql", Killed),
}


@pytest.mark.parametrize("fault", AWAY)
async def test_a_database_that_is_away_for_longer_than_it_may_be(
    make_place: MakePlace, postgresql: PostgresServer, tmp_path: Path, fault: str
) -> None:
    kind, opened = AWAY[fault]
    database = opened(make_place(kind), postgresql, tmp_path)
    known = make(database.place, 10)
    times = {"verdict_ttl": f"{VERDICT_TTL:.0f}s", "max_staleness": f"{MAX_STALENESS:.0f}s"}
    async with fleet(database.address, tmp_path, known, sidecars=SIDECARS, tokens=times) as it:
        async with loaded(it, known[3:]) as answers:
            phases = await outage(it, database, known[:3])
        # Beyond both times together nothing is left in memory, and the reason is another one.
        assert {ALLOWED, STALE} <= set(answers.reasons) <= {ALLOWED, STALE, UNAVAILABLE}
    sys.stdout.write(
        f"\n{fault}: {SIDECARS} sidecars, {told('known tokens served', phases.served)}; after its return: "
        f"{told('a revocation made meanwhile honoured', phases.honoured)}; {told('others served', phases.back)}\n"
    )
    # The last completed read is a poll interval old at most when the database goes.
    assert min(phases.served) >= MAX_STALENESS - POLL - 1.0
    assert max(phases.served) <= MAX_STALENESS + phases.leaving + answers.limit(1.0)
    assert max(phases.honoured + phases.back) <= answers.limit(POLL + 1.0)
