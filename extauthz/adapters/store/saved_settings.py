"""Settings that admins save: versions that are only added, each with its rows of audit and change feed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from extauthz.adapters.store.chain import START, canonical
from extauthz.adapters.store.ledger import Ledger
from extauthz.adapters.store.schema import settings, store_state
from extauthz.adapters.store.settings_rows import (
    SAVED,
    SECTION,
    SettingsKey,
    SettingsState,
    SettingsVersion,
    mac,
    settings_state,
    version_of,
)
from extauthz.errors import ChangeRefused, StoreError

MAX_BODY = 64 * 1024
"""Characters of one version."""

_before = settings.alias("before")
_VERSIONS = sa.select(settings, _before.c.mac.label("previous")).select_from(
    settings.outerjoin(_before, _before.c.version == settings.c.version - 1)
)


def state(connection: sa.Connection) -> SettingsState:
    """Return the version that counts, as sidecars read it."""
    return settings_state(connection.execute(sa.text(SAVED)).all())


def page(connection: sa.Connection, before: int | None, limit: int) -> list[SettingsVersion]:
    """Return versions before a number, or the newest ones, the newest first."""
    query = _VERSIONS.order_by(settings.c.version.desc()).limit(limit)
    query = query if before is None else query.where(settings.c.version < before)
    return [version_of(row[:-1], row[-1]) for row in connection.execute(query)]


def save(ledger: Ledger, key: SettingsKey, values: Mapping[str, Any], expected: int) -> SettingsVersion:
    """Add a version behind the one that is `expected` to count; raise ChangeRefused when another one does by now.

    The audit keeps both, what was before and what is after.
    """
    connection, change = ledger.connection, ledger.change
    body = canonical(values)
    if len(body) > MAX_BODY:
        raise StoreError(f"settings of more than {MAX_BODY} characters are not kept")
    found = state(connection)
    if found.version != expected:
        raise ChangeRefused(f"version {found.version} was saved meanwhile: look at it, and change that one")
    # Behind whatever stands in the table, also where somebody turned the state back: what is saved now counts.
    version = max(found.latest, found.version) + 1
    last = connection.scalar(sa.select(settings.c.mac).where(settings.c.version == version - 1))
    row = SettingsVersion(
        version=version,
        section=SECTION,
        body=body,
        at=change.at,
        actor=change.actor,
        source=change.source,
        pepper_id=key.pepper_id,
        mac=START,
        previous=START if version == 1 else last if isinstance(last, bytes) else b"",
    )
    row = replace(row, mac=mac(row, key.key))
    connection.execute(settings.insert().values({column.name: getattr(row, column.name) for column in settings.columns}))
    connection.execute(store_state.update().where(store_state.c.id == 1).values(settings_version=version))
    before = None if found.saved is None else {"version": found.version, "settings": _readable(found.saved)}
    ledger.note_settings(before, {"version": version, "settings": dict(values)})
    return row


def _readable(row: SettingsVersion) -> object:
    try:
        return row.values()
    except ValueError:
        return json.dumps(row.body, default=repr)
