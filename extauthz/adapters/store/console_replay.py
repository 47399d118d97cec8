"""Admin keys and accounts of the console against the audit: nobody may have made one, or undone the end of one, beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store import chain
from extauthz.adapters.store.records import AuditRow, Difference, Subject, plain
from extauthz.adapters.store.schema import admin_keys, console_accounts
from extauthz.adapters.store.sessions import ACCOUNT_ADDED, ACCOUNT_CHANGED, ACCOUNT_REMOVED

FIXED = ("description", "role", "created_at", "created_by", "expires_at", "pepper_id")
"""What nobody changes after an admin key was made."""


class ConsoleHistory:
    """What the audit tells of admin keys and accounts."""

    def __init__(self) -> None:
        """Begin without any."""
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._revoked: set[str] = set()
        self._accounts: set[str] = set()

    def note(self, row: AuditRow) -> None:
        """Note what a row says. Raises ValueError, TypeError and KeyError for one that no release wrote."""
        match row.action:
            case chain.KEY_CREATED:
                after = json.loads(row.after)
                self._keys[str(after["id"])] = {name: after[name] for name in FIXED}
            case chain.KEY_REVOKED:
                self._revoked.add(str(json.loads(row.after)["id"]))
            case action if action in (ACCOUNT_ADDED, ACCOUNT_CHANGED):
                self._accounts.add(str(json.loads(row.after)["email"]))
            case action if action == ACCOUNT_REMOVED:
                self._accounts.discard(str(json.loads(row.before)["email"]))

    def differences(self, connection: sa.Connection) -> Iterator[Difference]:
        """Compare all keys and accounts of the store."""
        columns = [admin_keys.c[name] for name in ("id", *FIXED, "revoked_at")]
        rows = connection.execute(sa.select(*columns).order_by(admin_keys.c.id)).all()
        for row in rows:
            yield from self._of_key(row)
        for key_id in sorted(self._keys.keys() - {row.id for row in rows}):
            yield Difference(key_id, "row", "made", None, Subject.KEY)
        query = sa.select(console_accounts.c.email, console_accounts.c.created_at).order_by(console_accounts.c.email)
        accounts = {row.email: row.created_at for row in connection.execute(query)}
        for email, created_at in accounts.items():
            if email not in self._accounts:
                yield Difference(str(email), "created_at", None, plain(created_at), Subject.ACCOUNT)
        for email in sorted(self._accounts - accounts.keys()):
            yield Difference(email, "row", "made", None, Subject.ACCOUNT)

    def _of_key(self, row: Any) -> Iterator[Difference]:
        made = self._keys.get(row.id)
        if made is None:
            yield Difference(str(row.id), "created_at", None, plain(row.created_at), Subject.KEY)
            return
        if row.id in self._revoked and row.revoked_at is None:
            yield Difference(row.id, "revoked_at", "revoked", None, Subject.KEY)
        for name in FIXED:
            if getattr(row, name) != made[name]:
                yield Difference(row.id, name, made[name], plain(getattr(row, name)), Subject.KEY)
