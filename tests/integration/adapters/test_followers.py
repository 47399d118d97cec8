"""The followers of the change feed, on a real PostgreSQL and on SQLite files: nothing missed, whatever the order and the faults."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from extauthz.adapters.store import following
from extauthz.adapters.store.feed_rows import feed_batch
from extauthz.adapters.store.following import READ_TIME, PostgresFollower, SqliteFollower
from extauthz.adapters.store.link import DatabaseLink
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.rows import COLUMNS, REVISION
from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from extauthz.ports import EMPTY_AUDIT, FeedBatch
from extauthz.verifiers.change_feed import SLICE, Feed
from tests.support.database_proxy import CHANGE, LOCK, NOTIFY, Proxy, commit_changes, with_tables
from tests.support.postgres_server import PostgresServer, server_of
from tests.support.waiting import until
from tests.support.world import StillClock

NEVER = 60.0
"""A poll interval that no test reaches, in seconds."""
AT_ONCE = 5.0
"""Seconds within which something ends that waits for nobody."""
PATIENCE = 20.0
"""Seconds that a test waits for what has to come; less than NEVER, and much even on a busy machine."""


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture(autouse=True)
def nothing_is_left_to_the_garbage_collector() -> Iterator[None]:
    """A connection that is not closed would sooner or later be collected, and a leak pass unnoticed."""
    gc.disable()
    yield
    gc.enable()


@dataclass
class Notebook:
    """Writes down what a follower hands on, and the position that it leads to."""

    position: int = 0
    batches: list[FeedBatch] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    breaks: int = 0
    feed: Feed | None = None
    """What takes them as well."""

    def apply(self, batch: FeedBatch) -> None:
        """Take a batch; fail as often as `breaks` says."""
        if self.breaks:
            self.breaks -= 1
            raise RuntimeError("cannot be applied")
        self.batches.append(batch)
        self.at.append(time.monotonic())
        if self.feed is not None:
            self.feed.apply(batch)
            self.position = self.feed.position
        elif batch.changes:
            self.position = batch.changes[-1][0]

    @property
    def changes(self) -> list[tuple[int, str]]:
        """Every change so far, in the order in which it came."""
        return [change for batch in self.batches for change in batch.changes]

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is true."""
        await until(condition, seconds=seconds, what=lambda: self.batches[-3:])

    async def reaches(self, position: int) -> None:
        """Wait for a position."""
        await self.until(lambda: self.position == position)

    async def brings(self, batch: FeedBatch) -> None:
        """Wait until this is the last batch."""
        await self.until(lambda: self.batches[-1] == batch)

    async def next_batch(self, seconds: float = PATIENCE) -> FeedBatch:
        """Wait for one more batch."""
        count = len(self.batches)
        await self.until(lambda: len(self.batches) > count, seconds)
        return self.batches[-1]


@contextlib.asynccontextmanager
async def running(follower: PostgresFollower | SqliteFollower) -> AsyncIterator[asyncio.Task[None]]:
    """Let it follow; it ends at once when cancelled, and only then."""
    task = asyncio.create_task(follower.run())
    try:
        yield task
        assert not task.done()
    finally:
        task.cancel()
        # A cancelled query of psycopg would hold it for ten seconds.
        await asyncio.wait({task}, timeout=AT_ONCE)
        assert task.cancelled()


def feed_at_0(clock: StillClock | None = None) -> Feed:
    """Return a feed that has read an empty store."""
    feed = Feed(clock=clock or StillClock(), memory=660.0)
    feed.apply(FeedBatch(0, 0, 1))
    return feed


@contextlib.asynccontextmanager
async def steps_of(feed: Feed, steps: list[int]) -> AsyncIterator[None]:
    """Note how far the position moved in each turn of the event loop."""
    loop, position = asyncio.get_running_loop(), feed.position
    handle: asyncio.Handle

    def turn() -> None:
        nonlocal handle, position
        steps.append(feed.position - position)
        position = feed.position
        handle = loop.call_soon(turn)

    handle = loop.call_soon(turn)
    try:
        yield
    finally:
        handle.cancel()


# --- PostgreSQL


@dataclass
class World:
    """A database of the test's own, and followers of it."""

    postgres: PostgresServer
    database: str
    proxy: Proxy

    def run(self, query: str, parameters: tuple[object, ...] = ()) -> None:
        """Run a statement as the owner."""
        with self.postgres.connect(self.database) as connection:
            connection.execute(query, parameters)

    def change(self, *token_ids: str, notify: bool = True) -> None:
        """Commit changes of these tokens in one transaction."""
        with self.postgres.connect(self.database) as connection:
            commit_changes(connection, *token_ids, notify=notify)

    def many_changes(self, count: int) -> None:
        """Commit so many changes without telling anybody."""
        self.run("INSERT INTO changes SELECT n, 't' || n, 'revoked', 0 FROM generate_series(1, %s) AS n", (count,))
        self.run("UPDATE store_state SET head = %s", (count,))

    @contextlib.asynccontextmanager
    async def writer(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Connect one that can wait for another."""
        address = self.postgres.address(self.database, application="writer")
        async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def following(
        self,
        *,
        after: int = 0,
        poll_interval: float = NEVER,
        listen: bool = True,
        by_proxy: bool = False,
        first: bool = True,
        feed: Feed | None = None,
    ) -> AsyncIterator[Notebook]:
        """Follow, from the first batch on; nothing of it is left afterwards."""
        folder = self.proxy.folder if by_proxy else None
        link = DatabaseLink(self.postgres.address(self.database, application=self.database, folder=folder), None, prepare=False)
        notebook = Notebook(feed.position if feed else after, feed=feed)
        follower = PostgresFollower(
            link,
            position=lambda: notebook.position,
            apply=notebook.apply,
            poll_interval=poll_interval,
            listen=listen,
        )
        async with running(follower):
            if first:
                await notebook.next_batch()
            yield notebook
        await self.connected(0)

    async def connected(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait until the server knows so many connections of followers."""
        found = partial(self.postgres.connections, self.database)
        await until(lambda: found() == count, seconds=seconds, what=found)


@pytest.fixture
async def world(pytestconfig: pytest.Config) -> AsyncIterator[World]:
    postgres = server_of(pytestconfig)
    with postgres.database(template=with_tables(postgres)) as database:
        async with Proxy(postgres).running() as proxy:
            yield World(postgres, database, proxy)


def states(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged about the contact, a word each."""
    begin = "change feed of the token store "
    return [line.removeprefix(begin) for line in caplog.messages if line.startswith(begin)]


async def test_the_first_read_tells_the_state(world: World) -> None:
    async with world.following() as notebook:
        assert notebook.batches == [FeedBatch(epoch=0, head=0, oldest=1)]
    world.change("a", "b", "c")
    world.run("UPDATE store_state SET epoch = 5")
    async with world.following(after=1) as notebook:
        assert notebook.batches == [FeedBatch(epoch=5, head=3, oldest=1, changes=((2, "b"), (3, "c")))]
    async with world.following(after=2**62) as notebook:
        assert notebook.batches == [FeedBatch(epoch=5, head=3, oldest=1)]


async def test_the_head_of_the_audit_is_told_and_moves_nothing(world: World) -> None:
    """Also one that goes back: to judge that is for those who watch it."""
    async with world.following(poll_interval=0.05) as notebook:
        assert notebook.batches[0].audit == EMPTY_AUDIT
        world.change("a")
        world.run("INSERT INTO audit VALUES (1, %s), (2, %s)", (b"\x01" * 32, b"\x02" * 32))
        await notebook.until(lambda: notebook.batches[-1].audit == (2, "02" * 32))
        world.run("DELETE FROM audit WHERE number = 2")
        await notebook.until(lambda: notebook.batches[-1].audit == (1, "01" * 32))
        assert notebook.changes == [(1, "a")]


async def test_a_notification_is_enough(world: World) -> None:
    async with world.following() as notebook:
        for number in range(1, 6):
            world.change(f"t{number}")
            await notebook.reaches(number)
        assert notebook.changes == [(number, f"t{number}") for number in range(1, 6)]


# A counter that is looked at instead could have moved past rows that were not visible yet.
async def test_a_poll_reads_rows_that_nobody_told_of(world: World) -> None:
    async with world.following(poll_interval=0.3) as notebook:
        world.run("INSERT INTO changes VALUES (1, 'silent', 'revoked', 0)")
        await notebook.until(lambda: notebook.changes == [(1, "silent")])
        assert notebook.batches[-1].head == 0


async def test_a_completed_read_is_contact_although_nothing_changed(world: World) -> None:
    async with world.following(poll_interval=0.2) as notebook:
        await notebook.until(lambda: len(notebook.batches) == 6)
        assert notebook.at[-1] - notebook.at[0] > 5 * 0.2 - 0.1
        assert set(notebook.batches) == {FeedBatch(0, 0, 1)}


async def test_without_listening_rows_are_polled(world: World) -> None:
    async with world.following(poll_interval=0.4, listen=False) as notebook:
        started = time.monotonic()
        world.change("a")
        await notebook.until(lambda: notebook.changes == [(1, "a")])
        assert time.monotonic() - started > 0.2
    assert len(notebook.batches) == 2


# --- races


async def test_a_row_committed_between_listen_and_the_first_read(world: World) -> None:
    barrier = world.proxy.hold(b"FROM store_state")
    async with world.following(by_proxy=True, first=False) as notebook:
        await barrier.reached.wait()
        world.change("between")
        barrier.let_pass()
        assert (await notebook.next_batch()).changes == ((1, "between"),)


async def test_a_row_committed_after_a_read_was_answered(world: World) -> None:
    """The notification comes while nobody waits for one, in the middle of the read's own answer."""
    barrier = world.proxy.hold(b"SELECT 1", answers=True)
    async with world.following(by_proxy=True, first=False) as notebook:
        await barrier.reached.wait()
        world.change("after")
        await asyncio.sleep(0.05)  # why: the notification has to come while the answer is held, and nothing tells that it has
        barrier.let_pass()
        await notebook.until(lambda: notebook.changes == [(1, "after")])
        assert notebook.batches[0] == FeedBatch(0, 0, 1)


async def test_a_row_committed_while_listening_is_asked_for(world: World) -> None:
    barrier = world.proxy.hold(b"LISTEN")
    async with world.following(by_proxy=True, first=False) as notebook:
        await barrier.reached.wait()
        world.change("before")
        barrier.let_pass()
        assert (await notebook.next_batch()).changes == ((1, "before"),)


async def test_transactions_that_would_commit_in_the_other_order(world: World) -> None:
    """The second writer gets its number only after the first one's commit, so that no number shows before a lower one."""
    async with world.following(poll_interval=0.05) as notebook, world.writer() as first, world.writer() as second:

        async def write(connection: psycopg.AsyncConnection[Any], token_id: str) -> None:
            await connection.execute("BEGIN")
            await connection.execute(LOCK)
            await connection.execute(CHANGE, (token_id,))
            await connection.execute(NOTIFY)

        await write(first, "first")
        waiting = asyncio.create_task(write(second, "second"))
        await asyncio.sleep(0.3)  # why: nothing may come of it while the first holds the lock
        assert not waiting.done()
        assert notebook.changes == []
        await first.execute("COMMIT")
        await waiting
        await notebook.reaches(1)
        await asyncio.sleep(0.2)  # why: several looks pass in which the second must not show
        assert notebook.changes == [(1, "first")]
        await second.execute("COMMIT")
        await notebook.reaches(2)
    assert notebook.changes == [(1, "first"), (2, "second")]


async def test_nothing_is_told_of_what_was_rolled_back(world: World) -> None:
    async with world.following() as notebook, world.writer() as writer:
        await asyncio.sleep(0.1)  # why: what comes of the start must not be counted below
        await writer.execute("BEGIN")
        await writer.execute(LOCK)
        await writer.execute(CHANGE, ("undone",))
        await writer.execute(NOTIFY)
        await writer.execute("ROLLBACK")
        await asyncio.sleep(0.2)  # why: what must not come has no event
        assert len(notebook.batches) == 1
        world.change("done")
        await notebook.until(lambda: notebook.changes == [(1, "done")])
        assert len(notebook.batches) == 2


async def test_a_notification_that_is_lost_while_reconnecting(world: World) -> None:
    async with world.following(by_proxy=True) as notebook:
        barrier = world.proxy.hold(b"LISTEN")
        world.proxy.cut()
        await barrier.reached.wait()
        world.change("unheard")
        barrier.let_pass()
        await notebook.until(lambda: notebook.changes)
        assert notebook.changes == [(1, "unheard")]


# --- many


async def test_a_thousand_changes_at_once(world: World) -> None:
    names = [f"t{number}" for number in range(1000)]
    async with world.following() as notebook:
        world.change(*names)
        await notebook.reaches(1000)
    assert notebook.changes == list(enumerate(names, 1))
    assert len(notebook.batches) == 1 + 1000 / SLICE


async def test_a_thousand_transactions_in_a_row(world: World) -> None:
    """Reads are gathered: hundreds of sidecars must not answer each of these with a query."""

    def write() -> None:
        with world.postgres.connect(world.database) as connection:
            for number in range(1, 1001):
                commit_changes(connection, f"t{number}")

    async with world.following() as notebook:
        started = time.monotonic()
        await asyncio.to_thread(write)
        took = time.monotonic() - started
        await notebook.reaches(1000)
        await asyncio.sleep(0.2)  # why: reads that come behind the last change are counted too
    assert notebook.changes == [(number, f"t{number}") for number in range(1, 1001)]
    assert len(notebook.batches) <= took / following.GATHER + 5
    sys.stdout.write(f"1,000 transactions in {took:.1f} s, seen in {len(notebook.batches)} reads\n")


async def test_more_changes_than_one_slice(world: World) -> None:
    """Each slice is handed on as it is read, and all but the last one tell that there are more."""
    count = 2 * SLICE + 5
    world.many_changes(count)
    async with world.following() as notebook:
        await notebook.reaches(count)
    assert notebook.batches == [
        FeedBatch(0, count, 1, tuple((number, f"t{number}") for number in range(first, min(first + SLICE, count + 1))), more=more)
        for first, more in ((1, True), (SLICE + 1, True), (2 * SLICE + 1, False))
    ]


async def test_changes_that_end_with_a_slice_are_followed_by_none(world: World) -> None:
    world.many_changes(SLICE)
    async with world.following(poll_interval=NEVER) as notebook:
        assert notebook.batches[-1].more is False
        world.change("one more")
        await notebook.reaches(SLICE + 1)
    assert len(notebook.batches) == 2


@pytest.mark.parametrize("kept", [SLICE + 11, None], ids=["some", "none"])
async def test_rows_that_go_away_between_two_slices_show_as_a_gap(world: World, kept: int | None) -> None:
    count = SLICE + 20
    feed = feed_at_0()
    world.many_changes(count)
    first_slice = world.proxy.hold(f"SELECT {SLICE}".encode(), answers=True)
    async with world.following(feed=feed, by_proxy=True, first=False) as notebook:
        await first_slice.reached.wait()
        world.run("DELETE FROM changes WHERE number < %s", (kept or count + 1,))
        mark = feed.mark
        first_slice.let_pass()
        await notebook.until(lambda: len(notebook.batches) == 2)
        assert notebook.batches[0].more
        assert notebook.batches[1].oldest == (kept or count + 1) > 1
        assert notebook.batches[1].changes == tuple((number, f"t{number}") for number in range(kept or count + 1, count + 1))
        assert feed.position == count
        assert feed.changed_since("any", mark)


async def test_a_connection_cut_between_two_slices_is_no_contact_and_misses_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What was applied counts, and nothing more: the age is that of the last read that came to the head."""
    count = 2 * SLICE + 20
    clock = StillClock()
    feed = feed_at_0(clock)
    mark = feed.mark
    clock.advance(5)
    world.many_changes(count)
    first_slice = world.proxy.hold(f"SELECT {SLICE}".encode(), answers=True)
    async with world.following(feed=feed, by_proxy=True, first=False) as notebook:
        await first_slice.reached.wait()
        second_slice = world.proxy.hold(f"SELECT {SLICE}".encode(), answers=True)
        first_slice.let_pass()
        await second_slice.reached.wait()
        assert (feed.position, feed.age) == (SLICE, 5.0)
        again = world.proxy.hold(b"LISTEN")
        world.proxy.cut()
        await again.reached.wait()
        assert (feed.position, feed.age) == (SLICE, 5.0)
        clock.advance(1)
        again.let_pass()
        await notebook.reaches(count)
        assert (feed.position, feed.age) == (count, 0.0)
    assert notebook.changes == [(number, f"t{number}") for number in range(1, count + 1)]
    assert all(feed.changed_since(f"t{number}", mark) for number in range(1, count + 1))
    assert states(caplog) == ["lost", "back"]


async def test_a_rewound_store_with_many_changes_is_read_no_more_often_than_another(world: World) -> None:
    feed = feed_at_0()
    world.many_changes(3 * SLICE)
    feed.apply(FeedBatch(0, 4 * SLICE, 1, ((1, "t1"),), more=True))
    async with world.following(feed=feed) as notebook:
        assert (feed.rewound, notebook.batches[-1].more, feed.position) == (True, True, 1)
        # Its answer comes behind whatever the follower may have asked meanwhile.
        for _ in range(5):
            async with world.writer() as other:
                await other.execute("SELECT 1")
        assert len(notebook.batches) == 1


async def test_no_more_than_a_slice_is_taken_while_the_event_loop_waits(world: World) -> None:
    world.many_changes(10 * SLICE + 1)
    steps: list[int] = []
    feed = feed_at_0()
    async with world.following(feed=feed, first=False) as notebook, steps_of(feed, steps):
        await notebook.reaches(10 * SLICE + 1)
    assert max(steps) == SLICE == 500


# --- what only the feed can judge


async def test_a_head_that_goes_backwards_is_told(world: World) -> None:
    world.change("a", "b", "c")
    async with world.following(poll_interval=0.1) as notebook:
        world.run("DELETE FROM changes WHERE number > 1")
        world.run("UPDATE store_state SET head = 1")
        await notebook.brings(FeedBatch(0, 1, 1))
        assert notebook.position == 3


async def test_an_epoch_that_changes_is_told(world: World) -> None:
    async with world.following(poll_interval=0.1) as notebook:
        world.run("UPDATE store_state SET epoch = 1")
        await notebook.brings(FeedBatch(1, 0, 1))
        assert notebook.batches[-1] == FeedBatch(1, 0, 1)


async def test_a_gap_is_told(world: World) -> None:
    world.change("a", "b", "c", "d")
    world.run("DELETE FROM changes WHERE number < 3")
    async with world.following(after=1) as notebook:
        assert notebook.batches == [FeedBatch(0, 4, 3, ((3, "c"), (4, "d")))]
    world.run("DELETE FROM changes")
    async with world.following(after=1) as notebook:
        assert notebook.batches == [FeedBatch(0, 4, 5)]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(None, 1, 1, None, None, None, None)],
        [(0, "1", 1, None, None, None, None)],
        [(0, 1, None, None, None, None, None)],
        [(0, 1, 1, None, None, 1.0, "a")],
        [(0, 1, 1, None, None, 1, None)],
        [(0, 1, 1, None, None, 1, b"a")],
        [(0, 2, 1, None, None, 1, "a"), (0, 2, 1, None, None, True, "b")],
        [(0, 1, 1, "1", b"m", None, None)],
        [(0, 1, 1, 1, "m", None, None)],
        [(0, 1, 1, 1, None, None, None)],
    ],
)
def test_rows_that_no_release_wrote_are_no_batch(rows: list[tuple[object, ...]]) -> None:
    with pytest.raises(ValueError, match=r"no release wrote|no state"):
        feed_batch(rows)


# --- faults


async def test_a_cut_connection_misses_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with world.following() as notebook:
        for number in range(1, 4):
            assert world.postgres.cut(world.database) == 1
            world.change(f"t{number}")
            await notebook.reaches(number)
            await world.connected(1)
    assert notebook.changes == [(1, "t1"), (2, "t2"), (3, "t3")]
    assert states(caplog) == ["lost", "back"] * 3


@pytest.mark.parametrize("listen", [True, False])
async def test_a_paused_server_is_no_contact_and_misses_nothing(
    world: World, caplog: pytest.LogCaptureFixture, listen: bool
) -> None:
    poll_interval = 0.3
    async with world.following(poll_interval=poll_interval, listen=listen) as notebook:
        with world.postgres.paused():
            paused_at = time.monotonic()
            await notebook.until(lambda: states(caplog) == ["lost"])
            noticed = time.monotonic() - paused_at
            count = len(notebook.batches)
            await asyncio.sleep(max(0.0, 3 - noticed))  # why: the server is paused for three seconds
            assert len(notebook.batches) == count
        resumed_at = time.monotonic()
        world.change("a")
        await notebook.until(lambda: notebook.changes == [(1, "a")])
        back = notebook.at[count] - resumed_at
        await world.connected(1)
        # The running test and the follower.
        await notebook.until(lambda: len(asyncio.all_tasks()) == 2)
    assert states(caplog) == ["lost", "back"]
    sys.stdout.write(f"paused 3 s, listen={listen}: noticed after {noticed:.2f} s, back after {back * 1e3:.0f} ms\n")


async def test_a_killed_server_is_found_again_and_nothing_missed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with world.following(poll_interval=0.5) as notebook:
        world.change("a")
        await notebook.until(lambda: notebook.changes == [(1, "a")])
        count = len(notebook.batches)
        try:
            world.postgres.kill()
            await asyncio.sleep(0.5)  # why: the server stays away for a while
        finally:
            world.postgres.start()
        started_at = time.monotonic()
        world.change("b")
        await notebook.reaches(2)
        back = notebook.at[count] - started_at
    assert notebook.changes == [(1, "a"), (2, "b")]
    assert states(caplog) == ["lost", "back"]
    sys.stdout.write(f"killed and started again: back after {back * 1e3:.0f} ms\n")


async def test_a_silent_network_is_no_contact(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Connections are made and nothing comes back."""
    async with world.following(poll_interval=0.2, by_proxy=True) as notebook:
        world.proxy.fall_silent()
        world.change("a")
        await notebook.until(lambda: states(caplog) == ["lost"])
        assert notebook.changes == []
        world.proxy.speak()
        await notebook.until(lambda: notebook.changes == [(1, "a")])
        await world.connected(1)
    assert states(caplog) == ["lost", "back"]


async def test_following_ends_at_once_in_a_silent_network(world: World) -> None:
    for seconds in (0.0, 0.1, READ_TIME + 0.2):
        async with world.following(poll_interval=0.1, by_proxy=True):
            world.proxy.fall_silent()
            await asyncio.sleep(seconds)  # why: the end comes at each of these moments
            asyncio.get_running_loop().call_later(0.5, world.proxy.speak)


async def test_a_database_that_is_away_at_the_start_is_found(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.change("a")
    try:
        world.postgres.kill()
        async with world.following(first=False) as notebook:
            await notebook.until(lambda: states(caplog) == ["lost"])
            world.postgres.start()
            await notebook.until(lambda: notebook.changes == [(1, "a")])
    finally:
        world.postgres.start()
    assert states(caplog) == ["lost", "back"]


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("DELETE FROM store_state", "INSERT INTO store_state VALUES (1, 0, 1)"),
        ("ALTER TABLE changes RENAME TO gone", "ALTER TABLE gone RENAME TO changes"),
        ("UPDATE store_state SET head = NULL", "UPDATE store_state SET head = 1"),
    ],
)
async def test_a_store_without_a_state_is_no_contact(
    world: World, caplog: pytest.LogCaptureFixture, broken: str, mended: str
) -> None:
    async with world.following(poll_interval=0.1) as notebook:
        world.change("a")
        await notebook.until(lambda: notebook.changes == [(1, "a")])
        world.run(broken)
        await notebook.until(lambda: states(caplog) == ["lost"])
        count = len(notebook.batches)
        await asyncio.sleep(0.4)  # why: several polls pass in which nothing may come
        assert len(notebook.batches) == count
        assert states(caplog) == ["lost"]
        world.run(mended)
        await notebook.next_batch()
        assert notebook.batches[-1] == FeedBatch(0, 1, 1)
    assert states(caplog) == ["lost", "back"]


async def test_a_batch_that_cannot_be_applied_is_read_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with world.following() as notebook:
        notebook.breaks = 3
        world.change("a")
        await notebook.until(lambda: notebook.changes == [(1, "a")])
    assert states(caplog) == ["failed", "lost", "back"]


# --- SQLite


def make_store(path: Path, *token_ids: str, epoch: int = 0) -> None:
    """Make a store with these changes, each a token of its own."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        columns = ", ".join(f'"{name}"' for name in COLUMNS)
        connection.execute(f"CREATE TABLE tokens ({columns})")
        connection.execute("CREATE TABLE changes (number BIGINT PRIMARY KEY, token_id, kind, at) WITHOUT ROWID")
        connection.execute("CREATE TABLE store_state (id BIGINT PRIMARY KEY, epoch, head)")
        connection.execute("INSERT INTO store_state VALUES (1, ?, 0)", (epoch,))
        connection.execute("CREATE TABLE audit (number BIGINT PRIMARY KEY, mac) WITHOUT ROWID")
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (REVISION,))
    change_file(path, *token_ids)


def change_file(path: Path, *token_ids: str) -> None:
    """Commit changes in one transaction, and leave no connection open."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for token_id in token_ids:
            connection.execute("UPDATE store_state SET head = head + 1")
            connection.execute("INSERT INTO changes SELECT head, ?, 'revoked', 0 FROM store_state", (token_id,))
        connection.execute("COMMIT")


def run_on_file(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_store(tmp_path / "tokens.db")
    return tmp_path / "tokens.db"


@pytest.fixture
def reader(path: Path) -> Iterator[SqliteReader]:
    opened = SqliteReader(path)
    yield opened
    opened.close()


@contextlib.asynccontextmanager
async def following_file(
    reader: SqliteReader, *, poll_interval: float = NEVER, look_interval: float = 0.02, feed: Feed | None = None
) -> AsyncIterator[Notebook]:
    notebook = Notebook(feed.position if feed else 0, feed=feed)
    follower = SqliteFollower(
        reader,
        position=lambda: notebook.position,
        apply=notebook.apply,
        poll_interval=poll_interval,
        look_interval=look_interval,
    )
    async with running(follower):
        await notebook.next_batch()
        yield notebook


def test_a_file_tells_what_changed(reader: SqliteReader, path: Path) -> None:
    assert reader.read_feed(0) == FeedBatch(0, 0, 1)
    change_file(path, "a", "b")
    change_file(path, "c")
    assert reader.read_feed(0) == FeedBatch(0, 3, 1, ((1, "a"), (2, "b"), (3, "c")))
    assert reader.read_feed(2) == FeedBatch(0, 3, 1, ((3, "c"),))
    assert reader.read_feed(3) == reader.read_feed(2**62) == FeedBatch(0, 3, 1)
    run_on_file(path, "DELETE FROM changes WHERE number < 3")
    assert reader.read_feed(0) == FeedBatch(0, 3, 3, ((3, "c"),))
    run_on_file(path, "DELETE FROM changes")
    assert reader.read_feed(0) == FeedBatch(0, 3, 4)
    run_on_file(path, "UPDATE store_state SET epoch = 2, head = 1")
    assert reader.read_feed(3) == FeedBatch(2, 1, 2)


def test_a_file_tells_the_head_of_the_audit(reader: SqliteReader, path: Path) -> None:
    change_file(path, "a", "b")
    assert reader.read_feed(0).audit == EMPTY_AUDIT
    run_on_file(path, "INSERT INTO audit VALUES (1, x'01'), (2, x'02')")
    assert reader.read_feed(0) == FeedBatch(0, 2, 1, ((1, "a"), (2, "b")), (2, "02"))
    run_on_file(path, "DELETE FROM audit WHERE number = 2")
    assert reader.read_feed(2) == FeedBatch(0, 2, 1, (), (1, "01"))


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE changes",
        "DROP TABLE audit",
        "INSERT INTO audit VALUES (1, 'no bytes')",
        "DELETE FROM store_state",
        "UPDATE store_state SET head = 'many'",
        "UPDATE store_state SET epoch = NULL",
        "INSERT INTO changes VALUES (1, NULL, 'revoked', 0)",
        "INSERT INTO changes VALUES ('one', 'a', 'revoked', 0)",
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE alembic_version SET version_num = 3",
        "DELETE FROM alembic_version",
        "DROP TABLE alembic_version",
    ],
)
def test_a_file_that_cannot_tell_its_changes_is_no_answer_at_all(reader: SqliteReader, path: Path, statement: str) -> None:
    """It may be an older store in this one's place, in which revoked tokens are good."""
    assert reader.find("a" * 12) is None
    run_on_file(path, statement)
    reader.version()
    with pytest.raises(Unavailable) as caught:
        reader.read_feed(0)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    with pytest.raises(Unavailable):
        reader.find("a" * 12)


async def test_a_change_of_a_file_is_seen_at_the_next_look(reader: SqliteReader, path: Path) -> None:
    async with following_file(reader, look_interval=0.25) as notebook:
        for number in range(1, 4):
            change_file(path, f"t{number}")
            await notebook.reaches(number)
        await asyncio.sleep(0.6)  # why: looks that come behind the last change are counted too
        # The log of the last connection that closed was emptied, which moves the file once more.
        assert len(notebook.batches) <= 8
    assert notebook.changes == [(1, "t1"), (2, "t2"), (3, "t3")]


async def test_a_file_is_read_although_it_did_not_move(reader: SqliteReader) -> None:
    async with following_file(reader, poll_interval=0.2) as notebook:
        await notebook.until(lambda: len(notebook.batches) == 6)
        assert notebook.at[-1] - notebook.at[0] > 5 * 0.2 - 0.1
        assert set(notebook.batches) == {FeedBatch(0, 0, 1)}


async def test_a_file_that_is_replaced_shows_in_head_and_epoch(reader: SqliteReader, path: Path, tmp_path: Path) -> None:
    change_file(path, "a", "b", "c")
    make_store(tmp_path / "older.db", "a")
    make_store(tmp_path / "accepted.db", "a", epoch=1)
    async with following_file(reader) as notebook:
        assert notebook.position == 3
        for name, expected in (("older.db", FeedBatch(0, 1, 1)), ("accepted.db", FeedBatch(1, 1, 1))):
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            os.replace(tmp_path / name, path)
            await notebook.brings(expected)


async def test_a_store_of_another_schema_put_in_place_is_no_answer(
    reader: SqliteReader, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Path(shutil.copy(path, tmp_path / "kept.db"))
    make_store(tmp_path / "old.db")
    run_on_file(tmp_path / "old.db", "DROP TABLE changes")
    async with following_file(reader) as notebook:
        count = len(notebook.batches)
        shutil.copyfile(tmp_path / "old.db", path)
        await notebook.until(lambda: states(caplog) == ["lost"])
        for _ in range(20):
            with pytest.raises(Unavailable):
                reader.find("a" * 12)
            await asyncio.sleep(0.01)  # why: looks of the follower pass between two look-ups
        assert len(notebook.batches) == count
        shutil.copyfile(kept, path)
        await notebook.next_batch()
        assert reader.find("a" * 12) is None
    assert states(caplog) == ["lost", "back"]


async def test_no_more_than_a_slice_of_a_file_is_taken_while_the_event_loop_waits(reader: SqliteReader, path: Path) -> None:
    """Slices come one behind the other: only the first one has waited for a look."""
    count = 10 * SLICE + 1
    steps: list[int] = []
    feed = feed_at_0()
    async with following_file(reader, look_interval=NEVER, feed=feed_at_0()) as notebook:
        assert notebook.position == 0
    change_file(path, *(f"t{number}" for number in range(1, count + 1)))
    async with following_file(reader, look_interval=NEVER, feed=feed) as notebook, steps_of(feed, steps):
        await notebook.reaches(count)
        # The last one came to the head: the next look is a long way off.
        assert [batch.more for batch in notebook.batches] == [True] * 10 + [False]
    assert max(steps) == SLICE == 500
    assert notebook.changes == [(number, f"t{number}") for number in range(1, count + 1)]


async def test_an_older_file_put_in_place_between_two_slices_is_noticed(reader: SqliteReader, path: Path, tmp_path: Path) -> None:
    """Also one whose head lies before the head that was told, and behind the position that was reached."""
    count = 3 * SLICE
    make_store(tmp_path / "older.db", *(f"t{number}" for number in range(1, 3 * SLICE)))
    change_file(path, *(f"t{number}" for number in range(1, count + 1)))
    feed = feed_at_0()
    batch = reader.read_feed(feed.position)
    feed.apply(batch)
    assert (batch.more, feed.position, feed.rewound) == (True, SLICE, False)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(tmp_path / "older.db", path)
    async with following_file(reader, look_interval=NEVER, feed=feed) as notebook:
        assert (feed.rewound, notebook.batches[-1].more, feed.position) == (True, True, SLICE)
        for _ in range(50):
            await asyncio.sleep(0)  # why: more turns than any reading takes
        assert len(notebook.batches) == 1, "what is not taken is read at the next look, and not all the time"


async def test_a_file_that_is_locked_or_gone_ends_nothing(
    reader: SqliteReader, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following_file(reader) as notebook:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            reader.close()
            other.execute("PRAGMA journal_mode = DELETE")
            other.execute("BEGIN EXCLUSIVE")
            await notebook.until(lambda: states(caplog) == ["lost"])
            other.execute("COMMIT")
        await notebook.next_batch()
        os.rename(path, tmp_path / "away.db")
        await notebook.until(lambda: states(caplog) == ["lost", "back", "lost"])
        os.rename(tmp_path / "away.db", path)
        await notebook.next_batch()
        change_file(path, "a")
        await notebook.until(lambda: notebook.changes == [(1, "a")])
    assert states(caplog) == ["lost", "back", "lost", "back"]


async def test_a_batch_of_a_file_that_cannot_be_applied_is_read_again(
    reader: SqliteReader, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following_file(reader) as notebook:
        notebook.breaks = 3
        change_file(path, "a")
        await notebook.until(lambda: notebook.changes == [(1, "a")])
    assert states(caplog) == ["failed", "lost", "back"]
