"""The store against the audit: without the triggers anybody can undo what was done, but not what the chain records."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag
from hashlib import blake2b
from itertools import islice
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store import audit, chain
from extauthz.adapters.store.console_replay import ConsoleHistory
from extauthz.adapters.store.database import Database, batches
from extauthz.adapters.store.ledger import audit_head
from extauthz.adapters.store.records import AuditRow, Difference, Subject, plain
from extauthz.adapters.store.schema import audit as audit_table
from extauthz.adapters.store.schema import settings, store_state, tokens, tombstones
from extauthz.adapters.store.settings_rows import CHANGED
from extauthz.errors import StoreError

FIXED = ("permission", "user", "scopes", "created_at", "created_by", "pepper_id", "rotated_from")
"""What nobody changes after a token was made."""

Advance = Callable[[int, int], None]
"""Takes how many rows are read, and how many there are."""

MAX_DIFFERENCES = 10_000
"""Differences after which no more are looked for."""
_PAGE = 1000
_COLUMNS = ("id", *FIXED, "expires_at", "revoked_at", "rotated_to")
_STATE = struct.Struct(">qB16s")


class _Flag(IntFlag):
    CREATED = 1
    REVOKED = 2
    ROTATED = 4
    TOMBSTONE = 8
    COMPARED = 16


@dataclass(frozen=True, slots=True)
class Checked:
    """The head of the audit, the first row that is not what was written, and if all are, what does not fit them."""

    head: tuple[int, str]
    first_broken: int | None
    differences: tuple[Difference, ...] = ()


class History:
    """What the audit lets each token be at most: about 150 bytes for a token."""

    def __init__(self) -> None:
        """Begin without a token."""
        self._states: dict[str, bytes] = {}
        self.console = ConsoleHistory()
        self.settings: Mapping[str, Any] = {"version": 0, "settings": None}
        # So that nobody can make other fields with the same hash.
        self._key = os.urandom(16)

    def follow(self, rows: Iterable[AuditRow]) -> Iterator[AuditRow]:
        """Note what rows say while they are handed on."""
        for row in rows:
            yield row
            # Only now was it checked by the caller, which took the next one.
            try:
                if row.token_id is not None:
                    self._note(row, json.loads(row.after))
                elif row.action == chain.SETTINGS:
                    self.settings = dict(json.loads(row.after))
                else:
                    self.console.note(row)
            except (ValueError, TypeError, KeyError, struct.error) as error:
                raise StoreError(f"row {row.number} of the audit is of no release") from error

    def differences(self, rows: Iterable[Any]) -> Iterator[Difference]:
        """Compare rows of _COLUMNS; fixed fields are named without what the audit says of them."""
        for row in rows:
            expires_at, flags, fixed = _STATE.unpack(self._states.get(row.id, _NOTHING))
            self._states[row.id] = _STATE.pack(expires_at, flags | _Flag.COMPARED, fixed)
            if not flags & _Flag.CREATED:
                yield Difference(str(row.id), "created_at", None, plain(row.created_at))
                continue
            if flags & (_Flag.REVOKED | _Flag.TOMBSTONE) and row.revoked_at is None:
                yield Difference(str(row.id), "revoked_at", "revoked", None)
            if flags & _Flag.ROTATED and row.rotated_to is None:
                yield Difference(str(row.id), "rotated_to", "rotated", None)
            if type(row.expires_at) is not int or row.expires_at > expires_at:
                yield Difference(str(row.id), "expires_at", expires_at, plain(row.expires_at))
            stored = _fixed_of(row)
            if self._hash(stored) != fixed:
                yield from (Difference(str(row.id), name, None, plain(stored[name])) for name in FIXED)

    def missing(self, tombstone_ids: Iterable[str]) -> Iterator[Difference]:
        """Return what should be there and was not compared; `tombstone_ids` are the ids that have a tombstone."""
        for token_id in tombstone_ids:
            if not _STATE.unpack(self._states.get(token_id, _NOTHING))[1] & _Flag.CREATED:
                self._states.pop(token_id, None)
        for token_id, state in self._states.items():
            flags = _STATE.unpack(state)[1]
            if not flags & _Flag.COMPARED:
                field = "tombstone" if flags & _Flag.TOMBSTONE and not flags & _Flag.CREATED else "row"
                yield Difference(token_id, field, "made" if field == "row" else "buried", None)

    def _note(self, row: AuditRow, after: Mapping[str, Any]) -> None:
        token_id = str(row.token_id)
        expires_at, flags, fixed = _STATE.unpack(self._states.get(token_id, _NOTHING))
        match row.action:
            case chain.CREATED:
                flags |= _Flag.CREATED | (_Flag.REVOKED if after.get("revoked_at") is not None else 0)
                expires_at, fixed = after["expires_at"], self._hash({name: after.get(name) for name in FIXED})
            case chain.REVOKED:
                flags |= _Flag.REVOKED
            case chain.TOMBSTONE:
                flags |= _Flag.TOMBSTONE
            case chain.ROTATED:
                flags |= _Flag.ROTATED
                expires_at = min(expires_at, after["expires_at"])
            case chain.EXPIRY:
                expires_at = min(expires_at, after["expires_at"])
        self._states[token_id] = _STATE.pack(expires_at, flags, fixed)

    def _hash(self, fixed: Mapping[str, object]) -> bytes:
        text = json.dumps([fixed[name] for name in FIXED], default=repr)
        return blake2b(text.encode(), digest_size=16, key=self._key).digest()


_NOTHING = _STATE.pack(0, 0, bytes(16))


def check(database: Database, keys: Mapping[str, bytes], head: tuple[int, str] | None, advance: Advance) -> Checked:
    """Check the chain, against a noted head if there is one, then the store against the chain, in one state of it."""
    with database.reading() as connection:
        number, mac = audit_head(connection)
        expected_head = head or ((number, mac.hex()) if number else None)
        count = sa.select(sa.func.count())
        total = number + (connection.scalar(count.select_from(tokens)) or 0)
        history = History()
        rows = _counted(audit.rows_of(connection), advance, 0, total)
        broken = chain.first_broken(history.follow(rows), keys, expected_head)
        if broken is not None:
            return Checked((number, mac.hex()), broken)
        differences = list(islice(history.differences(_counted(_rows(connection), advance, number, total)), MAX_DIFFERENCES))
        if len(differences) < MAX_DIFFERENCES:
            tombstone_ids = connection.scalars(sa.select(tombstones.c.id))
            differences += islice(history.missing(tombstone_ids), MAX_DIFFERENCES - len(differences))
        of_settings = _settings_differences(connection, history.settings)
        of_console = islice(history.console.differences(connection), MAX_DIFFERENCES)
        return Checked((number, mac.hex()), None, (*of_settings, *of_console, *_explained(connection, differences)))


def _settings_differences(connection: sa.Connection, noted: Mapping[str, Any]) -> Iterator[Difference]:
    """Compare the saved settings with what the audit says last of them."""
    version = connection.scalar(sa.select(store_state.c.settings_version)) or 0
    if version != noted.get("version"):
        yield Difference(CHANGED, "version", noted.get("version"), plain(version), Subject.SETTINGS)
        return
    body = connection.scalar(sa.select(settings.c.body).where(settings.c.version == version))
    expected = noted.get("settings")
    if body != (None if expected is None else chain.canonical(expected)):
        yield Difference(CHANGED, "body", expected, plain(body), Subject.SETTINGS)


def _rows(connection: sa.Connection) -> Iterator[Any]:
    query = sa.select(*(tokens.c[name] for name in _COLUMNS)).order_by(tokens.c.id).limit(_PAGE)
    page = connection.execute(query).all()
    while page:
        yield from page
        page = connection.execute(query.where(tokens.c.id > page[-1].id)).all()


def _counted(rows: Iterable[Any], advance: Advance, before: int, total: int) -> Iterator[Any]:
    for count, row in enumerate(rows, before):
        if count % _PAGE == 0:
            advance(count, total)
        yield row


def _fixed_of(row: Any) -> dict[str, object]:
    fixed = {name: getattr(row, name) for name in FIXED}
    with suppress(ValueError, TypeError, RecursionError):
        fixed["scopes"] = sorted(json.loads(row.scopes))
    return fixed


def _explained(connection: sa.Connection, differences: Sequence[Difference]) -> Iterator[Difference]:
    """Add what the audit says of fixed fields, and leave out those of them that are as they were."""
    ids = dict.fromkeys(item.token_id for item in differences if item.field in FIXED)
    creations: dict[str, Mapping[str, object]] = {}
    for batch in batches(ids):
        query = sa.select(audit_table.c.token_id, audit_table.c.after)
        query = query.where(audit_table.c.action == chain.CREATED, audit_table.c.token_id.in_(batch))
        creations |= {row.token_id: json.loads(row.after) for row in connection.execute(query)}
    for item in differences:
        if item.field not in FIXED or item.token_id not in creations:
            yield item
        elif creations[item.token_id].get(item.field) != item.row:
            yield Difference(item.token_id, item.field, creations[item.token_id].get(item.field), item.row)
