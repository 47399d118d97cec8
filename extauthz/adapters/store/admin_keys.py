"""Admin keys: who made them, what they may do, until when, and when they were last used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store import chain
from extauthz.adapters.store.ledger import Ledger
from extauthz.adapters.store.records import Change, Revocation
from extauthz.adapters.store.rules import possible
from extauthz.adapters.store.schema import admin_keys
from extauthz.adapters.store.transactions import Transactions
from extauthz.adapters.store.writing import record_peppers
from extauthz.errors import ChangeRefused, StoreError
from extauthz.ports import RESOLUTION


@dataclass(frozen=True, slots=True)
class AdminKeyRecord:
    """What the store keeps of an admin key. Times are whole seconds since the epoch; a use is kept by the quarter of an hour."""

    id: str
    description: str
    role: str
    created_at: int
    created_by: str
    expires_at: int
    pepper_id: str
    digest: bytes = field(repr=False)
    revoked_at: int | None = None
    revoked_by: str | None = None
    last_used_at: int | None = None


_NAMES = tuple(item.name for item in fields(AdminKeyRecord))
_TEXTS = ("id", "description", "role", "created_by", "pepper_id")
_TIMES = ("created_at", "expires_at")


def add(store: Transactions, key: AdminKeyRecord, pepper_fingerprint: str, change: Change) -> None:
    """Insert a key; raise ChangeRefused for an id that is known."""
    with store.changing(change) as ledger:
        if _row(ledger.connection, key.id) is not None:
            raise ChangeRefused(f"admin key {key.id} exists already")
        record_peppers(ledger.connection, {key.pepper_id: pepper_fingerprint})
        ledger.connection.execute(admin_keys.insert().values({name: getattr(key, name) for name in _NAMES}))
        names = ("id", "description", "role", "created_at", "created_by", "expires_at", "pepper_id")
        ledger.note(chain.KEY_CREATED, None, None, {name: getattr(key, name) for name in names})


def get(store: Transactions, key_id: str) -> AdminKeyRecord | None:
    """Return one key."""
    if not possible(key_id):
        return None
    with store.reading() as connection:
        row = _row(connection, key_id)
    return None if row is None else _record(row)


def newest(store: Transactions, limit: int, *, active_at: int | None = None) -> Sequence[AdminKeyRecord]:
    """Return keys, the newest first; with a time only those that are good then."""
    query = sa.select(admin_keys).order_by(admin_keys.c.created_at.desc(), admin_keys.c.id.desc()).limit(limit)
    if active_at is not None:
        query = query.where(admin_keys.c.revoked_at.is_(None), admin_keys.c.expires_at > active_at)
    with store.reading() as connection:
        return [_record(row) for row in connection.execute(query)]


def revoke(store: Transactions, key_id: str, change: Change) -> AdminKeyRecord | None:
    """Revoke a key for good and return it as it was before, None for an unknown one; the first revocation is kept."""
    if not possible(key_id):
        return None
    with store.changing(change) as ledger:
        row = _row(ledger.connection, key_id)
        if row is None or row.revoked_at is not None:
            return None if row is None else _record(row)
        _end(ledger, key_id, change.at, change.actor)
        return _record(row)


def revoke_again(ledger: Ledger, revocations: Iterable[Revocation]) -> tuple[str, ...]:
    """Do again what an exported audit records of keys that are there; return the ids of those that were not revoked."""
    again = []
    for item in revocations:
        row = _row(ledger.connection, item.token_id) if possible(item.token_id) else None
        if row is not None and row.revoked_at is None:
            _end(ledger, item.token_id, item.at, item.by)
            again.append(item.token_id)
    return tuple(again)


def record_use(store: Transactions, key_id: str, at: int) -> None:
    """Keep when a key was used, if that is later than what is kept by more than RESOLUTION."""
    used_at = admin_keys.c.last_used_at
    is_later = sa.or_(used_at.is_(None), used_at < at - RESOLUTION)
    with store.writing() as connection:
        connection.execute(admin_keys.update().where(admin_keys.c.id == key_id, is_later).values(last_used_at=at))


def _end(ledger: Ledger, key_id: str, at: int, by: str) -> None:
    after = {"revoked_at": at, "revoked_by": by}
    ledger.connection.execute(admin_keys.update().where(admin_keys.c.id == key_id).values(after))
    ledger.note(chain.KEY_REVOKED, None, {"id": key_id, **dict.fromkeys(after)}, {"id": key_id, **after})


def _row(connection: sa.Connection, key_id: str) -> Any:
    return connection.execute(sa.select(admin_keys).where(admin_keys.c.id == key_id)).first()


def _record(row: Any) -> AdminKeyRecord:
    values = {name: getattr(row, name) for name in _NAMES}
    times = (values["revoked_at"], values["last_used_at"])
    if (
        not all(isinstance(values[name], str) for name in _TEXTS)
        or not all(type(values[name]) is int for name in _TIMES)
        or not all(at is None or type(at) is int for at in times)
        or not isinstance(values["digest"], bytes)
        or not isinstance(values["revoked_by"], str | None)
    ):
        raise StoreError("the store holds an admin key that no release wrote: revoke all of them that nobody knows")
    return AdminKeyRecord(**values)
