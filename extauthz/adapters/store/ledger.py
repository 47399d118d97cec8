"""One writing transaction: what it changes, and the rows of feed and audit without which nothing is changed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store import chain
from extauthz.adapters.store.database import Kind
from extauthz.adapters.store.following import CHANNEL
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.rules import RETENTION
from extauthz.adapters.store.schema import audit, changes, read_state, store_state
from extauthz.adapters.store.settings_rows import CHANGED

PRUNED = 10_000
"""Rows of the feed that one change removes at most."""


class Ledger:
    """Collects what is recorded of one change; `settle` writes it at the end of the transaction, under the lock of all writers.

    The numbers of the feed are drawn under that lock, which is held to the commit: they become visible in their order.
    """

    def __init__(self, connection: sa.Connection, kind: Kind, change: Change, key: AuditKey) -> None:
        """Begin with no entry."""
        self.connection = connection
        self.change = change
        self._kind = kind
        self._key = key
        self._notes: list[chain.Note] = []
        self._changes: list[tuple[str, str]] = []

    def note(self, action: str, token_id: str | None, before: object, after: object) -> None:
        """Add an entry to the audit."""
        self._notes.append((action, token_id, before, after))

    def note_change(self, kind: str, action: str, token_id: str, before: object, after: object) -> None:
        """Add a change of a token to feed and audit."""
        self._changes.append((token_id, kind))
        self.note(action, token_id, before, after)

    def note_settings(self, before: object, after: object) -> None:
        """Add a change of the saved settings to feed and audit; the feed names them in place of a token."""
        self._changes.append((CHANGED, CHANGED))
        self.note(chain.SETTINGS, None, before, after)

    def settle(self) -> None:
        """Write feed and audit; without a note nothing was changed."""
        if not self._notes:
            return
        head = self._write_feed()
        rows = chain.append(audit_head(self.connection), self.change, self._key, self._notes)
        names = tuple(audit.columns.keys())
        self.connection.execute(audit.insert(), [{name: getattr(row, name) for name in names} for row in rows])
        if self._kind == "postgresql":
            self.connection.execute(sa.select(sa.func.pg_notify(CHANNEL, str(head))))

    def _write_feed(self) -> int:
        head = int(read_state(self.connection).head)
        if not self._changes:
            return head
        rows = [
            {"number": number, "token_id": token_id, "kind": kind, "at": self.change.at}
            for number, (token_id, kind) in enumerate(self._changes, head + 1)
        ]
        self.connection.execute(changes.insert(), rows)
        head += len(rows)
        self.connection.execute(store_state.update().where(store_state.c.id == 1).values(head=head))
        self._prune()
        return head

    def _prune(self) -> None:
        """Remove old rows from the beginning, so that what is kept has no gaps."""
        oldest = self.connection.scalar(sa.select(sa.func.min(changes.c.number)))
        is_recent = changes.c.at >= self.change.at - RETENTION
        first = self.connection.scalar(sa.select(changes.c.number).where(is_recent).order_by(changes.c.number).limit(1))
        self.connection.execute(changes.delete().where(changes.c.number < min(first, oldest + PRUNED)))


def audit_head(connection: sa.Connection) -> tuple[int, bytes]:
    """Return number and MAC of the last row of the audit."""
    row: Any = connection.execute(sa.select(audit.c.number, audit.c.mac).order_by(audit.c.number.desc()).limit(1)).first()
    return (0, chain.START) if row is None else (row.number, row.mac)
