"""What is read of the audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store import chain
from extauthz.adapters.store.database import Database
from extauthz.adapters.store.ledger import audit_head
from extauthz.adapters.store.records import AuditFilter, AuditRow
from extauthz.adapters.store.schema import audit, read_state

STRETCH = 1000
"""Rows that are looked at first; their numbers have no gaps."""
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
    return [_row(row) for row in connection.execute(query)]


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


def newest(database: Database, filters: AuditFilter, *, below: int | None, above: int | None, limit: int) -> list[AuditRow]:
    """Return the newest rows that meet a filter, or the first ones below or above a number; the newest stands first."""
    texts = (filters.actor, filters.action, filters.token_id)
    if not all(text is None or text.isprintable() for text in texts):
        # No row has it, and not every database takes it in a query.
        return []
    with database.reading() as connection:
        numbers = _in_stretch(connection, filters, below=below, above=above, limit=limit)
        if len(numbers) < limit:
            numbers = connection.execute(keys(filters, below=below, above=above, limit=limit)).scalars().all()
        found = connection.execute(sa.select(audit).where(audit.c.number.in_(numbers)).order_by(audit.c.number.desc()))
        return [_row(row) for row in found]


def _in_stretch(
    connection: sa.Connection, filters: AuditFilter, *, below: int | None, above: int | None, limit: int
) -> Sequence[int]:
    """Look only at the rows that come next: where many meet the filter, these are all that is needed."""
    number = audit.c.number
    if above is not None:
        conditions = [number > above, number <= above + STRETCH]
    else:
        end = audit_head(connection)[0] + 1 if below is None else below
        conditions = [number < end, number >= end - STRETCH]
    in_order = number.desc() if above is None else number.asc()
    query = sa.select(number).where(*conditions, *_conditions(filters)).order_by(in_order).limit(limit)
    return connection.execute(query).scalars().all()


def keys(filters: AuditFilter, *, below: int | None, above: int | None, limit: int) -> sa.Select[Any]:
    """Select the numbers of these rows.

    An index holds all that filters ask, and only numbers are sorted: to walk back over whole rows takes long where few meet it.
    """
    # No index has this sum, which is the number itself.
    number = audit.c.number + 0
    conditions = list(_conditions(filters))
    if below is not None:
        conditions.append(number < below)
    if above is not None:
        conditions.append(number > above)
    return sa.select(audit.c.number).where(*conditions).order_by(number.desc() if above is None else number.asc()).limit(limit)


def _conditions(filters: AuditFilter) -> Iterator[sa.ColumnElement[bool]]:
    for column, value in ((audit.c.actor, filters.actor), (audit.c.action, filters.action), (audit.c.token_id, filters.token_id)):
        if value is not None:
            yield column == value
    if filters.since is not None:
        yield audit.c.at >= filters.since
    if filters.until is not None:
        yield audit.c.at < filters.until


def actions(database: Database) -> list[str]:
    """Return every action that the audit tells of, in their order; there are few, and each is one step in an index."""
    found: list[str] = []
    with database.reading() as connection:
        query = sa.select(sa.func.min(audit.c.action))
        while (action := connection.scalar(query.where(audit.c.action > (found[-1] if found else "")))) is not None:
            found.append(action)
    return found


def _row(row: Sequence[object]) -> AuditRow:
    return AuditRow(**dict(zip(_COLUMNS, row, strict=True)))  # type: ignore[arg-type]


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
