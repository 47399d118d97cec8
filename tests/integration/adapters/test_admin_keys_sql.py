"""Admin keys on both databases, and with the rights that an admin's account has on PostgreSQL."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from extauthz.adapters.store import admin_keys, chain
from extauthz.adapters.store.admin_keys import AdminKeyRecord
from extauthz.adapters.store.records import AuditExport, Change, Revocation
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.errors import ChangeRefused, StoreError
from extauthz.ports import RESOLUTION
from tests.support.postgresql import ANA, FINGERPRINT, KEY, NOW, MakePlace, Place

pytest_plugins = ["tests.support.postgresql"]

A, B, C = ("abc"[number] * 12 for number in range(3))
RECORD = AdminKeyRecord(A, "日本語 'quoted' %s", "admin", NOW, "os:ana", NOW + 86_400, "p1", bytes(range(32)))


def add(store: SqlTokenStore, *records: AdminKeyRecord) -> None:
    """Add keys."""
    for record in records:
        admin_keys.add(store, record, FINGERPRINT, ANA)


@pytest.fixture(params=["sqlite", "postgresql as the owner", "postgresql as an admin"])
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    """A database, by the account that it is used with."""
    kind, _, account = request.param.partition(" as ")
    made = make_place(kind)
    return made if account != "an admin" else Place(kind, f"{made.where}&options=-c%20role%3Dextauthz_admin")


def test_what_is_added_is_found_as_it_was(place: Place) -> None:
    with place.opened() as store:
        odd = replace(RECORD, id=B, revoked_at=NOW, revoked_by="eve", last_used_at=NOW, digest=b"\xff" * 32)
        add(store, RECORD, odd)
        assert [admin_keys.get(store, key_id) for key_id in (A, B, C, "", "\0", "é")] == [RECORD, odd, None, None, None, None]
        assert store.pepper_fingerprints() == {"p1": FINGERPRINT}
        assert store.verify_audit({"p1": KEY.key}, store.audit_head()) is None
        assert store.read_feed(0).changes == ()


def test_a_known_id_and_another_pepper_change_nothing(place: Place) -> None:
    with place.opened() as store:
        add(store, RECORD)
        with pytest.raises(ChangeRefused, match=f"{A} exists already"):
            add(store, replace(RECORD, role="viewer"))
        with pytest.raises(StoreError, match="'p1' is not the one"):
            admin_keys.add(store, replace(RECORD, id=B), "2" * 16, ANA)
        assert admin_keys.newest(store, 9) == [RECORD]
        assert store.audit_head()[0] == 1


def test_lists_begin_with_the_newest(place: Place) -> None:
    with place.opened() as store:
        old, revoked = replace(RECORD, id=C, created_at=NOW - 1), replace(RECORD, id=B, revoked_at=NOW, revoked_by="eve")
        add(store, old, RECORD, revoked)
        assert admin_keys.newest(store, 9) == [revoked, RECORD, old]
        assert admin_keys.newest(store, 2) == [revoked, RECORD]
        assert admin_keys.newest(store, 9, active_at=NOW) == [RECORD, old]
        assert admin_keys.newest(store, 9, active_at=RECORD.expires_at) == []


def test_the_first_revocation_is_kept(place: Place) -> None:
    with place.opened() as store:
        add(store, RECORD, replace(RECORD, id=B))
        after = replace(RECORD, revoked_at=NOW + 7, revoked_by="eve")
        assert admin_keys.revoke(store, A, Change(NOW + 7, "eve")) == RECORD
        assert admin_keys.revoke(store, A, Change(NOW + 9, "ana")) == after
        assert [admin_keys.revoke(store, key_id, ANA) for key_id in (C, "\0")] == [None, None]
        assert admin_keys.newest(store, 9) == [replace(RECORD, id=B), after]
        assert [(row.action, row.token_id) for row in store.audit_page()] == [("key-create", None)] * 2 + [("key-revoke", None)]


def test_a_use_is_kept_by_the_quarter_of_an_hour(place: Place) -> None:
    with place.opened() as store:
        add(store, RECORD)
        for at, expected in (
            (NOW, NOW),
            (NOW + RESOLUTION, NOW),
            (NOW + RESOLUTION + 1, NOW + RESOLUTION + 1),
            (NOW, NOW + RESOLUTION + 1),
        ):
            admin_keys.record_use(store, A, at)
            assert admin_keys.newest(store, 9)[0].last_used_at == expected
        admin_keys.record_use(store, C, NOW)
        assert store.audit_head()[0] == 1


def test_two_revocations_at_once_are_one(place: Place) -> None:
    outcomes: list[AdminKeyRecord | None] = []
    barrier = threading.Barrier(2)
    with place.opened() as one, place.opened() as other:
        add(one, RECORD)

        def run(store: SqlTokenStore) -> None:
            store.audit_head()
            barrier.wait(timeout=30)
            outcomes.append(admin_keys.revoke(store, A, ANA))

        threads = [threading.Thread(target=run, args=(store,)) for store in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sorted(record is not None and record.revoked_at is None for record in outcomes) == [False, True]
        assert one.audit_head()[0] == 2


REPLACED = """
INSERT OR REPLACE INTO admin_keys (id, description, role, created_at, created_by, expires_at, pepper_id, digest)
SELECT id, description, role, created_at, created_by, expires_at, pepper_id, digest FROM admin_keys
"""
UNDOING = {
    "not revoked": "UPDATE admin_keys SET revoked_at = NULL, revoked_by = NULL",
    "never revoked": "UPDATE admin_keys SET revoked_at = NULL",
    "revoked later": "UPDATE admin_keys SET revoked_at = revoked_at + 1",
    "revoked by another": "UPDATE admin_keys SET revoked_by = 'ana'",
    "revoked by nobody": "UPDATE admin_keys SET revoked_by = NULL",
    "another id": "UPDATE admin_keys SET id = 'bbbbbbbbbbbb'",
    "removed": "DELETE FROM admin_keys",
    "all removed": "TRUNCATE admin_keys",
    "replaced": REPLACED,
}
OF_ONE_DATABASE = {"all removed": "postgresql", "replaced": "sqlite"}


@pytest.mark.parametrize("name", UNDOING)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_revocation_is_not_undone(make_place: MakePlace, kind: str, name: str) -> None:
    place = make_place(OF_ONE_DATABASE.get(name, kind))
    with place.opened() as store:
        add(store, RECORD)
        admin_keys.revoke(store, A, Change(NOW + 7, "eve"))
        before = place.rows("SELECT * FROM admin_keys")
        with pytest.raises(Exception, match="extauthz: an admin key is neither removed nor revived"):
            place.run(UNDOING[name])
        assert place.rows("SELECT * FROM admin_keys") == before
        admin_keys.record_use(store, A, NOW + 9)
        assert admin_keys.newest(store, 9) == [replace(RECORD, revoked_at=NOW + 7, revoked_by="eve", last_used_at=NOW + 9)]


def test_an_export_tells_which_keys_were_revoked(place: Place) -> None:
    with place.opened() as store:
        add(store, RECORD, replace(RECORD, id=B), replace(RECORD, id=C))
        admin_keys.revoke(store, B, Change(NOW + 7, "eve"))
        lines = list(store.export_audit())
    assert chain.read_lines(lines)[1].keys == (Revocation(B, NOW + 7, "eve", None),)


def test_what_the_export_tells_of_keys_is_done_again(place: Place) -> None:
    told = tuple(Revocation(key_id, NOW + 7, "eve", None) for key_id in (B, C, "d" * 12, "\0"))
    with place.opened() as store:
        add(store, RECORD, replace(RECORD, id=B), replace(RECORD, id=C))
        admin_keys.revoke(store, C, Change(NOW + 1, "ana"))
        restored = store.accept_restore(AuditExport((), {}, 0, 0, (0, ""), keys=told), ANA)
        assert restored.keys == (B,)
        ends = {record.id: (record.revoked_at, record.revoked_by) for record in admin_keys.newest(store, 9)}
        assert ends == {A: (None, None), B: (NOW + 7, "eve"), C: (NOW + 1, "ana")}
        assert store.verify_audit({"p1": KEY.key}, store.audit_head()) is None


@pytest.mark.parametrize("after", [None, {}, {"id": 7}, {"id": "x" * 13}, {"id": A, "revoked_at": "x", "revoked_by": "eve"}])
def test_an_export_of_another_kind_is_refused(make_place: MakePlace, after: object) -> None:
    with make_place("sqlite").opened() as store:
        add(store, RECORD)
        admin_keys.revoke(store, A, ANA)
        *rows, end = store.export_audit()
    broken = json.dumps(json.loads(rows[-1]) | {"after": after})
    with pytest.raises(StoreError, match=r"line 2"):
        chain.read_lines([rows[0], broken, end])
