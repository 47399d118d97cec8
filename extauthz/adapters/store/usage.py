"""When and from where tokens were last used: written late, in batches, and not announced to other sidecars."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import quote

from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.rules import MAX_USED_FROM, possible
from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from extauthz.ports import RESOLUTION, Use

BUSY_TIMEOUT = 0.4
"""Seconds that a batch waits for other writers."""

IF_LATER = f"""
ON CONFLICT (token_id) DO UPDATE SET last_used_at = excluded.last_used_at, last_used_from = excluded.last_used_from
WHERE excluded.last_used_at > token_usage.last_used_at + {RESOLUTION}
"""
# One statement: between two of them a thread may wait long for its turn, with the lock of all writers in its hands.
_USE = f"""
INSERT INTO token_usage (token_id, last_used_at, last_used_from)
SELECT tokens.id, json_extract(used.value, '$[1]'), json_extract(used.value, '$[2]')
FROM json_each(?) AS used JOIN tokens ON tokens.id = json_extract(used.value, '$[0]')
WHERE true
{IF_LATER}
"""  # noqa: S608 - our own text


def use_rows(uses: Mapping[str, Use]) -> list[tuple[str, int, str]]:
    """Return uses as rows, in the order of their ids; what cannot be an id is left out."""
    return sorted((token_id, at, place[:MAX_USED_FROM]) for token_id, (at, place) in uses.items() if possible(token_id))


class SqliteUsage:
    """Writes uses into the file that a reader reads, over a connection of its own and in a thread: no check waits for either."""

    def __init__(self, reader: SqliteReader) -> None:
        """Take the reader, which knows when the file was replaced."""
        self._reader = reader

    async def record_usage(self, uses: Mapping[str, Use]) -> int:
        """Keep what is later than what is stored; return how many rows were written; raises Unavailable."""
        return await asyncio.to_thread(self.write, uses)

    def write(self, uses: Mapping[str, Use]) -> int:
        """Do the same in the caller's thread."""
        try:
            path = self._reader.current_file()
            address = f"file:{quote(str(path))}?mode=rw"
            with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
                # With a log nobody who reads has to wait; a restored file has none before somebody writes.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                count = connection.execute(_USE, (json.dumps(use_rows(uses)),)).rowcount
                # A log that stays would be laid over a file that is put in this one's place.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return count
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error
