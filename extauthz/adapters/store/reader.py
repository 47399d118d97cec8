"""Look-ups of `serve`: bare sqlite3 on a read-only connection, in the event loop (10 µs each)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extauthz.adapters.store import sqlite_file
from extauthz.adapters.store.feed_rows import FEED, feed_slice
from extauthz.adapters.store.rows import COLUMNS, NEEDING, check_peppers, check_revision, record
from extauthz.adapters.store.settings_rows import SAVED, SettingsState, settings_state
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenRecord
from extauthz.errors import StoreError, Unavailable
from extauthz.ports import FeedBatch
from extauthz.verifiers.change_feed import SLICE

_NAMES = '"' + '", "'.join(COLUMNS) + '"'
_FIND = f"SELECT {_NAMES} FROM tokens WHERE id = ?"  # noqa: S608 - our own names
_FEED = FEED.format("?", SLICE)
_IDS = "SELECT id FROM tokens WHERE id > ? AND typeof(id) = 'text' ORDER BY id LIMIT ?"
_NEEDING = NEEDING.format("?", "?")
_REVISION = "SELECT version_num FROM alembic_version"
ATTEMPTS = 3
"""Times that a file which others change is opened for one question."""
SETTLED = 0.5
"""Seconds after which one more change of a file gives it another time of change, whatever the tick of its clock is."""


class SqliteReader:
    """Reads a SQLite token store that others write to; a file that was replaced is opened again."""

    def __init__(self, path: Path) -> None:
        """Open the store and check its schema; raises StoreError."""
        self._path = path
        sqlite_file.check_there(path)
        self._identity: sqlite_file.Identity | None = None
        self._again_at: float | None = None
        self._openings = 0
        self._alone = False
        self._connection: sqlite3.Connection | None = None
        try:
            self._open()
            rows = self._ask(_REVISION)
        except (sqlite3.Error, OSError, StoreError) as error:
            self.close()
            if "no such table" in str(error):
                check_revision(None)
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{path}: not a token store that can be read ({error})") from error
        check_revision(rows[0][0] if rows else None)

    def find(self, token_id: str) -> TokenRecord | None:
        """Return the record of an id; raises Unavailable."""
        if self._connection is None:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        try:
            rows = self._ask(_FIND, token_id)
            return record(rows[0]) if rows else None
        except (sqlite3.Error, OSError, ValueError, StoreError) as error:
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error

    def version(self) -> object:
        """Return a value that differs after every commit of another connection, and after the file was replaced.

        While the file is missing, cannot be opened, or was replaced beside a write-ahead log that may be another's, nothing is
        answered from what was open before.
        """
        try:
            identity = sqlite_file.identity(self._path)
            # A checkpoint changes the stamp, and so does a copy over the file, which SQLite itself would not notice.
            if self._connection is None or identity != self._identity or (self._alone and not self._is_the_same()):
                self._open()
            return self._openings, self._ask("PRAGMA data_version")[0][0]
        except (sqlite3.Error, OSError, StoreError) as error:
            self.close()
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error

    def read_feed(self, after: int) -> FeedBatch:
        """Return the first changes after a position; raises Unavailable, and so does each look-up until `version` is called again.

        A file whose changes cannot be read may be an older store put in this one's place, which knows nothing of later revocations.
        """
        try:
            if self._connection is None:
                raise StoreError(f"{self._path}: the token store is closed")
            return feed_slice(self._ask(_FEED, after))
        except (sqlite3.Error, OSError, ValueError, StoreError) as error:
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

    def read_settings(self) -> SettingsState:
        """Return the saved settings that count; raises Unavailable."""
        try:
            return settings_state(self._ask(SAVED))
        except (sqlite3.Error, OSError, ValueError, StoreError) as error:
            self.close()
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error

    def check_peppers(self, peppers: Mapping[str, bytes], now: int) -> None:
        """Raise StoreError when a pepper is missing that tokens need, or is another one."""
        if self._connection is None:
            raise StoreError(f"{self._path}: the token store is closed")
        try:
            fingerprints = dict(self._ask("SELECT id, fingerprint FROM peppers"))
            missing = fingerprints.keys() - peppers.keys()
            needing = {name: self._ask(_NEEDING, name, now) for name in missing}
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: the peppers cannot be read ({error})") from error
        check_peppers(fingerprints, peppers, needing)

    def current_file(self) -> Path:
        """Return the file, to be written to; raises FileNotFoundError while another one stands there than the one that is read.

        A log may lie beside that one which is not its own: to open it for writing would mix the two.
        """
        if self._connection is None or self._identity is None or sqlite_file.identity(self._path)[0] != self._identity[0]:
            raise FileNotFoundError(f"{self._path}: the token store is out of reach, or was just replaced")
        return self._path

    def close(self) -> None:
        """Close the connection; `version` opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> None:
        """Open the file that stands there now; raises what opening raises, and StoreError for one that a log would be laid over."""
        self.close()
        identity = sqlite_file.identity(self._path)
        if self._identity is not None and identity[0] != self._identity[0] and not sqlite_file.is_alone(self._path):
            raise StoreError(f"{self._path}: was replaced beside the write-ahead log of another store")
        self._connection, self._alone = sqlite_file.open_to_read(self._path)
        # Two changes within a tick of the file system's clock look like one: what was just opened is opened once more.
        self._again_at = None if identity == self._identity else time.monotonic() + SETTLED
        self._identity = identity
        self._openings += 1

    def _ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query, of one state of the store."""
        for _ in range(ATTEMPTS):
            connection = self._connection
            if connection is None:
                raise StoreError(f"{self._path}: the token store is closed")
            if not self._alone:
                return connection.execute(query, parameters).fetchall()
            # Nothing keeps a writer away, and SQLite does not look whether one has come.
            rows: list[tuple[Any, ...]] | sqlite3.Error
            try:
                rows = connection.execute(query, parameters).fetchall()
            except sqlite3.Error as error:
                rows = error
            if self._is_the_same():
                if isinstance(rows, sqlite3.Error):
                    raise rows
                return rows
            self._open()
        raise StoreError(f"{self._path}: changes all the time, and no log can be made beside it")

    def _is_the_same(self) -> bool:
        """Return whether the file that was opened alone still is the store."""
        is_due = self._again_at is not None and time.monotonic() >= self._again_at
        return not is_due and sqlite_file.identity(self._path) == self._identity and sqlite_file.is_alone(self._path)
