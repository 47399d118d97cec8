"""Copies of a store that are whole while others write."""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from extauthz.adapters.store.database import Database
from extauthz.errors import StoreError
from extauthz.process import private_files


def backup(database: Database, path: Path) -> tuple[int, str]:
    """Copy a SQLite store into a new file; return the head of the audit in the copy."""
    if database.kind == "postgresql":
        command = f"pg_dump --format=custom --file={shlex.quote(str(path))} {shlex.quote(database.address)}"
        raise StoreError(
            f"{database.name}: PostgreSQL is saved with its own tools: note the head of 'extauthz store status', then run {command}"
        )
    try:
        os.close(private_files.create(path))
    except FileExistsError as error:
        raise StoreError(f"{path}: exists already; name a new file") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        return _copy(database, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _copy(database: Database, path: Path) -> tuple[int, str]:
    try:
        with closing(sqlite3.connect(path)) as copy:
            with database.reading() as connection:
                # One step, which reads one state of the store.
                source: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
                source.backup(copy)
            # The file alone is the copy; the first writer turns the log on again.
            copy.execute("PRAGMA journal_mode = DELETE")
            row = copy.execute("SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: the copy of {database.name} failed ({error})") from error
    return (0, bytes(32).hex()) if row is None else (row[0], row[1].hex())
