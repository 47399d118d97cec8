"""Look-ups in a real PostgreSQL: what they find, who waits for whom, and what a slow, cut, paused or missing server does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import time
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from extauthz.adapters.store import postgres
from extauthz.adapters.store.postgres import BATCH, LOOK_UP_TIME, PostgresReader
from extauthz.adapters.store.rows import REVISION
from extauthz.core.model import AuthType, Reason
from extauthz.core.tokens import TokenRecord, fingerprint
from extauthz.errors import StoreError, Unavailable
from tests.support.database_proxy import Proxy, insert_token, with_tables
from tests.support.postgres_server import PostgresServer, server_of
from tests.support.waiting import until
from tests.support.world import StillClock

PEPPERS = {"p1": b"a pepper for tests, 32 bytes long"}
PASSWORD = "correct-horse"
CLOCK = StillClock()
AT_ONCE = 5.0
"""Seconds within which something ends that does not wait for a server."""
PATIENCE = 20.0
"""Seconds that a test waits for what has to come, also on a busy machine."""
A, B, C = "a" * 12, "b" * 12, "c" * 12


ODD_IDS = ["", "aaaaaaaaaaab", "AAAAAAAAAAAA", "aaaaaaaaaaa", f"{A} ", "a%", "' OR 1=1 --", "é", "a" * 10_000]
ODD_IDS += ["\x00", f"{A}\x00", "\ud800", "{a,b}", "NULL", '"', "\\", "\n"]


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the product logged; the server of the tests logs too."""
    return [record for record in caplog.records if record.name.startswith("extauthz")]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in ours(caplog)]


def token(token_id: str = A, **changes: object) -> TokenRecord:
    """Return a record with these changes."""
    plain = TokenRecord(
        id=token_id,
        description="Ana's notebook",
        permission=AuthType.USER,
        user="ana@acme.com",
        scopes=frozenset({"SEARCH", "CHAT"}),
        created_at=1_800_000_000,
        created_by="root",
        expires_at=1_800_086_400,
        pepper_id="p1",
        digest=bytes(range(32)),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


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
class World:
    """A database of the test's own, and readers of it."""

    postgres: PostgresServer
    database: str
    proxy: Proxy

    def run(self, query: str, parameters: tuple[object, ...] = ()) -> None:
        """Run a statement as the owner."""
        with self.postgres.connect(self.database) as connection:
            connection.execute(query, parameters)

    def add(self, *tokens: TokenRecord) -> None:
        """Insert tokens."""
        with self.postgres.connect(self.database) as connection:
            for each in tokens:
                insert_token(connection, each)

    def address(self, *, by_proxy: bool = False, **changes: Any) -> str:
        """Return the address of the database, or of the proxy before it."""
        folder = self.proxy.folder if by_proxy else None
        return self.postgres.address(self.database, application=self.database, folder=folder, **changes)

    @property
    def connections(self) -> int:
        """How many connections of readers the server knows."""
        return self.postgres.connections(self.database)

    @contextlib.asynccontextmanager
    async def reader(
        self, *, by_proxy: bool = False, peppers: Mapping[str, bytes] = PEPPERS, prepare: bool = True, **changes: Any
    ) -> AsyncIterator[PostgresReader]:
        """Open a reader; nothing of it is left afterwards."""
        address = self.address(by_proxy=by_proxy, **changes)
        reader = PostgresReader(address, password=PASSWORD, peppers=peppers, clock=CLOCK, prepare=prepare)
        try:
            await reader.open()
            yield reader
        finally:
            # A cancelled query of psycopg would hold it for ten seconds.
            await asyncio.wait_for(reader.close(), AT_ONCE)
        with pytest.raises(Unavailable):
            reader.find(A)


@pytest.fixture
async def world(pytestconfig: pytest.Config) -> AsyncIterator[World]:
    postgres = server_of(pytestconfig)
    with postgres.database(template=with_tables(postgres)) as database:
        async with Proxy(postgres).running() as proxy:
            yield World(postgres, database, proxy)


async def connected(world: World, connections: int) -> None:
    """Wait until the server knows so many connections of readers."""
    await until(lambda: world.connections == connections, seconds=PATIENCE, what=lambda: f"{world.connections} connections")


async def found_again(reader: PostgresReader, token_id: str = A) -> TokenRecord | None:
    """Ask until there is an answer."""
    answers: list[TokenRecord | None] = []

    async def is_answered() -> bool:
        with contextlib.suppress(Unavailable):
            answers.append(await reader.find(token_id))
        return bool(answers)

    await until(is_answered, seconds=PATIENCE, what=lambda: "never back")
    return answers[0]


async def is_reachable(reader: PostgresReader, *, reachable: bool = True) -> None:
    """Wait until look-ups are sent to the database again, or no more."""
    await until(lambda: reader.reachable is reachable, seconds=PATIENCE)


async def refused(reader: PostgresReader, token_id: str = A) -> float:
    """Return the seconds after which a look-up is answered with Unavailable."""
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await reader.find(token_id)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    return time.monotonic() - started


# --- what is found


@pytest.mark.parametrize("prepare", [True, False])
async def test_what_is_stored_is_found_as_it_was(world: World, prepare: bool) -> None:
    records = [
        token(),
        token("b" * 12, permission=AuthType.GLOBAL, user=None),
        token("c" * 12, permission=AuthType.ANONYMOUS, user=None, scopes=frozenset({"SEARCH"})),
        token("d" * 12, description="日本語 'quoted' \"twice\" \\ %s ?", created_by="x' OR '1'='1"),
        token("e" * 12, digest=b"\x00" * 32),
        token("f" * 12, digest=b"\xff" * 32, expires_at=2**53, pepper_id="p" * 64),
        token("g" * 12, revoked_at=5, revoked_by="eve"),
    ]
    world.add(*records)
    async with world.reader(prepare=prepare) as reader:
        for _ in range(2):
            assert await asyncio.gather(*(reader.find(record.id) for record in records)) == records
            for record in records:
                assert await reader.find(record.id) == record
        assert await reader.find("z" * 12) is None
        assert reader.reachable


async def test_only_the_same_id_is_found_and_nobody_is_disturbed(world: World) -> None:
    world.add(token(), token(B))
    async with world.reader() as reader:
        for other in ODD_IDS:
            assert await asyncio.gather(*map(reader.find, (A, other, B))) == [token(), None, token(B)], other
            assert reader.reachable
        assert await asyncio.gather(*map(reader.find, ODD_IDS)) == [None] * len(ODD_IDS)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("permission", "KING"),
        ("scopes", "null"),
        ("scopes", "[" * 5000),
        ("digest", None),
        ("expires_at", None),
        ("created_by", None),
    ],
)
async def test_a_row_that_no_release_wrote_is_no_answer_for_its_token_alone(world: World, column: str, value: object) -> None:
    world.add(token(), token(B))
    world.run(f'UPDATE tokens SET "{column}" = %s WHERE id = %s', (value, A))  # noqa: S608 - our own column names
    async with world.reader() as reader:
        answers = await asyncio.gather(*map(reader.find, (A, B, C)), return_exceptions=True)
        assert isinstance(answers[0], Unavailable)
        assert answers[1:] == [token(B), None]
        assert reader.reachable


async def test_a_change_is_seen_by_the_next_look_up(world: World) -> None:
    world.add(token())
    async with world.reader() as reader:
        assert await reader.find(A) == token()
        world.run("UPDATE tokens SET revoked_at = 7, revoked_by = 'ana'")
        assert await reader.find(A) == token(revoked_at=7, revoked_by="ana")


# --- who waits for whom


async def test_thousands_at_once_share_a_few_queries(world: World) -> None:
    records = [token(f"{number:012}") for number in range(2 * BATCH + 1)]
    world.add(*records)
    async with world.reader() as reader:
        waiting = [reader.find(record.id) for record in records for _ in range(3)]
        assert len(set(waiting)) == 3 * len(records)
        assert await asyncio.gather(*waiting) == [record for record in records for _ in range(3)]
        assert world.connections == 1


async def test_who_stops_waiting_disturbs_nobody(world: World) -> None:
    world.add(token(), token(B))
    async with world.reader(by_proxy=True) as reader:
        barrier = world.proxy.hold(A.encode(), answers=True)
        sent = [reader.find(A), reader.find(A), reader.find(B)]
        await barrier.reached.wait()
        queued = [reader.find(A), reader.find(A), reader.find(C)]
        for one in (sent[0], sent[2], queued[0], queued[2]):
            one.cancel()
        barrier.let_pass()
        assert await sent[1] == token()
        assert await queued[1] == token()
        assert await reader.find(B) == token(B)
        with pytest.raises(asyncio.CancelledError):
            await sent[0]


# A record that was read before a revocation must not answer a look-up that began after it: the verdict would be kept as fresh.
async def test_who_asks_later_never_gets_an_answer_that_was_read_earlier(world: World) -> None:
    world.add(token())
    async with world.reader(by_proxy=True) as reader:
        barrier = world.proxy.hold(A.encode(), answers=True)
        before = reader.find(A)
        await barrier.reached.wait()
        world.run("UPDATE tokens SET revoked_at = 7, revoked_by = 'ana'")
        after = reader.find(A)
        barrier.let_pass()
        assert await before == token()
        assert await after == token(revoked_at=7, revoked_by="ana")


# --- a server that is slow, cut, paused or gone


@dataclass
class Figures:
    """What look-ups every 10 ms met."""

    began: float = field(default_factory=time.monotonic)
    good: list[float] = field(default_factory=list)
    at_once: int = 0
    waited: list[float] = field(default_factory=list)
    last_refused_at: float = 0.0

    async def ask(self, reader: PostgresReader) -> None:
        """Ask once and count."""
        started = time.monotonic()
        try:
            future = reader.find(A)
        except Unavailable:
            self.at_once += 1
        else:
            try:
                assert await future == token()
            except Unavailable:
                self.waited.append(time.monotonic() - started)
            else:
                self.good.append(time.monotonic() - started)
                return
        self.last_refused_at = time.monotonic()

    def tell(self, what: str, mended_at: float) -> None:
        """Print the figures."""
        longest = max([*self.waited, 0.0])
        back = max(0.0, self.last_refused_at - mended_at)
        slowest = max(self.good)
        sys.stdout.write(
            f"{what}: {len(self.good)} answered (slowest {slowest * 1e3:.0f} ms), {len(self.waited)} waited in vain "
            f"(at most {longest * 1e3:.0f} ms), {self.at_once} refused at once, back after {back * 1e3:.0f} ms\n"
        )


@contextlib.asynccontextmanager
async def load(reader: PostgresReader) -> AsyncIterator[Figures]:
    """Ask every 10 ms meanwhile."""
    figures, asking = Figures(), set()

    async def run() -> None:
        while True:
            task = asyncio.ensure_future(figures.ask(reader))
            asking.add(task)
            await asyncio.sleep(0.01)  # why: a load at a steady rate

    running = asyncio.ensure_future(run())
    await until(lambda: len(asking) >= 10)
    try:
        yield figures
    finally:
        running.cancel()
        await asyncio.wait({running})
        await asyncio.gather(*asking)


async def test_a_connection_that_is_cut_is_replaced_unnoticed(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOOK_UP_TIME", PATIENCE)
    world.add(token())
    async with world.reader() as reader:
        async with load(reader) as figures:
            for _ in range(5):
                assert world.postgres.cut(world.database) == 1
                mended_at = time.monotonic()
                await asyncio.sleep(0.2)  # why: the load goes on between two cuts
        figures.tell("cut five times", mended_at)
        assert len(figures.good) > 10
        assert figures.at_once + len(figures.waited) == 0
        await connected(world, 1)
    await connected(world, 0)
    assert told(caplog) == []


async def test_a_connection_that_is_cut_during_a_query_is_replaced_once(world: World) -> None:
    world.add(token())
    async with world.reader(by_proxy=True) as reader:
        first = world.proxy.hold(A.encode(), answers=True)
        answer = reader.find(A)
        await first.reached.wait()
        world.proxy.cut()
        assert await answer == token()

        second, third = (world.proxy.hold(A.encode(), answers=True) for _ in range(2))
        answer = reader.find(A)
        await second.reached.wait()
        world.proxy.cut()
        await third.reached.wait()
        world.proxy.cut()
        with pytest.raises(Unavailable):
            await answer
        assert await found_again(reader) == token()


async def test_a_paused_server_holds_nobody_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add(token())
    async with world.reader() as reader:
        async with load(reader) as figures:
            with world.postgres.paused():
                await asyncio.sleep(3)  # why: the server is paused for three seconds
                assert not reader.reachable
                assert figures.at_once > 10
                assert 0 < len(figures.waited) < 80
                assert max(figures.waited) < 2.5
            mended_at = time.monotonic()
            await is_reachable(reader)
            await asyncio.sleep(0.2)  # why: the load goes on behind the trouble
        figures.tell("paused 3 s", mended_at)
        await connected(world, 1)
        # The running test, the reader, and nobody who still waits for what was abandoned.
        assert len(asyncio.all_tasks()) == 2
    assert [line for line in told(caplog) if "token store" in line] == ["token store lost", "token store back"]


async def test_a_killed_server_is_found_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add(token())
    async with world.reader() as reader:
        async with load(reader) as figures:
            try:
                world.postgres.kill()
                await is_reachable(reader, reachable=False)
                await asyncio.sleep(0.3)  # why: the server stays away for a while
            finally:
                world.postgres.start()
            mended_at = time.monotonic()
            await is_reachable(reader)
            await asyncio.sleep(0.2)  # why: the load goes on behind the trouble
        figures.tell("killed and started again", mended_at)
        assert figures.at_once > 0
        await connected(world, 1)
    assert told(caplog) == ["token store lost", "token store back"]


# A query that waits for a lock is cancelled on the server too, or each attempt would leave a process there.
async def test_a_locked_table_holds_nobody_up(world: World) -> None:
    world.add(token())
    async with world.reader() as reader:
        assert await reader.find(A) == token()
        with world.postgres.connect(world.database) as other, other.transaction():
            other.execute("LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
            waiting = [reader.find(A), reader.find(B)]
            assert LOOK_UP_TIME - 0.1 < await refused(reader) < AT_ONCE
            assert all(isinstance(one.exception(), Unavailable) for one in waiting)
            with pytest.raises(Unavailable):
                reader.find(A)
            await asyncio.sleep(1.5)  # why: attempts go on meanwhile, and none may leave a connection
            assert world.connections <= 2
        assert await found_again(reader) == token()
        await connected(world, 1)


async def test_a_silent_network_holds_nobody_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Connections are made and nothing comes back: what psycopg needs ten seconds for, a cancellation included."""
    world.add(token())
    async with world.reader(by_proxy=True) as reader:
        assert await reader.find(A) == token()
        world.proxy.fall_silent()
        reader.find(B)
        assert LOOK_UP_TIME - 0.1 < await refused(reader) < AT_ONCE
        for _ in range(20):
            with pytest.raises(Unavailable):
                reader.find(A)
            await asyncio.sleep(0.05)  # why: look-ups over a second of silence
        world.proxy.speak()
        assert await found_again(reader) == token()
        await connected(world, 1)
        assert [line for line in told(caplog) if "psycopg" not in line and "cancel" not in line] == [
            "token store lost",
            "token store back",
        ]


async def test_closing_waits_for_no_silent_network(world: World) -> None:
    world.add(token())
    for seconds in (0.05, LOOK_UP_TIME + 0.02, LOOK_UP_TIME + 0.2):
        # A query is under way; it was just abandoned; a new connection is being made.
        async with world.reader(by_proxy=True) as reader:
            world.proxy.fall_silent()
            under_way = reader.find(A)
            await asyncio.sleep(seconds)  # why: the end comes at each of these moments
        assert isinstance(under_way.exception(), Unavailable)
        world.proxy.speak()
        await until(lambda: world.proxy.connections == 0, seconds=PATIENCE)


async def test_a_standby_is_not_asked(world: World) -> None:
    """It may not know yet what the change feed has told; a URL that permits one changes nothing."""
    async with world.reader() as reader:
        assert reader.reachable
    other = PostgresReader(world.address() + "&target_session_attrs=standby", peppers=PEPPERS, clock=CLOCK)
    await other.open()
    assert other.reachable
    await other.close()


# --- the start


async def refuses_to_open(world: World, hint: str, **changes: Any) -> None:
    with pytest.raises(StoreError, match=hint):
        async with world.reader(**changes):
            pass
    await connected(world, 0)


@pytest.mark.parametrize("revision", ["9999", "0000", "", None])
async def test_another_schema_is_refused_with_a_hint(world: World, revision: str | None) -> None:
    world.run("DELETE FROM alembic_version")
    if revision is not None:
        world.run("INSERT INTO alembic_version VALUES (%s)", (revision,))
    await refuses_to_open(world, "extauthz store migrate")


async def test_an_empty_database_is_refused_with_a_hint(world: World) -> None:
    world.run("DROP TABLE alembic_version, tokens, peppers")
    await refuses_to_open(world, "the token store is empty: run 'extauthz store migrate'")


@pytest.mark.parametrize("table", ["alembic_version", "peppers", "tokens"])
async def test_a_missing_right_is_refused_with_its_name(world: World, table: str) -> None:
    role = f"role_{world.database}_{table}"
    world.run(f"CREATE ROLE {role} LOGIN")
    world.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    world.run(f"REVOKE SELECT ON {table} FROM {role}")  # noqa: S608 - our own names
    await refuses_to_open(world, f"permission denied for table {table}", user=role)
    world.run(f"GRANT SELECT ON {table} TO {role}")
    async with world.reader(user=role) as reader:
        assert reader.reachable


@pytest.mark.parametrize(
    ("name", "expected", "hint"),
    [("p2", fingerprint(PEPPERS["p1"]), "1 active token needs pepper 'p2'"), ("p1", "f" * 16, "restore its file")],
    ids=["missing", "another"],
)
async def test_a_wrong_pepper_is_refused(world: World, name: str, expected: str, hint: str) -> None:
    world.add(token(pepper_id=name))
    world.run("INSERT INTO peppers VALUES (%s, %s)", (name, expected))
    await refuses_to_open(world, hint)


async def test_the_right_pepper_is_welcome(world: World) -> None:
    world.run("INSERT INTO peppers VALUES ('p1', %s)", (fingerprint(PEPPERS["p1"]),))
    async with world.reader() as reader:
        assert reader.reachable


# Admins may begin with a new pepper before every sidecar has it: a cut connection must not stop those tokens that do not need it.
async def test_a_pepper_that_is_added_later_stops_no_other_tokens(world: World) -> None:
    world.add(token())
    world.run("INSERT INTO peppers VALUES ('p1', %s)", (fingerprint(PEPPERS["p1"]),))
    async with world.reader() as reader:
        world.run("INSERT INTO peppers VALUES ('p2', %s)", ("2" * 16,))
        world.postgres.cut(world.database)
        assert await reader.find(A) == token()


async def test_another_store_behind_the_same_address_is_no_answer(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add(token())
    async with world.reader() as reader:
        world.run("INSERT INTO peppers VALUES ('p1', %s)", ("f" * 16,))
        world.postgres.cut(world.database)
        await refused(reader)
        await asyncio.sleep(0.5)  # why: attempts go on meanwhile, and none may succeed
        with pytest.raises(Unavailable):
            reader.find(A)
        world.run("DELETE FROM peppers")
        assert await found_again(reader) == token()
    assert told(caplog) == ["token store lost", "token store back"]
    assert "restore its file" in ours(caplog)[0].cause  # type: ignore[attr-defined]


async def test_a_database_that_is_away_at_the_start_is_looked_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The process starts; a problem of the configuration that shows later is told, stops nothing and can be mended."""
    world.add(token())
    world.run("UPDATE alembic_version SET version_num = '9999'")
    try:
        world.postgres.kill()
        started = time.monotonic()
        async with world.reader() as reader:
            assert time.monotonic() - started < AT_ONCE
            assert not reader.reachable
            with pytest.raises(Unavailable):
                reader.find(A)
            world.postgres.start()
            await until(lambda: len(ours(caplog)) >= 2, seconds=PATIENCE)
            assert not reader.reachable
            world.run("UPDATE alembic_version SET version_num = %s", (REVISION,))
            assert await found_again(reader) == token()
    finally:
        world.postgres.start()
    assert told(caplog) == ["token store lost", "token store lost", "token store back"]
    assert "9999" in ours(caplog)[1].cause  # type: ignore[attr-defined]


# --- the password


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (f"postgresql://ana:{PASSWORD}@db/tokens", "holds a password"),
        (f"postgresql://ana@db/tokens?password={PASSWORD}", "holds a password"),
        (f"postgresql://ana@db/tokens?{PASSWORD}=1", "no postgresql:// URL"),
        (f"postgresql://ana:{PASSWORD}@[db/tokens", "no postgresql:// URL"),
        (f"mysql://ana:{PASSWORD}@db/tokens", "no postgresql:// URL"),
    ],
)
def test_an_address_that_will_not_do_is_not_repeated(address: str, told: str) -> None:
    with pytest.raises(StoreError, match=told) as caught:
        PostgresReader(address, peppers={}, clock=CLOCK)

    assert PASSWORD not in "".join(traceback.format_exception(caught.value)).replace(repr(address), "")


async def test_the_password_is_used_and_never_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add(token())
    role = f"role_{world.database}"
    rules = world.postgres.socket_folder / "pg_hba.conf"
    world.run(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")
    world.run("SELECT pg_reload_conf()")
    caplog.set_level(logging.DEBUG)
    async with world.reader(user=role) as reader:
        assert await reader.find(A) == token()
        world.run(f"ALTER ROLE {role} PASSWORD 'another'")
        world.postgres.cut(world.database)
        await refused(reader)
        await until(lambda: "password authentication failed" in str([vars(record) for record in caplog.records]))
        said = [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
        assert any("password authentication failed" in line for line in said)
        assert PASSWORD not in f"{said} {reader!r} {vars(reader)}"
        world.run(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
        assert await found_again(reader) == token()
