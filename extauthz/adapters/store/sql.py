"""Everything that changes the token store: the CLI, the console and migrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store import admin_keys, audit, backup, chain, listing, migrating, paging, replay, saved_settings, writing
from extauthz.adapters.store.database import Database
from extauthz.adapters.store.idempotency import EarlierRequest, IdempotencyKey, claim
from extauthz.adapters.store.ledger import Ledger
from extauthz.adapters.store.records import (
    AuditExport,
    AuditFilter,
    AuditKey,
    AuditRow,
    Change,
    Position,
    Restored,
    Sort,
    StoredToken,
    StoreState,
    TokenCounts,
    TokenFilter,
)
from extauthz.adapters.store.rows import COLUMNS
from extauthz.adapters.store.rules import audit_key
from extauthz.adapters.store.schema import tokens
from extauthz.adapters.store.settings_rows import SettingsKey, SettingsState, SettingsVersion
from extauthz.core.tokens import TokenRecord
from extauthz.ports import FeedBatch

_EVERYTHING = TokenFilter()
_PAGE = 1000


class SqlTokenStore:
    """A token store on SQLite or PostgreSQL, for as many processes and threads as like to change it; raises StoreError.

    Each change is one transaction with its rows of the audit and of the change feed. Whoever may change the store has a pepper:
    `audit` holds the key that is derived from the newest one, and without it nothing can be changed.
    """

    def __init__(
        self,
        place: Path | str,
        *,
        create: bool = False,
        password: str | None = None,
        audit: AuditKey | None = None,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        """Open a SQLite file, or a database by its `postgresql://` URL without password. The schema is made by `migrate`.

        With `create` a missing file is made, and its folder. PostgreSQL is asked at the first use. `waiting` is called once, from
        another thread, with the name of a store that does not answer for two seconds.
        """
        self.audit = audit
        self._database = Database(place, create=create, password=password, waiting=waiting)

    @property
    def name(self) -> str:
        """Which store this is, for people: the file, or the address without password."""
        return self._database.name

    def close(self) -> None:
        """Close the connections; a SQLite file alone is then the store."""
        self._database.close()

    # --- schema

    def migrate(self) -> str:
        """Bring the schema to this release's revision, in one transaction, and return it; a later one that is served stays."""
        return migrating.migrate(self._database)

    def revision(self) -> str | None:
        """Return the schema revision, None for an empty database."""
        return self._database.revision()

    def status(self, now: int) -> StoreState:
        """Count the tokens; return that with the heads of feed and audit."""
        revision = str(self.revision())
        with self._database.reading() as connection:
            return listing.status(connection, self._database.kind, revision, now)

    def token_counts(self, now: int, soon: int) -> tuple[TokenCounts, ...]:
        """Count the tokens of each permission by status; active ones that expire before `soon` expire soon."""
        with self._database.reading() as connection:
            return listing.token_counts(connection, now, soon)

    def backup(self, path: Path) -> tuple[int, str]:
        """Copy a SQLite store into a new file while others write; return number and MAC of the last row of its audit."""
        return backup.backup(self._database, path)

    def clock(self) -> float | None:
        """Return the time of the database's machine in seconds since the epoch, None for a file."""
        if self._database.kind == "sqlite":
            return None
        with self._database.reading() as connection:
            return float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")) or 0.0)

    # --- reading

    def get(self, token_id: str) -> StoredToken | None:
        """Return one token."""
        with self._database.reading() as connection:
            return listing.get(connection, token_id)

    def page(
        self,
        filters: TokenFilter = _EVERYTHING,
        after: Position | None = None,
        limit: int = 100,
        *,
        before: Position | None = None,
        sort: Sort = Sort.NEWEST,
    ) -> list[StoredToken]:
        """Return the first tokens of a list, or those right after or before the position of one, in the order of the list."""
        with self._database.reading() as connection:
            return paging.page(connection, self._database.kind, filters, sort=sort, after=after, before=before, limit=limit)

    def list_tokens(self) -> list[StoredToken]:
        """Return all tokens, the newest first."""
        records: list[StoredToken] = []
        while batch := self.page(after=(records[-1].created_at, records[-1].id) if records else None, limit=_PAGE):
            records += batch
        return records

    def pepper_fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each pepper that a token was made with."""
        with self._database.reading() as connection:
            return listing.pepper_fingerprints(connection)

    def needing(self, pepper_id: str, now: int) -> list[tuple[str, int]]:
        """Return the newest active tokens of a pepper, each with their number: see `check_peppers`."""
        with self._database.reading() as connection:
            return listing.needing(connection, pepper_id, now)

    def read_feed(self, after: int) -> FeedBatch:
        """Return what changed after a position."""
        with self._database.reading() as connection:
            return listing.read_feed(connection, after)

    # --- changes

    def add(self, new: TokenRecord, pepper_fingerprint: str, change: Change | None = None) -> None:
        """Insert a token; who made it and when is in the record, unless a change says where from.

        Refuses an id in use, one that may not come back, and a pepper that is not the one that the store has by this id.
        """
        self.add_many([new], {new.pepper_id: pepper_fingerprint}, change or Change(new.created_at, new.created_by))

    def add_many(
        self,
        new: Sequence[TokenRecord],
        pepper_fingerprints: Mapping[str, str],
        change: Change,
        *,
        idempotency: IdempotencyKey | None = None,
    ) -> EarlierRequest | None:
        """Insert all these tokens or none; of a key that was used before, return the request that used it and insert none."""
        with self.changing(change) as ledger:
            earlier = None if idempotency is None else claim(ledger, idempotency, new[0].id)
            if earlier is None:
                writing.add(ledger, new, pepper_fingerprints)
            return earlier

    def revoke(
        self, ids: Iterable[str], why: str | None, change: Change, *, chain: bool = False, expected: StoredToken | None = None
    ) -> tuple[str, ...]:
        """Revoke tokens, with `chain` also their predecessors and successors; return the ids that were not revoked before.

        The first revocation of a token is kept; unknown ids are left out. Raises TokenChanged when a token is not as `expected`.
        """
        with self.changing(change) as ledger:
            return writing.revoke(ledger, ids, why, linked=chain, expected=expected)

    def revoke_user(self, user: str, why: str | None, change: Change) -> tuple[str, ...]:
        """Revoke every token of a user, whose address is written as it is stored; return their ids."""
        with self.changing(change) as ledger:
            return writing.revoke_user(ledger, user, why)

    def rotate(
        self,
        token_id: str,
        successor: TokenRecord,
        expires_at: int,
        pepper_fingerprint: str,
        change: Change,
        *,
        expected: StoredToken | None = None,
    ) -> StoredToken:
        """Add the successor of a token, which itself expires at the given time if not before; return the old token as it is then.

        Refuses a token that is revoked, expired or rotated, and a successor with another permission, user or scopes. Raises
        TokenChanged when the token is not as `expected`.
        """
        with self.changing(change) as ledger:
            return writing.rotate(ledger, token_id, successor, expires_at, pepper_fingerprint, expected=expected)

    def accept_restore(self, export: AuditExport, change: Change) -> Restored:
        """Do again what an exported audit records, and begin a new epoch of the feed: see `chain.read_lines`."""
        with self.changing(change) as ledger:
            restored = writing.accept_restore(ledger, export)
            return replace(restored, keys=admin_keys.revoke_again(ledger, export.keys))

    # --- audit

    def audit_page(self, after: int = 0, limit: int = 100) -> list[AuditRow]:
        """Return the rows of the audit behind a number."""
        return audit.page(self._database, after, limit)

    def newest_audit(
        self, filters: AuditFilter, *, below: int | None = None, above: int | None = None, limit: int = 100
    ) -> list[AuditRow]:
        """Return the newest rows of the audit that meet a filter, or the first below or above a number; the newest stands first."""
        return audit.newest(self._database, filters, below=below, above=above, limit=limit)

    def audit_actions(self) -> list[str]:
        """Return every action that the audit tells of."""
        return audit.actions(self._database)

    def audit_head(self) -> tuple[int, str]:
        """Return number and MAC of the last row of the audit; 0 before the first."""
        return audit.head(self._database)

    def verify_audit(self, keys: Mapping[str, bytes], head: tuple[int, str] | None = None) -> int | None:
        """Return the number of the first row of the audit that is not what was written, None when all are.

        `keys` are those of AuditKey by pepper id; a head that was noted outside shows whether the end was cut off.
        """
        return chain.first_broken(audit.rows(self._database), keys, head)

    def check_audit(
        self, keys: Mapping[str, bytes], head: tuple[int, str] | None = None, advance: replay.Advance = lambda rows, total: None
    ) -> replay.Checked:
        """Do the same, in one state of the store, and compare every token with what the rows say of it."""
        return replay.check(self._database, keys, head, advance)

    def export_audit(self, after: int = 0) -> Iterator[str]:
        """Yield the audit as JSON lines; the last one is the state of the store."""
        return audit.export(self._database, after)

    # --- saved settings

    def settings(self) -> SettingsState:
        """Return the settings that count, and the state of the change feed."""
        with self._database.reading() as connection:
            return saved_settings.state(connection)

    def settings_page(self, before: int | None = None, limit: int = 100) -> list[SettingsVersion]:
        """Return versions of the settings before a number, or the newest ones, the newest first."""
        with self._database.reading() as connection:
            return saved_settings.page(connection, before, limit)

    def save_settings(self, values: Mapping[str, Any], expected: int, key: SettingsKey, change: Change) -> SettingsVersion:
        """Add a version behind the one that is expected to count; raises ChangeRefused when another one does by now."""
        with self.changing(change) as ledger:
            return saved_settings.save(ledger, key, values, expected)

    # --- for what else is kept beside the tokens

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One state of the store; raises StoreError."""
        with self._database.reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction for what no audit records, like the last request of a session; raises StoreError."""
        with self._database.writing() as connection:
            yield connection

    @contextmanager
    def changing(self, change: Change) -> Iterator[Ledger]:
        """One transaction with its rows of the audit; raises StoreError."""
        key = audit_key(change, self.audit)
        with self._database.writing() as connection:
            ledger = Ledger(connection, self._database.kind, change, key)
            yield ledger
            ledger.settle()


assert tuple(tokens.columns.keys())[: len(COLUMNS)] == COLUMNS, "the table and COLUMNS differ"  # noqa: S101
