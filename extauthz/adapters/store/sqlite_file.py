"""The file of a SQLite store: how it is made, how its log is turned on, and how it is read where nothing can be written.

SQLite reads a file with a write-ahead log only where the log and its index are there, or can be made. Where they are not there and
cannot be made, nobody is changing the store, and the file alone is the store: it is then opened as one that never changes. Who
reads it so has to look, afterwards, that no log has come and that the file is the same.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from extauthz.errors import StoreError
from extauthz.process import private_files

PAUSE = 0.1
BUSY_TIMEOUT = 0.05
"""Seconds that a look-up waits for a lock."""
_ALONE = "mode=ro&immutable=1"
_NO_LOG = frozenset({"SQLITE_CANTOPEN", "SQLITE_READONLY_DIRECTORY", "SQLITE_READONLY_CANTINIT", "SQLITE_READONLY_RECOVERY"})

Identity = tuple[tuple[int, int], tuple[int, int]]
"""Which file it is, and its time of change with its size."""


def make(path: Path) -> None:
    """Make an empty file that only its owner may open, and its folder; what is there stays as it is. Raises StoreError.

    SQLite gives the log and its index the mode of the file.
    """
    try:
        private_files.make_folder(path.parent)
        with suppress(FileExistsError):
            os.close(private_files.create(path.resolve()))
    except OSError as error:
        raise StoreError(f"{path}: cannot be made ({error.strerror or error}): let this user write to the folder") from error


def keep_log(connection: sqlite3.Connection, seconds: float) -> None:
    """Turn the write-ahead log on, with which no reader waits for a writer; raises sqlite3.OperationalError."""
    # Two who make a store at once get in each other's way here, and SQLite waits for nobody in this one statement.
    end = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= end:
                raise
            time.sleep(PAUSE)


def identity(path: Path) -> Identity:
    """Return which file stands there, and its state; raises OSError."""
    status = os.stat(path)
    return (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_size)


def check_there(path: Path) -> None:
    """Raise StoreError when there is no store, or when this user may not look."""
    try:
        os.stat(path)
    except FileNotFoundError:
        advice = "make one with 'extauthz store migrate' or 'extauthz token create'"
        raise StoreError(f"{path}: no token store; {advice}") from None
    except OSError as error:
        raise StoreError(f"{path}: the token store cannot be reached ({error.strerror or error})") from error


class FollowedFile:
    """Tells a file from the one that stood there before: a store that was restored is another one."""

    def __init__(self, path: Path) -> None:
        """Begin with the file that is there; raises OSError."""
        self._path = path
        self._file = identity(path)[0]

    def was_replaced(self) -> bool:
        """Tell whether another file stands there than at the last call; raises StoreError when none does."""
        check_there(self._path)
        before, self._file = self._file, identity(self._path)[0]
        return self._file != before


def log_of(path: Path) -> Path:
    """Return where the write-ahead log of a store is."""
    return path.with_name(f"{path.name}-wal")


def is_alone(path: Path) -> bool:
    """Return whether no log beside the file holds anything, so that the file alone is the store; raises OSError."""
    for log in (f"{path}-wal", f"{path}-journal"):
        with suppress(FileNotFoundError):
            if os.stat(log).st_size:
                return False
    return True


def is_read_only(path: Path) -> bool:
    """Return whether this user cannot change the store, because of the file, or because no log can be made beside it."""
    can_write = [os.access(place, os.W_OK, effective_ids=True) for place in (path, path.parent, log_of(path))]
    return not can_write[0] or not (can_write[1] or can_write[2])


def open_to_read(path: Path) -> tuple[SnapshotConnection, bool]:
    """Open a store that may not be changed; raises sqlite3.Error, StoreError and OSError.

    True stands for a connection that notices no change, and is of use only while the file `is_alone` and the same.
    """
    if not os.access(path, os.W_OK, effective_ids=True) and not log_of(path).exists() and is_alone(path):
        # A log that this user makes, where the folder allows it, may be closed to whoever changes the store.
        return _connect(path, _ALONE), True
    connection = _connect(path, "mode=ro")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if error.sqlite_errorname not in _NO_LOG:
            raise
        if not is_alone(path):
            raise StoreError(_unreadable(path, error)) from error
    else:
        return connection, False
    return _connect(path, _ALONE), True


class SnapshotConnection(sqlite3.Connection):
    """A connection for reading; `snapshot` is which state of which file it has, if it notices no change itself."""

    snapshot: tuple[Path, Identity] | None = None


def open_for_one_reading(path: Path) -> SnapshotConnection:
    """Open a store that may not be changed, for one transaction; raises sqlite3.Error, for what hides behind it too."""
    try:
        before = identity(path)
        connection, alone = open_to_read(path)
    except (OSError, StoreError) as error:
        raise sqlite3.OperationalError(str(error)) from error
    connection.snapshot = (path, before) if alone else None
    return connection


def check_unchanged(connection: object) -> None:
    """Raise StoreError when a file that was read alone is not what it was when it was opened."""
    snapshot = getattr(connection, "snapshot", None)
    if snapshot is None:
        return
    path, before = snapshot
    try:
        changed = identity(path) != before or not is_alone(path)
    except OSError:
        changed = True
    if changed:
        raise StoreError(f"{path}: changed while it was read: try again")


def _connect(path: Path, options: str) -> SnapshotConnection:
    address = f"file:{quote(str(path))}?{options}"
    connection: SnapshotConnection = sqlite3.connect(
        address, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, factory=SnapshotConnection
    )
    return connection


def _unreadable(path: Path, error: sqlite3.Error) -> str:
    names = [f"{path.name}-wal", f"{path.name}-shm"]
    missing = [name for name in names if not os.access(path.with_name(name), os.R_OK, effective_ids=True)]
    files = " and ".join(missing or names)
    return (
        f"{path}: the store was changed, and its log cannot be read ({error}): let this user read {files} in {path.parent}, "
        "or write to that folder; 'extauthz store status' by a user who may write there removes a log that nobody uses"
    )
