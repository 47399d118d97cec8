"""What writers on PostgreSQL wait for each other at: a row that only an account that may change it can lock."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

LOCK = 0x65787461757468
"""The advisory lock of the first migration, when there is nothing else yet to lock. Writers take it as well if they can: those of
an earlier release wait for nothing else."""
NO_SUCH_TABLE = "42P01"

_WAIT = sa.text("SELECT 1 FROM store_state WHERE id = 1 FOR UPDATE")
_HAS_STATE = sa.text("SELECT to_regclass('store_state')::text")
_WAIT_FOR_KEY = sa.text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=LOCK)
_TRY_KEY = sa.text("SELECT pg_try_advisory_xact_lock(:key)").bindparams(key=LOCK)


def wait_for_writers(connection: sa.Connection, *, any_schema: bool, check_schema: Callable[[sa.Connection], None]) -> None:
    """Wait until no other writer is left, and hold the lock to the end of the transaction.

    An advisory lock alone would not do: any account, also that of a sidecar, can hold one for ever. Without `any_schema` a store
    that has nothing to lock is refused by `check_schema`.
    """
    if any_schema and connection.scalar(_HAS_STATE) is None:
        connection.execute(_WAIT_FOR_KEY)
        return
    try:
        connection.execute(_WAIT)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == NO_SUCH_TABLE:
            connection.rollback()
            connection.begin()
            check_schema(connection)
        raise
    connection.execute(_TRY_KEY)
