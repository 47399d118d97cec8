"""Tables of the token store, and rows to records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store.records import StoredToken
from extauthz.adapters.store.rows import COLUMNS, record
from extauthz.core.tokens import TokenRecord

metadata = sa.MetaData()

# Ids are compared by their bytes, as SQLite does, and not by the rules of the database's language.
_ID = sa.String(12).with_variant(sa.String(12, collation="C"), "postgresql")

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("description", sa.String(200), nullable=False),
    sa.Column("permission", sa.String(9), nullable=False),
    sa.Column("user", sa.String(254)),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(254), nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("pepper_id", sa.String(64), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("revoked_by", sa.String(254)),
    sa.Column("revoked_why", sa.String(200)),
    sa.Column("rotated_from", _ID),
    sa.Column("rotated_to", _ID),
    sa.Index("tokens_by_age", "created_at", "id"),
    sa.Index("tokens_by_user", "user", "created_at", "id"),
    sa.Index("tokens_by_expiry", "expires_at", "id"),
)

peppers = sa.Table(
    "peppers",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(16), nullable=False),
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("token_id", _ID, nullable=False),
    sa.Column("kind", sa.String(9), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)

store_state = sa.Table(
    "store_state",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("head", sa.BigInteger, nullable=False),
    sa.Column("settings_version", sa.BigInteger),
)

token_usage = sa.Table(
    "token_usage",
    metadata,
    sa.Column("token_id", _ID, primary_key=True),
    sa.Column("last_used_at", sa.BigInteger, nullable=False),
    sa.Column("last_used_from", sa.String(64), nullable=False),
    sa.Index("token_usage_by_time", "last_used_at", "token_id"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String(254), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("token_id", _ID),
    sa.Column("source", sa.String(254), nullable=False),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("pepper_id", sa.String(64), nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
    # All that lists of the audit ask for, so that those that find little read no whole row.
    sa.Index("audit_by_action", "action", "actor", "at", "token_id", "number"),
    sa.Index("audit_by_token", "token_id", "number"),
)

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("revoked_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_by", sa.String(254), nullable=False),
    sa.Column("revoked_why", sa.String(200)),
)

console_sessions = sa.Table(
    "console_sessions",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("method", sa.String(8), nullable=False),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("authenticated_at", sa.BigInteger, nullable=False),
    sa.Column("pepper_id", sa.String(64), nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
    sa.Index("console_sessions_by_digest", "digest", unique=True),
    sa.Index("console_sessions_by_age", "created_at", "id"),
)

console_accounts = sa.Table(
    "console_accounts",
    metadata,
    sa.Column("email", sa.String(254), primary_key=True),
    sa.Column("password_hash", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(254), nullable=False),
    sa.Column("pepper_id", sa.String(64), nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
)

admin_keys = sa.Table(
    "admin_keys",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("description", sa.String(200), nullable=False),
    sa.Column("role", sa.String(11), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(254), nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("pepper_id", sa.String(64), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("revoked_by", sa.String(254)),
    sa.Column("last_used_at", sa.BigInteger),
    sa.Index("admin_keys_by_age", "created_at", "id"),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("request", sa.LargeBinary(32), nullable=False),
    sa.Column("token_id", _ID, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Index("idempotency_keys_by_age", "at"),
)

settings = sa.Table(
    "settings",
    metadata,
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("section", sa.String(16), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String(254), nullable=False),
    sa.Column("source", sa.String(254), nullable=False),
    sa.Column("pepper_id", sa.String(64), nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
)

_MORE = (
    tokens.c.revoked_why,
    tokens.c.rotated_from,
    tokens.c.rotated_to,
    token_usage.c.last_used_at,
    token_usage.c.last_used_from,
)
_TEXTS = ("revoked_why", "rotated_from", "rotated_to", "last_used_from")


def read_state(connection: sa.Connection) -> Any:
    """Return epoch and head of the change feed."""
    return connection.execute(sa.select(store_state.c.epoch, store_state.c.head).where(store_state.c.id == 1)).one()


WITH_USES = tokens.outerjoin(token_usage, token_usage.c.token_id == tokens.c.id)


def stored_tokens(source: sa.FromClause = WITH_USES) -> sa.Select[Any]:
    """Select what `stored` reads from tables that are joined."""
    return sa.select(*(tokens.c[name] for name in COLUMNS), *_MORE).select_from(source)


def stored(row: Sequence[Any]) -> StoredToken:
    """Turn a row of `stored_tokens` into a record; raise ValueError for one that no release wrote."""
    plain = record(row[: len(COLUMNS)])
    more = dict(zip((column.name for column in _MORE), row[len(COLUMNS) :], strict=True))
    if not all(more[name] is None or isinstance(more[name], str) for name in _TEXTS):
        raise ValueError("a row that no release wrote")
    if more["last_used_at"] is not None and type(more["last_used_at"]) is not int:
        raise ValueError("a row that no release wrote")
    return StoredToken(**{name: getattr(plain, name) for name in COLUMNS}, **more)


def values(record: TokenRecord, *, rotated_from: str | None = None) -> dict[str, Any]:
    """Return a record as the values of one row; scopes are a sorted JSON list."""
    return {name: getattr(record, name) for name in COLUMNS} | {
        "permission": record.permission.value,
        "scopes": json.dumps(sorted(record.scopes)),
        "rotated_from": rotated_from,
    }
