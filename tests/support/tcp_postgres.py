"""A real PostgreSQL of the system over TCP, with TLS: the one that comes as a Python package speaks no TLS."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from tests.support.ports import free_port
from tests.support.unprivileged import given_away
from tests.support.waiting import eventually

_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = off
"""


def programs() -> Path:
    """Return where the newest PostgreSQL of the system has its programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    place = found[-1] if found else Path(shutil.which("postgres") or "nowhere").parent
    assert (place / "initdb").exists(), "PostgreSQL is missing: make pgbouncer"
    return place


class TcpPostgres:
    """A server on loopback and on a unix socket, where its owner needs no password; nothing is left of it after `stop`."""

    def __init__(self) -> None:
        """Make it and start it, without TLS."""
        self.folder = Path(tempfile.mkdtemp(prefix="tcp-", dir="/tmp"))
        self.data, self.port, self.programs = self.folder / "data", free_port(), programs()
        self._process: subprocess.Popen[bytes] | None = None
        flags = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
        command = [self.programs / "initdb", "--pgdata", self.data, *flags]
        subprocess.run(command, check=True, capture_output=True, timeout=120, **given_away(self.folder))
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS.format(port=self.port, folder=self.folder))
        self.let_in("host all all 127.0.0.1/32 scram-sha-256")
        self.start()

    def let_in(self, *rules: str) -> None:
        """Write who may come over the network, and how they prove who they are."""
        (self.data / "pg_hba.conf").write_text("\n".join(("local all postgres trust", "local all all scram-sha-256", *rules, "")))

    def start(self) -> None:
        """Start it, or start it anew with other settings; returns when it answers."""
        self._end()
        with (self.folder / "log").open("ab") as log:
            user = given_away(self.folder)
            self._process = subprocess.Popen([self.programs / "postgres", "-D", self.data], stdout=log, stderr=log, **user)
        eventually(self._answers, what=lambda: (self.folder / "log").read_text()[-2000:])

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Open a connection of the owner that commits each statement."""
        return psycopg.connect(f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}", autocommit=True)

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self._end()
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self) -> None:
        if self._process is not None:
            # Asked to end at once, it still leaves its data whole.
            self._process.send_signal(2)
            self._process.wait(timeout=60)
            self._process = None
