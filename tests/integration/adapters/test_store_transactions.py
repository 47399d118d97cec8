"""Transactions of the command line on a SQLite store: what its file may be, who waits for whom, and how each error reads."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from extauthz.adapters.store import database, sql, sqlite_file
from extauthz.adapters.store.database import Database
from extauthz.adapters.store.feed_rows import feed_batch, feed_slice
from extauthz.adapters.store.records import AuditExport, Revocation
from extauthz.adapters.store.rules import MAX_USED_FROM, possible
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.adapters.store.usage import use_rows
from extauthz.errors import ChangeRefused, StoreError
from extauthz.ports import EMPTY_AUDIT, FeedBatch
from extauthz.verifiers.change_feed import SLICE
from tests.support.postgresql import ANA, FINGERPRINT, KEY, NOW, fill, token
from tests.support.unprivileged import owner, unprivileged

pytest_plugins = ["tests.support.postgresql"]

A, B, C = (letter * 12 for letter in "abc")
FOREVER = 3600.0
"""Seconds: a test that waited for as long would not end."""


@pytest.fixture
def path(sqlite_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sqlite_template, tmp_path / "tokens.db"))


@pytest.fixture
def opened(path: Path) -> Iterator[Database]:
    with closing(Database(path)) as found:
        yield found


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection to the file."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)) as connection:
        yield connection


# --- how an error reads


class OfPostgresql(Exception):
    """An error as psycopg raises it."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("canceling statement\n  due to lock timeout")
        self.sqlstate = sqlstate


LOCKED = sqlite3.OperationalError("database is locked")
AGAIN = ": another change is under way, try again"
READINGS: list[tuple[Exception, str]] = [
    (IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE\n failed")), "refused by the store (UNIQUE failed)"),
    (PoolTimeoutError("QueuePool limit"), "all 4 connections are in use: try again"),
    (OverflowError("int too large"), "refused by the store (int too large)"),
    (ValueError("a row that no release wrote"), "a row that no release wrote: restore the store from a backup"),
    (OperationalError("SELECT", {}, LOCKED), f"the token store cannot be used (database is locked){AGAIN}"),
    (DatabaseError("SELECT", {}, LOCKED), "the token store cannot be used (database is locked)"),
    (OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O")), "the token store cannot be used (disk I/O)"),
    (
        DBAPIError("SELECT", {}, OfPostgresql("55P03")),
        f"the token store cannot be used (canceling statement due to lock timeout){AGAIN}",
    ),
    (
        DBAPIError("SELECT", {}, OfPostgresql("57014")),
        "the token store cannot be used (canceling statement due to lock timeout)",
    ),
    (InvalidRequestError("a transaction is begun"), "the token store cannot be used (InvalidRequestError)"),
]


@pytest.mark.parametrize(("error", "reading"), READINGS)
def test_an_error_names_the_store_and_what_to_do(opened: Database, path: Path, error: Exception, reading: str) -> None:
    with pytest.raises(StoreError) as caught, opened.explained():
        raise error
    assert (str(caught.value), caught.value.__cause__) == (f"{path}: {reading}", error)


def test_values_are_in_no_error(opened: Database) -> None:
    """A traceback that somebody logs would have them: digests are among them."""
    statement = sa.text("INSERT INTO peppers (id, fingerprint) VALUES (:id, :fingerprint)")
    row = {"id": "p1", "fingerprint": "s3cret"}
    with pytest.raises(StoreError, match="refused by the store") as caught, opened.writing() as connection:
        connection.execute(statement, [row, row])
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"
    with opened.reading() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM peppers")) == 0


def test_a_store_without_a_schema_is_told_from_one_that_cannot_be_read(tmp_path: Path, opened: Database, path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with closing(Database(tmp_path / "empty.db")) as empty:
        assert empty.revision() is None
        with pytest.raises(StoreError) as caught, empty.reading():
            pass
        assert str(caught.value) == f"{tmp_path}/empty.db: the token store is empty: run 'extauthz store migrate'"
    assert opened.revision() == "0003"
    with opened.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE alembic_version RENAME COLUMN version_num TO another")
    with pytest.raises(StoreError, match=r"tokens\.db: the token store cannot be used \(no such column: version_num\)$"):
        opened.writing().__enter__()
    with opened.migrating() as connection:
        connection.exec_driver_sql("ALTER TABLE alembic_version RENAME COLUMN another TO version_num")
        connection.exec_driver_sql("DELETE FROM alembic_version")
    with pytest.raises(StoreError, match="the token store is empty"):
        opened.reading().__enter__()
    assert opened.revision() is None


def test_a_store_of_a_newer_release_is_not_migrated_by_this_one(path: Path, other: sqlite3.Connection) -> None:
    with closing(SqlTokenStore(path)) as store:
        assert store.clock() is None
        other.execute("UPDATE alembic_version SET version_num = '0004'")
        assert (store.migrate(), store.revision()) == ("0004", "0004")
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreError) as caught:
            store.migrate()
        assert str(caught.value).startswith(f"{path}: ")
        assert "9999" in str(caught.value)
        assert str(caught.value).endswith(": the store was made by a newer release, use that one")


# --- who waits


def test_who_waits_is_notified_once_and_while_it_waits(
    path: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (database.PATIENCE, database.DEADLINE) == (2.0, 10.0)
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    notified: list[tuple[str, bool]] = []

    def waiting(name: str) -> None:
        notified.append((name, threading.current_thread() is threading.main_thread()))
        other.execute("ROLLBACK")

    with closing(Database(path, waiting=waiting)) as opened:
        for _ in range(2):
            other.execute("BEGIN IMMEDIATE")
            if notified:
                other.execute("ROLLBACK")
            with opened.writing():
                assert notified == [(str(path), False)]


def test_a_wait_that_is_over_is_told_where_no_thread_had_its_turn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(threading.Timer):
        def run(self) -> None:
            pass

    monkeypatch.setattr(threading, "Timer", Never)
    monkeypatch.setattr(database, "PATIENCE", 0.0)
    notified: list[str] = []
    with closing(SqlTokenStore(path, waiting=notified.append)) as store:
        assert store.get(A) is None
    assert notified == [str(path)]


def test_who_went_on_is_not_notified_any_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has ended before the transaction begins: what it is just about to say would come at any time later."""
    ended: list[bool] = []

    class Watched(threading.Timer):
        def join(self, timeout: float | None = None) -> None:
            super().join(timeout)
            ended.append(not self.is_alive())

    monkeypatch.setattr(threading, "Timer", Watched)
    with closing(Database(path, waiting=lambda _: None)) as opened, opened.reading():
        assert ended == [True]


def test_who_does_not_wait_is_not_notified(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE", FOREVER)
    before, notified = threading.enumerate(), list[str]()
    with closing(Database(path, waiting=notified.append)) as opened, opened.reading():
        assert notified == []
    assert notified == []
    assert [one for one in threading.enumerate() if isinstance(one, threading.Timer) and one not in before] == []


class Pool:
    """An engine that cannot connect as often as a test says, and then can."""

    def __init__(self, engine: sa.Engine, errors: int, *, cut: bool) -> None:
        self.engine, self.errors, self.cut = engine, errors, cut
        self.tries = 0

    def connect(self) -> sa.Connection:
        self.tries += 1
        if self.tries <= self.errors:
            raise DBAPIError("SELECT", {}, Exception("the connection is lost"), connection_invalidated=self.cut)
        return self.engine.connect()


@pytest.mark.parametrize(
    ("errors", "cut", "deadline", "tries"),
    [(0, True, 10.0, 1), (1, True, 10.0, 2), (2, True, 10.0, 2), (1, False, 10.0, 1), (1, True, 0.0, 1)],
)
def test_a_connection_that_was_cut_in_the_pool_is_made_anew_once(
    opened: Database, monkeypatch: pytest.MonkeyPatch, errors: int, *, cut: bool, deadline: float, tries: int
) -> None:
    monkeypatch.setattr(database, "DEADLINE", deadline)
    pool: Any = Pool(opened._readers, errors, cut=cut)
    opened._readers = pool
    if tries > errors:
        assert opened.revision() == "0003"
    else:
        with pytest.raises(StoreError, match="the connection is lost"):
            opened.revision()
    assert pool.tries == tries


class Cut(Database):
    """A database whose connections in the pool were all cut; `begun` is how each transaction was begun."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun: list[tuple[bool, bool]] = []

    def _begin_once(self, engine: sa.Engine, *, locked: bool, any_schema: bool) -> sa.Connection:
        self.begun.append((locked, any_schema))
        if len(self.begun) % 2:
            raise DBAPIError("SELECT", {}, Exception("cut"), connection_invalidated=True)
        return super()._begin_once(engine, locked=locked, any_schema=any_schema)


def test_who_writes_locks_out_the_others_also_on_a_second_connection(path: Path) -> None:
    with closing(Cut(path)) as opened:
        for transaction, expected in (
            (opened.reading, (False, False)),
            (opened.writing, (True, False)),
            (opened.migrating, (True, True)),
        ):
            opened.begun.clear()
            with transaction():
                assert opened.begun == [expected] * 2
        opened.begun.clear()
        assert opened.revision() == "0003"
        assert opened.begun == [(False, True)] * 2


def test_a_connection_whose_transaction_cannot_begin_goes_back(opened: Database, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    opened._writers.pool.dispose()
    sa.event.listen(opened._writers, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 0"))
    with pytest.raises(StoreError, match="another change is under way, try again"):
        opened.writing().__enter__()
    assert opened._writers.pool.checkedout() == 0  # type: ignore[attr-defined]


# --- transactions


def test_a_connection_of_a_file_keeps_what_it_commits(opened: Database) -> None:
    with opened.writing() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        assert [connection.scalar(sa.text(f"PRAGMA {name}")) for name in pragmas] == ["wal", 2, 1, 5000]


def test_a_statement_waits_as_long_as_the_constant_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.3)
    with closing(Database(path)) as opened, opened.reading() as connection:
        assert connection.scalar(sa.text("PRAGMA busy_timeout")) == 300


def test_no_statement_has_more_than_a_thousand_rows() -> None:
    assert [len(batch) for batch in database.batches(range(2001))] == [1000, 1000, 1]


def test_who_reads_has_one_state_and_keeps_nobody_waiting(opened: Database, other: sqlite3.Connection) -> None:
    count = sa.text("SELECT count(*) FROM peppers")
    other.execute("BEGIN IMMEDIATE")
    with opened.reading() as connection:
        assert connection.scalar(count) == 0
        other.execute("INSERT INTO peppers VALUES ('p1', 'f')")
        other.execute("COMMIT")
        assert connection.scalar(count) == 0
    with opened.reading() as connection:
        assert connection.scalar(count) == 1
    with opened.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    with opened.migrating(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")


def size_of_log(path: Path) -> int:
    log = sqlite_file.log_of(path)
    return log.stat().st_size if log.exists() else 0


def test_a_file_alone_is_the_store_after_a_change(path: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another connection stays open, so that SQLite does not do it by itself; who reads at the moment is not waited for."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT", FOREVER)
    other.execute("INSERT INTO peppers VALUES ('p1', 'f')")
    with closing(Database(path)) as opened, opened.reading():
        pass
    assert size_of_log(path) > 0, "nothing was changed"
    other.execute("BEGIN")
    other.execute("SELECT * FROM peppers").fetchall()
    for is_read in (True, False):
        with closing(Database(path)) as opened:
            with opened.writing() as connection:
                connection.exec_driver_sql("UPDATE peppers SET fingerprint = 'g'")
            with opened.reading():
                pass
        assert bool(size_of_log(path)) == is_read
        if is_read:
            other.execute("COMMIT")


def test_a_change_is_made_also_when_its_log_cannot_be_emptied(path: Path, other: sqlite3.Connection) -> None:
    """As on a disk that is full, or gone: the next writer empties it."""
    opened = Database(path)
    with opened.writing() as connection:
        connection.exec_driver_sql("INSERT INTO peppers VALUES ('p1', 'f')")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        opened.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert other.execute("SELECT id FROM peppers").fetchall() == [("p1",)]
    opened = Database(path)
    with opened.writing() as connection:
        connection.exec_driver_sql("INSERT INTO peppers VALUES ('p2', 'f')")
    opened._writers.dispose()
    path.unlink()
    path.mkdir()
    opened.close()
    assert opened._writers.pool.checkedin() == 0  # type: ignore[attr-defined]


# --- the file


def test_a_store_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "tokens.db"
    with pytest.raises(StoreError) as caught:
        Database(path)
    advice = "make one with 'extauthz store migrate' or 'extauthz token create'"
    assert str(caught.value) == f"{path}: no token store; {advice}"
    with closing(SqlTokenStore(path, create=True)) as store:
        assert (store.name, store._database.address, store._database.kind) == (str(path), str(path), "sqlite")
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        store.migrate()
    path.chmod(0o640)
    sqlite_file.make(path)
    assert path.stat().st_mode & 0o777 == 0o640
    with closing(SqlTokenStore(path)) as store:
        assert store.revision() == "0003"


def test_a_store_is_made_where_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "tokens.db")
    sqlite_file.make(tmp_path / "link.db")
    assert (tmp_path / "tokens.db").stat().st_size == 0


def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "tokens.db"
    with pytest.raises(StoreError) as caught:
        Database(path, create=True)
    assert str(caught.value) == f"{path}: cannot be made (File exists): let this user write to the folder"
    with pytest.raises(StoreError) as caught:
        Database(path)
    assert str(caught.value) == f"{path}: the token store cannot be reached (Not a directory)"


def test_which_file_it_is_and_in_which_state(path: Path) -> None:
    status = path.stat()
    assert sqlite_file.identity(path) == ((status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_size))


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_a_log_that_holds_something_belongs_to_the_store(path: Path, ending: str) -> None:
    assert sqlite_file.is_alone(path)
    log = path.with_name(f"tokens.db{ending}")
    log.touch()
    assert sqlite_file.is_alone(path)
    log.write_bytes(b"a change")
    assert not sqlite_file.is_alone(path)


def test_the_log_is_turned_on_as_soon_as_nobody_is_in_the_way(
    path: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds
        if len(pauses) == 3:
            other.execute("COMMIT")

    monkeypatch.setattr("extauthz.adapters.store.sqlite_file.time.monotonic", lambda: now)
    monkeypatch.setattr("extauthz.adapters.store.sqlite_file.time.sleep", sleep)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            sqlite_file.keep_log(connection, 0.2)
        assert len(pauses) == 2
        sqlite_file.keep_log(connection, 5.0)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert pauses == [sqlite_file.PAUSE] * 3


# --- a file that may not be changed


@pytest.fixture
def open_path(sqlite_template: Path) -> Iterator[Path]:
    """A store in a folder that another user can reach; pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory(prefix="ro-", dir="/tmp") as name:
        path = Path(shutil.copy(sqlite_template, Path(name) / "tokens.db"))
        with closing(SqlTokenStore(path, audit=KEY)) as store:
            fill(store, token(A))
        path.parent.chmod(0o755)
        path.chmod(0o644 if os.geteuid() == 0 else 0o444)
        if os.geteuid():
            path.parent.chmod(0o555)
        yield path
        path.parent.chmod(0o755)


@pytest.mark.parametrize(
    ("file", "folder", "log", "is_read_only"),
    [
        (0o666, 0o777, None, False),
        (0o444, 0o777, None, True),
        (0o666, 0o555, None, True),
        (0o666, 0o555, 0o666, False),
        (0o666, 0o777, 0o444, False),
        (0o666, 0o555, 0o444, True),
        (0o444, 0o777, 0o666, True),
    ],
)
def test_a_store_is_read_only_where_no_log_can_be_written(
    open_path: Path, file: int, folder: int, log: int | None, *, is_read_only: bool
) -> None:
    open_path.parent.chmod(0o755)
    if log is not None:
        sqlite_file.log_of(open_path).touch()
        sqlite_file.log_of(open_path).chmod(log)
    open_path.chmod(file)
    open_path.parent.chmod(folder)
    with unprivileged():
        assert sqlite_file.is_read_only(open_path) == is_read_only


def test_what_may_not_be_changed_is_read_and_not_written(open_path: Path) -> None:
    with unprivileged(), closing(Database(open_path)) as opened:
        refusal = f"{open_path}: this user may only read it: let it write to the file and to its folder"
        for attempt in (opened.writing, opened.migrating):
            with pytest.raises(StoreError) as caught:
                attempt().__enter__()
            assert str(caught.value) == refusal
        assert opened.revision() == "0003"
        for _ in range(2):
            with opened.reading() as connection:
                assert connection.scalar(sa.text("SELECT count(*) FROM tokens")) == 1
                driver: Any = connection.connection.driver_connection
                assert driver.snapshot == (open_path, sqlite_file.identity(open_path))
                assert driver.isolation_level is None
            with owner(open_path):
                os.utime(open_path, (1, 1))
        with pytest.raises(StoreError) as failed, opened.reading() as connection:
            connection.execute(sa.text("SELECT :secret FROM nowhere"), {"secret": "s3cret"})
        assert "s3cret" not in f"{failed.value}{failed.value.__cause__}"
    assert [each.name for each in open_path.parent.iterdir()] == ["tokens.db"]


def test_who_may_only_read_the_file_makes_no_log(open_path: Path) -> None:
    """One of another user could be closed to whoever changes the store."""
    with owner(open_path):
        open_path.parent.chmod(0o777)
        open_path.chmod(0o444)
    with unprivileged():
        connection, is_alone = sqlite_file.open_to_read(open_path)
        with closing(connection):
            assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
    assert is_alone
    assert [each.name for each in open_path.parent.iterdir()] == ["tokens.db"]


def test_where_no_log_can_be_made_the_file_alone_is_read(open_path: Path) -> None:
    with owner(open_path):
        open_path.chmod(0o666)
        open_path.parent.chmod(0o555)
    with unprivileged():
        connection, is_alone = sqlite_file.open_to_read(open_path)
        with closing(connection):
            assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
    assert is_alone
    assert [each.name for each in open_path.parent.iterdir()] == ["tokens.db"]


class Failing:
    """A connection to a file whose log cannot be made, as SQLite says in several ways."""

    def __init__(self, name: str) -> None:
        self.error = sqlite3.OperationalError("no log")
        self.error.sqlite_errorname = name  # type: ignore[misc]
        self.is_closed = False

    def execute(self, _statement: str) -> None:
        raise self.error

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("name", "is_without_log"),
    [
        ("SQLITE_CANTOPEN", True),
        ("SQLITE_READONLY_DIRECTORY", True),
        ("SQLITE_READONLY_CANTINIT", True),
        ("SQLITE_READONLY_RECOVERY", True),
        ("SQLITE_READONLY_ROLLBACK", False),
        ("SQLITE_IOERR", False),
    ],
)
def test_the_file_alone_is_read_where_the_error_says_that_it_has_no_log(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, is_without_log: bool
) -> None:
    failing: Any = Failing(name)
    connect = sqlite_file._connect
    monkeypatch.setattr(sqlite_file, "_connect", lambda path, options: failing if options == "mode=ro" else connect(path, options))
    if is_without_log:
        connection, is_alone = sqlite_file.open_to_read(path)
        with closing(connection):
            assert (is_alone, connection.execute("SELECT count(*) FROM tokens").fetchone()) == (True, (0,))
    else:
        with pytest.raises(sqlite3.OperationalError) as caught:
            sqlite_file.open_to_read(path)
        assert caught.value is failing.error
    assert failing.is_closed


def test_a_log_that_somebody_has_open_is_read_also_when_it_is_empty(open_path: Path) -> None:
    open_path.parent.chmod(0o755)
    with closing(sqlite3.connect(open_path)) as other:
        other.execute("SELECT count(*) FROM tokens").fetchone()
        assert sqlite_file.log_of(open_path).stat().st_size == 0
        with unprivileged():
            connection, is_alone = sqlite_file.open_to_read(open_path)
            with closing(connection):
                assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
        assert not is_alone


def test_a_rollback_that_is_under_way_is_not_read_over(open_path: Path) -> None:
    open_path.parent.chmod(0o755)
    journal = open_path.with_name("tokens.db-journal")
    journal.write_bytes(b"a change that was under way" * 100)
    with unprivileged(), pytest.raises(sqlite3.OperationalError) as caught:
        sqlite_file.open_to_read(open_path)
    assert caught.value.sqlite_errorname == "SQLITE_READONLY_ROLLBACK"


CHANGED: dict[str, Callable[[Path], object]] = {
    "time": lambda path: os.utime(path, (1, 1)),
    "log": lambda path: sqlite_file.log_of(path).write_bytes(b"a change"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_was_read_of_a_file_that_changed_meanwhile_is_no_answer(open_path: Path, what: str) -> None:
    with unprivileged(), closing(Database(open_path)) as opened:
        with pytest.raises(StoreError) as caught, opened.reading(), owner(open_path):
            CHANGED[what](open_path)
        assert str(caught.value) == f"{open_path}: changed while it was read: try again"


def test_a_connection_that_notices_changes_itself_is_not_looked_after(path: Path) -> None:
    connection, is_alone = sqlite_file.open_to_read(path)
    with closing(connection):
        assert (is_alone, connection.snapshot) == (False, None)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (50,)
        reading = threading.Thread(target=lambda: connection.execute("SELECT 1"))
        reading.start()
        reading.join()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM peppers")
        path.unlink()
        sqlite_file.check_unchanged(connection)
    sqlite_file.check_unchanged(None)


def test_what_hides_behind_a_connection_is_an_error_of_the_database(tmp_path: Path, path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match=r"No such file.*nowhere\.db"):
        sqlite_file.open_for_one_reading(tmp_path / "nowhere.db")
    path.write_bytes(b"garbage " * 512)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        sqlite_file.open_to_read(path)
    with closing(sqlite3.connect(tmp_path / "a?b%20c.db")) as made:
        made.execute("CREATE TABLE t (x)")
    with closing(sqlite_file.open_for_one_reading(tmp_path / "a?b%20c.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
        assert connection.snapshot is None


def test_a_log_that_cannot_be_read_is_named_with_its_folder(open_path: Path, sqlite_template: Path) -> None:
    """Whoever may read the log needs its index as well, which is not there and cannot be made."""
    open_path.parent.chmod(0o755)
    folder = open_path.parent
    log = sqlite_file.log_of(open_path)
    log.write_bytes(b"a change of another user")
    remedy = "or write to that folder; 'extauthz store status' by a user who may write there removes a log that nobody uses"
    for mode, names in ((0o644, "tokens.db-shm"), (0o000, "tokens.db-wal and tokens.db-shm")):
        log.chmod(mode)
        if os.geteuid():
            folder.chmod(0o555)
        with unprivileged():
            with pytest.raises(StoreError) as caught:
                sqlite_file.open_to_read(open_path)
            with pytest.raises(sqlite3.OperationalError) as in_a_transaction:
                sqlite_file.open_for_one_reading(open_path)
        said = f"{open_path}: the store was changed, and its log cannot be read ({caught.value.__cause__})"
        assert str(caught.value) == str(in_a_transaction.value) == f"{said}: let this user read {names} in {folder}, {remedy}"
        assert isinstance(caught.value.__cause__, sqlite3.Error)
    for each in ("tokens.db-wal", "tokens.db-shm"):
        open_path.with_name(each).touch()
        open_path.with_name(each).chmod(0o644)
    both = sqlite_file._unreadable(open_path, sqlite3.OperationalError("disk I/O error"))
    assert ": let this user read tokens.db-wal and tokens.db-shm in " in both


# --- rows


def row(**changes: object) -> tuple[object, ...]:
    """Return a row of the feed with these changes."""
    plain = {"epoch": 1, "head": 9, "oldest": 2, "last": 7, "mac": b"\x01", "number": 9, "token_id": A, "revision": "0003"}
    return tuple((plain | changes).values())


def test_rows_of_the_feed_make_a_batch() -> None:
    nothing = row(last=None, mac=None, number=None, token_id=None)
    assert feed_slice([nothing]) == FeedBatch(1, 9, 2, (), EMPTY_AUDIT, more=False)
    assert feed_slice([row(number=8), row(token_id=B)]) == FeedBatch(1, 9, 2, ((8, A), (9, B)), (7, "01"), more=False)
    whole = [row(head=SLICE + 1, number=number) for number in range(1, SLICE + 1)]
    assert feed_slice(whole).more
    assert not feed_slice(whole[:-1]).more
    assert not feed_slice([row(head=SLICE, number=number) for number in range(1, SLICE + 1)]).more
    assert not feed_batch(whole).more


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the store has no state: restore it from a backup"),
        *(([row(**{name: "1"})], "changes that no release wrote") for name in ("epoch", "head", "oldest", "last", "number")),
        ([row(), row(number=True)], "changes that no release wrote"),
        ([row(token_id=None)], "changes that no release wrote"),
        ([row(token_id=7)], "changes that no release wrote"),
        ([row(mac="01")], "an audit that no release wrote"),
        ([row(mac=None)], "an audit that no release wrote"),
    ],
)
def test_rows_that_no_release_wrote_are_refused(rows: list[tuple[object, ...]], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        feed_slice(rows)
    assert str(caught.value) == message


def test_rows_of_another_schema_are_refused() -> None:
    assert feed_slice([row(revision="0004")]).head == 9
    with pytest.raises(StoreError, match="has schema 9999"):
        feed_slice([row(revision="9999")])


def test_ids_that_not_every_database_takes_are_no_ids() -> None:
    assert [possible(text) for text in (A, "é", "\x00", "a\n")] == [True, False, False, False]
    uses = {B: (NOW, "x" * 99), A: (NOW + 1, ""), "é": (NOW, ""), "\x00": (NOW, "")}
    assert use_rows(uses) == [(A, NOW + 1, ""), (B, NOW, "x" * MAX_USED_FROM)]


# --- what a change records


def test_what_is_said_of_a_revocation_of_a_user_is_kept(path: Path) -> None:
    with closing(SqlTokenStore(path, audit=KEY)) as store:
        fill(store, token(A))
        assert store.status(NOW).kind == "sqlite"
        assert store.revoke_user("ana@acme.com", "left", ANA) == (A,)
        found = store.get(A)
        assert (found is not None, found and found.revoked_why) == (True, "left")


def test_the_migrations_are_found_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "100%s").symlink_to(Path(sql.__file__).parent)
    monkeypatch.setattr(sql, "__file__", str(tmp_path / "100%s" / "sql.py"))
    with closing(SqlTokenStore(tmp_path / "tokens.db", create=True)) as store:
        assert store.migrate() == "0003"


def test_an_id_that_is_given_twice_is_refused_by_its_name(path: Path) -> None:
    with closing(SqlTokenStore(path, audit=KEY)) as store:
        with pytest.raises(ChangeRefused) as caught:
            store.add_many([token(A), token(B), token(B)], {"p1": FINGERPRINT}, ANA)
        assert str(caught.value) == f"token {B} exists already"
        assert store.list_tokens() == []


def test_a_restore_records_what_it_did_and_nothing_else(path: Path) -> None:
    """A tombstone's row has its facts; an expiry that is not brought forward has none."""
    with closing(SqlTokenStore(path, audit=KEY)) as store:
        fill(store, token(A), token(B))
        export = AuditExport((Revocation(C, NOW, "eve", None),), {A: NOW + 86_400, B: NOW + 86_401}, 0, 0, (0, ""))
        restored = store.accept_restore(export, replace(ANA, at=NOW + 1))
        assert restored.expiries == ()
        assert [(row.action, row.token_id) for row in store.audit_page(2)] == [("tombstone", C), ("accept-restore", None)]
        assert store.audit_page(2)[0].after == f'{{"revoked_at":{NOW},"revoked_by":"eve","revoked_why":null}}'
