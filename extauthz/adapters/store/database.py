"""Connections and transactions of a token store on SQLite or PostgreSQL; every error is a StoreError that names the store."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from extauthz.adapters.store import sqlite_file
from extauthz.adapters.store.rows import check_revision
from extauthz.adapters.store.writers_lock import NO_SUCH_TABLE, wait_for_writers
from extauthz.errors import StoreError

Kind = Literal["sqlite", "postgresql"]
_T = TypeVar("_T")

LOCK_TIMEOUT, TIMEOUT = 5.0, 6.0
"""Seconds that one statement may wait for another writer, and that it may take in all."""
MIGRATION_TIMEOUT = 30.0
"""Seconds that a migration waits for writers; it may itself take as long as it takes."""
DEADLINE = 10.0
"""Seconds for a connection and the first statement on it together, whatever stands in between; then each statement has as many."""
PATIENCE = 2.0
"""Seconds after which the caller is notified that its statement waits."""
POOL_SIZE, POOL_TIMEOUT = 4, 0.2
BATCH = 1000
"""Rows or parameters of one statement."""

_deadline: ContextVar[float] = ContextVar("_deadline")
_OTHER_WRITER = "55P03"


class Database:
    """A database and its transactions.

    `name` is its name for people: the file, or the address without password and options; `address` has the options.
    """

    kind: Kind
    name: str
    address: str

    def __init__(
        self, place: Path | str, *, create: bool = False, password: str | None = None, waiting: Callable[[str], None] | None = None
    ) -> None:
        """Take a file or a `postgresql://` URL; with `create` make a missing file, and its folder. Nothing is connected yet.

        `waiting` is called with the name of the store, once and from another thread, when it has not answered for PATIENCE seconds.
        """
        self._waiting = waiting
        self._written = self._read_only = False
        self._followed: sqlite_file.FollowedFile | None = None
        if isinstance(place, str):
            self._open_postgresql(place, password)
        else:
            self._open_sqlite(place, create=create)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One state of the store, whatever others write meanwhile; writers are not kept waiting."""
        with self._transaction(self._readers) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction, alone among the writers."""
        self._check_writable()
        with self._transaction(self._writers, locked=True) as connection:
            yield connection

    @contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        """One transaction on a store of any schema."""
        self._check_writable()
        with self._transaction(self._writers, locked=True, any_schema=True) as connection:
            if self.kind == "postgresql":
                connection.execute(_LIMITS, _milliseconds(statement=0, lock=MIGRATION_TIMEOUT))
                _bound(connection, patience=None)
            yield connection

    def revision(self) -> str | None:
        """Return the schema revision, None for an empty database."""
        with self._transaction(self._readers, any_schema=True) as connection:
            return revision_of(connection)

    def close(self) -> None:
        """Close the pool; after a change of a SQLite store empty the write-ahead log before, if nobody else uses it."""
        if self.kind == "sqlite" and self._written:
            with suppress(SQLAlchemyError, sqlite3.Error), self._writers.connect() as connection:
                # Who reads or writes at the moment is not waited for, and a full disk is no error of what is committed: the log
                # stays, and its next writer empties it.
                connection.connection.execute("PRAGMA busy_timeout = 0")
                connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writers.dispose()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what a database raises into StoreError."""
        try:
            yield
        except IntegrityError as error:
            raise StoreError(f"{self.name}: refused by the store ({_cause(error)})") from error
        except PoolTimeoutError as error:
            raise StoreError(f"{self.name}: all {POOL_SIZE} connections are in use: try again") from error
        except OverflowError as error:
            raise StoreError(f"{self.name}: refused by the store ({error})") from error
        except ValueError as error:
            raise StoreError(f"{self.name}: {error}: restore the store from a backup") from error
        except DBAPIError as error:
            hint = ": another change is under way, try again" if _is_busy(error) else ""
            raise StoreError(f"{self.name}: the token store cannot be used ({_cause(error)}){hint}") from error
        except SQLAlchemyError as error:
            raise StoreError(f"{self.name}: the token store cannot be used ({type(error).__name__})") from error

    @contextmanager
    def _transaction(self, engine: sa.Engine, *, locked: bool = False, any_schema: bool = False) -> Iterator[sa.Connection]:
        with self.explained():
            connection = self._begin(engine, locked=locked, any_schema=any_schema)
            try:
                if not any_schema:
                    self._check_schema(connection)
                yield connection
                connection.commit()
                self._written |= locked
                if self._read_only:
                    sqlite_file.check_unchanged(connection.connection.driver_connection)
            finally:
                # What is not committed by now never was.
                connection.close()

    def _begin(self, engine: sa.Engine, *, locked: bool, any_schema: bool) -> sa.Connection:
        _deadline.set(time.monotonic() + DEADLINE)
        with self._notifying():
            try:
                return self._begin_once(engine, locked=locked, any_schema=any_schema)
            except DBAPIError as error:
                if not error.connection_invalidated or time.monotonic() >= _deadline.get():
                    raise
                # It was cut while it lay in the pool: nothing was sent yet, and the pool has dropped the others with it.
                return self._begin_once(engine, locked=locked, any_schema=any_schema)

    def _begin_once(self, engine: sa.Engine, *, locked: bool, any_schema: bool) -> sa.Connection:
        if self._followed is not None and self._followed.was_replaced():
            self._writers.dispose()
        connection = engine.connect()
        try:
            if self.kind == "postgresql":
                _bound(connection, deadline=_deadline.get())
            connection.begin()
            if self.kind == "postgresql":
                connection.execute(_LIMITS, _milliseconds(statement=TIMEOUT, lock=LOCK_TIMEOUT))
                _bound(connection, patience=DEADLINE)
                if locked:
                    wait_for_writers(connection, any_schema=any_schema, check_schema=self._check_schema)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _notifying(self) -> Iterator[None]:
        """Call `waiting`, once, when the block takes long."""
        if self._waiting is None:
            yield
            return
        timer = threading.Timer(PATIENCE, self._notify)
        timer.daemon = True
        due = time.monotonic() + PATIENCE
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            # On a busy machine its turn may never have come.
            if time.monotonic() >= due:
                self._notify()

    def _notify(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting(self.name)

    def _check_schema(self, connection: sa.Connection) -> None:
        try:
            revision = _revision(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != NO_SUCH_TABLE and "no such table" not in str(error.orig):
                raise
            revision = None
        try:
            check_revision(revision)
        except StoreError as error:
            raise StoreError(f"{self.name}: {error}") from error

    def _check_writable(self) -> None:
        if self._read_only:
            raise StoreError(f"{self.name}: this user may only read it: let it write to the file and to its folder")

    def _open_sqlite(self, path: Path, *, create: bool) -> None:
        self.kind, self.name, self.address = "sqlite", str(path), str(path)
        if create:
            sqlite_file.make(path)
        sqlite_file.check_there(path)
        self._read_only = sqlite_file.is_read_only(path)
        self._followed = sqlite_file.FollowedFile(path)
        url = sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})
        if self._read_only:
            # Opened anew for each transaction: what is read of a file without a log holds for one of them.
            creator = partial(sqlite_file.open_for_one_reading, path)
            self._writers = sa.create_engine(url, creator=creator, poolclass=sa.NullPool, hide_parameters=True)
        else:
            self._writers = sa.create_engine(url, connect_args={"timeout": LOCK_TIMEOUT}, hide_parameters=True)
            sa.event.listen(self._writers, "connect", _configure_sqlite)
        # pysqlite would commit before DDL: with its own transactions off, a failed migration leaves nothing behind.
        sa.event.listen(self._writers, "begin", _begin_sqlite)
        self._readers = self._writers.execution_options(reads=True)

    def _open_postgresql(self, text: str, password: str | None) -> None:
        # A SQLite store has no use for it.
        from extauthz.adapters.store.connecting import connect, parameters, read_address

        self.kind = "postgresql"
        address = read_address(text)
        self.address, self.name = address.text, address.name
        # Nothing that belongs to a session, so that a transaction pooler may stand between.
        arguments = parameters(address, "extauthz") | {"password": password, "prepare_threshold": None}
        self._writers = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(_deadline.get(), **arguments),
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            isolation_level="READ COMMITTED",
            hide_parameters=True,
        )
        self._readers = self._writers.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def batches(rows: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield rows in lists that fit into one statement."""
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        yield batch


_LIMITS = sa.text("SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true)")


def _milliseconds(**seconds: float) -> dict[str, str]:
    return {name: f"{value * 1000:.0f}" for name, value in seconds.items()}


def revision_of(connection: sa.Connection) -> str | None:
    """Return the schema revision, None for an empty database."""
    return _revision(connection) if sa.inspect(connection).has_table("alembic_version") else None


def _revision(connection: sa.Connection) -> str | None:
    revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return None if revision is None else str(revision)


def _bound(connection: sa.Connection, *, deadline: float | None = None, patience: float | None = None) -> None:
    """Set when a connection to PostgreSQL gives up what is not answered."""
    driver: Any = connection.connection.driver_connection
    driver.deadline, driver.patience = deadline, patience


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None
    sqlite_file.keep_log(connection, LOCK_TIMEOUT)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")


def _is_busy(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _OTHER_WRITER or (
        isinstance(error, OperationalError) and "database is locked" in str(error.orig)
    )


def _cause(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
