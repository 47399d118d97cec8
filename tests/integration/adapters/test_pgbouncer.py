"""A store behind a real pgbouncer, over TCP with TLS, in both of its modes: what works, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from extauthz.adapters.store import contact
from extauthz.adapters.store.following import PostgresFollower
from extauthz.adapters.store.link import DatabaseLink
from extauthz.adapters.store.postgres import PostgresReader, PostgresUsage
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.errors import Unavailable
from extauthz.verifiers.change_feed import Feed
from tests.support.command_line import SETTINGS, configured, created, run, told
from tests.support.pooler import PASSWORD, PgBouncer, pgbouncer
from tests.support.postgresql import ANA, KEY, NOW, PostgresServer, fill, token
from tests.support.sidecar import PATIENCE, Sidecar, sidecar
from tests.support.waiting import until
from tests.support.world import StillClock, bearer

__all__ = ["sidecar"]

pytest_plugins = ["tests.support.postgresql"]
pytestmark = pytest.mark.pool

A, B, C = (letter * 12 for letter in "abc")


@pytest.fixture(scope="module")
def pools(postgresql: PostgresServer) -> Iterator[dict[str, PgBouncer]]:
    """A pool of each mode."""
    with pgbouncer(postgresql, "transaction") as transaction, pgbouncer(postgresql, "session") as session:
        yield {"transaction": transaction, "session": session}


@pytest.fixture
def database(postgresql: PostgresServer, pools: dict[str, PgBouncer]) -> Iterator[str]:
    """A migrated database, removed whoever is still connected."""
    assert pools
    with postgresql.database() as name:
        yield name


@dataclass
class Follower:
    """A feed that is followed through a pool."""

    feed: Feed
    link: DatabaseLink

    @contextlib.asynccontextmanager
    async def following(self, *, listen: bool, poll_interval: float) -> AsyncIterator[None]:
        """Follow, and end."""
        follower = PostgresFollower(
            self.link,
            position=lambda: self.feed.position,
            apply=self.feed.apply,
            poll_interval=poll_interval,
            listen=listen,
        )
        task = asyncio.create_task(follower.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})


def followed(pool: PgBouncer, database: str, *, prepare: bool) -> Follower:
    """Begin with a feed that has heard nothing."""
    return Follower(Feed(clock=StillClock(NOW), memory=60.0), DatabaseLink(pool.url(database), PASSWORD, prepare=prepare))


@pytest.mark.parametrize(("mode", "feed"), [("transaction", "poll"), ("session", "poll"), ("session", "notify")])
async def test_it_is_read_and_followed(pools: dict[str, PgBouncer], database: str, mode: str, feed: str) -> None:
    pool, listen = pools[mode], feed == "notify"
    place = pool.url(database)
    followed_by = followed(pool, database, prepare=listen)
    usage = PostgresUsage(place, password=PASSWORD)
    reader = PostgresReader(place, password=PASSWORD, peppers={}, clock=StillClock(NOW), prepare=listen)
    with closing(SqlTokenStore(place, password=PASSWORD, audit=KEY)) as store:
        # Before there is a token that needs a pepper.
        await reader.open()
        await asyncio.to_thread(fill, store, token(A), token(B))
        # Notified, or not at all within a minute.
        async with followed_by.following(listen=listen, poll_interval=60.0 if listen else 0.1):
            try:
                for _ in range(10):
                    found = await asyncio.gather(*(reader.find(token_id) for token_id in (A, B, C)))
                    assert found == [token(A), token(B), None]
                await until(lambda: followed_by.feed.position == 2)
                await asyncio.to_thread(store.revoke, [A], None, ANA)
                await until(lambda: followed_by.feed.position == 3)
                seen = await reader.find(A)
                assert seen is not None
                assert seen.revoked_at == ANA.at
                assert await usage.record_usage({B: (NOW, "10.0.0.0/24")}) == 1
            finally:
                await reader.close()
                await usage.close()


async def test_notifications_do_not_pass_and_their_absence_is_named(
    pools: dict[str, PgBouncer], database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a newer pgbouncer, which keeps prepared statements in order, so that nothing else fails."""
    pool = pools["transaction"]
    followed_by = followed(pool, database, prepare=False)
    with closing(SqlTokenStore(pool.url(database), password=PASSWORD, audit=KEY)) as store:
        async with followed_by.following(listen=True, poll_interval=0.1):
            for number, letter in enumerate("abcd", 1):
                await asyncio.to_thread(fill, store, token(letter * 12))
                await until(lambda number=number: followed_by.feed.position == number)
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in said] == ["changes of the token store come without notifications"]
    assert "write tokens.feed: poll" in said[0].cause  # type: ignore[attr-defined]


async def test_prepared_statements_that_are_lost_name_their_cause(
    pools: dict[str, PgBouncer], database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The plans that `feed: notify` keeps on the server belong to a session, and to another one after each transaction."""
    place = pools["transaction"].url(database)
    readers = [PostgresReader(place, password=PASSWORD, peppers={}, clock=StillClock(NOW)) for _ in range(2)]
    try:
        for reader in readers:
            await reader.open()

        async def is_named() -> bool:
            with contextlib.suppress(Unavailable):
                await asyncio.gather(*(reader.find(A) for reader in readers))
            return any("tokens.feed: poll" in str(vars(record).get("cause")) for record in caplog.records)

        await until(is_named, seconds=PATIENCE)
    finally:
        for reader in readers:
            await reader.close()
    assert contact.POOLED.endswith("write tokens.feed: poll, or connect without it")


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_commands_work_through_it(pools: dict[str, PgBouncer], database: str, tmp_path: Path, mode: str) -> None:
    place = {"store": pools[mode].url(database), "store_password": {"file": "password"}}
    folder = configured(tmp_path, tokens=SETTINGS["tokens"] | place)
    (folder / "password").write_text(PASSWORD)
    made = created(folder)
    assert [row["id"] for row in told(folder, "token", "list")["tokens"]] == [made["id"]]
    result = run(folder, "token", "revoke", made["id"], "--yes", "--json")
    assert (result.exit_code, result.stderr) == (0, ""), "no warning, and nobody waited"
    status = told(folder, "store", "status")
    assert (status["revoked"], status["store"]) == (1, f"postgresql://postgres@localhost:{pools[mode].port}/{database}")
    assert told(folder, "audit", "verify")["head"] == status["audit"]


def test_it_is_served_through_a_pool_of_transactions(sidecar: Sidecar, pools: dict[str, PgBouncer], database: str) -> None:
    place = {"store": pools["transaction"].url(database), "store_password": {"file": "password"}, "feed": "poll"}
    sidecar.settings["tokens"] |= place | {"poll_interval": "250ms"}
    sidecar.write()
    (sidecar.folder / "password").write_text(PASSWORD)
    text = sidecar.token()
    sidecar.start()
    assert sidecar.check(bearer(text)).status.code == 0
    assert sidecar.command("token", "revoke", text.split("_")[1], "--yes").exit_code == 0
    deadline = time.monotonic() + PATIENCE
    while sidecar.check(bearer(text)).status.code == 0:
        assert time.monotonic() < deadline
    assert sidecar.stop() == 0
    log = sidecar.logs[1].read_text()
    assert "lost" not in log
    assert "tokens.store" not in log
