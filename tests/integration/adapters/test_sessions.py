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
SESSION = StoredSession("aaaaaaaaaaaa", "ana@acme.com", "openid", "192.0.2.7", NOW, NOW, NOW)
ACCOUNT = StoredAccount("ana@acme.com", "$argon2id$one", NOW, "os:root")


def digest(number: int) -> bytes:
    """Return one of several digests."""
    return bytes([number]) * 32


def actions(place: Place) -> list[str]:
    """Return what the audit records."""
    return [str(row[0]) for row in place.rows("SELECT action FROM audit ORDER BY number")]


def test_a_session_is_found_by_its_digest_alone(place: Place) -> None:
    with place.opened(audit=KEY) as store:
        sessions.add(store, SESSION, digest(1), ANA, oldest=0)
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
        sessions.add(store, old, digest(1), ANA, oldest=0)
        sessions.add(store, other, digest(2), ANA, oldest=0)
        sessions.add(store, SESSION, digest(3), ANA, oldest=NOW - 99, instead_of=other.id)
        assert sessions.newest(store, 0, 10) == [SESSION]


def test_the_newest_stand_first_and_who_is_away_is_left_out(place: Place) -> None:
    listed = [replace(SESSION, id=f"{number:012}", created_at=NOW + number, seen_at=NOW + number) for number in range(5)]
    with place.opened(audit=KEY) as store:
        for number, session in enumerate(listed):
            sessions.add(store, session, digest(number), ANA, oldest=0)
        assert sessions.newest(store, NOW + 1, 3) == listed[:1:-1]


@pytest.mark.parametrize("session_id", ["nothing00000", "", "ä", "\0", "x" * 500])
def test_what_is_no_session_is_not_ended(place: Place, session_id: str) -> None:
    with place.opened(audit=KEY) as store:
        assert sessions.end(store, session_id, ANA) is None
    assert actions(place) == []


def test_without_the_key_of_the_audit_nobody_logs_in(place: Place) -> None:
    with place.opened(audit=None) as store:
        with pytest.raises(StoreError, match="no pepper was given"):
            sessions.add(store, SESSION, digest(1), ANA, oldest=0)
        assert sessions.newest(store, 0, 10) == []


def test_an_account_is_added_changed_and_removed(place: Place) -> None:
    with place.opened(audit=KEY) as store:
        assert sessions.put_account(store, ACCOUNT, ANA) is True
        assert (sessions.account(store, ACCOUNT.email), sessions.accounts(store)) == (ACCOUNT, [ACCOUNT])
        sessions.add(store, replace(SESSION, method="local"), digest(1), ANA, oldest=0)
        sessions.add(store, replace(SESSION, id="bbbbbbbbbbbb"), digest(2), ANA, oldest=0)
        assert sessions.put_account(store, replace(ACCOUNT, password_hash="$argon2id$two"), ANA) is False
        assert [each.method for each in sessions.newest(store, 0, 10)] == ["openid"]
        sessions.rehash(store, ACCOUNT.email, "$argon2id$one", "$argon2id$lost")
        sessions.rehash(store, ACCOUNT.email, "$argon2id$two", "$argon2id$three")
        assert sessions.accounts(store) == [replace(ACCOUNT, password_hash="$argon2id$three")]
        assert sessions.remove_account(store, ACCOUNT.email, ANA) is True
        assert sessions.remove_account(store, ACCOUNT.email, ANA) is False
        assert sessions.account(store, ACCOUNT.email) is None
    assert actions(place) == ["account-add", "login", "login", "account-password", "account-remove"]


def test_no_hash_and_no_digest_is_in_the_audit(place: Place) -> None:
    with place.opened(audit=KEY) as store:
        sessions.put_account(store, ACCOUNT, ANA)
        sessions.add(store, SESSION, digest(7), ANA, oldest=0)
        exported = "\n".join(store.export_audit())
    assert ("argon2" in exported, digest(7).hex() in exported, "ana@acme.com" in exported) == (False, False, True)


def test_many_who_log_in_at_once_all_get_in(place: Place) -> None:
    failures: list[BaseException] = []

    def log_in(number: int) -> None:
        try:
            with place.opened(audit=KEY) as store:
                sessions.add(store, replace(SESSION, id=f"{number:012}"), digest(number), ANA, oldest=0)
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
