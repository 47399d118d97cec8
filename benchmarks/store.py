"""Look-ups of `serve` among 1,000 and 1,000,000 issued tokens, and what a list of them costs; run by `make bench`.

A look-up is cold when the sidecar has nothing of the token in memory. The database has: what is measured is not a disk. Both sizes
are measured in turns, so that a busy machine slows both.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import allowed
from benchmarks.bench import TYPICAL, machine, microseconds, row
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.sinks import File
from extauthz.adapters.metrics import DecisionCounters
from extauthz.adapters.store import postgres, reader
from extauthz.adapters.store.database import TIMEOUT
from extauthz.adapters.store.postgres import PostgresReader
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.records import AuditKey, TokenFilter
from extauthz.adapters.store.rows import COLUMNS
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, fingerprint
from extauthz.errors import StoreError
from extauthz.process.clock import SystemClock
from extauthz.serve.decision_ids import decision_id
from extauthz.service import Authorizer
from extauthz.telemetry.recorders import Recorders
from tests.support.postgres_server import PostgresServer
from tests.support.world import PEPPER, World, bearer, check_request

SIZES = (1_000, 1_000_000)
ROUNDS, LOOK_UPS, SECONDS = 5, 2_000, 1.0
IN_FLIGHT = (32, 64)
PAGE = 100
NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
USED = "INSERT INTO token_usage SELECT id, created_at + 60, '10.0.0.1' FROM tokens"
SAMPLE = "SELECT id FROM tokens ORDER BY random() LIMIT 20000"
_LETTERS = bytes.maketrans(b"+/", b"Az")

Find = Callable[[str], TokenRecord | Awaitable[TokenRecord | None] | None]


@dataclass(slots=True)
class Shelf:
    """A store of one size as `serve` reads it, and as the command line does."""

    kind: str
    size: int
    token: str
    ids: list[str]
    reader: SqliteReader | PostgresReader
    store: SqlTokenStore
    plan: list[str]

    @property
    def find(self) -> Find:
        """The look-up of `serve`."""
        return self.reader.find


def now() -> int:
    """Return the time: the tokens must live now."""
    return int(time.time())  # noqa: TID251


def rows(kind: str, count: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows of `tokens` with random ids, one made each second up to now."""
    begin, life = now() - count, 365 * 86400
    for number in range(count):
        if sys.stderr.isatty() and number % 50_000 == 0:
            sys.stderr.write(f"\r{kind}: {number:,} of {count:,} tokens ")
        token_id = base64.b64encode(os.urandom(9)).translate(_LETTERS).decode()
        made, user = begin + number, f"user-{number % 50_000}@acme.com"
        yield token_id, "benchmark", "USER", user, '["SEARCH"]', made, "bench", made + life, "p1", os.urandom(32), None, None
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


@contextmanager
def opened(where: Path | str) -> Iterator[tuple[SqlTokenStore, str]]:
    """Make a store with one token that is issued as any other; yield it and the token's text."""
    with closing(SqlTokenStore(where, create=True, audit=AuditKey.of("p1", PEPPER))) as store:
        store.migrate()
        order = TokenRequest("benchmark", AuthType.ANONYMOUS, frozenset({"SEARCH"}), now() - 60, "bench", now() + 86400)
        rules = TokenRules("glean", order.scopes, 1e9, ActAs())
        text, record = issue(order, rules, pepper_id="p1", pepper=PEPPER, entropy=os.urandom(ENTROPY_BYTES))
        store.add(record, fingerprint(PEPPER))
        yield store, text.text


@asynccontextmanager
async def sqlite(folder: Path, size: int) -> AsyncIterator[Shelf]:
    """Yield a file with so many tokens; the triggers of the schema see each of them."""
    path = folder / f"{size}.db"
    with opened(path) as (store, token):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in ("PRAGMA synchronous = OFF", "PRAGMA cache_size = -400000", "BEGIN"):
                connection.execute(statement)
            marks = ", ".join("?" * len(COLUMNS))
            connection.executemany(f"INSERT INTO tokens ({NAMES}) VALUES ({marks})", rows("SQLite", size))  # noqa: S608
            for statement in (USED, "COMMIT", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.execute(statement)
            ids = [found[0] for found in connection.execute(SAMPLE)]
            plan = [str(line[-1]) for line in connection.execute(f"EXPLAIN QUERY PLAN {reader._FIND}", (ids[0],))]
        with closing(SqliteReader(path)) as finder:
            yield Shelf("SQLite", size, token, ids, finder, store, plan)


@asynccontextmanager
async def postgresql(server: PostgresServer, size: int) -> AsyncIterator[Shelf]:
    """Yield a database with so many tokens; the triggers of the schema see each of them."""
    with server.database() as name, opened(server.url(name)) as (store, token):
        with server.connect(name) as connection:
            connection.execute("SET synchronous_commit = off")
            with connection.cursor().copy(f"COPY tokens ({NAMES}) FROM STDIN") as copy:
                for values in rows("PostgreSQL", size):
                    copy.write_row(values)
            connection.execute(USED)
            connection.execute("VACUUM ANALYZE")
            ids = [found[0] for found in connection.execute(SAMPLE).fetchall()]
            explained = connection.execute(f"EXPLAIN {postgres._FIND}", (ids[:1],))
            plan = [str(line[0]).replace(ids[0], "…") for line in explained.fetchall()]
        finder = PostgresReader(server.url(name), peppers={"p1": PEPPER}, clock=SystemClock())
        await finder.open()
        try:
            yield Shelf("PostgreSQL", size, token, ids, finder, store, plan)
        finally:
            await finder.close()


async def one_at_a_time(find: Find, ids: Iterator[str]) -> list[float]:
    """Return how long some look-ups took, in microseconds."""
    taken = []
    for token_id in itertools.islice(ids, LOOK_UPS):
        started = time.perf_counter()
        found = find(token_id)
        if not isinstance(found, TokenRecord):
            assert found is not None
            found = await found
        taken.append((time.perf_counter() - started) * 1e6)
        assert found is not None
        assert found.id == token_id
    return taken


async def at_once(find: Find, ids: Iterator[str], number: int) -> float:
    """Return look-ups per second with so many under way, each asker waiting for its answer."""
    done, end = 0, time.perf_counter() + SECONDS

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < end:
            found = find(next(ids))
            assert found is not None
            if not isinstance(found, TokenRecord):
                await found
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(number)))
    return done / (time.perf_counter() - started)


async def look_ups(shelves: list[Shelf]) -> None:
    """Print the look-ups of all sizes of one database."""
    turns = [itertools.cycle(shelf.ids) for shelf in shelves]
    taken: list[list[float]] = [[] for _ in shelves]
    rates: dict[tuple[int, int], list[float]] = {}
    for _ in range(ROUNDS):
        for index, shelf in enumerate(shelves):
            taken[index] += await one_at_a_time(shelf.find, turns[index])
            for number in IN_FLIGHT if shelf.kind == "PostgreSQL" else (1,):
                rates.setdefault((index, number), []).append(await at_once(shelf.find, turns[index], number))
    goal = "goal p50 ≤ 300 µs" if shelves[0].kind == "PostgreSQL" else "goal p50 ≤ 50 µs"
    medians = [statistics.median(each) for each in taken]
    for shelf, each, median in zip(shelves, taken, medians, strict=True):
        p99 = statistics.quantiles(each, n=100)[98]
        row(f"{shelf.kind}, {shelf.size:,} tokens, one at a time", f"p50 {median:.0f} µs, p99 {p99:.0f} µs", goal)
    row(f"{shelves[0].kind}, p50 of the largest to the smallest", f"{medians[-1] / medians[0]:.2f}", "goal ≤ 1.5")
    for (index, number), measured in sorted(rates.items()):
        shelf = shelves[index]
        told = f"{number} in flight" if number > 1 else "one after the other"
        goal = "goal ≥ 25,000/s" if number > 1 else ""
        row(f"{shelf.kind}, {shelf.size:,} tokens, {told}", f"{statistics.median(measured):,.0f}/s", goal)


async def warm(folder: Path, shelf: Shelf) -> float:
    """Print and return the microseconds of a check of a token that is in memory: no store is asked, so none should matter."""
    world = World(folder, [{"match": "POST /search", "scope": "SEARCH", "anonymous": True}])
    world.clock.wall = now()
    world.store = shelf.reader  # type: ignore[assignment]
    log = DecisionLog(File(Path(os.devnull)), capacity=100)
    recorders = Recorders((DecisionCounters(now=SystemClock.now), log))
    authorizer = Authorizer(world.build().runtime, recorders, clock=SystemClock(), decision_ids=decision_id)
    data = check_request("POST", "/search", (TYPICAL | bearer(shelf.token)).items())
    first = authorizer.check(data)
    told = first if isinstance(first, bytes) else await first
    judge = allowed(None)
    judge(told)
    taken = microseconds(lambda: authorizer.check(data), 5000, judge)
    row(f"{shelf.kind}, {shelf.size:,} tokens, warm check", f"{taken:.1f} µs")
    log.close()
    return taken


def pages(shelf: Shelf) -> None:
    """Print how long `token list` takes for a page by where it stands."""
    at, last = now(), shelf.size
    for name, after in (("start", None), ("middle", (at - last // 2, "")), ("end", (at - last + PAGE, ""))):
        taken = microseconds(lambda after=after: shelf.store.page(TokenFilter(active_at=at), after, PAGE), 5)
        row(f"{shelf.kind}, {shelf.size:,} tokens, page at the {name}", f"{taken / 1000:.1f} ms")


def scans(shelf: Shelf) -> None:
    """Print what cannot be answered by an index: a filter that nothing meets, and counting."""
    at = now()
    asked = {
        "a scope that none has": lambda: shelf.store.page(TokenFilter(active_at=at, scope="CHAT"), None, PAGE),
        "unused for longer than any": lambda: shelf.store.page(TokenFilter(active_at=at, unused_since=0), None, PAGE),
        "store status": lambda: shelf.store.status(at),
    }
    goal = f"the server gives up after {TIMEOUT:g} s" if shelf.kind == "PostgreSQL" else ""
    for name, ask in asked.items():
        started = time.perf_counter()
        try:
            ask()
            took = f"{(time.perf_counter() - started) * 1000:.0f} ms"
        except StoreError:
            took = f"> {TIMEOUT:g} s"
        row(f"{shelf.kind}, {shelf.size:,} tokens, {name}", took, goal)


async def measure(kind: str, shelves: list[Shelf], folder: Path) -> None:
    """Print everything about one database."""
    await look_ups(shelves)
    taken = [await warm(folder / f"{kind}-{shelf.size}", shelf) for shelf in shelves]
    row(f"{shelves[0].kind}, warm check of the largest to the smallest", f"{taken[-1] / taken[0]:.2f}", "goal: unchanged")
    for shelf in shelves:
        pages(shelf)
    scans(shelves[-1])
    for shelf in shelves:
        print(f"  plan of a look-up among {shelf.size:,} tokens:")
        for line in shelf.plan:
            print(f"    {line}")


async def main() -> None:
    """Print everything."""
    machine()
    server = PostgresServer()
    try:
        with server.connect() as connection:
            found = connection.execute("SHOW server_version").fetchone()
        print(f"PostgreSQL {found and found[0]} on a unix socket, psycopg {version('psycopg')}, SQLite {sqlite3.sqlite_version}")
        print(f"look-ups: {ROUNDS} rounds of {LOOK_UPS:,} one at a time, of {SECONDS:g} s with many in flight\n")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for kind, place in (("sqlite", folder), ("postgresql", server)):
                async with AsyncExitStack() as stack:
                    started = time.perf_counter()
                    make: Any = sqlite if kind == "sqlite" else postgresql
                    shelves = [await stack.enter_async_context(make(place, size)) for size in SIZES]
                    if sys.stderr.isatty():
                        sys.stderr.write(f"{kind}: filled in {time.perf_counter() - started:.0f} s\n")
                    await measure(kind, shelves, folder)
                print()
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
