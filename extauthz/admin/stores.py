"""The store itself: its state, its schema, a copy of it, and a copy that was put back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from extauthz.adapters.store import chain
from extauthz.adapters.store.records import AuditExport, Restored, StoreState
from extauthz.adapters.store.rows import check_peppers
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.errors import StoreError


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The state of a store, and the peppers that active tokens need and the configuration does not list."""

    status: StoreState
    missing_peppers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restore:
    """An exported audit that belongs to the store; `head` is the number of the last row of the store's audit.

    `settings` is the version of the OAuth settings that counts in the store. `lost` are tokens that the store does not know and
    that would be active now, the oldest first: the export tells that they were made, and of none what its secret is verified with.
    """

    export: AuditExport
    head: int
    settings: int = 0
    lost: tuple[str, ...] = ()

    @property
    def is_behind(self) -> bool:
        """Tell whether the store has rows behind the last one of the export, so that a later one may exist."""
        return self.head > self.export.audit[0]

    @property
    def has_older_settings(self) -> bool:
        """Tell whether OAuth settings come back that were changed since: they count once the restore is accepted."""
        return self.settings < self.export.settings


def status(administration: Administration, actor: Actor, at: int, *, listed: Collection[str]) -> StoreStatus | Refused:
    """Count the tokens and tell how far feed and audit are; `listed` are the ids of `tokens.peppers`."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    state = administration.store.status(at)
    return StoreStatus(state, tuple(name for name, count in state.peppers.items() if count and name not in listed))


def pepper_error(administration: Administration, actor: Actor, at: int) -> str | Refused | None:
    """Return what is wrong with the peppers for the active tokens of the store, None if nothing is.

    Raises ConfigurationError for a pepper that cannot be read, and StoreError for a store.
    """
    if refused := forbidden(actor, Operation.READ):
        return refused
    fingerprints, peppers = administration.store.pepper_fingerprints(), administration.read_peppers()
    needing = {name: administration.store.needing(name, at) for name in fingerprints.keys() - peppers.keys()}
    try:
        check_peppers(fingerprints, peppers, needing)
    except StoreError as error:
        return str(error)
    return None


def migrate(administration: Administration, actor: Actor) -> str | Refused:
    """Make the store, or update its schema; return the revision."""
    return forbidden(actor, Operation.MIGRATE) or administration.store.migrate()


def back_up(administration: Administration, actor: Actor, file: Path) -> tuple[int, str] | Refused:
    """Copy a SQLite store into a new file; return number and MAC of the last row of its audit."""
    return forbidden(actor, Operation.BACK_UP) or administration.store.backup(file)


def read_export(actor: Actor, lines: Iterable[str], keys: Mapping[str, bytes]) -> tuple[str, AuditExport] | Refused:
    """Read an exported audit and check its chain; return the MAC of its first row, "" without rows, and what it tells."""
    if refused := forbidden(actor, Operation.ACCEPT_RESTORE):
        return refused
    try:
        rows, export = chain.read_lines(lines)
    except (StoreError, UnicodeDecodeError) as error:
        return Refused.because("audit", str(error))
    broken = chain.first_broken(rows, keys, export.audit if export.audit[0] else None)
    if broken is not None:
        return Refused.because("audit", f"row {broken} of the export is missing, or not what was written; give it from row 1 on")
    return rows[0].mac.hex() if rows else "", export


def prepare_restore(administration: Administration, actor: Actor, first: str, export: AuditExport, at: int) -> Restore | Refused:
    """Compare an exported audit with the store that was put back; `first` is the MAC of its first row."""
    if refused := forbidden(actor, Operation.ACCEPT_RESTORE):
        return refused
    rows = administration.store.audit_page(0, 1)
    if rows and first and rows[0].mac.hex() != first:
        return Refused.because("audit", "this is the export of another store: their first rows differ")
    store = administration.store
    return Restore(export, store.audit_head()[0], store.settings().version, _lost(administration, export, at))


def _lost(administration: Administration, export: AuditExport, at: int) -> tuple[str, ...]:
    """Return active tokens that were made after the backup: no token is ever taken away, so they are the last ones."""
    revoked = {revocation.token_id for revocation in export.revocations}
    lost = takewhile(lambda token_id: administration.store.get(token_id) is None, reversed(tuple(export.created)))
    ends = {token_id: min(export.created[token_id], export.expiries.get(token_id, export.created[token_id])) for token_id in lost}
    return tuple(token_id for token_id, end in reversed(tuple(ends.items())) if token_id not in revoked and end > at)


def accept_restore(administration: Administration, actor: Actor, restore: Restore, at: int) -> Restored | Refused:
    """Do again what the export tells of revocations and expiries, so that sidecars serve issued tokens again."""
    if refused := forbidden(actor, Operation.ACCEPT_RESTORE):
        return refused
    administration.unlocked(at)
    return administration.store.accept_restore(restore.export, actor.change(at))
