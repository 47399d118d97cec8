"""Between a test and its PostgreSQL: a proxy that holds back, falls silent or cuts, and tables that nothing guards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg

from extauthz.adapters.store.rows import COLUMNS, REVISION
from extauthz.core.tokens import TokenRecord
from tests.support.postgres_server import PostgresServer

SOCKET = ".s.PGSQL.5432"
FEED_LOCK = 4711
"""The advisory lock of the writers of these tests."""


class Barrier:
    """A place on the way that is `reached` once and passed after `let_pass`."""

    def __init__(self, text: bytes) -> None:
        """Stand before the first bytes that hold this text."""
        self.text = text
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    def let_pass(self) -> None:
        """Let the bytes go on."""
        self._open.set()

    async def stand(self) -> None:
        """Wait until it is open."""
        self.reached.set()
        await self._open.wait()


class Proxy:
    """A unix socket before the server's: holds back what is said, falls silent, or cuts."""

    def __init__(self, server: PostgresServer) -> None:
        """Listen nowhere yet."""
        self._target = server.socket_folder / SOCKET
        self.folder = Path(tempfile.mkdtemp(prefix="px-"))
        self._barriers: dict[bool, list[Barrier]] = {False: [], True: []}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._tasks)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen, and close everything at the end."""
        listening = await asyncio.start_unix_server(self._serve, self.folder / SOCKET)
        try:
            yield self
        finally:
            listening.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            shutil.rmtree(self.folder)

    def hold(self, text: bytes, *, answers: bool = False) -> Barrier:
        """Hold back the next question, or answer, that holds this text."""
        barrier = Barrier(text)
        self._barriers[answers].append(barrier)
        return barrier

    def fall_silent(self) -> None:
        """Pass nothing on, as a network that loses every packet does; connections can still be made."""
        self._flowing.clear()

    def speak(self) -> None:
        """Pass on again, also what was held back."""
        self._flowing.set()

    def cut(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            there, back = await asyncio.open_unix_connection(self._target)
            writers.append(back)
            self._writers.update(writers)
            pumps = [asyncio.ensure_future(self._pump(reader, back, answers=False))]
            pumps.append(asyncio.ensure_future(self._pump(there, writer, answers=True)))
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in writers:
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            for barrier in list(self._barriers[answers]):
                if barrier.text in data:
                    self._barriers[answers].remove(barrier)
                    await barrier.stand()
            writer.write(data)
            await writer.drain()


def with_tables(server: PostgresServer) -> str:
    """Return the name of a database with the tables that `serve` reads and nothing that guards them, to make others from."""

    def fill(name: str) -> None:
        with server.connect(name) as connection:
            _create_tables(connection)

    return server.template("tables", fill)


def _create_tables(connection: psycopg.Connection[Any]) -> None:
    columns = ", ".join(f'"{name}" {_type_of(name)}' for name in COLUMNS)
    connection.execute(f"CREATE TABLE tokens ({columns}, PRIMARY KEY (id))")
    connection.execute("CREATE TABLE peppers (id VARCHAR(64) PRIMARY KEY, fingerprint VARCHAR(16) NOT NULL)")
    connection.execute("CREATE TABLE changes (number BIGINT PRIMARY KEY, token_id VARCHAR(12), kind VARCHAR(9), at BIGINT)")
    connection.execute("CREATE TABLE store_state (id BIGINT PRIMARY KEY, epoch BIGINT, head BIGINT)")
    connection.execute("INSERT INTO store_state VALUES (1, 0, 0)")
    connection.execute("CREATE TABLE audit (number BIGINT PRIMARY KEY, mac BYTEA)")
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    connection.execute("INSERT INTO alembic_version VALUES (%s)", (REVISION,))


def _type_of(column: str) -> str:
    if column == "id":
        return 'VARCHAR(12) COLLATE "C"'
    return "BYTEA" if column == "digest" else "BIGINT" if column.endswith("_at") else "TEXT"


def insert_token(connection: psycopg.Connection[Any], token: TokenRecord) -> None:
    """Insert a token, with no row in the feed."""
    values = [getattr(token, name) for name in COLUMNS]
    values[COLUMNS.index("permission")] = token.permission.value
    values[COLUMNS.index("scopes")] = json.dumps(sorted(token.scopes))
    marks = ", ".join(["%s"] * len(values))
    connection.execute(f"INSERT INTO tokens VALUES ({marks})", values)  # noqa: S608 - our own marks


LOCK = f"SELECT pg_advisory_xact_lock({FEED_LOCK})"
CHANGE = """
WITH drawn AS (UPDATE store_state SET head = head + 1 WHERE id = 1 RETURNING head)
INSERT INTO changes SELECT head, %s, 'revoked', 0 FROM drawn
"""
NOTIFY = "SELECT pg_notify('extauthz_changes', '')"


def commit_changes(connection: psycopg.Connection[Any], *token_ids: str, notify: bool = True) -> None:
    """Commit changes of these tokens in one transaction, as a writer does."""
    with connection.transaction():
        connection.execute(LOCK)
        for token_id in token_ids:
            connection.execute(CHANGE, (token_id,))
        if notify:
            connection.execute(NOTIFY)
