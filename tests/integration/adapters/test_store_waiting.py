"""Commands that wait for a store: they say so after two seconds, and end after ten, whatever stands in between."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from extauthz.adapters.store import database
from extauthz.adapters.store.connecting import DeadlineConnection
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.errors import StoreError
from tests.support.command_line import SETTINGS, configured, created, run, told
from tests.support.pooler import PASSWORD, PgBouncer, pgbouncer
from tests.support.postgresql import PostgresServer

pytest_plugins = ["tests.support.postgresql"]

AT_ONCE = 4.0
"""Seconds: long for what waits for nothing, and much less than the five that SQLite waits for a lock."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the times, which are seconds."""
    assert (database.PATIENCE, database.DEADLINE) == (2.0, 10.0)
    monkeypatch.setattr(database, "PATIENCE", 0.1)
    monkeypatch.setattr(database, "DEADLINE", 0.8)


@pytest.mark.usefixtures("impatient")
def test_the_end_is_one_for_all_addresses_of_a_server_that_says_nothing() -> None:
    waits: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = f"postgresql://ana@127.0.0.1:{port},127.0.0.1:{port},localhost:{port}/tokens"
        with closing(SqlTokenStore(address, password="s3cret", waiting=waits.append)) as store:
            started = time.monotonic()
            for _ in range(2):
                with pytest.raises(StoreError, match=r"cannot be used \(no connection in time") as caught:
                    store.list_tokens()
            assert time.monotonic() - started < AT_ONCE
    assert waits == [address]
    assert "s3cret" not in str(caught.value)


@contextmanager
def full(pool: PgBouncer, name: str) -> Iterator[None]:
    """Hold the only connection of a pool."""
    with pool.connect(name) as holder, holder.transaction():
        holder.execute("SELECT 1")
        yield


@pytest.mark.pool
@pytest.mark.usefixtures("impatient")
def test_behind_a_full_pool_every_command_says_what_it_waits_for_and_ends(tmp_path: Path, postgresql: PostgresServer) -> None:
    with pgbouncer(postgresql, "session", size=1) as pool, postgresql.database() as name:
        place = {"store": pool.url(name), "store_password": {"file": "password"}}
        configured(tmp_path, tokens=SETTINGS["tokens"] | place)
        (tmp_path / "password").write_text(PASSWORD)
        assert told(tmp_path, "token", "list")["tokens"] == []
        with full(pool, name):
            for command in (("token", "list"), ("store", "status"), ("store", "migrate"), ("token", "revoke", "a" * 12, "--yes")):
                started = time.monotonic()
                result = run(tmp_path, *command)
                assert time.monotonic() - started < AT_ONCE
                assert (result.exit_code, result.stdout) == (1, "")
                lines = result.stderr.splitlines()
                assert lines[0] == f"waiting for the token store at postgresql://postgres@localhost:{pool.port}/{name}"
                assert len(lines) == 2, result.exception
                assert "no answer in time: is the server there, and is a pool that stands in between not full?" in lines[1]
        assert told(tmp_path, "token", "list")["tokens"] == []


@pytest.mark.usefixtures("impatient")
def test_a_connection_of_before_is_given_up_when_the_server_pauses(postgresql: PostgresServer) -> None:
    with postgresql.database() as name, closing(SqlTokenStore(postgresql.url(name))) as store:
        assert store.list_tokens() == []
        with postgresql.paused():
            started = time.monotonic()
            with pytest.raises(StoreError, match="no answer in time"):
                store.list_tokens()
            assert time.monotonic() - started < AT_ONCE
        with pytest.raises(StoreError, match="no answer in time"), store._database.reading() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(5)")
        with store._database.migrating() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(0.8)")
        assert store.list_tokens() == []


LIBPQ = {
    "connect_timeout": "2",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""What libpq is told: seconds for each address, and when a silent network counts as broken."""


def test_the_limits_reach_the_server(postgresql: PostgresServer) -> None:
    """What a statement may take and wait for, as the server has it; what the connection may, as the driver has it."""

    def patience(connection: sa.Connection) -> float | None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, DeadlineConnection)
        return driver.patience

    def limits(connection: sa.Connection) -> tuple[str, ...]:
        return tuple(connection.scalar(sa.text(f"SHOW {name}")) for name in ("statement_timeout", "lock_timeout"))

    with postgresql.database() as name, closing(SqlTokenStore(postgresql.url(name))) as store:
        for transaction in (store._database.reading, store._database.writing):
            before = time.monotonic()
            with transaction() as connection:
                # All that came before the first statement, and that statement, had one end.
                assert before + 10 <= database._deadline.get() <= time.monotonic() + 10
                assert patience(connection) == 10.0
                told = connection.connection.driver_connection.info.get_parameters()
                assert {name: told.get(name) for name in LIBPQ} == LIBPQ
                assert limits(connection) == ("6s", "5s")
        with store._database.migrating() as connection:
            assert limits(connection) == ("0", "30s")
            assert patience(connection) is None
        assert store._database._writers.pool.timeout() == 0.2


def test_a_writer_of_a_file_waits_five_seconds_for_another(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "tokens.db")
    with closing(SqlTokenStore(tmp_path / "tokens.db")) as store, store._database.writing() as connection:
        assert connection.scalar(sa.text("PRAGMA busy_timeout")) == 5_000


def test_who_does_not_wait_is_told_nothing(tmp_path: Path) -> None:
    folder = configured(tmp_path)
    created(folder)
    result = run(folder, "token", "list")
    assert (result.exit_code, result.stderr) == (0, "")


# --- SQLite


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_who_reads_waits_for_no_writer(tmp_path: Path, lock: str) -> None:
    folder = configured(tmp_path)
    made = created(folder)
    with closing(sqlite3.connect(folder / "data" / "tokens.db", isolation_level=None)) as other:
        other.execute(lock)
        started = time.monotonic()
        assert [row["id"] for row in told(folder, "token", "list")["tokens"]] == [made["id"]]
        assert told(folder, "store", "status")["active"] == 1
        assert time.monotonic() - started < AT_ONCE


def test_who_writes_waits_for_no_reader(tmp_path: Path) -> None:
    folder = configured(tmp_path)
    created(folder)
    log = folder / "data" / "tokens.db-wal"
    with closing(sqlite3.connect(folder / "data" / "tokens.db", isolation_level=None)) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
        started = time.monotonic()
        created(folder)
        assert time.monotonic() - started < AT_ONCE
        assert log.stat().st_size > 0, "the reader still needs it"
        other.execute("COMMIT")
        created(folder)
        assert log.stat().st_size == 0, "nobody needs it"


@pytest.mark.usefixtures("impatient")
def test_a_lock_that_stays_is_told_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.4)
    folder = configured(tmp_path)
    made = created(folder)
    with closing(sqlite3.connect(folder / "data" / "tokens.db", isolation_level=None)) as other:
        for mode, command in (("WAL", ("token", "revoke", made["id"], "--yes")), ("DELETE", ("token", "list"))):
            other.execute(f"PRAGMA journal_mode = {mode}")
            other.execute("BEGIN EXCLUSIVE")
            started = time.monotonic()
            result = run(folder, *command)
            other.execute("COMMIT")
            assert time.monotonic() - started < AT_ONCE
            assert (result.exit_code, result.stderr.count("waiting for the token store at")) == (1, 1)
            assert "another change is under way, try again" in result.stderr


def test_a_late_connection_is_closed(postgresql: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that comes after its end is not left open on the server."""
    from extauthz.adapters.store import connecting

    let_go, ended = threading.Event(), threading.Event()
    connected: list[psycopg.Connection[object]] = []
    original = connecting.DeadlineConnection.connect

    def late(**given: object) -> connecting.DeadlineConnection:
        let_go.wait(20)
        connected.append(original(**given))  # type: ignore[arg-type]
        return connected[-1]  # type: ignore[return-value]

    monkeypatch.setattr(connecting.DeadlineConnection, "connect", late)
    monkeypatch.setattr(connecting, "_close_late", lambda opened, close=connecting._close_late: (close(opened), ended.set()))
    with pytest.raises(connecting.StatementOverdue):
        connecting.connect(time.monotonic() + 0.05, conninfo=postgresql.url())
    let_go.set()
    assert ended.wait(20)
    assert connected[0].closed
