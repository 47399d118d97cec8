"""Saved settings as both databases return them; each version's MAC covers it and the MAC of the version before."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from extauthz.adapters.store.chain import START, canonical
from extauthz.adapters.store.rows import check_revision
from extauthz.errors import StoreError

SECTION = "oauth"
"""The section of the configuration that is saved."""
CHANGED = "settings"
"""Stands in the change feed in place of the id of a token, which has twelve characters."""

SAVED = """
SELECT state.epoch, state.head, coalesce(state.settings_version, 0), (SELECT version_num FROM alembic_version),
    (SELECT coalesce(max(version), 0) FROM settings), saved.version, saved.section, saved.body, saved.at, saved.actor, saved.source,
    saved.pepper_id, saved.mac, before.mac
FROM store_state AS state LEFT JOIN settings AS saved ON saved.version = state.settings_version
LEFT JOIN settings AS before ON before.version = state.settings_version - 1
WHERE state.id = 1
"""
"""The version that counts, with the state of the change feed of the same moment."""

_FIELDS = ("version", "section", "body", "at", "actor", "source", "pepper_id")


@dataclass(frozen=True, slots=True)
class SettingsKey:
    """The key of the versions' MACs, and the pepper that it was derived from."""

    pepper_id: str
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, pepper_id: str, pepper: bytes) -> SettingsKey:
        """Derive the key, so that neither the pepper nor the key of the audit signs settings."""
        return cls(pepper_id, hmac.digest(pepper, b"extauthz saved settings", "sha256"))


@dataclass(frozen=True, slots=True)
class SettingsVersion:
    """One version: `body` is a JSON object, `at` in seconds since the epoch, `previous` the MAC of the version before."""

    version: int
    section: str
    body: str
    at: int
    actor: str
    source: str
    pepper_id: str
    mac: bytes
    previous: bytes

    def values(self) -> dict[str, Any]:
        """Return the settings; raise ValueError for a body that no release wrote."""
        try:
            values = json.loads(self.body)
        except (TypeError, RecursionError) as error:
            raise ValueError("not a body of settings") from error
        if not isinstance(values, dict):
            raise ValueError("not a body of settings")
        return values


@dataclass(frozen=True, slots=True)
class SettingsState:
    """What a read found: epoch and head of the change feed, the number of the version that counts, 0 for none, and that version.

    `latest` is the highest number in the table; another one than `version` means that the state was turned back by hand.
    """

    epoch: int
    head: int
    version: int
    latest: int
    saved: SettingsVersion | None


def keys_of(peppers: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the keys of the MACs by pepper."""
    return {name: SettingsKey.of(name, pepper).key for name, pepper in peppers.items()}


def mac(row: SettingsVersion, key: bytes) -> bytes:
    """Return the MAC that a version has."""
    return hmac.digest(key, row.previous + canonical([getattr(row, name) for name in _FIELDS]).encode(), "sha256")


def refusal(row: SettingsVersion, keys: Mapping[str, bytes]) -> str | None:
    """Return why a version may not be used, with what mends it; None for one that is what was written."""
    try:
        key = keys.get(row.pepper_id)
        if key is None:
            return f"needs pepper {row.pepper_id!r}, which tokens.peppers does not list: list it, or save the settings anew"
        if row.section == SECTION and hmac.compare_digest(mac(row, key), row.mac):
            row.values()
            return None
    except (TypeError, ValueError):
        # SQLite keeps a value of any type in any column.
        pass
    return "is not what was written: its MAC is wrong; see extauthz audit verify, and save the settings anew"


def version_of(columns: Sequence[Any], previous: object) -> SettingsVersion:
    """Turn the columns of the table into a version; `previous` is the MAC in the row before, whatever stands there."""
    fields = dict(zip((*_FIELDS, "mac"), columns, strict=True))
    before = START if fields["version"] == 1 else previous
    return SettingsVersion(**fields, previous=before if isinstance(before, bytes) else b"")


def settings_state(rows: Sequence[Sequence[Any]]) -> SettingsState:
    """Turn what SAVED returned into a state; raise StoreError for a store that has none, or a schema that is not served."""
    if not rows:
        raise StoreError("the store has no state: restore it from a backup")
    epoch, head, version, revision, latest, *columns, previous = rows[0]
    check_revision(revision)
    if not all(type(number) is int for number in (epoch, head, version, latest)):
        raise StoreError("the state of the store is not what a release wrote: restore it from a backup")
    return SettingsState(epoch, head, version, latest, None if columns[0] is None else version_of(columns, previous))
