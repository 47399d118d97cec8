"""OAuth settings in the store: what each database promises of their versions, and what an intruder leaves behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from extauthz.adapters.store.feed_rows import feed_batch
from extauthz.adapters.store.settings_rows import SettingsKey, SettingsState, SettingsVersion, keys_of, mac, refusal
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.errors import ChangeRefused, StoreError
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.known_ids import KnownIds
from tests.support.postgresql import ANA, FINGERPRINT, KEY, NOW, MakePlace, Place, token
from tests.support.world import StillClock

pytest_plugins = ["tests.support.postgresql"]

PEPPERS = {"p1": b"a pepper for tests, 32 bytes long", "p2": b"another pepper, also 32 bytes long"}
KEYS = keys_of(PEPPERS)
ROLES = ("extauthz_sidecar", "extauthz_admin")
SIGNING = SettingsKey("p1", KEYS["p1"])
FIRST: Mapping[str, Any] = {"enabled": True, "provider": "okta", "client_ids": ["0oa1"]}
SECOND: Mapping[str, Any] = {**FIRST, "enabled": False}


def saved(store: SqlTokenStore, *bodies: Mapping[str, Any]) -> list[SettingsVersion]:
    return [store.save_settings(body, store.settings().version, SIGNING, ANA) for body in bodies]


def test_a_store_without_settings_says_so(place: Place) -> None:
    with place.opened() as store:
        state = store.settings()
        assert (state.version, state.latest, state.saved) == (0, 0, None)
        assert store.settings_page() == []


def test_a_version_counts_with_its_rows_of_feed_and_audit(place: Place) -> None:
    with place.opened() as store:
        store.add(token(), FINGERPRINT)
        before = store.settings()
        first, second = saved(store, FIRST, SECOND)
        state = store.settings()

        assert (state.version, state.latest, state.saved) == (2, 2, second)
        assert (state.epoch, state.head) == (before.epoch, before.head + 2)
        assert (second.values(), second.at, second.actor, second.source) == (SECOND, ANA.at, ANA.actor, ANA.source)
        assert [refusal(row, KEYS) for row in (first, second)] == [None, None]
        assert store.settings_page() == [second, first]
        assert store.settings_page(before=2) == [first]
        assert store.settings_page(limit=1) == [second]
        assert [change for _, change in store.read_feed(before.head).changes] == ["settings", "settings"]
        audit = store.audit_page(1)
        assert [(row.action, row.token_id) for row in audit] == [("settings", None)] * 2
        assert [json.loads(row.before) for row in audit] == [None, {"version": 1, "settings": FIRST}]
        assert [json.loads(row.after) for row in audit] == [
            {"version": 1, "settings": FIRST},
            {"version": 2, "settings": SECOND},
        ]
        assert store.check_audit({"p1": KEY.key}).first_broken is None
        assert store.check_audit({"p1": KEY.key}).differences == ()
    assert place.rows("SELECT settings_version FROM store_state") == [(2,)]
    assert place.rows("SELECT kind, token_id FROM changes WHERE token_id = 'settings'") == [("settings", "settings")] * 2


def test_who_saw_an_older_version_changes_nothing(place: Place) -> None:
    with place.opened() as store:
        saved(store, FIRST)
        head = store.audit_head()
        for expected in (0, 2):
            with pytest.raises(ChangeRefused, match="version 1 was saved meanwhile"):
                store.save_settings(SECOND, expected, SIGNING, ANA)
        assert (store.settings().version, store.audit_head()) == (1, head)


def test_of_many_admins_at_once_one_saves(place: Place) -> None:
    outcomes: list[object] = []

    def save(number: int) -> None:
        with place.opened() as store:
            start.wait(20)
            try:
                outcomes.append(store.save_settings({"client_ids": [str(number)]}, 0, SIGNING, ANA))
            except ChangeRefused as error:
                outcomes.append(error)

    start = threading.Barrier(4)
    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (winner,) = [one for one in outcomes if isinstance(one, SettingsVersion)]
    assert len(outcomes) == 4
    with place.opened() as store:
        assert store.settings().saved == winner


def test_nothing_is_saved_without_a_pepper_or_in_any_size(place: Place) -> None:
    with place.opened(audit=None) as store, pytest.raises(StoreError, match="no pepper was given"):
        saved(store, FIRST)
    with place.opened() as store:
        with pytest.raises(StoreError, match="65536 characters"):
            saved(store, {"client_ids": ["x" * 70_000]})
        assert store.settings().version == 0


TAMPERED = {
    "version": "UPDATE settings SET version = {last} + 7 WHERE version = {last}",
    "section": "UPDATE settings SET section = 'tokens' WHERE version = {last}",
    "body": "UPDATE settings SET body = replace(body, 'false', 'true') WHERE version = {last}",
    "no body": "UPDATE settings SET body = '' WHERE version = {last}",
    "time": "UPDATE settings SET at = at + 1 WHERE version = {last}",
    "actor": "UPDATE settings SET actor = 'eve@acme.com' WHERE version = {last}",
    "source": "UPDATE settings SET source = '' WHERE version = {last}",
    "pepper": "UPDATE settings SET pepper_id = 'p2' WHERE version = {last}",
    "lost pepper": "UPDATE settings SET pepper_id = 'p3' WHERE version = {last}",
    "mac": "UPDATE settings SET mac = (SELECT mac FROM settings WHERE version = {before}) WHERE version = {last}",
    "before": "DELETE FROM settings WHERE version = {before}",
    "other before": "UPDATE settings SET mac = (SELECT mac FROM settings WHERE version = {last}) WHERE version = {before}",
    "copy": "UPDATE settings SET body = (SELECT body FROM settings WHERE version = {before}) WHERE version = {last}",
    "turned back": "UPDATE store_state SET settings_version = {before}",
    "removed": "DELETE FROM settings WHERE version = {last}",
    "forgotten": "UPDATE store_state SET settings_version = NULL",
    "ahead": "UPDATE store_state SET settings_version = {last} + 1",
}


SEEN_BY_THE_AUDIT = {
    "version": ["body"],
    "body": ["body"],
    "no body": ["body"],
    "copy": ["body"],
    "removed": ["body"],
    "turned back": ["version"],
    "forgotten": ["version"],
    "ahead": ["version"],
}
"""What `audit verify` finds of it: whoever has another copy of the audit's head learns of a version that was taken away whole."""


def test_what_an_intruder_changes_is_noticed(place: Place) -> None:
    """And what is saved after it counts again."""
    with place.opened() as store:
        for name, change in TAMPERED.items():
            before, last = saved(store, FIRST, SECOND)
            place.unguard("settings")
            place.run(change.format(before=before.version, last=last.version))
            state = store.settings()
            assert not is_usable(state), name
            found = store.check_audit({"p1": KEY.key}).differences
            assert [item.field for item in found] == SEEN_BY_THE_AUDIT.get(name, []), name
            healing = store.save_settings(FIRST, state.version, SIGNING, ANA)
            healed = store.settings()
            assert is_usable(healed), name
            assert healed.saved == healing, name
            assert healing.version > last.version, name


def is_usable(state: SettingsState) -> bool:
    return state.saved is not None and state.latest == state.version and refusal(state.saved, KEYS) is None


def test_rows_are_only_appended(place: Place) -> None:
    with place.opened() as store:
        saved(store, FIRST)
    for statement in ("UPDATE settings SET body = '{}'", "DELETE FROM settings"):
        with pytest.raises(Exception, match="only appended"):  # why: each driver has an error of its own
            place.run(statement)


@pytest.mark.parametrize("body", ["[]", "null", "{", "[" * 100_000, 7, None, b"{}"])
def test_a_body_that_no_release_wrote_is_refused_although_it_is_signed(body: Any) -> None:
    row = SettingsVersion(1, "oauth", body, NOW, "ana", "", "p1", b"", bytes(32))
    try:
        row = replace(row, mac=mac(row, KEYS["p1"]))
    except TypeError:
        row = replace(row, mac=bytes(32))
    assert refusal(row, KEYS) is not None


def test_a_pepper_that_is_not_listed_is_named() -> None:
    row = SettingsVersion(1, "oauth", "{}", NOW, "ana", "", "p7", bytes(32), bytes(32))
    assert str(refusal(row, KEYS)).startswith("needs pepper 'p7'")


FEED_OF_EARLIER_RELEASES = """
SELECT state.epoch, state.head, coalesce((SELECT min(number) FROM changes), state.head + 1), last.number, last.mac,
    later.number, later.token_id
FROM store_state AS state LEFT JOIN (SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1) AS last ON true
LEFT JOIN (SELECT number, token_id FROM changes WHERE number > {} ORDER BY number LIMIT 500) AS later ON true
WHERE state.id = 1 ORDER BY later.number
"""


def test_a_sidecar_of_an_earlier_release_moves_on(place: Place) -> None:
    """It takes the change for one of an id that no token has: nothing is read anew, and nothing counts as restored."""
    clock = StillClock()
    feed = Feed(clock=clock, memory=600.0, ids=KnownIds(1000))

    def read() -> None:
        feed.apply(feed_batch(place.rows(FEED_OF_EARLIER_RELEASES.format(feed.position)), 500))

    with place.opened() as store:
        store.add(token(), FINGERPRINT)
        read()
        start = feed.ids.next_page
        assert start is not None
        feed.ids.take(start, [token().id])
        mark, generation = feed.mark, feed.generation
        saved(store, FIRST, SECOND)
        read()

        assert (feed.position, feed.generation, feed.rewound, feed.age) == (mark[1] + 2, generation, False, 0.0)
        assert not feed.changed_since(token().id, mark)
        assert feed.ids.complete
        assert (token().id in feed.ids, "b" * 12 in feed.ids) == (True, False)
        store.revoke([token().id], None, ANA)
        read()
        assert feed.changed_since(token().id, mark)


def test_a_sidecar_reads_settings_and_an_admin_adds_some(make_place: MakePlace) -> None:
    """And neither of their roles does more."""
    place = make_place("postgresql")
    sidecar, admin = (replace(place, where=f"{place.where}&options=-c%20role%3D{role}") for role in ROLES)
    with admin.opened() as store:
        saved(store, FIRST)
        assert is_usable(store.settings())
    with sidecar.opened() as store:
        assert is_usable(store.settings())
        with pytest.raises(StoreError, match="permission denied"):
            saved(store, SECOND)
    for role in (sidecar, admin):
        for statement in ("UPDATE settings SET body = '{}'", "DELETE FROM settings", "TRUNCATE settings"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                role.run(statement)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        sidecar.run("UPDATE store_state SET settings_version = 0")
