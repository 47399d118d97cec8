"""The audit: who did what, in the transaction of what was done, and a chain that shows every later hand."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from extauthz.adapters.store import chain
from extauthz.adapters.store.records import AuditExport, AuditKey, AuditRow, Change, Revocation
from extauthz.adapters.store.replay import History
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType
from extauthz.errors import StoreError
from tests.support.memory_store import MemoryTokenStore
from tests.support.postgresql import ANA, FINGERPRINT, KEY, NOW, AnyStore, MakePlace, Place, PostgresServer, fill, token, use

pytest_plugins = ["tests.support.postgresql"]

A, B, C, D = (letter * 12 for letter in "abcd")
KEYS = {"p1": KEY.key}


def some_changes(store: AnyStore) -> None:
    """Make five rows: three tokens, one revoked, one rotated into the third."""
    fill(store, token(), token(B))
    store.revoke([A], "lost", ANA)
    store.rotate(B, token(C), NOW + 3600, FINGERPRINT, ANA)


# --- what is told


def test_it_tells_who_did_what_when_from_where_and_what_was_before(store: AnyStore) -> None:
    some_changes(store)
    rows = [
        (row.number, row.at, row.actor, row.source, row.action, row.token_id, json.loads(row.before), json.loads(row.after))
        for row in store.audit_page()
    ]
    made = {
        "created_at": NOW,
        "created_by": "root",
        "description": "Ana's notebook",
        "expires_at": NOW + 86_400,
        "pepper_id": "p1",
        "permission": "USER",
        "scopes": ["CHAT", "SEARCH"],
        "user": "ana@acme.com",
    }
    who = (NOW + 60, "ana@acme.com", "cli on build-7")
    lost = {"revoked_at": NOW + 60, "revoked_by": "ana@acme.com", "revoked_why": "lost"}
    assert rows == [
        (1, NOW, "root", "", "create", A, None, made | {"id": A}),
        (2, NOW, "root", "", "create", B, None, made | {"id": B}),
        (3, *who, "revoke", A, dict.fromkeys(lost), lost),
        (4, *who, "create", C, None, made | {"id": C, "rotated_from": B}),
        (
            5,
            *who,
            "rotate",
            B,
            {"expires_at": NOW + 86_400, "rotated_to": None},
            {"expires_at": NOW + 3600, "rotated_to": C},
        ),
    ]
    assert {row.pepper_id for row in store.audit_page()} == {"p1"}
    assert token().digest.hex() not in "".join(store.export_audit())


def test_it_is_read_page_by_page(store: AnyStore) -> None:
    some_changes(store)
    last = store.audit_page()[-1]

    assert [row.number for row in store.audit_page(limit=2)] == [1, 2]
    assert [row.number for row in store.audit_page(2, 2)] == [3, 4]
    assert store.audit_page(5) == []
    assert store.audit_head() == (5, last.mac.hex())
    assert store.verify_audit(KEYS) is None
    assert store.verify_audit(KEYS, store.audit_head()) is None


CHANGES: dict[str, Callable[[AnyStore], object]] = {
    "add": lambda store: store.add(token(D), FINGERPRINT),
    "add_many": lambda store: store.add_many([token(D, pepper_id="p2")], {"p2": "2" * 16}, ANA),
    "revoke": lambda store: store.revoke([A], "lost", ANA),
    "revoke_user": lambda store: store.revoke_user("ana@acme.com", None, ANA),
    "rotate": lambda store: store.rotate(A, token(D), NOW + 3600, FINGERPRINT, ANA),
    "accept_restore": lambda store: store.accept_restore(
        AuditExport((Revocation(A, NOW, "eve", None),), {B: NOW}, 7, 7, (0, "")), ANA
    ),
}


def facts(store: AnyStore) -> list[object]:
    """Return all that a change could change."""
    return [store.list_tokens(), store.read_feed(0), store.pepper_fingerprints(), store.audit_page()]


@pytest.mark.parametrize("name", CHANGES)
def test_no_audit_row_no_change(place: Place, name: str) -> None:
    """The audit takes no rows: whatever else was written in the transaction goes with it."""
    with place.opened() as store:
        fill(store, token(), token(B))
        before = facts(store)
        if place.kind == "sqlite":
            place.run("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        else:
            place.run(
                "CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'disk full'; END $$",
                "CREATE TRIGGER full_ BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION full_()",
            )
        with pytest.raises(StoreError, match="disk full"):
            CHANGES[name](store)
        assert facts(store) == before

        place.run("DROP TRIGGER full" if place.kind == "sqlite" else "DROP TRIGGER full_ ON audit")
        CHANGES[name](store)
        assert all(one != other for one, other in zip(facts(store)[:2], before[:2], strict=True))


@pytest.mark.parametrize("name", CHANGES)
def test_no_pepper_no_change(store: AnyStore, name: str) -> None:
    fill(store, token(), token(B))
    before = facts(store)
    store.audit = None
    with pytest.raises(StoreError) as caught:
        CHANGES[name](store)

    text = "nothing was changed: the audit is signed with a key of the pepper, and no pepper was given"
    assert str(caught.value) == text
    assert facts(store) == before
    assert store.verify_audit(KEYS, store.audit_head()) is None
    use(store, {A: (NOW, "10.0.0.1")})


def test_many_rows_are_read_a_thousand_at_once_and_their_head_alone(place: Place) -> None:
    """Who reads more at once holds a transaction, and memory, for as long as that takes."""
    limits: list[int | None] = []

    def look(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if "FROM audit" in statement:
            found = parameters.values() if isinstance(parameters, dict) else parameters
            limits.append(next((value for value in found if value in (1, 1000)), None) if "LIMIT" in statement else None)

    with place.opened() as store:
        store.add_many([token(f"{number:012}") for number in range(1_500)], {"p1": FINGERPRINT}, ANA)
        sa.event.listen(store._database._writers, "before_cursor_execute", look)
        head = store.audit_head()
        assert limits == [1]
        limits.clear()
        assert store.verify_audit(KEYS, head) is None
        assert store.check_audit(KEYS, head).first_broken is None
        assert len(list(store.export_audit())) == 1_501
        sa.event.remove(store._database._writers, "before_cursor_execute", look)
        assert {limit for limit in limits if limit != 1} == {1000}
        assert len(limits) >= 9
        assert [len(store.audit_page()), len(store.page())] == [100, 100]


def test_rows_are_read_by_their_numbers_wherever_they_lie(place: Place) -> None:
    with place.opened() as store:
        some_changes(store)
        place.unguard("audit")
        place.run(copied(2, 99), "DELETE FROM audit WHERE number = 2", "UPDATE audit SET number = 2 WHERE number = 99")
        assert [row.number for row in store.audit_page()] == [1, 2, 3, 4, 5]
        assert store.verify_audit(KEYS, store.audit_head()) is None
        assert store.check_audit(KEYS).first_broken is None


def test_a_key_is_not_shown() -> None:
    assert KEY.key.hex() not in repr(KEY)
    assert str(KEY.key) not in repr(KEY)
    assert AuditKey.of("p1", b"another") != KEY


# --- the chain


def test_a_later_release_makes_the_same_keys_and_signs_the_same_text() -> None:
    """Otherwise it would find every row broken that was written before it. The values were computed without this code."""
    key = AuditKey.of("p1", b"pepper")
    assert key.key.hex() == "2293e77b155b65de67d1a4bc3362168a1a2529eb172547ba2470919ef123b869"
    before, after = {"revoked_why": None, "revoked_at": None}, {"revoked_why": "é", "revoked_at": 1}
    (row,) = chain.append((0, chain.START), Change(NOW, "ana", "cli"), key, [("revoke", A, before, after)])
    assert (row.before, row.after) == ('{"revoked_at":null,"revoked_why":null}', '{"revoked_at":1,"revoked_why":"\\u00e9"}')
    assert row.mac.hex() == "218f4061cf4c4cae3037bffb2e4d241b2681ad284ef75489eec39025d40c5a28"


def test_rows_that_are_signed_under_other_numbers_are_found() -> None:
    """Who has the pepper can sign rows that begin, or go on, anywhere."""
    note = ("revoke", A, None, None)
    first, second = chain.append((0, chain.START), ANA, KEY, [note, note])
    assert chain.first_broken([first, second], KEYS) is None
    assert chain.first_broken(chain.append((5, chain.START), ANA, KEY, [note]), KEYS) == 1
    assert chain.first_broken([first, *chain.append((5, first.mac), ANA, KEY, [note])], KEYS) == 2
    assert chain.first_broken([first, *chain.append((0, first.mac), ANA, KEY, [note])], KEYS) == 2


def copied(number: int, to: int) -> str:
    """Return the statement that repeats a row under another number."""
    rest = "at, actor, action, token_id, source, before, after, pepper_id, mac"
    return f"INSERT INTO audit SELECT {to}, {rest} FROM audit WHERE number = {number}"  # noqa: S608


TAMPERED = {
    "an actor": ("UPDATE audit SET actor = 'eve' WHERE number = 3", 3),
    "a time": ("UPDATE audit SET at = at + 1 WHERE number = 3", 3),
    "an action": ("UPDATE audit SET action = 'create' WHERE number = 3", 3),
    "a token": ("UPDATE audit SET token_id = 'bbbbbbbbbbbb' WHERE number = 3", 3),
    "no token": ("UPDATE audit SET token_id = NULL WHERE number = 3", 3),
    "a source": ("UPDATE audit SET source = '' WHERE number = 3", 3),
    "what was before": ("UPDATE audit SET before = 'null' WHERE number = 3", 3),
    "what is after": ("UPDATE audit SET after = replace(after, 'lost', 'left') WHERE number = 3", 3),
    "a space": ("UPDATE audit SET after = after || ' ' WHERE number = 3", 3),
    "text moved between columns": ("UPDATE audit SET actor = actor || source, source = '' WHERE number = 3", 3),
    "a pepper": ("UPDATE audit SET pepper_id = 'p2' WHERE number = 3", 3),
    "an unknown pepper": ("UPDATE audit SET pepper_id = 'px' WHERE number = 3", 3),
    "a MAC": ("UPDATE audit SET mac = (SELECT mac FROM audit WHERE number = 2) WHERE number = 3", 3),
    "the first row removed": ("DELETE FROM audit WHERE number = 1", 1),
    "a row removed": ("DELETE FROM audit WHERE number = 3", 3),
    "a row removed, the others moved up": (
        "DELETE FROM audit WHERE number = 3; UPDATE audit SET number = number - 1 WHERE number > 3",
        3,
    ),
    "two rows exchanged": (
        "UPDATE audit SET number = 99 WHERE number = 2; UPDATE audit SET number = 2 WHERE number = 3; "
        "UPDATE audit SET number = 3 WHERE number = 99",
        2,
    ),
    "a row repeated at the end": (copied(5, 6), 6),
    "a row far behind": (copied(5, 60), 6),
    "a row before the first": (copied(1, 0), 1),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_every_later_hand_is_found(place: Place, what: str) -> None:
    statements, broken = TAMPERED[what]
    with place.opened() as store:
        some_changes(store)
        place.unguard("audit")
        place.run(*statements.split("; "))

        keys = {**KEYS, "p2": AuditKey.of("p2", b"another pepper").key}
        assert store.verify_audit(keys) == broken


@pytest.mark.parametrize("kept", range(5))
def test_an_end_that_was_cut_off_is_found_with_the_head(place: Place, kept: int) -> None:
    with place.opened() as store:
        some_changes(store)
        head = store.audit_head()
        place.unguard("audit")
        place.run(f"DELETE FROM audit WHERE number > {kept}")  # noqa: S608

        assert store.verify_audit(KEYS) is None
        assert store.verify_audit(KEYS, head) == kept + 1


def test_a_head_is_found_again_when_the_audit_went_on(store: AnyStore) -> None:
    some_changes(store)
    head = store.audit_head()
    store.revoke([C], None, ANA)

    assert store.verify_audit(KEYS, head) is None
    assert store.verify_audit(KEYS, (3, head[1])) == 3
    assert store.verify_audit(KEYS, (0, "00" * 32)) is None
    assert store.verify_audit(KEYS, (7, head[1])) == 7


def test_an_end_that_was_written_again_is_found_with_the_head(place: Place) -> None:
    """Who has the pepper can write another history; the head that somebody noted does not fit it."""
    with place.opened() as store:
        some_changes(store)
        head = store.audit_head()
        place.unguard("audit")
        place.run("DELETE FROM audit WHERE number > 3")
        store.revoke([B, C], "another history", ANA)
        store.add(token(D), FINGERPRINT)

        assert store.verify_audit(KEYS) is None
        assert store.verify_audit(KEYS, head) == 5


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET mac = 'text'", "UPDATE audit SET before = x'00'", "UPDATE audit SET at = 1.5"]
)
def test_values_of_another_type_are_found(make_place: MakePlace, statement: str) -> None:
    place = make_place("sqlite")
    with place.opened() as store:
        some_changes(store)
        place.unguard("audit")
        place.run(f"{statement} WHERE number = 2")

        assert store.verify_audit(KEYS) == 2


def test_only_the_right_keys_prove_anything(store: AnyStore) -> None:
    other = AuditKey.of("p2", b"the next pepper")
    some_changes(store)
    store.audit = other
    store.revoke([C], None, ANA)

    assert store.verify_audit({**KEYS, "p2": other.key}, store.audit_head()) is None
    assert store.verify_audit(KEYS) == 6
    assert store.verify_audit({"p2": other.key}) == 1
    assert store.verify_audit({"p1": other.key, "p2": other.key}) == 1
    assert store.verify_audit({}) == 1


# --- export


def test_an_export_is_one_json_object_a_line_and_proves_itself(store: AnyStore) -> None:
    some_changes(store)
    lines = list(store.export_audit())
    told = [json.loads(line) for line in lines]

    assert all("\n" not in line for line in lines)
    assert [row.get("number") for row in told] == [1, 2, 3, 4, 5, None]
    assert told[2]["after"]["revoked_why"] == "lost"
    assert told[-1] == {"audit": list(store.audit_head()), "epoch": 0, "head": 5}
    rows, export = chain.read_lines(lines)
    assert rows == store.audit_page()
    created = dict.fromkeys((A, B, C), token().expires_at)
    revoked = (Revocation(A, ANA.at, ANA.actor, "lost"),)
    assert export == AuditExport(revoked, {B: NOW + 3600}, 0, 5, store.audit_head(), created=created)
    assert chain.first_broken(rows, KEYS, export.audit) is None
    assert chain.first_broken(rows[:-1], KEYS, export.audit) == 5


def test_an_export_goes_on_where_the_last_one_ended(store: AnyStore) -> None:
    assert [json.loads(line) for line in store.export_audit()] == [{"audit": [0, "00" * 32], "epoch": 0, "head": 0}]
    some_changes(store)
    first = list(store.export_audit())
    store.revoke([C], None, ANA)
    second = list(store.export_audit(5))

    assert [json.loads(line).get("number") for line in second] == [6, None]
    assert [json.loads(line).get("number") for line in store.export_audit(6)] == [None]
    rows, export = chain.read_lines([*first, "", *second])
    assert chain.first_broken(rows, KEYS, store.audit_head()) is None
    assert [item.token_id for item in export.revocations] == [A, C]
    assert (export.head, export.audit) == (6, store.audit_head())


def test_a_token_that_came_in_revoked_is_exported_as_revoked(store: AnyStore) -> None:
    store.add(token(revoked_at=5, revoked_by="eve"), FINGERPRINT)

    assert chain.read_lines(store.export_audit())[1].revocations == (Revocation(A, 5, "eve", None),)


def test_an_export_ends_with_the_head_of_its_own_rows(place: Place) -> None:
    """Another change is made behind the last row that was read: a head of it would belong to a row that is missing."""
    with place.opened() as store, place.opened() as other:
        some_changes(store)

        def meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "FROM store_state" in statement:
                fill(other, token(f"{other.audit_head()[0]:012}"))

        sa.event.listen(store._database._writers, "before_cursor_execute", meanwhile)
        for after, count in ((0, 5), (6, 0)):
            head = store.audit_head()
            rows, export = chain.read_lines(store.export_audit(after))
            assert (len(rows), export.audit, other.audit_head()[0]) == (count, head, head[0] + 1)


ROW = {
    "number": 1,
    "at": NOW,
    "actor": "ana",
    "action": "revoke",
    "token_id": A,
    "source": "",
    "before": None,
    "after": {"revoked_at": NOW, "revoked_by": "ana", "revoked_why": None},
    "pepper_id": "p1",
    "mac": "00",
}
END = {"audit": [1, "00"], "epoch": 0, "head": 1}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [ROW],
        [END, ROW],
        ["not JSON", END],
        ["[1]", END],
        ["7", END],
        ['"number"', END],
        ["[" * 100_000, END],
        [{}],
        [{"number": 1}, END],
        [ROW | {"token_id": "x" * 13}, END],
        [ROW | {"token_id": "\x00"}, END],
        [ROW | {"token_id": 7}, END],
        [ROW | {"mac": "xyz"}, END],
        [ROW | {"mac": None}, END],
        [ROW | {"number": "1"}, END],
        [ROW | {"at": -1}, END],
        [ROW | {"actor": None}, END],
        [ROW | {"after": None}, END],
        [ROW | {"after": []}, END],
        [ROW | {"after": {"revoked_at": "now", "revoked_by": "ana"}}, END],
        [ROW | {"after": {"revoked_at": True, "revoked_by": "ana"}}, END],
        [ROW | {"after": {"revoked_at": 1, "revoked_by": "x" * 255}}, END],
        [ROW | {"after": {"revoked_at": 1, "revoked_by": "ana", "revoked_why": ["x"]}}, END],
        [ROW | {"action": "rotate"}, END],
        [END | {"head": 2**60}],
        [END | {"head": -1}],
        [END | {"epoch": 1.5}],
        [END | {"audit": []}],
        [END | {"audit": None}],
    ],
)
def test_what_is_no_export_is_refused(lines: list[Any]) -> None:
    with pytest.raises(StoreError):
        chain.read_lines(line if isinstance(line, str) else json.dumps(line) for line in lines)


NOT_OF_EXPORT = "line 3 is not of 'extauthz audit export'"
AT_MOST = "write at most {} printable characters"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not JSON", NOT_OF_EXPORT),
        (ROW | {"number": 2**53}, NOT_OF_EXPORT),
        (END | {"head": 2**53}, NOT_OF_EXPORT),
        (ROW | {"after": {"revoked_at": 1, "revoked_by": "x" * 255}}, f"line 3: revoked_by: {AT_MOST.format(254)}"),
        (
            ROW | {"after": {"revoked_at": 1, "revoked_by": "ana", "revoked_why": "x" * 201}},
            f"line 3: revoked_why: {AT_MOST.format(200)}",
        ),
        (ROW, "the exported audit was cut off: its last line tells the state of the store"),
    ],
)
def test_a_line_that_is_not_of_an_export_is_named(line: Any, message: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    with pytest.raises(StoreError) as caught:
        chain.read_lines([json.dumps(END), "", text])
    assert str(caught.value) == message


def test_the_largest_number_is_read() -> None:
    assert chain.read_lines([json.dumps(END | {"head": 2**53 - 1})])[1].head == 2**53 - 1


@pytest.mark.parametrize(
    "changes", [{"before": "no JSON"}, {"before": None}, {"after": "[" * 100_000}, {"mac": "a text"}, {"mac": None}]
)
def test_a_row_that_no_release_wrote_is_no_line(changes: dict[str, Any]) -> None:
    row = AuditRow(7, NOW, "ana", "revoke", A, "", "null", "null", "p1", bytes(32))
    assert json.loads(chain.line(row))["number"] == 7
    with pytest.raises(StoreError) as caught:
        chain.line(replace(row, **changes))
    assert str(caught.value) == "row 7 of the audit is not what was written; see: extauthz audit verify"


def test_an_unreadable_row_is_not_exported(place: Place) -> None:
    with place.opened() as store:
        some_changes(store)
        place.unguard("audit")
        place.run("UPDATE audit SET before = 'no JSON' WHERE number = 2")
        with pytest.raises(StoreError, match="extauthz audit verify"):
            list(store.export_audit())


# --- after a restore


def until_the_backup(store: AnyStore) -> None:
    fill(store, token(), token(B), token(D))
    store.revoke([D], "before", Change(NOW, "eve"))


def test_a_restored_store_learns_again_what_was_revoked(store: AnyStore) -> None:
    live = MemoryTokenStore(audit=KEY)
    for each in (live, store):
        until_the_backup(each)
    live.revoke([A], "leaked", ANA)
    live.rotate(B, token(C), NOW + 3600, FINGERPRINT, ANA)
    live.revoke([C], "leaked, too", replace(ANA, at=NOW + 90))
    rows, export = chain.read_lines(live.export_audit())
    assert chain.first_broken(rows, KEYS, export.audit) is None
    later = Change(NOW + 500, "root", "console")
    restored = store.accept_restore(export, later)

    assert (restored.revoked, restored.tombstones, restored.expiries) == ((A,), (C,), (B,))
    leaked = store.get(A)
    assert leaked is not None
    assert (leaked.revoked_at, leaked.revoked_by, leaked.revoked_why) == (ANA.at, ANA.actor, "leaked")
    before = store.get(D)
    assert before is not None
    assert (before.revoked_by, before.revoked_why) == ("eve", "before")
    shortened = store.get(B)
    assert shortened is not None
    assert (shortened.expires_at, shortened.rotated_to) == (NOW + 3600, None)
    assert store.get(C) is None
    feed = store.read_feed(4)
    assert (feed.epoch, restored.epoch) == (1, 1)
    assert feed.head == restored.head == 12
    assert feed.changes == ((10, B), (11, A), (12, C))
    actions = [(row.action, row.token_id, row.actor, row.at) for row in store.audit_page(4)]
    assert actions == [
        ("expire", B, "root", NOW + 500),
        ("revoke", A, "root", NOW + 500),
        ("tombstone", C, "root", NOW + 500),
        ("accept-restore", None, "root", NOW + 500),
    ]
    made = NOW + 86_400
    assert [json.loads(row.before) for row in store.audit_page(4)] == [
        {"expires_at": made},
        {"revoked_at": None, "revoked_by": None, "revoked_why": None},
        None,
        {"epoch": 0, "head": 4},
    ]
    assert json.loads(store.audit_page(4)[0].after) == {"expires_at": NOW + 3600}
    assert json.loads(store.audit_page(7)[0].after) == {
        "audit": list(live.audit_head()),
        "epoch": 1,
        "expiries": 1,
        "head": 9,
        "revoked": 1,
        "tombstones": 1,
    }
    assert store.verify_audit(KEYS, store.audit_head()) is None
    # An export of the restored store tells it all once more.
    assert {item.token_id: item.by for item in chain.read_lines(store.export_audit())[1].revocations} == {
        D: "eve",
        A: ANA.actor,
        C: ANA.actor,
    }


def test_a_tombstone_stands_for_ever(store: AnyStore) -> None:
    fill(store, token(B))
    export = AuditExport((Revocation(A, NOW, "eve", "leaked"), Revocation(A, NOW + 1, "ana", None)), {A: NOW}, 0, 0, (0, ""))
    assert store.accept_restore(export, ANA).tombstones == (A,)
    for attempt in (
        lambda: store.add(token(), FINGERPRINT),
        lambda: store.add_many([token(C), token()], {"p1": FINGERPRINT}, ANA),
        lambda: store.rotate(B, token(), NOW + 3600, FINGERPRINT, ANA),
    ):
        with pytest.raises(StoreError, match="was revoked before the store was restored"):
            attempt()
    assert [found.id for found in store.list_tokens()] == [B]

    again = store.accept_restore(export, ANA)
    assert (again.revoked, again.tombstones, again.expiries) == ((), (), ())
    assert (again.epoch, store.read_feed(0).epoch) == (2, 2)


@pytest.mark.parametrize(("at", "expected"), [(NOW + 86_399, NOW + 86_399), (NOW + 86_400, None), (NOW + 86_401, None)])
def test_a_restore_brings_an_expiry_forward_and_never_back(store: AnyStore, at: int, expected: int | None) -> None:
    """An export that is not the last one, or not ours, must not make a token live longer."""
    store.add(token(A), FINGERPRINT)
    head = store.read_feed(0).head
    restored = store.accept_restore(AuditExport((), {A: at, "f" * 12: at}, 0, head, (0, "")), ANA)
    assert restored.expiries == ((A,) if expected is not None else ())
    found = store.get(A)
    assert found is not None
    assert found.expires_at == (NOW + 86_400 if expected is None else expected)


@pytest.mark.parametrize(("epoch", "head"), [(0, 0), (0, 3), (5, 2), (2, 1_000_000)])
def test_the_feed_goes_on_behind_all_that_was_ever_told(store: AnyStore, epoch: int, head: int) -> None:
    until_the_backup(store)
    restored = store.accept_restore(AuditExport((), {}, epoch, head, (0, "")), ANA)

    assert restored.epoch == epoch + 1
    assert restored.head == store.read_feed(0).head > max(4, head)
    store.revoke([A], None, ANA)
    assert store.read_feed(restored.head).changes == ((restored.head + 1, A),)


# --- backups


def test_a_backup_is_whole_while_others_write(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("sqlite")
    copy = tmp_path / "backup.db"
    stop = threading.Event()

    def write() -> None:
        with place.opened() as store:
            number = 0
            while not stop.is_set():
                store.add(token(f"{number:012}"), FINGERPRINT)
                store.revoke([f"{number:012}"], None, ANA)
                number += 1

    writer = threading.Thread(target=write)
    with place.opened() as store:
        store.add_many([token(f"x{number:011}") for number in range(2_000)], {"p1": FINGERPRINT}, ANA)
        writer.start()
        try:
            while store.read_feed(0).head < 2_010:
                pass
            head = store.backup(copy)
            while store.read_feed(0).head < head[0] + 2:
                pass
        finally:
            stop.set()
            writer.join(timeout=10)
        assert store.verify_audit(KEYS, head) is None

    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("backup")] == ["backup.db"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(SqlTokenStore(copy, audit=KEY)) as store:
        assert store.audit_head() == head
        assert store.verify_audit(KEYS, head) is None
        status = store.status(NOW)
        assert status.head == head[0] == status.active + status.expired + 2 * status.revoked
        store.revoke([f"x{0:011}"], None, ANA)


def test_a_backup_overwrites_nothing_and_leaves_nothing_half_done(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("sqlite")
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with place.opened() as store:
        some_changes(store)
        for path, refusal in ((taken, "exists already"), (tmp_path / "no" / "folder", "cannot be written")):
            with pytest.raises(StoreError, match=refusal):
                store.backup(path)
        assert taken.read_text() == "mine"
        place.run("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreError):
            store.backup(tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_a_backup_is_an_ordinary_file(make_place: MakePlace, tmp_path: Path) -> None:
    """A copy that is moved into the place of the store, as the documents say, is the store."""
    place = make_place("sqlite")
    assert isinstance(place.where, Path)
    with place.opened() as store:
        some_changes(store)
        assert store.backup(tmp_path / "copy") == store.audit_head()
        store.revoke([C], None, ANA)
    with closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    (tmp_path / "copy").replace(place.where)
    with place.opened() as store:
        assert store.audit_head()[0] == 5
        assert store.get(C) is not None


def test_the_backup_of_postgresql_is_the_command_that_is_named(
    make_place: MakePlace, postgresql: PostgresServer, tmp_path: Path
) -> None:
    place = make_place("postgresql")
    empty = make_place("postgresql", migrated=False)
    with place.opened() as store:
        some_changes(store)
        head = store.audit_head()
        with pytest.raises(StoreError, match="extauthz store status") as caught:
            store.backup(tmp_path / "it's a dump")
    command = str(caught.value).rpartition("then run ")[2]
    environment = os.environ | {"PATH": f"{postgresql.programs}:{os.environ['PATH']}"}
    subprocess.run(command, shell=True, check=True, env=environment, timeout=60)  # noqa: S602
    restore = ["pg_restore", "--dbname", str(empty.where), str(tmp_path / "it's a dump")]
    subprocess.run(restore, check=True, env=environment, timeout=60)

    with empty.opened() as store:
        assert store.verify_audit(KEYS, head) is None
        assert store.migrate() == "0003"
        with pytest.raises(StoreError, match="exists already"):
            store.add(token(), FINGERPRINT)
        store.revoke([C], None, ANA)
    with pytest.raises(Exception, match="rows are only appended"):
        empty.run("DELETE FROM audit")


# --- the tokens against the audit


def told_of(store: SqlTokenStore) -> list[tuple[str, str, object, object]]:
    """Return what differs, by the letter of its token."""
    checked = store.check_audit(KEYS)
    assert checked.first_broken is None
    assert checked.head == store.audit_head()
    return [(item.token_id[0], item.field, item.audit, item.row) for item in checked.differences]


def many_changes(store: AnyStore) -> None:
    """Tokens of every history: revoked, rotated, its successor, expired earlier by a restore, buried, and one as it was made."""
    some_changes(store)
    fill(store, token(D, permission=AuthType.GLOBAL, user=None), token("e" * 12, expires_at=NOW + 500))
    store.accept_restore(AuditExport((Revocation("f" * 12, NOW, "eve", None),), {"e" * 12: NOW + 100}, 7, 7, (0, "")), ANA)


BETTER: dict[str, tuple[str, list[tuple[str, str, object, object]]]] = {
    "nothing": ("UPDATE tokens SET description = 'x'", []),
    "what is worse": ("UPDATE tokens SET expires_at = expires_at - 1, revoked_at = 1, revoked_by = 'root' WHERE id = '{d}'", []),
    "a revocation undone": (
        "UPDATE tokens SET revoked_at = NULL, revoked_by = NULL, revoked_why = NULL",
        [("a", "revoked_at", "revoked", None)],
    ),
    "a later expiry": (
        "UPDATE tokens SET expires_at = expires_at + 1 WHERE id IN ('{a}', '{d}')",
        [("a", "expires_at", NOW + 86_400, NOW + 86_401), ("d", "expires_at", NOW + 86_400, NOW + 86_401)],
    ),
    "the expiry before the rotation": (
        "UPDATE tokens SET expires_at = {made} WHERE id = '{b}'",
        [("b", "expires_at", NOW + 3600, NOW + 86_400)],
    ),
    "the expiry before the restore": (
        "UPDATE tokens SET expires_at = expires_at + 400 WHERE id = '{e}'",
        [("e", "expires_at", NOW + 100, NOW + 500)],
    ),
    "a rotation undone": ("UPDATE tokens SET rotated_to = NULL", [("b", "rotated_to", "rotated", None)]),
    "another successor's origin": ("UPDATE tokens SET rotated_from = NULL", [("c", "rotated_from", B, None)]),
    "a permission": (
        "UPDATE tokens SET permission = 'GLOBAL', \"user\" = NULL WHERE id = '{c}'",
        [("c", "permission", "USER", "GLOBAL"), ("c", "user", "ana@acme.com", None)],
    ),
    "a user": (
        "UPDATE tokens SET \"user\" = 'ceo@acme.com' WHERE id = '{c}'",
        [("c", "user", "ana@acme.com", "ceo@acme.com")],
    ),
    "scopes": (
        "UPDATE tokens SET scopes = '[\"ADMIN\", \"CHAT\"]' WHERE id = '{d}'",
        [("d", "scopes", ["CHAT", "SEARCH"], ["ADMIN", "CHAT"])],
    ),
    "scopes in another order": ("UPDATE tokens SET scopes = '[\"SEARCH\", \"CHAT\"]' WHERE id = '{d}'", []),
    "scopes that are none": ("UPDATE tokens SET scopes = '{{' WHERE id = '{d}'", [("d", "scopes", ["CHAT", "SEARCH"], "{")]),
    "a creation": ("UPDATE tokens SET created_at = 1 WHERE id = '{d}'", [("d", "created_at", NOW, 1)]),
    "another id": (
        "UPDATE tokens SET id = 'xxxxxxxxxxxx' WHERE id = '{d}'",
        [("x", "created_at", None, NOW), ("d", "row", "made", None)],
    ),
    "a row removed": ("DELETE FROM tokens WHERE id = '{a}'", [("a", "row", "made", None)]),
    "a row removed and its id buried": (
        "DELETE FROM tokens WHERE id = '{a}'; INSERT INTO tombstones VALUES ('{a}', 1, 'x', 'x')",
        [("a", "row", "made", None)],
    ),
    "a tombstone removed": ("DELETE FROM tombstones", [("f", "tombstone", "buried", None)]),
    "a tombstone's token": (
        "UPDATE tokens SET id = '{f}' WHERE id = '{d}'",
        [("f", "created_at", None, NOW), ("d", "row", "made", None)],
    ),
}


@pytest.mark.parametrize("what", BETTER)
def test_a_token_that_is_better_than_its_history_is_named(place: Place, what: str) -> None:
    statement, expected = BETTER[what]
    with place.opened() as store:
        many_changes(store)
        place.unguard("tokens", "tombstones")
        place.run(*statement.format(made=NOW + 86_400, **{letter: letter * 12 for letter in "abcdef"}).split("; "))

        assert store.verify_audit(KEYS, store.audit_head()) is None, "the chain alone shows nothing"
        assert told_of(store) == expected


@pytest.mark.parametrize("value", ["'later'", "1e300", "x'00'", "NULL"])
def test_a_later_expiry_of_another_type_is_named(make_place: MakePlace, value: str) -> None:
    place = make_place("sqlite")
    with place.opened() as store:
        fill(store, token())
        place.unguard("tokens")
        place.run("CREATE TABLE more AS SELECT * FROM tokens", "DROP TABLE tokens", "ALTER TABLE more RENAME TO tokens")
        place.run(f"UPDATE tokens SET expires_at = {value}")  # noqa: S608
        (difference,) = store.check_audit(KEYS).differences
        assert (difference.token_id, difference.field) == (A, "expires_at")
        assert json.loads(json.dumps(difference.row)) == difference.row


def test_a_broken_chain_is_told_before_anything_is_compared(place: Place) -> None:
    with place.opened() as store:
        many_changes(store)
        head = store.audit_head()
        place.unguard("tokens", "audit")
        place.run("UPDATE audit SET actor = 'eve' WHERE number = 3", "UPDATE tokens SET revoked_at = NULL")
        checked = store.check_audit(KEYS)
        assert (checked.first_broken, checked.differences) == (3, ())
        place.run("DELETE FROM audit WHERE number > 1")
        assert store.check_audit(KEYS, head).first_broken == 2


def test_an_end_of_the_audit_that_was_cut_off_shows_in_the_tokens(place: Place) -> None:
    """Also without a head that was noted."""
    with place.opened() as store:
        fill(store, token(), token(B))
        store.revoke([A], None, ANA)
        place.unguard("audit")
        place.run("DELETE FROM audit WHERE number > 1")
        assert told_of(store) == [("b", "created_at", None, NOW)]


def test_a_million_rows_are_read_in_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauthz.adapters.store.replay._PAGE", 7)
    monkeypatch.setattr("extauthz.adapters.store.audit._BATCH", 5)
    steps: list[tuple[int, int]] = []
    with place.opened() as store:
        store.add_many([token(f"{number:012}") for number in range(30)], {"p1": FINGERPRINT}, ANA)
        store.revoke([f"{number:012}" for number in range(10)], None, ANA)
        checked = store.check_audit(KEYS, None, lambda done, total: steps.append((done, total)))
    assert (checked.first_broken, checked.differences) == (None, ())
    assert {total for _, total in steps} == {70}
    assert [done for done, _ in steps] == [0, 7, 14, 21, 28, 35, 42, 49, 56, 63]


def test_what_others_change_meanwhile_is_no_difference(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audit and tokens are read in one state of the store."""
    monkeypatch.setattr("extauthz.adapters.store.replay._PAGE", 1)
    with place.opened() as store, place.opened() as other:
        fill(store, token(), token(B))
        done: list[int] = []

        def meanwhile(count: int, _: int) -> None:
            if count == 2:
                fill(other, token(C))
                other.rotate(A, token(D), NOW + 5, FINGERPRINT, ANA)
            done.append(count)

        assert store.check_audit(KEYS, None, meanwhile).differences == ()
        assert 2 in done
        assert len(store.list_tokens()) == 4


def test_what_a_history_needs_for_a_million_tokens() -> None:
    """Measured with a fiftieth of them."""
    history = History()
    template = AuditRow(1, NOW, "root", chain.CREATED, A, "", "null", chain.canonical(chain.facts(token())), "p1", bytes(32))
    tracemalloc.start()
    try:
        for _ in history.follow(replace(template, token_id=f"{number:012}") for number in range(20_000)):
            pass
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size * 50 < 300e6
