"""What the account of a PostgreSQL store may do, compared with what managing tokens needs."""

from __future__ import annotations

import sqlalchemy as sa

from extauthz.adapters.store.transactions import Transactions

ADMIN = {
    "SELECT": (
        "alembic_version",
        "audit",
        "changes",
        "peppers",
        "store_state",
        "token_usage",
        "tokens",
        "tombstones",
        "admin_keys",
        "console_accounts",
        "console_sessions",
        "idempotency_keys",
        "settings",
    ),
    "INSERT": (
        "audit",
        "changes",
        "peppers",
        "token_usage",
        "tokens",
        "tombstones",
        "admin_keys",
        "console_accounts",
        "console_sessions",
        "idempotency_keys",
        "settings",
    ),
    "UPDATE": ("store_state", "token_usage", "tokens", "console_accounts", "console_sessions"),
    "DELETE": ("changes", "console_accounts", "console_sessions", "idempotency_keys"),
}
"""Rights on whole tables that the migrations grant to `extauthz_admin`, by right."""

_OWNED = sa.text(
    "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'tokens'"
    " AND pg_has_role(current_user, tableowner, 'USAGE')"
)


def missing(store: Transactions) -> tuple[str, ...]:
    """Return each right of an admin that the account lacks, like "INSERT on tokens"; none on SQLite. Raises StoreError."""
    pairs = [(right, table) for right, tables in ADMIN.items() for table in tables]
    with store.reading() as connection:
        if connection.dialect.name != "postgresql":
            return ()
        row = connection.execute(sa.select(*(sa.func.has_table_privilege(table, right) for right, table in pairs))).one()
    return tuple(f"{right} on {table}" for (right, table), is_there in zip(pairs, row, strict=True) if not is_there)


def is_owner(store: Transactions) -> bool:
    """Tell whether the account owns the tables, and so may do more than any role is granted; False on SQLite. Raises StoreError."""
    with store.reading() as connection:
        return connection.dialect.name == "postgresql" and bool(connection.scalar(_OWNED))
