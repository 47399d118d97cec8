"""The file of a SQLite store: how it is made, and how its write-ahead log is turned on."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from extauthz import private_files
from extauthz.adapters.store.rows import StoreError

PAUSE = 0.1


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
