"""A real pgbouncer before the tests' PostgreSQL: over TCP with TLS, for clients that know their password by SCRAM."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psycopg

from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer
from tests.support.transports import Authority
from tests.support.unprivileged import given_away
from tests.support.waiting import eventually

PASSWORD = "pässwörd of the pool"
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_SETTINGS = """
[databases]
* = host={socket} port=5432

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {size}
server_lifetime = 3600
client_tls_sslmode = require
client_tls_cert_file = {folder}/pool.pem
client_tls_key_file = {folder}/pool.key
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
logfile = {folder}/log
"""


class PgBouncer:
    """A running pool; `url` is its address for a database of the server behind it."""

    def __init__(self, folder: Path, port: int) -> None:
        """Know where it listens, and where its certificates are."""
        self.folder = folder
        self.port = port

    def url(self, database: str, **options: str) -> str:
        """Return an address that believes nobody but this pool."""
        more = {"sslmode": "verify-full", "sslrootcert": str(self.folder / "ca.pem"), "require_auth": "scram-sha-256", **options}
        return f"postgresql://postgres@localhost:{self.port}/{database}?" + "&".join(
            f"{name}={value}" for name, value in more.items()
        )

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        """Open a connection through the pool."""
        return psycopg.connect(self.url(database), password=PASSWORD, autocommit=True, prepare_threshold=None)


@contextlib.contextmanager
def pgbouncer(server: PostgresServer, mode: Literal["transaction", "session"], *, size: int = 10) -> Iterator[PgBouncer]:
    """Run a pool of so many connections for each database; nothing is left of it at the end."""
    assert PROGRAM is not None, "pgbouncer is missing: make pgbouncer"
    with tempfile.TemporaryDirectory(prefix="pool-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        Authority(folder, "ca").issue("pool")
        (folder / "users").write_text(f'"postgres" "{PASSWORD}"\n')
        (folder / "pool.ini").write_text(
            _SETTINGS.format(socket=server.socket_folder, folder=folder, port=port, mode=mode, size=size)
        )
        with (folder / "output").open("wb") as output:
            command = [PROGRAM, "--quiet", str(folder / "pool.ini")]
            # As the user of the server, whose socket is nobody else's.
            user = given_away(folder, server.socket_folder.stat().st_uid)
            process = subprocess.Popen(command, stdout=output, stderr=output, **user)
        pool = PgBouncer(folder, port)
        try:
            eventually(lambda: _is_there(pool, process))
            yield pool
        finally:
            process.kill()
            process.wait()


def _is_there(pool: PgBouncer, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (pool.folder / "output").read_text()
    try:
        pool.connect("postgres").close()
    except psycopg.OperationalError:
        return False
    return True
