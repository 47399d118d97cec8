"""Sidecars without their servers, what they are sent, and the database that they share; for fleet_load.py."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import SystemRandom
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.fleet_model import Fleet
from extauthz.adapters.store.following import PostgresFollower
from extauthz.adapters.store.postgres import DatabaseLink, PostgresReader
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, fingerprint, mint
from extauthz.errors import Unavailable
from extauthz.ports import FeedBatch
from extauthz.process.clock import SystemClock
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.throttling import Budget
from extauthz.verifiers.verdicts import VerdictCache
from tests.support.postgres_server import PostgresServer
from tests.support.world import PEPPER

READER, FOLLOWER, ADMIN = "reader", "follower", "extauthz"
"""What the connections of the fleet and of the store are called on the server."""
RANDOM = SystemRandom()
CLOCK = SystemClock()
STALENESS = 600.0
LOGGED = re.compile(r"(?m)^(\w+)\|LOG:  (?:statement|execute [^:]*):\s+(\w+)")


def now() -> int:
    """Return the time: the tokens must live now."""
    return int(CLOCK.now())


def made() -> tuple[str, TokenRecord]:
    """Return text and record of a new token."""
    order = TokenRequest("fleet", AuthType.ANONYMOUS, frozenset({"SEARCH"}), now(), "fleet", now() + 3600)
    rules = TokenRules("glean", order.scopes, 1e9, ActAs())
    text, record = issue(order, rules, pepper_id="p1", pepper=PEPPER, entropy=os.urandom(ENTROPY_BYTES))
    return text.text, record


@dataclass
class Database:
    """A database with tokens, and what its server does."""

    server: PostgresServer
    name: str
    store: SqlTokenStore
    tokens: list[tuple[str, TokenRecord]]

    @classmethod
    @contextmanager
    def with_tokens(cls, server: PostgresServer, count: int) -> Iterator[Database]:
        """Yield a database of that server with so many tokens."""
        with server.database() as name, closing(SqlTokenStore(server.url(name), audit=AuditKey.of("p1", PEPPER))) as store:
            it = cls(server, name, store, [made() for _ in range(count)])
            it.add([record for _, record in it.tokens])
            yield it

    def add(self, records: list[TokenRecord]) -> None:
        """Add tokens in one commit."""
        self.store.add_many(records, {"p1": fingerprint(PEPPER)}, Change(now(), "fleet"))

    def rotate(self, old: TokenRecord) -> None:
        """Rotate a token that stays good for long."""
        _, successor = made()
        self.store.rotate(old.id, successor, now() + 3600, fingerprint(PEPPER), Change(now(), "fleet"))

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[Counter[tuple[str, str]]]:
        """Count the statements meanwhile, by application and first word, by what the server logs of them."""
        log, counts = self.server.socket_folder / "log", Counter[tuple[str, str]]()
        self.server.set(log_statement="all")
        await asyncio.sleep(0.3)
        begin = log.stat().st_size
        yield counts
        end = log.stat().st_size
        self.server.set(log_statement="none")
        with log.open("rb") as opened:
            opened.seek(begin)
            text = opened.read(end - begin).decode(errors="replace")
        counts.update((found[1], found[2].upper()) for found in LOGGED.finditer(text))

    def spent(self) -> float:
        """Return the seconds of processor time of all processes of the server."""
        postmaster = psutil.Process(self.server.pid)
        pids = [postmaster.pid, *(process.pid for process in postmaster.children())]
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


@dataclass
class Sidecar:
    """The parts of one sidecar that ask the database, and the tokens that it is sent."""

    reader: PostgresReader
    feed: Feed
    verifier: IssuedVerifier
    tokens: list[str]
    read_at: list[float] = field(default_factory=list)
    following: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, fleet: Fleet, database: Database, *, folder: Path | None = None) -> Sidecar:
        """Start one as `serve` does, by another socket if there is a folder."""
        feed = Feed(clock=CLOCK, memory=fleet.verdict_ttl + STALENESS)
        address = database.server.address
        where = address(database.name, application=READER, folder=folder)
        reader = PostgresReader(where, peppers={"p1": PEPPER}, clock=SystemClock(), prepare=fleet.listen)
        verifier = IssuedVerifier(
            reader,
            VerdictCache(Kind.ISSUED, bytes(32), lifetime=fleet.verdict_ttl + STALENESS, clock=CLOCK),
            feed,
            peppers={"p1": PEPPER},
            prefixes=frozenset({"glean"}),
            clock=CLOCK,
            budget=Budget(500, 64, clock=CLOCK),
            fresh=fleet.verdict_ttl,
            max_staleness=STALENESS,
            contact=3.0,
        )
        it = cls(reader, feed, verifier, [text for text, _ in RANDOM.sample(database.tokens, fleet.tokens)])
        await reader.open()
        link = DatabaseLink(address(database.name, application=FOLLOWER, folder=folder), None, prepare=fleet.listen)
        follower = PostgresFollower(
            link, position=lambda: feed.position, apply=it._apply, poll_interval=fleet.poll_interval, listen=fleet.listen
        )
        it.following = asyncio.create_task(follower.run())
        return it

    @property
    def reads(self) -> int:
        """How often the feed was read."""
        return len(self.read_at)

    def _apply(self, batch: FeedBatch) -> None:
        self.read_at.append(time.monotonic())
        self.feed.apply(batch)

    async def stop(self) -> None:
        """Close both connections."""
        if self.following is not None:
            self.following.cancel()
            await asyncio.wait({self.following})
        await self.reader.close()


@dataclass
class Load:
    """Checks, strangers and changes at random moments, each at its rate."""

    fleet: Fleet
    sidecars: list[Sidecar]
    database: Database
    refused: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    _tasks: set[asyncio.Future[Any]] = field(default_factory=set)

    async def run(self) -> None:
        """Go on until cancelled."""
        rates = {
            self._check: self.fleet.sidecars * self.fleet.checks,
            self._strange: self.fleet.sidecars * self.fleet.strangers,
            self._change: self.fleet.changes,
        }
        due = {act: time.monotonic() + RANDOM.expovariate(rate) for act, rate in rates.items() if rate}
        while True:
            for act in due:
                while due[act] <= time.monotonic():
                    act()
                    due[act] += RANDOM.expovariate(rates[act])
            await asyncio.sleep(0.002)

    def _check(self) -> None:
        sidecar = RANDOM.choice(self.sidecars)
        self._verify(sidecar, RANDOM.choice(sidecar.tokens))

    def _strange(self) -> None:
        self._verify(RANDOM.choice(self.sidecars), mint("glean", os.urandom(ENTROPY_BYTES)).text)

    def _change(self) -> None:
        _, old = self.database.tokens[self.changes]
        self.changes += 1
        self._keep(asyncio.to_thread(self.database.rotate, old))

    def _verify(self, sidecar: Sidecar, token: str) -> None:
        try:
            answer = sidecar.verifier.verify(token, CLOCK.now())
        except Unavailable as unavailable:
            self.refused[unavailable.reason.value] += 1
            return
        if isinstance(answer, Awaitable):
            self._keep(answer)

    def _keep(self, work: Awaitable[Any] | Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Unavailable):
            self.refused[error.reason.value] += 1


@asynccontextmanager
async def running(fleet: Fleet, database: Database) -> AsyncIterator[list[Sidecar]]:
    """Run the sidecars of a fleet until the end of the block; they start at any time within one poll interval."""

    async def start() -> Sidecar:
        await asyncio.sleep(RANDOM.random() * fleet.poll_interval)
        sidecar = await Sidecar.start(fleet, database)
        while not sidecar.reads:  # noqa: ASYNC110 - looked at once, at start
            await asyncio.sleep(0.01)
        return sidecar

    sidecars = list(await asyncio.gather(*(start() for _ in range(fleet.sidecars))))
    try:
        yield sidecars
    finally:
        await asyncio.gather(*(sidecar.stop() for sidecar in sidecars))
