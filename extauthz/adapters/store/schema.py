"""Tables of the token store, and rows to records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store.rows import COLUMNS
from extauthz.core.tokens import TokenRecord

metadata = sa.MetaData()

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
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
)

peppers = sa.Table(
    "peppers",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(16), nullable=False),
)


def columns() -> Sequence[sa.Column[Any]]:
    """Return the token columns in the order of COLUMNS."""
    return [tokens.c[name] for name in COLUMNS]


def values(record: TokenRecord) -> dict[str, Any]:
    """Return a record as the values of one row; scopes are a sorted JSON list."""
    return {name: getattr(record, name) for name in COLUMNS} | {
        "permission": record.permission.value,
        "scopes": json.dumps(sorted(record.scopes)),
    }
