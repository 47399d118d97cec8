"""A fleet of 200 sidecars on a real PostgreSQL, in one process: does it ask what fleet_model.py computes? Run by hand.

Each sidecar is what `serve` makes of the settings: PostgresReader, PostgresFollower, Feed and IssuedVerifier. Lifetimes are shorter
than in earnest, so that a minute is enough. Statements are counted in the log of the server.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import fleet_model
from benchmarks.bench import machine
from benchmarks.fleet_model import Fleet
from benchmarks.fleet_world import FOLLOWER, RANDOM, READER, Database, Load, Sidecar, made, now, running
from extauthz.adapters.store.records import AuditExport, Change
from tests.support.database_proxy import Proxy
from tests.support.postgres_server import PostgresServer

TOKENS, SEEN, ADDED = 400, 20, 1000
LISTENING = Fleet(
    sidecars=200,
    tokens=SEEN,
    checks=10,
    strangers=1,
    changes=2,
    told=2,
    spread=SEEN / TOKENS,
    restarts=0,
    poll_interval=2,
    verdict_ttl=4,
)
POLLING = replace(LISTENING, listen=False, poll_interval=1)
WARM_UP, WINDOW = 5.0, 4.0

Counts = Counter[tuple[str, str]]


class CountingProxy(Proxy):
    """Counts bytes: what clients ask, and what the server answers."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(server)
        self.bytes = [0, 0]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(65536):
            self.bytes[answers] += len(data)
            writer.write(data)
            await writer.drain()


def row(name: str, computed: float, measured: float, unit: str = "/s") -> None:
    """Print one line: what was computed, what was measured, and the ratio."""
    ratio = f"{measured / computed:.2f}" if computed else ""
    print(f"  {name:<60} {computed:>10,.1f} {measured:>10,.1f} {unit:<8} {ratio:>6}")


async def until(condition: Callable[[], bool], seconds: float = 20) -> float:
    """Wait until something is true; return how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + seconds, "not in time"
        await asyncio.sleep(0.002)
    return time.monotonic() - started


async def wire(database: Database, *, listen: bool) -> None:
    """Print the bytes of a look-up, of a read of the feed, and of a change in one."""
    async with CountingProxy(database.server).running() as proxy:
        assert isinstance(proxy, CountingProxy)
        fleet = Fleet(sidecars=1, tokens=SEEN, listen=listen, poll_interval=0.5)
        sidecar = await Sidecar.start(fleet, database, folder=proxy.folder)
        ids = [record.id for _, record in database.tokens]

        async def asked(what: int, times: int) -> list[float]:
            """Return bytes there and back of one look-up (0) or read (1)."""
            before, reads = list(proxy.bytes), sidecar.reads
            if what == 0:
                for token_id in ids[:times]:
                    assert await sidecar.reader.find(token_id)
            else:
                await until(lambda: sidecar.reads >= reads + times)
                times = sidecar.reads - reads
            return [(after - earlier) / times for after, earlier in zip(proxy.bytes, before, strict=True)]

        await until(lambda: sidecar.reads == 1)
        await sidecar.reader.find(ids[0])
        look_up = await asked(0, 100)
        await until(lambda: sidecar.reads == 2)
        read = await asked(1, 2)
        database.add([record for _, record in (made() for _ in range(ADDED))])
        told = await asked(1, 1)
        await sidecar.stop()
    mode = "listening" if listen else "polling"
    for name, computed, measured in (
        ("look-up", fleet_model.LOOK_UP_BYTES[listen], look_up),
        ("read of the feed", fleet_model.FEED_BYTES[listen], read),
    ):
        row(f"{mode}: bytes of a {name}, asked", computed[0], measured[0], "bytes")
        row(f"{mode}: bytes of a {name}, answered", computed[1], measured[1], "bytes")
    row(f"{mode}: bytes of a change in a read", fleet_model.CHANGE_BYTES, (told[1] - read[1]) / ADDED, "bytes")


async def fleet_at_work(fleet: Fleet, database: Database) -> None:
    """Print the statements of a fleet that starts, and of one under load."""
    mode = "listening" if fleet.listen else "polling"
    async with AsyncExitStack() as stack:
        async with database.counted() as counts:
            sidecars = await stack.enter_async_context(running(fleet, database))
        asked = sum(count for (application, _), count in counts.items() if application in (READER, FOLLOWER))
        row(f"{mode}: statements of all starts", fleet.sidecars * fleet_model.AT_START[fleet.listen], asked, "")
        open_now = sum(database.server.connections(name) for name in (READER, FOLLOWER))
        row(f"{mode}: connections", fleet.connections, open_now, "")
        load = Load(fleet, sidecars, database)
        running_load = asyncio.create_task(load.run())
        await asyncio.sleep(WARM_UP)
        async with database.counted() as counts:
            changes = load.changes
            await asyncio.sleep(WINDOW)
            # They came by chance: what is computed from them takes as many as there were.
            fleet = replace(fleet, changes=(load.changes - changes) / WINDOW)
        row(f"{mode}: look-ups", fleet.look_ups, _rate(counts, READER, WINDOW))
        row(f"{mode}: reads of the feed", fleet.feed_reads, _rate(counts, FOLLOWER, WINDOW))
        statements = sum(_rate(counts, name, WINDOW) for name in (READER, FOLLOWER))
        spent, started = database.spent(), time.monotonic()
        await asyncio.sleep(WINDOW)
        processors = (database.spent() - spent) / (time.monotonic() - started)
        print(f"  {mode}: {processors:.2f} processors of the server, {processors / statements * 1e6:.0f} µs a statement")
        running_load.cancel()
        await asyncio.wait({running_load})
        assert not load.refused, load.refused


def _rate(counts: Counts, application: str, seconds: float) -> float:
    return sum(count for (name, _), count in counts.items() if name == application) / seconds


async def trouble(fleet: Fleet, database: Database) -> None:
    """Print what follows when every sidecar has to read everything anew, and when the server was killed."""
    async with running(fleet, database) as sidecars:
        everything = [(sidecar, token) for sidecar in sidecars for token in sidecar.tokens]
        await _verified(everything)
        generations = [sidecar.feed.generation for sidecar in sidecars]
        database.store.accept_restore(AuditExport((), {}, 0, 0, (0, "")), Change(now(), "fleet"))
        pairs = list(zip(sidecars, generations, strict=True))
        await until(lambda: all(sidecar.feed.generation > earlier for sidecar, earlier in pairs))
        RANDOM.shuffle(everything)
        async with database.counted() as counts:
            spent, started = database.spent(), time.monotonic()
            await _verified(everything)
            taken, spent = time.monotonic() - started, database.spent() - spent
        asked, fewest = fleet.rush
        row("a rush: statements, at least", fewest, counts[READER, "SELECT"], "")
        print(f"  a rush: {asked:,} look-ups in {taken:.2f} s with this one process, {spent:.2f} processor seconds of the server")
        load = Load(fleet, sidecars, database)
        running_load = asyncio.create_task(load.run())
        await asyncio.sleep(1)
        database.server.kill()
        await until(lambda: not any(sidecar.reader.reachable for sidecar in sidecars), 60)
        await asyncio.to_thread(database.server.start)
        reads = [sidecar.reads for sidecar in sidecars]
        both = list(zip(sidecars, reads, strict=True))
        back = await until(lambda: all(sidecar.reader.reachable and sidecar.reads > earlier for sidecar, earlier in both))
        print(
            f"  killed and started: all {fleet.connections} connections are back after {back:.2f} s; refused: {dict(load.refused)}"
        )
        running_load.cancel()
        await asyncio.wait({running_load})
        begin = time.monotonic()
        await asyncio.sleep(4 * fleet.poll_interval)
        phases = Counter(int((at - begin) * 10) for sidecar in sidecars for at in sidecar.read_at if at > begin)
        print(f"  {phases.total()} reads after that; {phases.most_common(1)[0][1]} of {fleet.sidecars} sidecars in the same 0.1 s")


async def _verified(asked: list[tuple[Sidecar, str]]) -> None:
    answers = [sidecar.verifier.verify(token, now()) for sidecar, token in asked]
    await asyncio.gather(*(answer for answer in answers if isinstance(answer, Awaitable)))


async def main() -> None:
    """Print everything."""
    logging.getLogger("extauthz").setLevel(logging.CRITICAL)
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    machine()
    print(fleet_model.table())
    server = PostgresServer()
    try:
        server.set(max_connections="1000", log_line_prefix="%a|", log_checkpoints="off")
        server.kill()
        server.start()
        print(f"\n  {LISTENING.sidecars} sidecars{'':<47} computed   measured")
        with Database.with_tokens(server, TOKENS) as database:
            for listen in (True, False):
                await wire(database, listen=listen)
            for fleet in (LISTENING, POLLING):
                await fleet_at_work(fleet, database)
            await trouble(POLLING, database)
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
