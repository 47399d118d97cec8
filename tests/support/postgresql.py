"""Token stores for tests: in memory, on SQLite, and on a real PostgreSQL, one server per worker and one fresh database per test.

A test module asks for the fixtures with `pytest_plugins = ["tests.support.postgresql"]`. It imports from here before pytest does,
which is told not to mind: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from extauthz.adapters.store import postgres
from extauthz.adapters.store.postgres import PostgresUsage
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.adapters.store.usage import SqliteUsage
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord
from extauthz.ports import Use
from tests.support.memory_store import MemoryTokenStore
from tests.support.postgres_server import PostgresServer, server_of

AnyStore = MemoryTokenStore | SqlTokenStore

NOW = 1_800_000_000
KEY = AuditKey.of("p1", b"a pepper for tests, 32 bytes long")
ANA = Change(NOW + 60, "ana@acme.com", "cli on build-7")
FINGERPRINT = "f" * 16


def token(token_id: str = "aaaaaaaaaaaa", **changes: object) -> TokenRecord:
    """Return a record with these changes."""
    plain = TokenRecord(
        id=token_id,
        description="Ana's notebook",
        permission=AuthType.USER,
        user="ana@acme.com",
        scopes=frozenset({"SEARCH", "CHAT"}),
        created_at=NOW,
        created_by="root",
        expires_at=NOW + 86_400,
        pepper_id="p1",
        digest=bytes(range(32)),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def postgresql(pytestconfig: pytest.Config) -> PostgresServer:
    """A server whose databases are migrated unless they are made from "template0"."""
    return server_of(pytestconfig)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated SQLite store: a file to copy, because a migration takes long."""
    path = tmp_path_factory.mktemp("template") / "tokens.db"
    store = SqlTokenStore(path, create=True)
    store.migrate()
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["tokens.db"]
    return path


@dataclass
class Place:
    """A database that a store can be opened on, and looked into behind the store's back."""

    kind: str
    where: Path | str

    def open(self, audit: AuditKey | None = KEY) -> SqlTokenStore:
        """Open a store, to be closed by whoever asked."""
        return SqlTokenStore(self.where, audit=audit)

    @contextmanager
    def opened(self, audit: AuditKey | None = KEY) -> Iterator[SqlTokenStore]:
        """Open a store and close it again."""
        with closing(self.open(audit)) as store:
            yield store

    @contextmanager
    def raw(self) -> Iterator[Any]:
        """Open a connection of the driver that commits each statement."""
        connection: Any
        if isinstance(self.where, Path):
            connection = sqlite3.connect(self.where, isolation_level=None)
        else:
            connection = psycopg.connect(self.where, autocommit=True)
        with closing(connection):
            yield connection

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self.raw() as connection:
            return [tuple(row) for row in connection.execute(query).fetchall()]

    def run(self, *statements: str) -> None:
        """Execute statements, each in a transaction of its own."""
        with self.raw() as connection:
            for statement in statements:
                connection.execute(statement)

    def unguard(self, *tables: str) -> None:
        """Take the triggers off tables, as an intruder could who owns them."""
        if self.kind == "postgresql":
            self.run(*(f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in tables))
            return
        triggers = self.rows("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'")
        self.run(*(f"DROP TRIGGER {name}" for table, name in triggers if table in tables))


MakePlace = Callable[..., Place]


@pytest.fixture
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakePlace]:
    """Return a maker of places by kind, empty ones if not migrated; databases are removed after the test."""
    made: list[str] = []
    numbers = count()

    def make(kind: str, *, migrated: bool = True) -> Place:
        if kind == "sqlite":
            path = tmp_path / f"store-{next(numbers)}" / "tokens.db"
            path.parent.mkdir()
            if migrated:
                shutil.copy(request.getfixturevalue("sqlite_template"), path)
            else:
                path.touch()
            return Place(kind, path)
        server: PostgresServer = request.getfixturevalue("postgresql")
        made.append(server.make(None if migrated else "template0"))
        return Place(kind, server.url(made[-1]))

    yield make
    for name in made:
        request.getfixturevalue("postgresql").drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    """A fresh, migrated database of each kind."""
    return make_place(request.param)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[AnyStore]:
    """An empty store of each kind."""
    opened: AnyStore = MemoryTokenStore(audit=KEY) if request.param == "memory" else make_place(request.param).open()
    yield opened
    opened.close()


def use(store: AnyStore, uses: Mapping[str, Use]) -> int:
    """Keep uses as `serve` does; return how many were kept."""
    if isinstance(store, MemoryTokenStore):
        return asyncio.run(store.record_usage(uses))
    # SQLAlchemy writes a space as "+", which libpq does not read.
    address = store._database.address.replace("+", "%20")
    if store._database.kind == "postgresql":

        async def write() -> int:
            usage = PostgresUsage(address)
            try:
                return await usage.record_usage(uses)
            finally:
                await usage.close()

        with pytest.MonkeyPatch.context() as patched:
            # On a busy machine a batch may take longer than `serve` has time for.
            patched.setattr(postgres, "WRITE_TIME", 60.0)
            return asyncio.run(write())
    with closing(SqliteReader(Path(address))) as reader:
        return SqliteUsage(reader).write(uses)


def fill(store: AnyStore, *records: TokenRecord) -> None:
    """Add tokens, all of one pepper."""
    for record in records:
        store.add(record, FINGERPRINT)


def ids_of(found: Sequence[TokenRecord]) -> list[str]:
    """Return the first letter of each id: tests name tokens by one letter, twelve times."""
    return [record.id[0] for record in found]
