"""The audit's chain: each row's MAC covers the row and the MAC before it, so that a row cannot be changed, moved, added or removed.

Rows that are cut off at the end leave a chain that is whole: that is found with a head, number and MAC of the last row, which was
noted outside of the store. The export is JSON lines: the rows, then one line of the state of the store.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from extauthz.adapters.store.records import AuditExport, AuditKey, AuditRow, Change, Revocation
from extauthz.adapters.store.rules import MAX_ACTOR, MAX_ID, MAX_WHY, check_text, possible
from extauthz.core.tokens import TokenRecord
from extauthz.errors import StoreError

START = bytes(32)
"""Stands before the first row."""

Note = tuple[str, str | None, object, object]
"""What is recorded of a change: action, token id, before, after."""

KEY_CREATED, KEY_REVOKED = "key-create", "key-revoke"
"""Actions whose rows name no token."""
CREATED, REVOKED, ROTATED, EXPIRY, TOMBSTONE, RESTORE = "create", "revoke", "rotate", "expire", "tombstone", "accept-restore"
SETTINGS = "settings"

_FIELDS = ("number", "at", "actor", "action", "token_id", "source", "before", "after", "pepper_id")
_LIMIT = 2**53
_REVOCATIONS = frozenset({REVOKED, TOMBSTONE})
_EXPIRIES = frozenset({ROTATED, EXPIRY})


def canonical(value: object) -> str:
    """Write JSON in the one way that is signed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def facts(token: TokenRecord, **more: object) -> dict[str, Any]:
    """Return what the audit keeps of a new token: everything but its digest."""
    fields = {
        name: getattr(token, name) for name in ("id", "description", "user", "created_at", "created_by", "expires_at", "pepper_id")
    }
    revocation = {"revoked_at": token.revoked_at, "revoked_by": token.revoked_by} if token.revoked_at is not None else {}
    return fields | {"permission": str(token.permission), "scopes": sorted(token.scopes)} | revocation | more


def mac(row: AuditRow, key: bytes, previous: bytes) -> bytes:
    """Return the MAC that a row has behind the row with the MAC `previous`."""
    return hmac.digest(key, previous + canonical([getattr(row, name) for name in _FIELDS]).encode(), "sha256")


def append(head: tuple[int, bytes], change: Change, key: AuditKey, notes: Iterable[Note]) -> list[AuditRow]:
    """Return the rows of notes that follow a head."""
    number, previous = head
    rows = []
    for action, token_id, before, after in notes:
        number += 1
        row = AuditRow(
            number=number,
            at=change.at,
            actor=change.actor,
            action=action,
            token_id=token_id,
            source=change.source,
            before=canonical(before),
            after=canonical(after),
            pepper_id=key.pepper_id,
            mac=START,
        )
        previous = mac(row, key.key, previous)
        rows.append(replace(row, mac=previous))
    return rows


def first_broken(rows: Iterable[AuditRow], keys: Mapping[str, bytes], head: tuple[int, str] | None = None) -> int | None:
    """Return the number of the first row that is not what was written, None when all are.

    `rows` begin with the first one, `keys` are by pepper id; a row whose key is missing proves nothing. With a head, the row of its
    number must be there and have its MAC.
    """
    last, previous = 0, START
    for row in rows:
        key = keys.get(row.pepper_id)
        if row.number != last + 1 or key is None or not _fits(row, key, previous):
            return last + 1
        if head is not None and row.number == head[0] and row.mac.hex() != head[1]:
            return row.number
        last, previous = row.number, row.mac
    return last + 1 if head is not None and last < head[0] else None


def _fits(row: AuditRow, key: bytes, previous: bytes) -> bool:
    try:
        return hmac.compare_digest(mac(row, key, previous), row.mac)
    except TypeError:
        # SQLite keeps a value of any type in any column.
        return False


def line(row: AuditRow) -> str:
    """Write a row as one line of the export; raise StoreError for one that no release wrote."""
    fields = {name: getattr(row, name) for name in _FIELDS}
    try:
        return canonical(fields | {"before": json.loads(row.before), "after": json.loads(row.after), "mac": row.mac.hex()})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"row {row.number} of the audit is not what was written; see: extauthz audit verify") from error


def last_line(head: tuple[int, str], epoch: int, feed: int) -> str:
    """Write the end of an export: the head of the audit, and epoch and head of the change feed."""
    return canonical({"audit": head, "epoch": epoch, "head": feed})


def read_lines(lines: Iterable[str]) -> tuple[list[AuditRow], AuditExport]:
    """Read an export, or several one behind the other; raise StoreError for one that is no export or was cut off."""
    rows: list[AuditRow] = []
    ends: list[dict[str, Any]] = []
    revocations: dict[str, Revocation] = {}
    expiries: dict[str, int] = {}
    keys: dict[str, Revocation] = {}
    created: dict[str, int] = {}
    settings = 0
    complete = False
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            document = json.loads(text)
            complete = "number" not in document
            if complete:
                ends.append({"audit": (_whole(document["audit"][0]), _text(document["audit"][1])), **_position(document)})
                continue
            row = _row(document)
            rows.append(row)
            if row.token_id is not None:
                if row.action == CREATED:
                    created[row.token_id] = _whole(document["after"]["expires_at"])
                _collect(row, document["after"], revocations, expiries)
            elif row.action == KEY_REVOKED:
                _collect_key(document["after"], keys)
            elif row.action == SETTINGS:
                settings = max(settings, _whole(document["after"]["version"]))
        except StoreError as error:
            raise StoreError(f"line {number}: {error}") from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"line {number} is not of 'extauthz audit export'") from error
    if not complete:
        raise StoreError("the exported audit was cut off: its last line tells the state of the store")
    epoch, head = (max(end[name] for end in ends) for name in ("epoch", "head"))
    revoked = tuple(revocations.values())
    return rows, AuditExport(revoked, expiries, epoch, head, ends[-1]["audit"], settings, tuple(keys.values()), created)


def _row(document: dict[str, Any]) -> AuditRow:
    token_id = document["token_id"]
    if token_id is not None and not (possible(_text(token_id)) and len(token_id) <= MAX_ID):
        raise ValueError("not an id")
    return AuditRow(
        number=_whole(document["number"]),
        at=_whole(document["at"]),
        actor=_text(document["actor"]),
        action=_text(document["action"]),
        token_id=token_id,
        source=_text(document["source"]),
        before=canonical(document["before"]),
        after=canonical(document["after"]),
        pepper_id=_text(document["pepper_id"]),
        mac=bytes.fromhex(document["mac"]),
    )


def _collect(row: AuditRow, after: dict[str, Any], revocations: dict[str, Revocation], expiries: dict[str, int]) -> None:
    """Take from a row the first revocation of its token, or the last expiry."""
    token_id = str(row.token_id)
    if row.action in _REVOCATIONS or (row.action == CREATED and "revoked_at" in after):
        by, why = _text(after["revoked_by"]), after.get("revoked_why")
        check_text("revoked_by", by, MAX_ACTOR)
        check_text("revoked_why", why, MAX_WHY)
        revocations.setdefault(token_id, Revocation(token_id, _whole(after["revoked_at"]), by, why))
    elif row.action in _EXPIRIES:
        expiries[token_id] = _whole(after["expires_at"])


def _collect_key(after: dict[str, Any], revocations: dict[str, Revocation]) -> None:
    """Take from a row the first revocation of its admin key."""
    key_id, by = _text(after["id"]), _text(after["revoked_by"])
    check_text("id", key_id, MAX_ID)
    check_text("revoked_by", by, MAX_ACTOR)
    revocations.setdefault(key_id, Revocation(key_id, _whole(after["revoked_at"]), by, None))


def _position(document: dict[str, Any]) -> dict[str, int]:
    return {name: _whole(document[name]) for name in ("epoch", "head")}


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LIMIT:
        raise ValueError("not a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
