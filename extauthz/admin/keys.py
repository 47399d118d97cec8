"""Admin keys, which programs use the console's API with: create, list, revoke, and find out whose a key is.

They are a family of their own and no client tokens: another prefix, another table, and a digest that no token can have.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from extauthz.adapters.store import admin_keys
from extauthz.adapters.store.admin_keys import AdminKeyRecord
from extauthz.adapters.store.rules import MAX_SOURCE
from extauthz.adapters.store.transactions import Transactions
from extauthz.admin.administration import Administration
from extauthz.admin.metadata import utc
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import KEY_ACTOR, SYSTEM_ACTOR, Actor, Operation, Role, forbidden, lower, role_of
from extauthz.admin.token_requests import description_refusals, lifetime_refusals
from extauthz.admin.tokens import Entropy
from extauthz.config.settings import RolesSection
from extauthz.core.tokens import ENTROPY_BYTES, TokenText, fingerprint, mint, parse
from extauthz.errors import StoreError
from extauthz.ports import ADMIN_KEY_PREFIX, RESOLUTION

MAX_LISTED = 10_000
"""Keys of one list."""
MAX_SHOWN = 1000
"""Keys of one page, and of one answer of the API."""

_LABEL = "admin key"
_UNKNOWN_DIGEST = bytes(32)
_NO_KEY = Refused.because("key", "this is no admin key of this installation: make one with 'extauthz console key create'")


class KeyStatus(StrEnum):
    """What a key is good for: one that is suspended does nothing while its maker has no role."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key that somebody asks for; `expires_at` is in whole seconds since the epoch."""

    description: str
    role: Role
    expires_at: int


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just stored: its text, which is a secret, and its record."""

    text: TokenText
    record: AdminKeyRecord


def create(
    administration: Administration, actor: Actor, request: KeyRequest, at: int, *, entropy: Entropy = os.urandom
) -> NewKey | Refused:
    """Store a key. Whoever may make one may do everything, so that no key can do more than its maker.

    The fields of refusals are `actor`, `description` and `expires_at`.
    """
    if refused := forbidden(actor, Operation.CREATE_KEY):
        return refused
    lifetime = lifetime_refusals(request.expires_at - at, administration.rules)
    if wrong := (*description_refusals(request.description), *lifetime):
        return Refused(wrong)
    pepper_id, pepper = next(iter(administration.unlocked(at).items()))
    text = mint(ADMIN_KEY_PREFIX, entropy(ENTROPY_BYTES))
    record = AdminKeyRecord(
        id=text.id,
        description=request.description,
        role=request.role.value,
        created_at=at,
        created_by=actor.name,
        expires_at=request.expires_at,
        pepper_id=pepper_id,
        digest=_digest(text, pepper, role=request.role, created_at=at, created_by=actor.name, expires_at=request.expires_at),
    )
    admin_keys.add(administration.store, record, fingerprint(pepper), actor.change(at))
    return NewKey(text, record)


def list_keys(
    administration: Administration, actor: Actor, at: int, *, everything: bool = False, limit: int = MAX_LISTED
) -> Sequence[AdminKeyRecord] | Refused:
    """Return the keys that are neither revoked nor expired at a time, or all that there ever were.

    The newest stands first.
    """
    if refused := forbidden(actor, Operation.READ_KEYS):
        return refused
    return admin_keys.newest(administration.store, limit, active_at=None if everything else at)


def show(administration: Administration, actor: Actor, key_id: str) -> AdminKeyRecord | Refused:
    """Return what is known of one key."""
    if refused := forbidden(actor, Operation.READ_KEYS):
        return refused
    return admin_keys.get(administration.store, key_id) or _unknown(key_id)


def outliving(store: Transactions, at: int, roles: RolesSection) -> tuple[AdminKeyRecord, ...]:
    """Return the keys, neither revoked nor expired at a time, that were made for more than their makers may do now."""
    good = admin_keys.newest(store, MAX_LISTED, active_at=at)
    return tuple(record for record in good if acting_role(record, roles) != record.role)


def revoke(administration: Administration, actor: Actor, key_id: str, at: int) -> AdminKeyRecord | Refused:
    """Revoke a key for good, and return it as it was before: it may have been revoked already."""
    if refused := forbidden(actor, Operation.REVOKE_KEY):
        return refused
    administration.unlocked(at, to_revoke=True)
    before = admin_keys.revoke(administration.store, key_id, actor.change(at))
    return before or _unknown(key_id)


def acting_role(record: AdminKeyRecord, roles: RolesSection) -> Role | None:
    """Return what a key may do now, which is no more than its maker may, None for nothing.

    A user of the machine may do everything, with whatever `roles`; a person what `roles` say.
    """
    # A later release may know more roles.
    if record.role not in tuple(Role):
        return None
    if record.created_by.startswith(SYSTEM_ACTOR):
        return Role(record.role)
    maker = role_of(record.created_by, roles.admins, roles.super_admins, roles.viewers)
    return None if maker is None else lower(Role(record.role), maker)


def identify(administration: Administration, text: str, at: int, *, address: str, roles: RolesSection) -> Actor | Refused:
    """Return who acts with a key that comes from an address; only who has the secret learns what became of the key."""
    key = parse(text, frozenset({ADMIN_KEY_PREFIX}))
    if not isinstance(key, TokenText):
        return _NO_KEY
    peppers = administration.read_peppers()
    record = admin_keys.get(administration.store, key.id)
    # An unknown id costs as much as a wrong secret.
    if record is None:
        pepper = next(iter(peppers.values()))
        hmac.compare_digest(_digest(key, pepper, role="", created_at=0, created_by="", expires_at=0), _UNKNOWN_DIGEST)
        return _NO_KEY
    pepper = peppers.get(record.pepper_id, b"")
    actual = _digest(
        key,
        pepper,
        role=record.role,
        created_at=record.created_at,
        created_by=record.created_by,
        expires_at=record.expires_at,
    )
    if not hmac.compare_digest(actual, record.digest) or not pepper or record.role not in tuple(Role):
        return _NO_KEY
    if record.revoked_at is not None:
        return Refused.because("key", f"the admin key {record.id} was revoked: make another one")
    if at >= record.expires_at:
        return Refused.because("key", f"the admin key {record.id} expired at {utc(record.expires_at)}: make another one")
    role = acting_role(record, roles)
    if role is None:
        text = f"the admin key {record.id} does nothing, because {record.created_by} has no role any more: make another one"
        return Refused.because("key", text)
    if record.last_used_at is None or at > record.last_used_at + RESOLUTION:
        # What cannot be noted now does not make the key a wrong one.
        with suppress(StoreError):
            admin_keys.record_use(administration.store, record.id, at)
    return Actor(f"{KEY_ACTOR}{record.id}", role, f"api {address}"[:MAX_SOURCE])


def status_of(record: AdminKeyRecord, at: int, roles: RolesSection) -> KeyStatus:
    """Return what a key is good for at a time."""
    if record.revoked_at is not None:
        return KeyStatus.REVOKED
    if at >= record.expires_at:
        return KeyStatus.EXPIRED
    return KeyStatus.SUSPENDED if acting_role(record, roles) is None else KeyStatus.ACTIVE


def key_metadata(record: AdminKeyRecord, at: int, roles: RolesSection) -> dict[str, Any]:
    """Return what may be shown of a key at a time, ready for JSON; `acts_as` is None where it does nothing."""
    status, role = status_of(record, at, roles), acting_role(record, roles)
    return {
        "id": record.id,
        "description": record.description,
        "role": record.role,
        "status": status.value,
        "acts_as": role.value if role is not None and status is KeyStatus.ACTIVE else None,
        "created_at": utc(record.created_at),
        "created_by": record.created_by,
        "expires_at": utc(record.expires_at),
        "pepper_id": record.pepper_id,
        "revoked_at": utc(record.revoked_at),
        "revoked_by": record.revoked_by,
        "last_used_at": utc(record.last_used_at),
    }


def _unknown(key_id: str) -> Refused:
    return Refused.because("id", f"no admin key has the id {key_id!r}; see: extauthz console key list --all")


def _digest(key: TokenText, pepper: bytes, *, role: str, created_at: int, created_by: str, expires_at: int) -> bytes:
    """HMAC-SHA256 over the key and what can never change of it, behind a label where that of a token has a number."""
    return hmac.digest(pepper, json.dumps([_LABEL, key.text, role, created_at, created_by, expires_at]).encode(), "sha256")
