"""Requests that name themselves by a key, so that one that is sent twice makes one token."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from extauthz.adapters.store.ledger import Ledger
from extauthz.adapters.store.schema import idempotency_keys

KEPT = 86_400
"""Seconds that a key is kept."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """SHA-256 over who sent which key, and over what was asked for."""

    digest: bytes = field(repr=False)
    request: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """A request that used the same key: the token that it made, SHA-256 over what it asked for, and when."""

    token_id: str
    request: bytes = field(repr=False)
    at: int


def claim(ledger: Ledger, key: IdempotencyKey, token_id: str) -> EarlierRequest | None:
    """Return the request that used a key; without one keep, under the lock of all writers, that this token is made by it."""
    oldest = ledger.change.at - KEPT
    ledger.connection.execute(idempotency_keys.delete().where(idempotency_keys.c.at <= oldest))
    query = sa.select(idempotency_keys).where(idempotency_keys.c.digest == key.digest)
    row = ledger.connection.execute(query).first()
    if row is not None:
        return EarlierRequest(row.token_id, row.request, row.at)
    values = {"digest": key.digest, "request": key.request, "token_id": token_id, "at": ledger.change.at}
    ledger.connection.execute(idempotency_keys.insert().values(values))
    return None
