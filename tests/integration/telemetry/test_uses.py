"""When and from where a token was last used: what is noted of a check, what is written, and what a store in trouble costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from extauthz.adapters.store import usage
from extauthz.adapters.store.following import SqliteFollower
from extauthz.adapters.store.postgres import WRITE_TIME, PostgresUsage
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.adapters.store.usage import SqliteUsage
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request
from extauthz.errors import Unavailable
from extauthz.ports import RESOLUTION, FeedBatch, Use
from extauthz.telemetry.last_used import BATCH, CLOSING, LastUsedTimes, network
from extauthz.verifiers.change_feed import Feed
from tests.support.postgresql import ANA, KEY, NOW, MakePlace, Place, fill, token, use
from tests.support.unprivileged import unprivileged
from tests.support.virtual_time import LoopClock, elapse, in_virtual_time
from tests.support.waiting import until
from tests.support.world import DECISION_ID, MakeWorld, StillClock, bearer, check_request, oauth, sign

pytest_plugins = ["tests.support.postgresql"]

A, B, C = (letter * 12 for letter in "abc")
AT_ONCE = 5.0
"""Seconds within which something ends that does not wait for a server."""
PATIENCE = 20.0
"""Seconds that a test waits for what has to come, also on a busy machine."""


class Kept:
    """A store that keeps what it is told, out of reach or slow when a test says so."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Use]] = []
        self.fault: Exception | None = None
        self.slow = asyncio.Event()
        self.slow.set()
        self.begun = 0

    async def record_usage(self, uses: Mapping[str, Use]) -> int:
        self.begun += 1
        await self.slow.wait()
        if self.fault:
            raise self.fault
        self.batches.append(dict(uses))
        return len(uses)


class Dice:
    """Chance that a test loads."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self) -> float:
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


class Recording:
    """Uses on a store of the test's own, at a time of its own."""

    def __init__(self, *dice: float, interval: float = 60.0, capacity: int = 100, most_waiting: int = 50) -> None:
        self.clock = StillClock(NOW)
        self.store = Kept()
        self.uses = LastUsedTimes(
            self.store,
            clock=self.clock,
            random=Dice(*(dice or (0.0,))),
            interval=interval,
            capacity=capacity,
            most_waiting=most_waiting,
        )

    def used(self, *token_ids: str, source: str = "203.0.113.7") -> None:
        """Allow a request with each of these tokens."""
        for token_id in token_ids:
            self.uses.record(request(source), allowed(token_id), 0.001)

    async def written(self) -> dict[str, Use]:
        """Write, and return what was written by that."""
        count = len(self.store.batches)
        await self.uses.write()
        return {token_id: each for batch in self.store.batches[count:] for token_id, each in batch.items()}


def request(source: str = "203.0.113.7") -> Request:
    return Request("POST", "/search", "api.acme.com", {}, raw=True, decision_id=DECISION_ID, source=source)


def identity(token_id: str, auth_type: AuthType = AuthType.USER) -> Identity:
    own = None if auth_type is AuthType.OAUTH else token_id
    return Identity(auth_type, f"token:{token_id}", "ana@acme.com", frozenset({"SEARCH"}), NOW + 60, token_id=own)


def allowed(token_id: str, auth_type: AuthType = AuthType.USER) -> Allow:
    return Allow(Reason.ALLOWED, "r", HeaderEdits((), ()), identity(token_id, auth_type))


# --- from where


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("10.1.2.255", "10.1.2.0/24"),
        ("255.255.255.255", "255.255.255.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("2001:0DB8:0001:0000::", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("::1", "::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff::/48"),
        ("", "unknown"),
        ("unknown", "unknown"),
        ("203.0.113.77:4711", "unknown"),
        ("203.0.113.077", "unknown"),
        ("203.0.113.0/24", "unknown"),
        ("1234", "unknown"),
        (" 10.0.0.1", "unknown"),
        ("@/run/envoy.sock", "unknown"),
        ("10.0.0.1\x00", "unknown"),
        ("\udc80", "unknown"),
        ("1" * 100_000, "unknown"),
    ],
)
def test_an_address_is_told_by_its_network(source: str, expected: str) -> None:
    assert network(source) == expected
    assert len(network(source)) <= 64


# --- what is noted


DECISIONS: dict[str, tuple[Decision, bool]] = {
    "USER": (allowed(A), True),
    "GLOBAL": (allowed(A, AuthType.GLOBAL), True),
    "ANONYMOUS": (allowed(A, AuthType.ANONYMOUS), True),
    "OAuth": (Allow(Reason.ALLOWED, "r", HeaderEdits((), ()), identity("oauth:okta:ana", AuthType.OAUTH)), False),
    "OAuth that calls itself a token": (
        Allow(Reason.ALLOWED, "r", HeaderEdits((), ()), identity(A, AuthType.OAUTH)),
        False,
    ),
    "public": (Allow(Reason.PUBLIC, "r", HeaderEdits((), ())), False),
    "refused, known": (Deny(Reason.SCOPE_MISSING, "r", identity(A)), False),
    "refused": (Deny(Reason.TOKEN_EXPIRED, "r"), False),
}


@pytest.mark.parametrize(("decision", "is_noted"), DECISIONS.values(), ids=DECISIONS.keys())
async def test_an_issued_token_that_was_allowed_is_noted(decision: Decision, *, is_noted: bool) -> None:
    world = Recording()
    world.uses.record(request(), decision, 0.001)
    assert await world.written() == ({A: (NOW, "203.0.113.0/24")} if is_noted else {})
    assert world.uses.written == is_noted


async def test_a_refusal_hides_no_later_use() -> None:
    world = Recording()
    world.uses.record(request(), Deny(Reason.SCOPE_MISSING, "r", identity(A)), 0.001)
    world.used(A)
    assert list(await world.written()) == [A]


@pytest.mark.parametrize(("chance", "pause"), [(0.0, RESOLUTION), (0.5, 1050), (0.999999, 1200)])
async def test_a_token_is_noted_again_after_a_quarter_of_an_hour_and_some_chance(chance: float, pause: float) -> None:
    world = Recording(chance)
    world.used(A)
    assert await world.written() == {A: (NOW, "203.0.113.0/24")}
    for _ in range(4):
        world.clock.advance(pause / 4 - 0.01)
        world.used(A, source="198.51.100.1")
    assert await world.written() == {}
    world.clock.advance(0.04)
    world.used(A, source="198.51.100.1")
    assert await world.written() == {A: (int(world.clock.wall), "198.51.100.0/24")}


async def test_tokens_that_came_together_do_not_come_together_again() -> None:
    world = Recording(0.0, 0.3, 0.6, 0.9)
    names = [f"{number:012}" for number in range(4)]
    world.used(*names)
    assert len(await world.written()) == 4
    again = []
    for _ in range(4):
        world.clock.advance(300.0)
        world.used(*names)
        again.append(len(await world.written()))
    assert again == [0, 0, 1, 3]


async def test_the_wall_clock_may_go_back() -> None:
    world = Recording()
    world.used(A)
    world.clock.wall -= 3600
    world.used(A)
    world.clock.ticks += RESOLUTION + 1
    world.used(A)
    assert await world.written() == {A: (NOW - 3600, "203.0.113.0/24")}


async def test_nothing_grows_without_end() -> None:
    world = Recording(capacity=10, most_waiting=5)
    world.used(*(f"{number:012}" for number in range(1000)))
    assert (world.uses.waiting, world.uses.dropped, len(world.uses._noted)) == (5, 995, 10)
    assert list(await world.written()) == [f"{number:012}" for number in range(5)]
    assert (world.uses.waiting, world.uses.written) == (0, 5)


async def test_what_was_too_much_is_noted_soon_after() -> None:
    world = Recording(most_waiting=1)
    world.used(A, B, B, B)
    assert world.uses.dropped == 1
    assert list(await world.written()) == [A]
    world.used(A, B)
    assert await world.written() == {}
    world.clock.advance(61)
    world.used(A, B)
    assert list(await world.written()) == [B]


async def test_the_longest_ago_is_forgotten_first() -> None:
    world = Recording(capacity=2)
    world.used(A, B)
    world.clock.advance(RESOLUTION + 1)
    world.used(A, C)
    await world.written()
    world.used(A, C)
    assert await world.written() == {}
    world.used(B)
    assert list(await world.written()) == [B]


# --- what is written


async def test_what_cannot_be_written_waits_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = Recording()
    world.used(A)
    world.store.fault = Unavailable(Reason.STORE_UNAVAILABLE)
    world.store.fault.__cause__ = sqlite3.OperationalError("attempt to write a readonly database")
    for _ in range(3):
        await world.uses.write()
        world.clock.advance(60)
        world.used(A, B)
    assert (world.uses.waiting, world.uses.written, world.uses.dropped) == (2, 0, 0)
    world.store.fault = None
    assert await world.written() == {A: (NOW, "203.0.113.0/24"), B: (NOW + 60, "203.0.113.0/24")}
    assert (world.uses.waiting, world.uses.written) == (0, 2)
    assert [(record.getMessage(), getattr(record, "cause", None)) for record in caplog.records] == [
        ("uses of tokens cannot be written", "attempt to write a readonly database"),
        ("uses of tokens are written again", None),
    ]
    assert caplog.records[0].exc_info is None


async def test_many_are_written_one_batch_after_the_other() -> None:
    world = Recording(capacity=5000, most_waiting=2500)
    world.used(*(f"{number:012}" for number in range(3000)))
    assert len(await world.written()) == 2500
    assert [len(batch) for batch in world.store.batches] == [BATCH, BATCH, 500]
    assert (world.uses.waiting, world.uses.written, world.uses.dropped) == (0, 2500, 500)


async def test_a_fault_that_nobody_thought_of_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = Recording(interval=0.01)
    world.used(A)
    world.store.fault = ZeroDivisionError("a problem")
    running = asyncio.create_task(world.uses.run())
    await until(lambda: world.store.begun >= 5)
    world.store.fault = None
    await until(lambda: not world.uses.waiting)
    running.cancel()
    await asyncio.wait({running})
    assert "ZeroDivisionError" in caplog.text
    assert len(caplog.records) == 2


async def test_a_use_that_comes_while_another_is_written_is_not_lost() -> None:
    world = Recording()
    world.used(A)
    world.store.slow.clear()
    writing = asyncio.create_task(world.uses.write())
    await asyncio.sleep(0)
    world.clock.advance(RESOLUTION + 1)
    world.used(A, B)
    world.store.slow.set()
    await writing
    assert world.store.batches == [{A: (NOW, "203.0.113.0/24")}]
    later = (NOW + RESOLUTION + 1, "203.0.113.0/24")
    assert await world.written() == {A: later, B: later}


async def test_batches_come_at_about_every_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Recording(0.0, 0.25, 0.5, 0.75, interval=0.2)
    pauses: list[float] = []
    enough = asyncio.Event()
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            enough.set()
        await sleep(0)

    monkeypatch.setattr("extauthz.telemetry.last_used.asyncio.sleep", note)
    world.used(A)
    running = asyncio.create_task(world.uses.run())
    await asyncio.wait_for(enough.wait(), PATIENCE)
    running.cancel()
    await asyncio.wait({running})
    assert pauses[:3] == pytest.approx([0.15, 0.2, 0.25])
    assert [list(batch) for batch in world.store.batches] == [[A]], "and only what is there is written"


async def test_the_last_batch_is_written_and_waited_for_half_a_second(caplog: pytest.LogCaptureFixture) -> None:
    world = Recording()
    world.used(A)
    running = asyncio.create_task(world.uses.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    await world.uses.close()
    assert [list(batch) for batch in world.store.batches] == [[A]]
    assert caplog.records == []
    world.used(B)
    world.store.slow.clear()
    started = time.monotonic()
    await world.uses.close()
    assert CLOSING - 0.05 < time.monotonic() - started < PATIENCE
    assert [record.getMessage() for record in caplog.records] == ["uses of tokens are lost"]


def test_uses_are_written_about_once_a_minute_and_half_a_second_at_the_end() -> None:
    """The pauses lie around a minute by chance, so that a fleet does not write at once."""

    class Slow:
        def __init__(self) -> None:
            self.begun: list[float] = []

        async def record_usage(self, uses: Mapping[str, Use]) -> int:
            self.begun.append(asyncio.get_running_loop().time())
            if len(self.begun) > 3:
                await elapse(3600)
            return len(uses)

    async def work(store: Slow) -> float:
        # Each use draws too, when it is noted.
        chances = iter([0.5, 0.0, 0.5, 0.5, 0.999, 0.5])
        now = asyncio.get_running_loop().time
        uses = LastUsedTimes(store, clock=LoopClock(), random=lambda: next(chances, 0.5))
        writing = asyncio.create_task(uses.run())
        for _ in range(3):
            # One token after the other: each of them is noted at most every quarter of an hour.
            uses.record(request(), allowed(f"{now():012}"), 0.001)
            count = len(store.begun)
            while len(store.begun) == count:
                await elapse(0.1)
        writing.cancel()
        await asyncio.wait({writing})
        uses.record(request(), allowed(A), 0.001)
        began = now()
        await uses.close()
        return round(now() - began, 3)

    store = Slow()
    assert in_virtual_time(lambda: work(store)) == 0.5
    first, second, third, _ = store.begun
    assert (first, second - first, third - second) == pytest.approx((30, 60, 90), abs=0.5)


async def test_a_batch_that_is_cut_off_waits() -> None:
    world = Recording(interval=0.0)
    world.used(A)
    world.store.slow.clear()
    running = asyncio.create_task(world.uses.run())
    await until(lambda: world.store.begun)
    running.cancel()
    await asyncio.wait({running})
    assert world.uses.waiting == 1
    world.store.slow.set()
    await world.uses.close()
    assert [list(batch) for batch in world.store.batches] == [[A]]


# --- from bytes


def test_where_a_client_comes_from_is_what_envoy_saw(make_world: MakeWorld) -> None:
    """And not what the client says."""
    world = make_world([{"match": "POST /search", "scope": "SEARCH"}])
    recording = Recording()
    world.authorizer._recorder = recording.uses
    issued = world.token("GLOBAL")
    headers = bearer(issued, x_scio_actas="ana@acme.com", x_forwarded_for="198.51.100.1", forwarded="for=198.51.100.2")
    for form in ("raw", "map"):
        world.authorizer.check(check_request("POST", "/search", headers.items(), form=form, source="2001:db8:7::1"))
    world.authorizer.check(check_request("POST", "/search", oauth(sign({})).items()))
    world.authorizer.check(check_request("POST", "/nowhere", headers.items()))
    assert recording.uses._waiting == {issued.split("_")[1]: (NOW, "2001:db8:7::/48")}


# --- writing to a file


@pytest.fixture
def file(make_place: MakePlace) -> Place:
    place = make_place("sqlite")
    with place.opened() as store:
        fill(store, token(A), token(B))
    return place


@pytest.fixture
def reader(file: Place) -> Iterator[SqliteReader]:
    assert isinstance(file.where, Path)
    with closing(SqliteReader(file.where)) as opened:
        yield opened


def used_at(place: Place) -> dict[str, int]:
    return dict(place.rows("SELECT token_id, last_used_at FROM token_usage"))


def log_of(place: Place) -> int:
    """Return the size of the write-ahead log."""
    log = Path(f"{place.where}-wal")
    return log.stat().st_size if log.exists() else 0


async def test_a_write_moves_the_file_and_nothing_in_the_feed(file: Place, reader: SqliteReader) -> None:
    clock = StillClock()
    feed = Feed(clock=clock, memory=660.0)
    batches: list[FeedBatch] = []

    def apply(batch: FeedBatch) -> None:
        batches.append(batch)
        feed.apply(batch)

    follower = SqliteFollower(reader, position=lambda: feed.position, apply=apply, poll_interval=600.0, look_interval=0.01)
    following = asyncio.create_task(follower.run())
    await until(lambda: feed.generation == 1)
    mark, version = feed.mark, reader.version()
    for number in range(5):
        read = len(batches)
        assert await SqliteUsage(reader).record_usage({A: (NOW + 1000 * number, "10.0.0.0/24")}) == 1
        await until(lambda read=read: len(batches) > read)  # type: ignore[misc]
    assert reader.version() != version
    assert (feed.mark, feed.rewound, feed.changed_since(A, mark)) == (mark, False, False)
    with file.opened() as store:
        store.revoke([A], None, ANA)
    await until(lambda: feed.mark != mark)
    assert feed.mark[0] == mark[0]
    assert (feed.changed_since(A, mark), feed.changed_since(B, mark)) == (True, False)
    following.cancel()
    await asyncio.wait({following})


def test_no_log_is_left_that_a_restored_file_would_be_read_with(file: Place, reader: SqliteReader, tmp_path: Path) -> None:
    assert isinstance(file.where, Path)
    backup = shutil.copy(file.where, tmp_path / "backup.db")
    SqliteUsage(reader).write({A: (NOW, "")})
    assert log_of(file) == 0
    os.replace(backup, file.where)
    reader.version()
    assert reader.find(A) is not None
    assert used_at(file) == {}


def test_a_file_that_was_just_replaced_is_not_written_to(file: Place, reader: SqliteReader, tmp_path: Path) -> None:
    """Until the reader has found it to be whole: an old log beside it would be written into it for good."""
    assert isinstance(file.where, Path)
    other = shutil.copy(file.where, tmp_path / "other.db")
    with file.raw() as connection:
        connection.execute("UPDATE tokens SET description = 'in the log'")
        os.replace(other, file.where)
        before = file.where.read_bytes()
        with pytest.raises(Unavailable):
            SqliteUsage(reader).write({A: (NOW, "")})
        with pytest.raises(Unavailable):
            reader.version()
        with pytest.raises(Unavailable):
            SqliteUsage(reader).write({A: (NOW, "")})
        assert file.where.read_bytes() == before
    for suffix in ("-wal", "-shm"):
        Path(f"{file.where}{suffix}").unlink(missing_ok=True)
    reader.version()
    assert SqliteUsage(reader).write({A: (NOW, "")}) == 1


def test_a_file_that_went_away_is_not_made_anew(file: Place, reader: SqliteReader) -> None:
    assert isinstance(file.where, Path)
    folder = file.where.parent
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(Unavailable):
        SqliteUsage(reader).write({A: (NOW, "")})
    assert list(folder.iterdir()) == []


def test_another_writer_is_not_waited_for_long(file: Place, reader: SqliteReader) -> None:
    with file.raw() as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(Unavailable):
            SqliteUsage(reader).write({A: (NOW, "")})
        assert usage.BUSY_TIMEOUT < CLOSING, "and the last batch, too, is written or lost within that"
        assert usage.BUSY_TIMEOUT - 0.1 < time.monotonic() - started < AT_ONCE
        other.execute("COMMIT")
    assert SqliteUsage(reader).write({A: (NOW, "")}) == 1


def test_a_look_up_waits_for_no_write_in_a_restored_file(file: Place, reader: SqliteReader, tmp_path: Path) -> None:
    """It has no log before somebody writes, and without one readers and writers keep each other out."""
    assert isinstance(file.where, Path)
    with file.opened() as store:
        store.backup(tmp_path / "backup.db")
    os.replace(tmp_path / "backup.db", file.where)
    reader.version()
    assert file.rows("PRAGMA journal_mode") == [("delete",)]
    assert SqliteUsage(reader).write({A: (NOW, "")}) == 1
    assert file.rows("PRAGMA journal_mode") == [("wal",)]
    reader.version()
    assert reader.find(A) is not None


def test_a_store_that_is_read_only_is_served_and_not_written_to(sqlite_template: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = Path(shutil.copy(sqlite_template, folder / "tokens.db"))
        with closing(SqlTokenStore(path, audit=KEY)) as store:
            fill(store, token(A))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        path.chmod(0o444)
        folder.chmod(0o555)
        with unprivileged(), closing(SqliteReader(path)) as reader:
            uses = LastUsedTimes(SqliteUsage(reader), clock=StillClock(NOW), random=Dice(0.0))
            uses.record(request(), allowed(A), 0.001)
            for _ in range(3):
                asyncio.run(uses.write())
                reader.version()
                assert reader.find(A) is not None
            asyncio.run(uses.close())
        folder.chmod(0o755)
    assert (uses.waiting, uses.written) == (1, 0)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["uses of tokens cannot be written", "uses of tokens are lost"]
    assert "readonly" in caplog.records[0].cause  # type: ignore[attr-defined]


# --- writing to PostgreSQL


@pytest.fixture
def server(make_place: MakePlace) -> Place:
    place = make_place("postgresql")
    with place.opened() as store:
        fill(store, token(A), token(B))
    return place


@contextlib.asynccontextmanager
async def writing(place: Place) -> AsyncIterator[PostgresUsage]:
    """Open what writes; nothing of it is left afterwards."""
    writer = PostgresUsage(str(place.where) + "&application_name=uses")
    try:
        yield writer
    finally:
        # A cancelled query of psycopg would hold it for ten seconds.
        await asyncio.wait_for(writer.close(), AT_ONCE)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def connections(place: Place) -> int:
    return int(place.rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'uses'")[0][0])


async def test_no_connection_is_held_between_two_batches(server: Place) -> None:
    async with writing(server) as writer:
        for number in range(3):
            assert await writer.record_usage({A: (NOW + 1000 * number, "10.0.0.0/24"), C: (NOW, "")}) == 1
            await until(lambda: not connections(server), seconds=PATIENCE)
    assert used_at(server) == {A: NOW + 2000}


async def test_a_row_that_is_locked_is_not_waited_for_long(server: Place) -> None:
    async with writing(server) as writer:
        await writer.record_usage({A: (NOW, "")})
        with server.raw() as other, other.transaction():
            other.execute("UPDATE token_usage SET last_used_at = last_used_at")
            started = time.monotonic()
            with pytest.raises(Unavailable):
                await writer.record_usage({A: (NOW + 1000, "")})
            assert WRITE_TIME - 0.1 < time.monotonic() - started < WRITE_TIME + AT_ONCE
        await writer.record_usage({A: (NOW + 1000, "")})
    assert used_at(server) == {A: NOW + 1000}


async def test_a_server_that_is_away_or_refuses_is_unavailable(server: Place) -> None:
    for address in ("&host=/nowhere", "&options=-c%20role%3Dpg_monitor"):
        async with writing(Place(server.kind, f"{server.where}{address}")) as writer:
            with pytest.raises(Unavailable):
                await writer.record_usage({A: (NOW, "")})
    server.run("ALTER TABLE token_usage RENAME TO away")
    async with writing(server) as writer:
        with pytest.raises(Unavailable):
            await writer.record_usage({A: (NOW, "")})


async def test_who_stops_waiting_leaves_nothing(server: Place) -> None:
    async with writing(server) as writer:
        await writer.record_usage({A: (NOW, "")})
        with server.raw() as other, other.transaction():
            other.execute("UPDATE token_usage SET last_used_at = last_used_at")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.record_usage({A: (NOW + 1000, "")}), 0.2)
    await until(lambda: not connections(server), seconds=PATIENCE)


async def test_sidecars_that_write_the_same_rows_get_out_of_each_others_way(server: Place) -> None:
    """In whatever order their tokens came: with rows locked in another order, some of them would deadlock."""
    names = [f"{number:012}" for number in range(2000)]
    with server.opened() as store:
        store.add_many([token(name) for name in names], {"p1": "f" * 16}, ANA)
    async with contextlib.AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(writing(server)) for _ in range(1)]
        writers += [PostgresUsage(str(server.where)) for _ in range(5)]
        for turn in range(5):
            at = NOW + 1000 * turn
            batches = [dict.fromkeys(names[:: 1 if number % 2 else -1], (at + number, "")) for number in range(6)]
            kept = await asyncio.gather(*(writer.record_usage(uses) for writer, uses in zip(writers, batches, strict=True)))
            assert sum(kept) == 2000
        for writer in writers[1:]:
            await writer.close()


async def test_the_role_of_sidecars_is_enough(server: Place) -> None:
    async with writing(Place(server.kind, f"{server.where}&options=-c%20role%3Dextauthz_sidecar")) as writer:
        assert await writer.record_usage({A: (NOW, ""), B: (NOW, "")}) == 2
        assert await writer.record_usage({A: (NOW + 1000, ""), B: (NOW, "")}) == 1


def test_nobody_is_notified(server: Place) -> None:
    with psycopg.connect(str(server.where), autocommit=True) as listener, server.opened() as store:
        listener.execute("LISTEN extauthz_changes")
        assert use(store, {A: (NOW, "")}) == 1
        assert list(listener.notifies(timeout=0.2)) == []


# --- what `serve` carries


def test_serving_needs_nothing_of_sqlalchemy() -> None:
    modules = "extauthz.cli.serve, extauthz.adapters.store.postgres, extauthz.adapters.store.usage"
    look = f"import sys, {modules}; print({{'sqlalchemy', 'alembic'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
