"""How long what follows the store waits, to the millisecond: asked of a loop whose time is made up, so that no load can hide it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.store.contact import FeedLost
from extauthz.adapters.store.following import PostgresFollower, SqliteFollower
from extauthz.adapters.store.postgres import PostgresReader, PostgresUsage
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.rows import COLUMNS, REVISION
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.config.loader import load
from extauthz.config.patterns import compile_patterns
from extauthz.config.secrets import Secrets
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.tokens import ENTROPY_BYTES, TokenText, fingerprint
from extauthz.errors import Unavailable
from extauthz.ports import FeedBatch
from extauthz.runtime.store import feed_memory, open_store, verifier_of
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.known_ids import KnownIds
from extauthz.verifiers.verdicts import VerdictCache
from tests.support.postgresql import ANA, KEY
from tests.support.virtual_time import LoopClock, elapse, in_virtual_time, now
from tests.support.world import NOW, PEPPER

pytest_plugins = ["tests.support.postgresql"]

RULES = TokenRules("glean", frozenset({"SEARCH"}), 1e9, ActAs(allow=compile_patterns(["*@acme.com"])))
EMPTY = FeedBatch(0, 0, 1)
NOTHING_CHANGED = [(0, 0, 1, None, None, None, None, REVISION)]
NO_TOKEN = [(*(None for _ in COLUMNS), REVISION)]
ADDRESS = "postgresql://db.acme.internal/tokens"


async def for_seconds(seconds: float, follower: PostgresFollower | SqliteFollower) -> None:
    """Let it follow for so long."""
    task = asyncio.create_task(follower.run())
    await elapse(seconds)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


# --- a file


class File:
    """A store in a file: when it was looked at and read, and what it says then."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.reads: list[float] = []
        self.moved_at = float("inf")
        self.fails = False

    def version(self) -> object:
        self.looks.append(now())
        if self.fails:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        return now() >= self.moved_at

    def read_feed(self, after: int) -> FeedBatch:
        self.reads.append(now())
        return EMPTY

    def read_ids(self, after: str, limit: int) -> Sequence[str]:
        self.reads.append(now())
        raise Unavailable(Reason.STORE_UNAVAILABLE)


def follower_of(file: File, **more: Any) -> SqliteFollower:
    return SqliteFollower(file, position=lambda: 0, apply=lambda _: None, **more)


def test_a_file_is_looked_at_four_times_a_second_and_read_every_two_seconds() -> None:
    file = File()
    in_virtual_time(lambda: for_seconds(4.1, follower_of(file)))
    assert file.looks == [look / 4 for look in range(17)]
    assert file.reads == [0, 2, 4]


def test_a_file_that_moved_is_read_at_the_next_look() -> None:
    file = File()
    file.moved_at = 0.3
    in_virtual_time(lambda: for_seconds(1, follower_of(file)))
    assert file.reads == [0, 0.5]


def test_a_file_that_cannot_be_read_is_looked_at_as_often() -> None:
    file = File()
    file.fails = True
    in_virtual_time(lambda: for_seconds(1.1, follower_of(file)))
    assert file.looks == [0, 0.25, 0.5, 0.75, 1]


def test_the_poll_interval_of_the_configuration_counts() -> None:
    file = File()
    in_virtual_time(lambda: for_seconds(1.1, follower_of(file, poll_interval=0.5)))
    assert file.reads == [0, 0.5, 1]


def test_ids_of_a_file_that_could_not_be_read_are_read_half_a_minute_later() -> None:
    file, ids = File(), KnownIds(1000)
    ids.begin()
    in_virtual_time(lambda: for_seconds(31, follower_of(file, ids=ids, poll_interval=100.0)))
    # A pause of two milliseconds follows each page.
    assert file.reads == [0, 0, 30.002]


# --- a server


class Server:
    """A connection to a database server as a follower or a reader has it: what is asked, when, and how long it may take.

    With `silent` nothing is answered; `refuses` are how many attempts to connect fail; `notes` are the times of notifications.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, float]] = []
        self.connected: list[float] = []
        self.silent = False
        self.refuses = 0
        self.notes: list[float] = []

    async def connect(self) -> None:
        self.connected.append(now())
        if self.refuses:
            self.refuses -= 1
            raise FeedLost("refused")

    async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[tuple[Any, ...]]:
        self.asked.append((now(), query, seconds))
        if self.silent:
            await elapse(seconds)
            raise FeedLost(f"no answer within {seconds:g} s", overdue=True)
        if query.startswith("SELECT version_num"):
            return [(REVISION,)]
        if "FROM changes" in query:
            return NOTHING_CHANGED
        return NO_TOKEN if "LEFT JOIN tokens" in query else []

    @property
    def reads(self) -> list[float]:
        """When the feed was read."""
        return [at for at, query, _ in self.asked if "FROM changes" in query]

    async def notified(self, seconds: float) -> bool:
        end = asyncio.get_running_loop().time() + seconds
        due = min((note for note in self.notes if note <= end), default=None)
        await elapse((end if due is None else max(due, now())) - asyncio.get_running_loop().time())
        self.notes = [note for note in self.notes if note != due]
        return due is not None

    async def close(self) -> None:
        pass

    def drop(self) -> None:
        pass


def server_follower(server: Server, **more: Any) -> PostgresFollower:
    return PostgresFollower(server, position=lambda: 0, apply=lambda _: None, **more)


@pytest.mark.parametrize("listen", [True, False])
def test_a_server_is_read_every_two_seconds_whatever_it_tells(listen: bool) -> None:
    server = Server()
    in_virtual_time(lambda: for_seconds(6.1, server_follower(server, listen=listen)))
    assert server.reads == [0, 2, 4, 6]
    assert server.connected == [0]


def test_a_notification_causes_a_read_at_once_and_several_one_after_a_twentieth_of_a_second() -> None:
    server = Server()
    server.notes = [0.3, 0.31, 0.32, 1.0]
    in_virtual_time(lambda: for_seconds(1.1, server_follower(server)))
    assert server.reads == [0, 0.3, 0.35, 0.4, 1.0]


def test_a_server_that_falls_silent_is_noticed_a_second_after_the_next_poll() -> None:
    """And is asked again at once, then after pauses that grow to half a second."""

    async def work(server: Server) -> None:
        following = asyncio.create_task(for_seconds(11.2, server_follower(server)))
        await elapse(0.1)
        server.silent = True
        await following

    server = Server()
    in_virtual_time(lambda: work(server))
    # A read of one second, then the pause.
    assert server.connected == [0, 3.05, 4.15, 5.35, 6.75, 8.25, 9.75]
    assert {seconds for _, _, seconds in server.asked} == {1.0}


def test_a_connection_that_is_cut_is_replaced_at_once() -> None:
    class Cut(Server):
        async def notified(self, seconds: float) -> bool:
            await super().notified(0.3 if len(self.connected) == 1 else seconds)
            if len(self.connected) == 1:
                raise FeedLost("cut")
            return False

    server = Cut()
    in_virtual_time(lambda: for_seconds(1, server_follower(server)))
    # The pause of a twentieth of a second before a wait for notifications, the wait, and the pause before another attempt.
    assert server.connected == [0, 0.4]
    assert server.reads == [0, 0.4]


def test_a_server_that_refuses_is_tried_again_within_half_a_second() -> None:
    server = Server()
    server.refuses = 7
    in_virtual_time(lambda: for_seconds(2.3, server_follower(server)))
    assert server.connected == [0, 0.05, 0.15, 0.35, 0.75, 1.25, 1.75, 2.25]
    assert server.reads == [2.25]


def test_ids_of_a_server_that_does_not_tell_them_are_asked_for_half_a_minute_later() -> None:
    class Forgetful(Server):
        async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[tuple[Any, ...]]:
            rows = await super().ask(query, parameters, seconds=seconds)
            if query.startswith("SELECT id"):
                raise FeedLost("not told")
            return rows

    server, ids = Forgetful(), KnownIds(1000)
    ids.begin()
    in_virtual_time(lambda: for_seconds(33, server_follower(server, ids=ids)))
    asked = [at for at, query, _ in server.asked if query.startswith("SELECT id")]
    # At the first read behind the half minute.
    assert asked == [0, 30.05]


# --- look-ups and uses


def test_a_look_up_takes_half_a_second_at_most_and_the_store_is_looked_for_at_once() -> None:
    async def work(server: Server) -> tuple[float, float]:
        reader = PostgresReader(ADDRESS, peppers={}, clock=LoopClock())
        reader.link = server  # type: ignore[assignment]
        await reader.open()
        assert await reader.find("a" * 12) is None
        server.silent = True
        began = now()
        with pytest.raises(Unavailable):
            await reader.find("a" * 12)
        refused = now() - began
        server.silent = False
        while not reader.reachable:
            await elapse(0.001)
        back = now() - began
        await reader.close()
        return round(refused, 3), round(back, 3)

    server = Server()
    assert in_virtual_time(lambda: work(server)) == (0.5, 0.55)
    assert {seconds for _, _, seconds in server.asked} == {0.5}


def test_uses_are_written_within_two_seconds_a_statement() -> None:
    async def work(server: Server) -> float:
        usage = PostgresUsage(ADDRESS)
        usage.link = server  # type: ignore[assignment]
        await usage.record_usage({"a" * 12: (NOW, "203.0.113.0/24")})
        server.silent = True
        began = now()
        with pytest.raises(Unavailable):
            await usage.record_usage({"a" * 12: (NOW, "203.0.113.0/24")})
        return now() - began

    server = Server()
    assert in_virtual_time(lambda: work(server)) == 2
    assert {seconds for _, _, seconds in server.asked} == {2.0}


# --- the whole way of an issued token, from a file that an administrator changes to the answer

CONFIGURATION = """\
version: 1
server: {listen: 127.0.0.1:9001, ops: null}
tokens: {store: "sqlite:///tokens.db", peppers: [{id: p1, file: pepper}]%s}
scopes: [SEARCH]
routes: [routes.yaml]
"""


class Question:
    """What is told of the last of some tokens, how often the store was asked for that, and the feed."""

    def __init__(self, verifier: IssuedVerifier, feed: Feed, tokens: Sequence[TokenText]) -> None:
        self._verifier = verifier
        self._tokens = tokens
        self.queries = verifier.queries
        self.feed = feed

    def __call__(self) -> str:
        try:
            found = self._verifier.verify(self._tokens[-1].text, LoopClock().now())
        except Unavailable as unavailable:
            return unavailable.reason.value
        assert isinstance(found, Identity | Reason)
        return "good" if isinstance(found, Identity) else found.value


class Served:
    """What `serve` holds for issued tokens, as it is built from a configuration, on a file of its own."""

    def __init__(self, folder: Path, template: Path, **tokens: str) -> None:
        self.file = folder / "tokens.db"
        shutil.copy(template, self.file)
        (folder / "pepper").write_bytes(PEPPER)
        (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
        (folder / "extauthz.yaml").write_text(CONFIGURATION % "".join(f", {key}: {value}" for key, value in tokens.items()))
        self.configuration = load(folder / "extauthz.yaml")
        self.tokens: list[TokenText] = []

    def make(self) -> None:
        """Issue a token that is good for a day."""
        order = TokenRequest("a token", AuthType.USER, frozenset({"SEARCH"}), NOW - 60, "root", NOW + 86_400, "ana@acme.com")
        text, record = issue(order, RULES, pepper_id="p1", pepper=PEPPER, entropy=bytes([len(self.tokens)]) * ENTROPY_BYTES)
        with closing(SqlTokenStore(self.file, audit=KEY)) as store:
            store.add(record, fingerprint(PEPPER))
        self.tokens.append(text)

    def revoke(self) -> None:
        """Revoke the last token, as an administrator does."""
        with closing(SqlTokenStore(self.file, audit=KEY)) as store:
            assert store.revoke([self.tokens[-1].id], "lost", ANA) == (self.tokens[-1].id,)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Question]:
        """Serve; what is given is a question about the last token."""
        clock = LoopClock()
        async with AsyncExitStack() as stack:
            opened = await open_store(self.configuration, Secrets({"p1": PEPPER}), stack, clock=clock)
            assert opened is not None
            assert isinstance(opened.reader, SqliteReader)
            verdicts = VerdictCache(Kind.ISSUED, bytes(32), lifetime=feed_memory(self.configuration.settings.tokens), clock=clock)
            verifier = verifier_of(self.configuration, opened.reader, opened.feed, {"p1": PEPPER}, verdicts, clock=clock)
            following = asyncio.create_task(opened.follower.run())
            await elapse(0.01)

            yield Question(verifier, opened.feed, self.tokens)
            following.cancel()
            await asyncio.wait({following})


@pytest.fixture
def served(tmp_path: Path, sqlite_template: Path) -> Served:
    made = Served(tmp_path, sqlite_template)
    made.make()
    return made


def test_a_token_is_looked_up_once_a_minute(served: Served) -> None:
    async def work() -> int:
        async with served.running() as ask:
            for _ in range(595):
                assert ask() == "good"
                await elapse(1)
            return ask.queries["ok"]

    assert in_virtual_time(work) == 10


async def lasting(ask: Callable[[], str], answer: str, step: float) -> float:
    """Return for how long an answer stays the same, asked again and again."""
    began = now()
    while ask() == answer:
        await elapse(step)
    return now() - began


def test_a_revocation_in_a_file_is_honoured_within_a_quarter_of_a_second(served: Served) -> None:
    async def work() -> list[float]:
        taken = []
        async with served.running() as ask:
            for _ in range(4):
                assert ask() == "good"
                served.revoke()
                taken.append(await lasting(ask, "good", 0.005))
                assert ask() == "token_revoked"
                served.make()
                await elapse(0.06)
        return taken

    taken = in_virtual_time(work)
    assert max(taken) <= 0.25 + 0.005
    assert max(taken) > 0.1, "the file was looked at all the time"


def test_a_store_that_rests_is_heard_every_two_seconds(served: Served) -> None:
    async def work() -> float:
        oldest = 0.0
        async with served.running() as ask:
            for _ in range(1000):
                oldest = max(oldest, ask.feed.age)
                await elapse(0.01)
        return oldest

    # At the next look behind the poll interval.
    assert 1.9 < in_virtual_time(work) <= 2.26


def test_a_strict_sidecar_serves_nothing_without_its_store(tmp_path: Path, sqlite_template: Path) -> None:
    """From the next look at the file on."""
    made = Served(tmp_path, sqlite_template, max_staleness="0s")
    made.make()

    async def work() -> tuple[float, str]:
        async with made.running() as ask:
            assert ask() == "good"
            await elapse(1)
            made.file.rename(made.file.with_name("hidden.db"))
            return await lasting(ask, "good", 0.005), ask()

    lasted, then = in_virtual_time(work)
    assert lasted <= 0.25 + 0.005
    assert then == "store_stale"


def test_a_store_out_of_reach_serves_known_tokens_for_ten_minutes_and_no_longer(served: Served) -> None:
    """And a revocation made meanwhile counts at the next look behind its return."""

    async def work() -> tuple[float, str, float]:
        hidden = served.file.with_name("hidden.db")
        async with served.running() as ask:
            assert ask() == "good"
            await elapse(1)
            served.file.rename(hidden)
            lasted = await lasting(ask, "good", 0.1)
            then = ask()
            await elapse(30)
            assert ask() == then
            hidden.rename(served.file)
            served.revoke()
            back = await lasting(ask, then, 0.005)
            assert ask() == "token_revoked"
        return lasted, then, back

    lasted, then, back = in_virtual_time(work)
    # The last completed read may be as old as the poll interval, two seconds, when the store goes.
    assert 598 <= lasted <= 600.1
    assert then == "store_stale"
    assert back <= 0.25 + 0.005
