"""Admin keys and accounts against the audit: what is better than its history, or of no history at all, is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.adapters.store import admin_keys, sessions
from extauthz.adapters.store.admin_keys import AdminKeyRecord
from extauthz.adapters.store.records import Subject
from extauthz.adapters.store.sessions import StoredAccount
from extauthz.adapters.store.sql import SqlTokenStore
from tests.support.postgresql import ANA, FINGERPRINT, KEY, NOW, MakePlace, Place

pytest_plugins = ["tests.support.postgresql"]

RECORD = AdminKeyRecord("a" * 12, "CI", "viewer", NOW, "os:ana", NOW + 86_400, "p1", bytes(range(32)))
KEYS = {"p1": KEY.key}
COLUMNS = "id, description, role, created_at, created_by, expires_at, pepper_id, digest"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


def history(store: SqlTokenStore) -> None:
    """Key a is good, key b was revoked; ana's account was changed, bob's is as it was made, and eve's was removed."""
    for record in (RECORD, replace(RECORD, id="b" * 12)):
        admin_keys.add(store, record, FINGERPRINT, ANA)
    admin_keys.revoke(store, "b" * 12, ANA)
    for name in ("ana", "bob", "eve", "ana"):
        sessions.put_account(store, StoredAccount(f"{name}@acme.com", "$argon2id$", NOW, "os:ana"), ANA)
    sessions.remove_account(store, "eve@acme.com", ANA)


CHANGES: dict[str, tuple[str, list[tuple[Subject, str, str, object, object]]]] = {
    "nothing": ("UPDATE admin_keys SET last_used_at = 1", []),
    "what is worse": ("UPDATE admin_keys SET revoked_at = 1, revoked_by = 'root'", []),
    "a revocation undone": (
        "UPDATE admin_keys SET revoked_at = NULL, revoked_by = NULL",
        [(Subject.KEY, "bbbbbbbbbbbb", "revoked_at", "revoked", None)],
    ),
    "a role": (
        "UPDATE admin_keys SET role = 'super_admin' WHERE id = 'aaaaaaaaaaaa'",
        [(Subject.KEY, "aaaaaaaaaaaa", "role", "viewer", "super_admin")],
    ),
    "a later expiry, and another maker": (
        f"UPDATE admin_keys SET expires_at = {NOW + 86_401}, created_by = 'eve' WHERE id = 'aaaaaaaaaaaa'",  # noqa: S608
        [
            (Subject.KEY, "aaaaaaaaaaaa", "created_by", "os:ana", "eve"),
            (Subject.KEY, "aaaaaaaaaaaa", "expires_at", NOW + 86_400, NOW + 86_401),
        ],
    ),
    "a key that nobody made": (
        f"INSERT INTO admin_keys ({COLUMNS}) SELECT 'cccccccccccc', description, 'admin', created_at, created_by, expires_at,"  # noqa: S608
        " pepper_id, digest FROM admin_keys WHERE id = 'aaaaaaaaaaaa'",
        [(Subject.KEY, "cccccccccccc", "created_at", None, NOW)],
    ),
    "a key that is gone": (
        "DELETE FROM admin_keys WHERE id = 'bbbbbbbbbbbb'",
        [(Subject.KEY, "bbbbbbbbbbbb", "row", "made", None)],
    ),
    "an account that nobody made": (
        "INSERT INTO console_accounts SELECT 'eve@acme.com', password_hash, created_at, created_by, pepper_id, mac"
        " FROM console_accounts WHERE email = 'ana@acme.com'",
        [(Subject.ACCOUNT, "eve@acme.com", "created_at", None, NOW)],
    ),
    "an account that is gone": (
        "DELETE FROM console_accounts WHERE email = 'ana@acme.com'",
        [(Subject.ACCOUNT, "ana@acme.com", "row", "made", None)],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_another_hand_did_is_named(place: Place, what: str) -> None:
    statement, expected = CHANGES[what]
    with place.opened() as store:
        history(store)
        place.unguard("admin_keys", "console_accounts")
        place.run(statement)
        assert store.verify_audit(KEYS, store.audit_head()) is None, "the chain alone shows nothing"
        found = store.check_audit(KEYS).differences
        assert [(item.subject, item.token_id, item.field, item.audit, item.row) for item in found] == expected


def test_a_value_of_another_type_is_named(make_place: MakePlace) -> None:
    place = make_place("sqlite")
    with place.opened() as store:
        history(store)
        place.unguard("admin_keys")
        place.run("UPDATE admin_keys SET expires_at = x'00' WHERE id = 'aaaaaaaaaaaa'")
        (found,) = store.check_audit(KEYS).differences
        assert (found.field, found.audit, found.row) == ("expires_at", NOW + 86_400, "b'\\x00'")
