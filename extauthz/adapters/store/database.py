"""Connections and transactions of a token store on SQLite or PostgreSQL; every error is a StoreError that names the store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from extauthz.adapters.store.rows import StoreError, check_revision

Kind = Literal["sqlite", "postgresql"]
_T = TypeVar("_T")

LOCK_TIMEOUT, TIMEOUT = 5.0, 6.0
"""Seconds that one statement may wait for another writer, and that it may take in all."""
MIGRATION_TIMEOUT = 30.0
"""Seconds that a migration waits for writers; it may itself take as long as it takes."""
WAL_ATTEMPTS = 50
POOL_SIZE, POOL_TIMEOUT = 4, 0.2
BATCH = 1000
"""Rows or parameters of one statement."""
LOCK = 0x65787461757468
"""The advisory lock of the first migration, when there is nothing else yet to lock. Writers take it as well if they can: those of
an earlier release wait for nothing else."""

_CONNECTION = {
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # Nothing that belongs to a session, so that a transaction pooler may stand between.
    "prepare_threshold": None,
}
_ADDRESS = "write postgresql://user@host/database"
_NO_SUCH_TABLE = "42P01"
_OTHER_WRITER = "55P03"


class Database:
    """A database and its transactions.

    `name` is how it is told to people: the file, or the address without password and options; `address` has the options.
    """

    kind: Kind
    name: str
    address: str

    def __init__(self, place: Path | str, *, create: bool = False, password: str | None = None) -> None:
        """Take a file or a `postgresql://` URL; with `create` make the file's folder. Nothing is connected yet."""
        if isinstance(place, str) and "://" in place:
            self._open_postgresql(place, password)
        else:
            self._open_sqlite(Path(place), create=create)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One state of the store, whatever others write meanwhile; writers are not kept waiting."""
        with self._transaction(self._readers) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction, alone among the writers."""
        with self._transaction(self._writers, locked=True) as connection:
            yield connection

    @contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        """One transaction on a store of any schema."""
        with self._transaction(self._writers, locked=True, any_schema=True) as connection:
            if self.kind == "postgresql":
                connection.execute(_LIMITS, _milliseconds(statement=0, lock=MIGRATION_TIMEOUT))
            yield connection

    def revision(self) -> str | None:
        """Return the schema revision, None for an empty database."""
        with self._transaction(self._readers, any_schema=True) as connection:
            return _revision(connection) if sa.inspect(connection).has_table("alembic_version") else None

    def close(self) -> None:
        """Close the pool; on SQLite empty the write-ahead log before, so that the file alone is the store."""
        if self.kind == "sqlite":
            with suppress(SQLAlchemyError), self._writers.connect() as connection:
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
            way_out = ": another change is under way, try again" if _is_busy(error) else ""
            raise StoreError(f"{self.name}: the token store cannot be used ({_cause(error)}){way_out}") from error
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
            finally:
                # What is not committed by now never was.
                connection.close()

    def _begin(self, engine: sa.Engine, *, locked: bool, any_schema: bool) -> sa.Connection:
        try:
            return self._begin_once(engine, locked=locked, any_schema=any_schema)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # It was cut while it lay in the pool: nothing was sent yet, and the pool has dropped the others with it.
            return self._begin_once(engine, locked=locked, any_schema=any_schema)

    def _begin_once(self, engine: sa.Engine, *, locked: bool, any_schema: bool) -> sa.Connection:
        connection = engine.connect()
        try:
            connection.begin()
            if self.kind == "postgresql":
                connection.execute(_LIMITS, _milliseconds(statement=TIMEOUT, lock=LOCK_TIMEOUT))
                if locked:
                    self._lock(connection, any_schema=any_schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def _lock(self, connection: sa.Connection, *, any_schema: bool) -> None:
        """Wait until no other writer is left: a lock of a row that only who may change it can hold, unlike an advisory one."""
        if any_schema and connection.scalar(_HAS_STATE) is None:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            return
        try:
            connection.execute(_LOCK)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _NO_SUCH_TABLE:
                connection.rollback()
                connection.begin()
                self._check_schema(connection)
            raise
        connection.execute(sa.text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK})

    def _check_schema(self, connection: sa.Connection) -> None:
        try:
            revision = _revision(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _NO_SUCH_TABLE and "no such table" not in str(error.orig):
                raise
            revision = None
        try:
            check_revision(revision)
        except StoreError as error:
            raise StoreError(f"{self.name}: {error}") from error

    def _open_sqlite(self, path: Path, *, create: bool) -> None:
        self.kind, self.name, self.address = "sqlite", str(path), str(path)
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise StoreError(f"{path}: no token store; make one with 'extauthz store migrate' or 'extauthz token create'")
        url = sa.URL.create("sqlite", database=str(path))
        self._writers = sa.create_engine(url, connect_args={"timeout": LOCK_TIMEOUT}, hide_parameters=True)
        # pysqlite would commit before DDL: with its own transactions off, a failed migration leaves nothing behind.
        sa.event.listen(self._writers, "connect", _configure_sqlite)
        sa.event.listen(self._writers, "begin", _begin_sqlite)
        self._readers = self._writers.execution_options(reads=True)

    def _open_postgresql(self, text: str, password: str | None) -> None:
        self.kind = "postgresql"
        try:
            url = sa.make_url(text)
        except (SQLAlchemyError, ValueError):
            # Not chained: the message holds the whole address.
            raise StoreError(f"the address of the token store cannot be read: {_ADDRESS}") from None
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise StoreError(f"the token store is a SQLite file or on PostgreSQL: {_ADDRESS}")
        if url.password or {"password", "sslpassword"} & set(url.query):
            raise StoreError("the address of the token store holds a password: give it apart, by `env` or `file`")
        self.address = url.set(drivername="postgresql", password=None).render_as_string()
        options = {} if url.host else {"host": url.query.get("host", "")}
        self.name = url.set(drivername="postgresql", password=None, query=options).render_as_string()
        self._writers = sa.create_engine(
            url.set(drivername="postgresql+psycopg", password=password),
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            isolation_level="READ COMMITTED",
            connect_args={"application_name": "extauthz", **_CONNECTION},
            hide_parameters=True,
        )
        self._readers = self._writers.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def batches(rows: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield rows in lists that fit into one statement."""
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        yield batch


_LIMITS = sa.text("SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true)")
_LOCK = sa.text("SELECT 1 FROM store_state WHERE id = 1 FOR UPDATE")
_HAS_STATE = sa.text("SELECT to_regclass('store_state')::text")


def _milliseconds(**seconds: float) -> dict[str, str]:
    return {name: f"{value * 1000:.0f}" for name, value in seconds.items()}


def _revision(connection: sa.Connection) -> str | None:
    found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None
    # Two who make a store at once get in each other's way here, and SQLite waits for nobody in this one statement.
    for attempt in range(WAL_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if attempt == WAL_ATTEMPTS - 1:
                raise
            time.sleep(LOCK_TIMEOUT / WAL_ATTEMPTS)
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
