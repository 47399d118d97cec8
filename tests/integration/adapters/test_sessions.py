"""Sessions and accounts of the console, on both databases."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from extauthz.adapters.store import sessions
from extauthz.adapters.store.records import Change
from extauthz.adapters.store.sessions import StoredAccount, StoredSession
from extauthz.errors import StoreError
from tests.support.postgresql import KEY, Place

pytest_plugins = ["tests.support.postgresql"]

NOW = 1_800_000_000
ANA = Change(NOW, "ana@acme.com", "console 192.0.2.7")
SESSION = StoredSession("aaaaaaaaaaaa", "ana@acme.com", "openid", "https://acme.okta.com", "192.0.2.7", NOW, NOW, NOW, b"\1" * 32)
ACCOUNT = StoredAccount("ana@acme.com", "$argon2id$one", NOW, "os:root")


def digest(number: int) -> bytes:
    """Return one of several digests."""
    return bytes([number]) * 32


def actions(place: Place) -> list[str]:
    """Return what the audit records."""
    return [str(row[0]) for row in place.rows("SELECT action FROM audit ORDER BY number")]


def test_a_session_is_found_by_its_digest_alone(place: Place) -> None:
    with place.opened(audit=KEY) as store:
        sessions.add(store, replace(SESSION, digest=digest(1)), ANA, oldest=0)
        assert sessions.by_digest(store, digest(1)) == SESSION
        assert sessions.by_digest(store, digest(2)) is None
        sessions.touch(store, SESSION.id, NOW + 90)
        assert sessions.by_digest(store, digest(1)) == replace(SESSION, seen_at=NOW + 90)
        assert sessions.end(store, SESSION.id, ANA) == replace(SESSION, seen_at=NOW + 90)
        assert sessions.end(store, SESSION.id, ANA) is None
        assert sessions.by_digest(store, digest(1)) is None
    assert actions(place) == ["login", "logout"]


def test_old_sessions_go_and_one_is_replaced(place: Place) -> None:
    old, other = replace(SESSION, id="bbbbbbbbbbbb", created_at=NOW - 100), replace(SESSION, id="cccccccccccc")
    with place.opened(audit=KEY) as store:
        sessions.add(store, replace(old, digest=digest(1)), ANA, oldest=0)
        sessions.add(store, replace(other, digest=digest(2)), ANA, oldest=0)
        sessions.add(store, replace(SESSION, digest=digest(3)), ANA, oldest=NOW - 99, instead_of=other.id)
        assert sessions.newest(store, 0, 10) == [replace(SESSION, digest=digest(3))]


def test_the_newest_stand_first_and_who_is_away_is_left_out(place: Place) -> None:
    listed = [
        replace(SESSION, id=f"{number:012}", created_at=NOW + number, seen_at=NOW + number, digest=digest(number))
        for number in range(5)
    ]
    with place.opened(audit=KEY) as store:
        for session in listed:
            sessions.add(store, session, ANA, oldest=0)
        assert sessions.newest(store, NOW + 1, 3) == listed[:1:-1]


@pytest.mark.parametrize("session_id", ["nothing00000", "", "ä", "\0", "x" * 500])
def test_what_is_no_session_is_not_ended(place: Place, session_id: str) -> None:
    with place.opened(audit=KEY) as store:
        assert sessions.end(store, session_id, ANA) is None
    assert actions(place) == []


def test_without_the_key_of_the_audit_nobody_logs_in(place: Place) -> None:
    with place.opened(audit=None) as store:
        with pytest.raises(StoreError, match="no pepper was given"):
            sessions.add(store, replace(SESSION, digest=digest(1)), ANA, oldest=0)
        assert sessions.newest(store, 0, 10) == []


def test_an_account_is_added_changed_and_removed(place: Place) -> None:
    with place.opened(audit=KEY) as store:
        assert sessions.put_account(store, ACCOUNT, ANA) is True
        assert (sessions.account(store, ACCOUNT.email), sessions.accounts(store)) == (ACCOUNT, [ACCOUNT])
        local = replace(SESSION, method="local", issuer="")
        assert sessions.add(store, local, ANA, oldest=0, password_hash=ACCOUNT.password_hash) is True
        sessions.add(store, replace(SESSION, id="bbbbbbbbbbbb", digest=digest(2)), ANA, oldest=0)
        assert sessions.put_account(store, replace(ACCOUNT, password_hash="$argon2id$two"), ANA) is False
        assert [each.method for each in sessions.newest(store, 0, 10)] == ["openid"]
        third = replace(ACCOUNT, password_hash="$argon2id$three", pepper_id="p2", mac=b"\2" * 32)
        sessions.rehash(store, ACCOUNT, replace(ACCOUNT, password_hash="$argon2id$lost"))
        sessions.rehash(store, replace(ACCOUNT, password_hash="$argon2id$two"), third)
        assert sessions.accounts(store) == [third]
        assert sessions.remove_account(store, ACCOUNT.email, ANA) is True
        assert sessions.remove_account(store, ACCOUNT.email, ANA) is False
        assert sessions.account(store, ACCOUNT.email) is None
    assert actions(place) == ["account-add", "login", "login", "account-password", "account-remove"]


@pytest.mark.parametrize("password_hash", [None, "", "$argon2id$two"])
def test_a_session_of_an_account_begins_with_its_password_of_now(place: Place, password_hash: str | None) -> None:
    local, before = replace(SESSION, method="local", issuer=""), replace(SESSION, id="bbbbbbbbbbbb", digest=digest(2))
    with place.opened(audit=KEY) as store:
        sessions.add(store, before, ANA, oldest=0)
        assert sessions.add(store, local, ANA, oldest=NOW + 9, instead_of=before.id, password_hash=password_hash) is False
        sessions.put_account(store, ACCOUNT, ANA)
        assert sessions.add(store, local, ANA, oldest=NOW + 9, instead_of=before.id, password_hash=password_hash) is False
        assert sessions.newest(store, 0, 10) == [before]
        assert sessions.add(store, local, ANA, oldest=0, instead_of=before.id, password_hash=ACCOUNT.password_hash) is True
        assert sessions.newest(store, 0, 10) == [local]
    assert actions(place) == ["login", "account-add", "login"]


def test_no_session_goes_on_where_one_has_ended(place: Place) -> None:
    other = replace(SESSION, id="bbbbbbbbbbbb", digest=digest(2))
    with place.opened(audit=KEY) as store:
        sessions.add(store, other, ANA, oldest=0)
        assert sessions.add(store, SESSION, ANA, oldest=NOW + 9, instead_of="cccccccccccc") is False
        assert sessions.newest(store, 0, 10) == [other]
    assert actions(place) == ["login"]


def test_a_row_is_genuine_as_it_was_written_alone(place: Place) -> None:
    """Both databases give back what was covered; and a MAC of one table is none of the other."""
    pepper = b"a pepper for tests, 32 bytes long"
    peppers = {"p2": b"another pepper for tests, 32 long", "p1": pepper}
    session, account = sessions.with_mac(SESSION, "p1", pepper), sessions.with_mac(ACCOUNT, "p1", pepper)
    with place.opened(audit=KEY) as store:
        sessions.add(store, session, ANA, oldest=0)
        sessions.put_account(store, account, ANA)
        kept = (sessions.by_digest(store, SESSION.digest), sessions.account(store, ACCOUNT.email))
    assert kept == (session, account)
    for row in (session, account):
        assert sessions.is_genuine(row, peppers)
        for wrong in ({}, {"p1": peppers["p2"]}, {"p2": pepper}):
            assert not sessions.is_genuine(row, wrong)
        assert not sessions.is_genuine(replace(row, pepper_id="p2"), peppers)
        assert not sessions.is_genuine(replace(row, mac=b""), peppers)
        for name in row.COVERED:
            assert not sessions.is_genuine(replace(row, **{name: "another"}), peppers), name  # type: ignore[arg-type]
    assert not sessions.is_genuine(replace(session, digest=digest(3)), peppers)
    assert session.LABEL != account.LABEL
    assert [repr(row).count("argon2") + repr(row).count("mac=") for row in (session, account)] == [0, 0]


def test_no_hash_and_no_digest_is_in_the_audit(place: Place) -> None:
    with place.opened(audit=KEY) as store:
        sessions.put_account(store, ACCOUNT, ANA)
        sessions.add(store, replace(SESSION, digest=digest(7)), ANA, oldest=0)
        exported = "\n".join(store.export_audit())
    assert ("argon2" in exported, digest(7).hex() in exported, "ana@acme.com" in exported) == (False, False, True)


def test_many_who_log_in_at_once_all_get_in(place: Place) -> None:
    failures: list[BaseException] = []

    def log_in(number: int) -> None:
        try:
            with place.opened(audit=KEY) as store:
                sessions.add(store, replace(SESSION, id=f"{number:012}", digest=digest(number)), ANA, oldest=0)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=log_in, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with place.opened(audit=KEY) as store:
        assert len(sessions.newest(store, 0, 100)) == 8
        assert store.verify_audit({KEY.pepper_id: KEY.key}) is None
