"""What is read of the audit."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from extauthz.adapters.store import chain
from extauthz.adapters.store.database import Database
from extauthz.adapters.store.ledger import audit_head
from extauthz.adapters.store.records import AuditRow
from extauthz.adapters.store.schema import audit, read_state

_BATCH = 1000
_COLUMNS = tuple(audit.columns.keys())


def page(database: Database, after: int | None, limit: int) -> list[AuditRow]:
    """Return the rows behind a number, from the very beginning for None."""
    with database.reading() as connection:
        return _page(connection, after, limit)


def _page(connection: sa.Connection, after: int | None, limit: int) -> list[AuditRow]:
    query = sa.select(audit).order_by(audit.c.number).limit(limit)
    if after is not None:
        query = query.where(audit.c.number > after)
    return [AuditRow(**dict(zip(_COLUMNS, row, strict=True))) for row in connection.execute(query)]


def rows_of(connection: sa.Connection) -> Iterator[AuditRow]:
    """Yield all rows of one state of the store, also what stands before the first."""
    after = None
    while batch := _page(connection, after, _BATCH):
        yield from batch
        after = batch[-1].number


def rows(database: Database, after: int | None = None) -> Iterator[AuditRow]:
    """Yield all rows behind a number, in batches, so that no transaction stays open; for None also what stands before the first."""
    while batch := page(database, after, _BATCH):
        yield from batch
        after = batch[-1].number


def head(database: Database) -> tuple[int, str]:
    """Return number and MAC of the last row."""
    with database.reading() as connection:
        number, mac = audit_head(connection)
    return number, mac.hex()


def export(database: Database, after: int) -> Iterator[str]:
    """Yield the rows behind a number as JSON lines, then the line with the state of the store."""
    # A row that is made behind the last one that is read belongs to the next export, and so does its MAC.
    last = head(database)
    for row in rows(database, after):
        last = row.number, row.mac.hex()
        yield chain.line(row)
    with database.reading() as connection:
        state = read_state(connection)
    yield chain.last_line(last, state.epoch, state.head)
