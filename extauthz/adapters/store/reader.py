"""Look-ups of `serve`: bare sqlite3 on a read-only connection, in the event loop (10 µs each)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from extauthz.adapters.store.following import feed_batch
from extauthz.adapters.store.rows import COLUMNS, NEEDING, StoreError, check_peppers, check_revision, record
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenRecord
from extauthz.ports import FeedBatch, Unavailable

_NAMES = '"' + '", "'.join(COLUMNS) + '"'
_FIND = f"SELECT {_NAMES} FROM tokens WHERE id = ?"  # noqa: S608 - our own names
_FEED = """
SELECT state.epoch, state.head, coalesce((SELECT min(number) FROM changes), state.head + 1), last.number, last.mac,
    later.number, later.token_id
FROM store_state AS state LEFT JOIN (SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1) AS last ON true
LEFT JOIN changes AS later ON later.number > ?
WHERE state.id = 1 ORDER BY later.number
"""
_IDS = "SELECT id FROM tokens WHERE id > ? AND typeof(id) = 'text' ORDER BY id LIMIT ?"
_NEEDING = NEEDING.format("?", "?")
_REVISION = "SELECT version_num FROM alembic_version"
BUSY_TIMEOUT = 0.05
"""Seconds that a look-up waits for a lock."""


class SqliteReader:
    """Reads a SQLite token store that others write to; a file that was replaced is opened again."""

    def __init__(self, path: Path) -> None:
        """Open the store and check its schema; raises StoreError."""
        self._path = path
        if not path.exists():
            raise StoreError(f"{path}: no token store; make one with 'extauthz store migrate' or 'extauthz token create'")
        self._file, self._stamp = self._identity_of_file()
        self._openings = 0
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = self._open()
            row = self._connection.execute(_REVISION).fetchone()
        except sqlite3.Error as error:
            self.close()
            if "no such table" in str(error):
                check_revision(None)
            raise StoreError(f"{path}: not a token store that can be read ({error})") from error
        check_revision(row and row[0])

    def find(self, token_id: str) -> TokenRecord | None:
        """Return the record of an id; raises Unavailable."""
        if self._connection is None:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        try:
            row = self._connection.execute(_FIND, (token_id,)).fetchone()
            return None if row is None else record(row)
        except (sqlite3.Error, ValueError) as error:
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error

    def version(self) -> object:
        """Return a value that differs after every commit of another connection, and after the file was replaced.

        While the file is missing, cannot be opened, or was replaced beside a write-ahead log that may be another's, nothing is
        answered from what was open before.
        """
        try:
            file, stamp = self._identity_of_file()
            if file != self._file and self._log_remains():
                raise StoreError(f"{self._path}: was replaced beside the write-ahead log of another store")
            if self._connection is None or (file, stamp) != (self._file, self._stamp):
                # A checkpoint changes the stamp, and so does a copy over the file, which SQLite itself would not notice.
                self.close()
                self._connection = self._open()
                self._file, self._stamp = file, stamp
            return self._openings, self._connection.execute("PRAGMA data_version").fetchone()[0]
        except (sqlite3.Error, OSError, StoreError) as error:
            self.close()
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error

    def read_feed(self, after: int) -> FeedBatch:
        """Return what changed after a position; raises Unavailable, and then nothing is found until `version` is asked again.

        A file whose changes cannot be read may be an older store put in this one's place, which knows nothing of later revocations.
        """
        try:
            if self._connection is None:
                raise StoreError(f"{self._path}: the token store is closed")
            row = self._connection.execute(_REVISION).fetchone()
            check_revision(row and row[0])
            return feed_batch(self._connection.execute(_FEED, (after,)).fetchall())
        except (sqlite3.Error, ValueError, StoreError) as error:
            self.close()
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error

    def read_ids(self, after: str, limit: int) -> list[str]:
        """Return the next ids of tokens behind one, in their order; raises Unavailable."""
        if self._connection is None:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        try:
            return [row[0] for row in self._connection.execute(_IDS, (after, limit))]
        except sqlite3.Error as error:
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error

    def check_peppers(self, peppers: Mapping[str, bytes], now: int) -> None:
        """Raise StoreError when a pepper is missing that tokens need, or is another one."""
        if self._connection is None:
            raise StoreError(f"{self._path}: the token store is closed")
        try:
            known = dict(self._connection.execute("SELECT id, fingerprint FROM peppers").fetchall())
            missing = known.keys() - peppers.keys()
            needing = {name: self._connection.execute(_NEEDING, (name, now)).fetchall() for name in missing}
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: the peppers cannot be read ({error})") from error
        check_peppers(known, peppers, needing)

    def current_file(self) -> Path:
        """Return the file, to be written to; raises FileNotFoundError while another one stands there than the one that is read.

        A log may lie beside that one which is not its own: whoever opens it to write would mix the two.
        """
        if self._connection is None or self._identity_of_file()[0] != self._file:
            raise FileNotFoundError(f"{self._path}: the token store is out of reach, or was just replaced")
        return self._path

    def close(self) -> None:
        """Close the connection; `version` opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        self._openings += 1
        return sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)

    def _log_remains(self) -> bool:
        log = self._path.with_name(self._path.name + "-wal")
        return log.exists() and log.stat().st_size > 0

    def _identity_of_file(self) -> tuple[tuple[int, int], tuple[int, int]]:
        status = os.stat(self._path)
        return (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_size)
