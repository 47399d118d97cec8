"""What is done to tokens: each function is one change under a ledger, and is undone as a whole when it refuses something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store import chain
from extauthz.adapters.store.database import batches
from extauthz.adapters.store.ledger import Ledger
from extauthz.adapters.store.listing import get
from extauthz.adapters.store.records import AuditExport, Restored, Revocation, StoredToken
from extauthz.adapters.store.rules import (
    MAX_WHY,
    check_expected,
    check_fingerprint,
    check_rotation,
    check_text,
    has_tombstone,
    in_use,
    possible,
)
from extauthz.adapters.store.schema import peppers, read_state, store_state, tokens, tombstones, values
from extauthz.core.tokens import TokenRecord


def add(ledger: Ledger, new: Sequence[TokenRecord], fingerprints: Mapping[str, str], *, rotated_from: str | None = None) -> None:
    """Insert tokens; refuse an id that is known or may not come back, and a pepper that is not the one known by its id."""
    _check_ids(ledger.connection, [record.id for record in new])
    record_peppers(ledger.connection, {record.pepper_id: fingerprints.get(record.pepper_id) for record in new})
    for batch in batches(new):
        ledger.connection.execute(tokens.insert(), [values(record, rotated_from=rotated_from) for record in batch])
    origin = {} if rotated_from is None else {"rotated_from": rotated_from}
    for record in new:
        ledger.note_change("created", chain.CREATED, record.id, None, chain.facts(record, **origin))


def revoke(
    ledger: Ledger, ids: Iterable[str], why: str | None, *, linked: bool = False, expected: StoredToken | None = None
) -> tuple[str, ...]:
    """Revoke tokens, and if `linked` those they were rotated from and to; return the ids that were not revoked before."""
    check_text("why", why, MAX_WHY)
    if expected is not None:
        check_expected(get(ledger.connection, expected.id), expected)
    by_id = _rows_by_id(ledger.connection, ids)
    while linked:
        links = {link for row in by_id.values() for link in (row.rotated_from, row.rotated_to) if link is not None}
        further = _rows_by_id(ledger.connection, sorted(links - by_id.keys()))
        if not further:
            break
        by_id |= further
    by, at = ledger.change.actor, ledger.change.at
    return _revoke_as(ledger, by_id, [Revocation(token_id, at, by, why) for token_id in by_id])


def revoke_user(ledger: Ledger, user: str, why: str | None) -> tuple[str, ...]:
    """Revoke every token of a user, the oldest first."""
    of_user = sa.select(tokens.c.id).where(tokens.c.user == user, tokens.c.revoked_at.is_(None))
    ordered = of_user.order_by(tokens.c.created_at, tokens.c.id)
    return revoke(ledger, ledger.connection.scalars(ordered).all() if user.isprintable() else (), why)


def rotate(
    ledger: Ledger,
    token_id: str,
    successor: TokenRecord,
    expires_at: int,
    fingerprint: str,
    *,
    expected: StoredToken | None = None,
) -> StoredToken:
    """Add the successor of a token and bring the token's expiry forward; return the token as it is then."""
    now = get(ledger.connection, token_id)
    check_expected(now, expected)
    token = check_rotation(now, token_id, successor, ledger.change.at)
    add(ledger, [successor], {successor.pepper_id: fingerprint}, rotated_from=token_id)
    before = {"expires_at": token.expires_at, "rotated_to": None}
    after = {"expires_at": min(token.expires_at, expires_at), "rotated_to": successor.id}
    ledger.connection.execute(tokens.update().where(tokens.c.id == token_id).values(after))
    ledger.note_change("rotated", chain.ROTATED, token_id, before, after)
    return get(ledger.connection, token_id) or token


def accept_restore(ledger: Ledger, export: AuditExport) -> Restored:
    """Do again what the exported audit records: revocations, with tombstones for ids without a row, and expiries brought forward.

    The feed goes on behind every number that the export names, in a new epoch.
    """
    state = read_state(ledger.connection)
    epoch, head = max(state.epoch, export.epoch) + 1, max(state.head, export.head) + 1
    ledger.connection.execute(store_state.update().where(store_state.c.id == 1).values(epoch=epoch, head=head))
    by_id = _rows_by_id(ledger.connection, [*(revocation.token_id for revocation in export.revocations), *export.expiries])
    expiries = _expire_earlier(ledger, by_id, export.expiries)
    revoked = _revoke_as(ledger, by_id, export.revocations)
    tombstones = _add_tombstones(ledger, [revocation for revocation in export.revocations if revocation.token_id not in by_id])
    counted = {"revoked": len(revoked), "tombstones": len(tombstones), "expiries": len(expiries)}
    before = {"epoch": state.epoch, "head": state.head}
    ledger.note(chain.RESTORE, None, before, {"epoch": epoch, "head": head, "audit": export.audit, **counted})
    return Restored(revoked, tombstones, expiries, epoch, head + sum(counted.values()))


def _revoke_as(ledger: Ledger, by_id: Mapping[str, Any], revocations: Iterable[Revocation]) -> tuple[str, ...]:
    first: dict[str, Revocation] = {}
    for item in revocations:
        if item.token_id in by_id and by_id[item.token_id].revoked_at is None:
            first.setdefault(item.token_id, item)
    rows = [{"key": item.token_id, "at": item.at, "by": item.by, "why": item.why} for item in first.values()]
    update = tokens.update().where(tokens.c.id == sa.bindparam("key"))
    update = update.values(revoked_at=sa.bindparam("at"), revoked_by=sa.bindparam("by"), revoked_why=sa.bindparam("why"))
    for batch in batches(rows):
        ledger.connection.execute(update, batch)
    for item in first.values():
        ledger.note_change("revoked", chain.REVOKED, item.token_id, dict.fromkeys(item.facts), item.facts)
    return tuple(first)


def _expire_earlier(ledger: Ledger, by_id: Mapping[str, Any], expiries: Mapping[str, int]) -> tuple[str, ...]:
    earlier = {token_id: at for token_id, at in expiries.items() if token_id in by_id and at < by_id[token_id].expires_at}
    for token_id, at in earlier.items():
        ledger.connection.execute(tokens.update().where(tokens.c.id == token_id).values(expires_at=at))
        ledger.note_change("expiry", chain.EXPIRY, token_id, {"expires_at": by_id[token_id].expires_at}, {"expires_at": at})
    return tuple(earlier)


def _add_tombstones(ledger: Ledger, revocations: Iterable[Revocation]) -> tuple[str, ...]:
    first: dict[str, Revocation] = {}
    for item in revocations:
        first.setdefault(item.token_id, item)
    for batch in batches(list(first)):
        for token_id in ledger.connection.scalars(sa.select(tombstones.c.id).where(tombstones.c.id.in_(batch))):
            del first[token_id]
    rows = [{"id": item.token_id, "revoked_at": item.at, "revoked_by": item.by, "revoked_why": item.why} for item in first.values()]
    for part in batches(rows):
        ledger.connection.execute(tombstones.insert(), part)
    for row in rows:
        after = {name: value for name, value in row.items() if name != "id"}
        ledger.note_change("revoked", chain.TOMBSTONE, str(row["id"]), None, after)
    return tuple(first)


def _check_ids(connection: sa.Connection, ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        raise in_use(next(token_id for token_id in ids if ids.count(token_id) > 1))
    for batch in batches(ids):
        for key, refusal in ((tokens.c.id, in_use), (tombstones.c.id, has_tombstone)):
            token_id = connection.scalar(sa.select(key).where(key.in_(batch)).limit(1))
            if token_id is not None:
                raise refusal(token_id)


def record_peppers(connection: sa.Connection, fingerprints: Mapping[str, str | None]) -> None:
    """Keep the fingerprints of peppers by their ids; refuse one that is not the one known by its id."""
    stored = {row.id: row.fingerprint for row in connection.execute(sa.select(peppers))}
    for pepper_id, fingerprint in fingerprints.items():
        checked = check_fingerprint(pepper_id, stored.get(pepper_id), fingerprint)
        if pepper_id not in stored:
            connection.execute(peppers.insert().values(id=pepper_id, fingerprint=checked))


def _rows_by_id(connection: sa.Connection, ids: Iterable[str]) -> dict[str, Any]:
    """Return what a change needs of these tokens, in the order of the ids; unknown ones are left out."""
    possible_ids = [token_id for token_id in dict.fromkeys(ids) if possible(token_id)]
    names = ("id", "expires_at", "revoked_at", "rotated_from", "rotated_to")
    query = sa.select(*(tokens.c[name] for name in names))
    rows = {row.id: row for batch in batches(possible_ids) for row in connection.execute(query.where(tokens.c.id.in_(batch)))}
    return {token_id: rows[token_id] for token_id in possible_ids if token_id in rows}
