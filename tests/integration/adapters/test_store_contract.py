"""What every token store promises, asked of each of them; then what only a file can do wrong."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.records import AuditExport, Change, Revocation, StoredToken, TokenFilter
from extauthz.adapters.store.rows import COLUMNS, check_revision, record
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType, Reason
from extauthz.core.tokens import TokenRecord
from extauthz.errors import StoreError, Unavailable
from extauthz.ports import RESOLUTION, FeedBatch
from tests.support.memory_store import MemoryTokenStore
from tests.support.postgresql import (
    ANA,
    FINGERPRINT,
    KEY,
    NOW,
    AnyStore,
    MakePlace,
    Place,
    PostgresServer,
    fill,
    ids_of,
    token,
    use,
)
from tests.support.project import ROOT

pytest_plugins = ["tests.support.postgresql"]

A, B, C, D, E = ("abcde"[number] * 12 for number in range(5))


def plain(token_: StoredToken | None) -> TokenRecord | None:
    """Return what a look-up tells of a token."""
    return token_ and TokenRecord(**{item.name: getattr(token_, item.name) for item in fields(TokenRecord)})


def listed(store: AnyStore) -> list[TokenRecord | None]:
    """Return all tokens as look-ups tell them."""
    return [plain(found) for found in store.list_tokens()]


def feed(store: AnyStore, after: int = 0) -> list[tuple[int, str]]:
    """Return number and letter of each change after a position."""
    return [(number, token_id[0]) for number, token_id in store.read_feed(after).changes]


def uses_of(store: AnyStore) -> dict[str, tuple[int | None, str | None]]:
    """Return the last use of each token."""
    return {found.id: (found.last_used_at, found.last_used_from) for found in store.list_tokens()}


# --- the contract


def test_an_empty_store_knows_nothing(store: AnyStore) -> None:
    assert store.get(A) is None
    assert store.list_tokens() == store.page() == []
    assert store.pepper_fingerprints() == {}
    assert store.revoke([A], None, ANA) == store.revoke([], None, ANA) == store.revoke_user("ana@acme.com", None, ANA) == ()
    assert store.read_feed(0) == FeedBatch(epoch=0, head=0, oldest=1)
    assert store.audit_page() == []
    assert store.audit_head() == (0, "00" * 32)
    status = store.status(NOW)
    assert (status.active, status.expired, status.revoked, status.head, dict(status.peppers)) == (0, 0, 0, 0, {})
    assert status.revision == store.revision() == store.migrate() == "0003"


ODD = [
    token(),
    token(permission=AuthType.GLOBAL, user=None),
    token(permission=AuthType.ANONYMOUS, user=None, scopes=frozenset({"SEARCH"})),
    token(description="日本語 'quoted' \"twice\" \\ %s ? :x", created_by="x' OR '1'='1"),
    token(digest=b"\x00" * 32),
    token(digest=b"\xff" * 32, expires_at=2**53, pepper_id="p" * 64),
    token(revoked_at=5, revoked_by="eve"),
    token(digest=b"\x07" * 40),
]


@pytest.mark.parametrize("new", ODD, ids=["user", "global", "anonymous", "odd text", "zeros", "large", "revoked", "long digest"])
def test_what_is_added_is_found_as_it_was(store: AnyStore, new: TokenRecord) -> None:
    store.add(new, FINGERPRINT)

    assert plain(store.get(new.id)) == new
    assert listed(store) == [new]
    assert store.list_tokens() == store.page() == [store.get(new.id)]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
@pytest.mark.parametrize("new", ODD[:1] + ODD[3:])
def test_what_is_added_is_what_a_look_up_reads(kind: str, new: TokenRecord, make_place: MakePlace) -> None:
    if kind == "memory":
        memory = MemoryTokenStore()
        memory.add(new, FINGERPRINT)
        assert memory.find(new.id) == new
        return
    place = make_place(kind)
    with place.opened() as store:
        store.add(new, FINGERPRINT)
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    assert [record(row) for row in place.rows(f"SELECT {columns} FROM tokens")] == [new]  # noqa: S608


OTHERS = [
    "",
    "aaaaaaaaaaab",
    "AAAAAAAAAAAA",
    "aaaaaaaaaaa",
    "aaaaaaaaaaaa ",
    "a%",
    "' OR 1=1 --",
    "\x00",
    "é",
    "\udc80",
    "a" * 10_000,
]


def test_only_the_same_id_is_found(store: AnyStore) -> None:
    fill(store, token())
    use(store, dict.fromkeys(OTHERS, (NOW, "10.0.0.1")))

    assert [store.get(other) for other in OTHERS] == [None] * len(OTHERS)
    assert store.revoke(OTHERS, "lost", ANA) == ()
    assert store.revoke_user("\x00", "lost", ANA) == ()
    assert store.get(A) == StoredToken(**{name: getattr(token(), name) for name in COLUMNS})


def test_another_pepper_of_the_same_name_is_refused(store: AnyStore) -> None:
    fill(store, token())
    with pytest.raises(StoreError, match="pepper 'p1'"):
        store.add(token(B), "2" * 16)
    with pytest.raises(StoreError, match="pepper 'p2' has no fingerprint"):
        store.add_many([token(B, pepper_id="p2")], {"p1": FINGERPRINT}, ANA)
    store.add(token(C, pepper_id="p2"), "2" * 16)

    assert store.pepper_fingerprints() == {"p1": FINGERPRINT, "p2": "2" * 16}
    assert sorted(ids_of(store.list_tokens())) == ["a", "c"]


def test_a_known_id_is_refused_and_leaves_nothing_behind(store: AnyStore) -> None:
    fill(store, token())
    before = store.audit_head(), store.read_feed(0)
    with pytest.raises(StoreError, match=f"{A} exists already"):
        store.add(token(description="another", pepper_id="p2"), "2" * 16)

    assert listed(store) == [token()]
    assert store.pepper_fingerprints() == {"p1": FINGERPRINT}
    assert (store.audit_head(), store.read_feed(0)) == before


@pytest.mark.parametrize("bad", [token(B), token(), token(D, pepper_id="p2")], ids=["twice", "known", "another pepper"])
def test_many_are_added_or_none(store: AnyStore, bad: TokenRecord) -> None:
    fill(store, token())
    with pytest.raises(StoreError):
        store.add_many([token(B), token(C, pepper_id="p3"), bad], {"p1": FINGERPRINT, "p3": "3" * 16}, ANA)
    assert listed(store) == [token()]
    assert store.pepper_fingerprints() == {"p1": FINGERPRINT}

    store.add_many([token(B), token(C, pepper_id="p3")], {"p1": FINGERPRINT, "p3": "3" * 16}, ANA)
    assert ids_of(store.list_tokens()) == ["c", "b", "a"]
    assert feed(store) == [(1, "a"), (2, "b"), (3, "c")]
    assert [(row.action, row.token_id, row.actor) for row in store.audit_page(1)] == [
        ("create", B, ANA.actor),
        ("create", C, ANA.actor),
    ]


def test_thousands_are_added_and_revoked_at_once(store: AnyStore) -> None:
    many = [token(f"{number:012}", created_at=NOW + number // 7) for number in range(1_200)]
    store.add_many(many, {"p1": FINGERPRINT}, ANA)
    assert store.revoke([item.id for item in many], "leaked", ANA) == tuple(item.id for item in many)

    status = store.status(NOW)
    assert (status.active, status.revoked, status.head, status.audit[0]) == (0, 1_200, 2_400, 2_400)
    assert [item.id for item in store.list_tokens()] == [item.id for item in reversed(many)]
    assert store.verify_audit({"p1": KEY.key}, status.audit) is None


# --- revocation


def test_a_revocation_is_kept_as_it_was_first_made(store: AnyStore) -> None:
    fill(store, token(), token(B))

    assert store.revoke([A, C, A], "lost with a laptop", replace(ANA, at=7)) == (A,)
    assert store.revoke([A], "again", Change(9, "eve")) == ()
    found = store.get(A)
    assert found is not None
    assert (found.revoked_at, found.revoked_by, found.revoked_why) == (7, ANA.actor, "lost with a laptop")
    assert plain(store.get(B)) == token(B)
    assert feed(store) == [(1, "a"), (2, "b"), (3, "a")]


def test_what_no_database_could_keep_is_refused(store: AnyStore) -> None:
    fill(store, token())
    for why, change, message in [
        ("x" * 201, ANA, "why: write at most 200 printable characters"),
        ("two\nlines", ANA, "why: write at most 200 printable characters"),
        ("\x00", ANA, "why: write at most 200 printable characters"),
        ("\udc80", ANA, "why: write at most 200 printable characters"),
        (None, replace(ANA, actor="x" * 255), "actor: write at most 254 printable characters"),
        (None, replace(ANA, source="\x00"), "source: write at most 254 printable characters"),
        (None, replace(ANA, source="x" * 255), "source: write at most 254 printable characters"),
    ]:
        with pytest.raises(StoreError) as caught:
            store.revoke([A], why, change)
        assert str(caught.value) == message

    assert plain(store.get(A)) == token()
    assert store.revoke([A], "é" * 200, replace(ANA, actor="x" * 254, source="日" * 254)) == (A,)


def rotated(store: AnyStore, *letters: str) -> None:
    """Make a token and rotate it, again and again."""
    fill(store, token(letters[0] * 12))
    for old, new in pairwise(letters):
        store.rotate(old * 12, token(new * 12), NOW + 80_000, FINGERPRINT, ANA)


@pytest.mark.parametrize("letter", "abcd")
def test_a_chain_is_revoked_from_any_of_its_tokens(store: AnyStore, letter: str) -> None:
    rotated(store, *"abcd")
    fill(store, token(E))
    head = store.read_feed(0).head

    assert sorted(store.revoke([letter * 12], "leaked", ANA, chain=True)) == [A, B, C, D]
    assert sorted(letter for _, letter in feed(store, head)) == list("abcd")
    assert [found.id for found in store.page(TokenFilter(active_at=NOW))] == [E]


def test_without_chain_the_others_stay_good(store: AnyStore) -> None:
    rotated(store, *"abc")

    assert store.revoke([B], None, ANA) == (B,)
    assert ids_of(store.page(TokenFilter(active_at=NOW))) == ["c", "a"]


def test_a_chain_goes_on_behind_a_revoked_token(store: AnyStore) -> None:
    rotated(store, *"abc")
    store.revoke([B], "first", ANA)

    assert sorted(store.revoke([A], "second", ANA, chain=True)) == [A, C]
    found = store.get(B)
    assert found is not None
    assert found.revoked_why == "first"


def test_all_tokens_of_a_user_are_revoked(store: AnyStore) -> None:
    fill(store, token(A, created_at=3), token(B, created_at=2), token(C, user="eve@acme.com"), token(D, created_at=1, expires_at=4))
    store.revoke([B], "before", ANA)

    assert store.revoke_user("ana@acme.com", "left", ANA) == (D, A)
    assert store.revoke_user("ana@acme.com", "left", ANA) == ()
    assert ids_of(store.page(TokenFilter(active_at=0))) == ["c"]


def test_the_oldest_token_of_a_user_is_revoked_first_and_of_one_second_the_first_id(store: AnyStore) -> None:
    fill(store, token(C), token(A), token(D, created_at=NOW - 1), token(B))

    assert store.revoke_user("ana@acme.com", None, ANA) == (D, A, B, C)
    assert feed(store, 4) == [(5, "d"), (6, "a"), (7, "b"), (8, "c")]


# --- rotation


def test_a_rotation_links_both_and_brings_the_expiry_forward(store: AnyStore) -> None:
    fill(store, token())
    successor = token(B, created_at=NOW + 60, pepper_id="p2", description="Ana's other notebook")
    old = store.rotate(A, successor, NOW + 3600, "2" * 16, ANA)

    assert old == store.get(A)
    assert plain(old) == token(expires_at=NOW + 3600)
    assert (old.rotated_from, old.rotated_to) == (None, B)
    new = store.get(B)
    assert new is not None
    assert plain(new) == successor
    assert (new.rotated_from, new.rotated_to) == (A, None)
    assert store.pepper_fingerprints() == {"p1": FINGERPRINT, "p2": "2" * 16}
    assert feed(store, 1) == [(2, "b"), (3, "a")]


def test_a_rotation_never_lengthens_a_life(store: AnyStore) -> None:
    fill(store, token())

    assert store.rotate(A, token(B), 2**53, FINGERPRINT, ANA).expires_at == token().expires_at


def test_only_a_good_token_is_rotated_and_only_once(store: AnyStore) -> None:
    fill(store, token(A), token(B), token(C, expires_at=ANA.at))
    store.revoke([A], None, ANA)
    store.rotate(B, token(D), NOW + 3600, FINGERPRINT, ANA)
    before = store.audit_head(), listed(store)
    for old, refusal in (
        (A, f"token {A} is revoked: make a new one with 'extauthz token create'"),
        (B, f"token {B} was rotated before, to {D}: rotate that one"),
        (C, f"token {C} is expired: make a new one with 'extauthz token create'"),
        ("x" * 12, "no token has the id 'xxxxxxxxxxxx'; see: extauthz token list"),
    ):
        with pytest.raises(StoreError) as caught:
            store.rotate(old, token(E), NOW + 3600, FINGERPRINT, ANA)
        assert str(caught.value) == refusal
    for id_, refusal in ((D, "exists already"), (A, "exists already")):
        with pytest.raises(StoreError, match=refusal):
            store.rotate(D, token(id_), NOW + 3600, FINGERPRINT, ANA)
    with pytest.raises(StoreError, match="pepper 'p1'"):
        store.rotate(D, token(E), NOW + 3600, "2" * 16, ANA)

    assert (store.audit_head(), listed(store)) == before


@pytest.mark.parametrize(
    "change",
    [{"permission": AuthType.GLOBAL, "user": None}, {"user": "eve@acme.com"}, {"scopes": frozenset({"SEARCH"})}],
    ids=["permission", "user", "scopes"],
)
def test_a_successor_may_do_nothing_else(store: AnyStore, change: dict[str, Any]) -> None:
    fill(store, token())
    with pytest.raises(StoreError, match="must have its permission, user and scopes"):
        store.rotate(A, token(B, **change), NOW + 3600, FINGERPRINT, ANA)

    assert listed(store) == [token()]


# --- uses


def test_the_newest_use_is_kept_and_nobody_is_told(store: AnyStore) -> None:
    fill(store, token(), token(B))
    before = store.audit_head(), store.read_feed(0)
    steps = [
        ({A: (NOW, "10.0.0.0/24"), C: (NOW, "10.0.9.0/24")}, 1),
        ({A: (NOW - 5000, "10.0.1.0/24"), B: (NOW + 7, "x" * 100)}, 1),
        ({A: (NOW, "10.0.2.0/24")}, 0),
        ({A: (NOW + RESOLUTION, "10.0.3.0/24")}, 0),
        ({}, 0),
        ({f"{number:012}": (NOW, "") for number in range(70_000)}, 0),
    ]
    assert [use(store, uses) for uses, _ in steps] == [kept for _, kept in steps]
    assert uses_of(store) == {A: (NOW, "10.0.0.0/24"), B: (NOW + 7, "x" * 64)}
    assert use(store, {A: (NOW + RESOLUTION + 1, "10.0.4.0/24"), B: (NOW + RESOLUTION + 7, "")}) == 1
    assert uses_of(store) == {A: (NOW + RESOLUTION + 1, "10.0.4.0/24"), B: (NOW + 7, "x" * 64)}
    assert (store.audit_head(), store.read_feed(0)) == before


# --- lists


def test_the_newest_stands_first(store: AnyStore) -> None:
    for token_id, created_at in ((B, 10), (A, 20), (D, 10), (C, 20), ("Z" * 12, 20)):
        fill(store, token(token_id, created_at=created_at))

    assert ids_of(store.list_tokens()) == ids_of(store.page()) == ["c", "a", "Z", "d", "b"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 40])
def test_pages_hold_every_token_once_while_others_are_added(store: AnyStore, limit: int) -> None:
    """Most were made in the same second, as those of an import are."""
    old = [token(f"{number:012}", created_at=NOW + number // 9) for number in range(30)]
    store.add_many(old, {"p1": FINGERPRINT}, ANA)
    seen: list[str] = []
    key: tuple[int, str] | None = None
    while page := store.page(after=key, limit=limit):
        assert len(page) <= limit
        seen += [found.id for found in page]
        key = (page[-1].created_at, page[-1].id)
        fill(store, token(f"x{len(seen):011}", created_at=NOW + 60))

    assert seen == [found.id for found in reversed(old)]


def test_filters_narrow_what_is_listed(store: AnyStore) -> None:
    everything = {
        "a": token(A),
        "b": token(B, permission=AuthType.GLOBAL, user=None, scopes=frozenset({"SEARCH"})),
        "c": token(C, permission=AuthType.ANONYMOUS, user=None, scopes=frozenset({"SEARCHES", "A_B"}), pepper_id="p2"),
        "d": token(D, user="eve@acme.com", scopes=frozenset({"AXB"}), expires_at=NOW + 50),
        "e": token(E, created_at=NOW + 100, expires_at=NOW + 60),
    }
    store.add_many(list(everything.values()), {"p1": FINGERPRINT, "p2": "2" * 16}, ANA)
    use(store, {A: (NOW + 200, ""), B: (NOW + 150, "")})
    store.revoke([B], None, ANA)
    for wanted, letters in [
        (TokenFilter(), "edcba"),
        (TokenFilter(permission=AuthType.USER), "eda"),
        (TokenFilter(permission=AuthType.GLOBAL), "b"),
        (TokenFilter(permission=AuthType.OAUTH), ""),
        (TokenFilter(scope="SEARCH"), "eba"),
        (TokenFilter(scope="A_B"), "c"),
        (TokenFilter(scope="search"), ""),
        (TokenFilter(scope=""), ""),
        (TokenFilter(scope="%"), ""),
        (TokenFilter(user="ana@acme.com"), "ea"),
        (TokenFilter(user="Ana@acme.com"), ""),
        (TokenFilter(pepper_id="p2"), "c"),
        (TokenFilter(expires_before=NOW + 60), "d"),
        (TokenFilter(expires_before=NOW + 61), "ed"),
        (TokenFilter(unused_since=NOW + 100), "dc"),
        (TokenFilter(unused_since=NOW + 151), "edcb"),
        (TokenFilter(active_at=NOW), "edca"),
        (TokenFilter(active_at=NOW + 50), "eca"),
        (TokenFilter(active_at=NOW + 60, scope="SEARCH", user="ana@acme.com", unused_since=NOW + 201), "a"),
    ]:
        assert "".join(ids_of(store.page(wanted))) == letters, wanted
    assert ids_of(store.page(TokenFilter(scope="SEARCH"), after=(NOW, C), limit=1)) == ["b"]
    for impossible in (TokenFilter(user="\x00"), TokenFilter(scope="\udc80"), TokenFilter(pepper_id="\n")):
        assert store.page(impossible) == []
    assert store.page(after=(NOW, "\x00")) == []


def test_what_is_too_large_for_a_database_is_a_store_error(place: Place) -> None:
    with place.opened() as store:
        with pytest.raises(StoreError):
            fill(store, token(expires_at=2**70))
        with pytest.raises(StoreError):
            store.page(after=(2**70, A))
        assert store.list_tokens() == []


def test_the_status_counts(store: AnyStore) -> None:
    store.add_many(
        [token(A), token(B), token(C, expires_at=NOW), token(D, pepper_id="p2"), token(E, pepper_id="p3", expires_at=NOW - 1)],
        {"p1": FINGERPRINT, "p2": "2" * 16, "p3": "3" * 16},
        ANA,
    )
    store.revoke([B, C], None, ANA)
    status = store.status(NOW)

    assert (status.active, status.expired, status.revoked) == (2, 1, 2)
    assert dict(status.peppers) == {"p1": 1, "p2": 1, "p3": 0}
    assert (status.epoch, status.head) == (0, 7)
    assert status.audit == store.audit_head()


# --- the feed


def test_every_change_moves_the_feed_and_no_reading_does(store: AnyStore) -> None:
    heads = [store.read_feed(0).head]
    for number in range(3):
        fill(store, token(f"{number:012}"))
        heads.append(store.read_feed(0).head)
        store.revoke([f"{number:012}"], None, ANA)
        heads.append(store.read_feed(0).head)
    store.revoke([f"{0:012}", "x" * 12], None, ANA)
    store.list_tokens()
    store.verify_audit({})
    heads.append(store.read_feed(0).head)

    assert heads == [0, 1, 2, 3, 4, 5, 6, 6]
    assert [number for number, _ in store.read_feed(4).changes] == [5, 6]
    assert store.audit_head()[0] == 6
    assert store.read_feed(6) == store.read_feed(99) == FeedBatch(epoch=0, head=6, oldest=1, audit=store.audit_head())


def test_old_rows_of_the_feed_go_and_its_head_stays(store: AnyStore) -> None:
    week = 7 * 86_400
    for letter, at in (("a", NOW), ("b", NOW + 1), ("c", NOW + 2)):
        store.add(token(letter * 12), FINGERPRINT, replace(ANA, at=at))
    assert store.read_feed(0).oldest == 1
    store.revoke([A], None, replace(ANA, at=NOW + 1 + week))

    assert store.read_feed(0) == FeedBatch(epoch=0, head=4, oldest=2, changes=((2, B), (3, C), (4, A)), audit=store.audit_head())
    store.revoke([B], None, replace(ANA, at=NOW + 9 * week))
    assert store.read_feed(0) == FeedBatch(epoch=0, head=5, oldest=5, changes=((5, B),), audit=store.audit_head())
    # A clock that runs behind removes nothing, and what it wrote leaves no gap.
    store.revoke([C], None, replace(ANA, at=NOW))
    store.add(token(D), FINGERPRINT, replace(ANA, at=NOW + 9 * week))
    assert store.read_feed(0) == FeedBatch(epoch=0, head=7, oldest=5, changes=((5, B), (6, C), (7, D)), audit=store.audit_head())


def test_one_change_removes_ten_thousand_old_rows_of_the_feed_at_most(place: Place) -> None:
    """An admin who comes back after a year does not wait until all of them are gone."""
    numbers = "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10500)"
    with place.opened() as store:
        fill(store, token())
        place.run(
            f"INSERT INTO changes {numbers} SELECT i, 'aaaaaaaaaaaa', 'created', {NOW} FROM n",  # noqa: S608 - our own numbers
            "UPDATE store_state SET head = 10500",
        )
        later = replace(ANA, at=NOW + 30 * 86_400)
        store.revoke([A], None, later)
        assert place.rows("SELECT min(number), max(number) FROM changes") == [(10_001, 10_501)]
        store.add(token(B), FINGERPRINT, later)
        assert place.rows("SELECT min(number), max(number) FROM changes") == [(10_501, 10_502)]


def test_a_head_outlives_the_last_row_of_the_feed(place: Place) -> None:
    with place.opened() as store:
        fill(store, token())
        place.run("DELETE FROM changes")
        assert store.read_feed(0) == FeedBatch(epoch=0, head=1, oldest=2, audit=store.audit_head())
        store.revoke([A], None, ANA)
        assert store.read_feed(0) == FeedBatch(epoch=0, head=2, oldest=2, changes=((2, A),), audit=store.audit_head())


def test_the_kinds_of_changes_are_told(place: Place) -> None:
    with place.opened() as store:
        rotated(store, "a", "b")
        store.revoke([A], None, ANA)
        store.accept_restore(AuditExport((Revocation(C, NOW, "eve", None),), {B: NOW}, 0, 0, (0, "")), ANA)

    told = [(1, A, "created"), (2, B, "created"), (3, A, "rotated"), (4, A, "revoked"), (6, B, "expiry"), (7, C, "revoked")]
    assert place.rows("SELECT number, token_id, kind FROM changes ORDER BY number") == told


# --- histories

letters = st.sampled_from("abcd")
moments = st.integers(0, 30).map(lambda seconds: NOW + seconds)
exports = st.builds(
    AuditExport,
    st.lists(st.builds(Revocation, letters.map(lambda letter: letter * 12), moments, st.just("eve"), st.none()), max_size=2).map(
        tuple
    ),
    st.dictionaries(letters.map(lambda letter: letter * 12), moments, max_size=2),
    st.integers(0, 3),
    st.integers(0, 9),
    st.just((0, "00" * 32)),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), letters, st.sampled_from(["p1", "p2"]), st.sampled_from(["1" * 16, "2" * 16]), moments),
        st.tuples(st.just("revoke"), st.lists(letters, max_size=2), st.booleans()),
        st.tuples(st.just("revoke_user"), st.sampled_from(["ana@acme.com", "eve@acme.com"])),
        st.tuples(st.just("rotate"), letters, letters, moments),
        st.tuples(
            st.just("use"), letters, st.sampled_from([NOW, NOW + RESOLUTION, NOW + RESOLUTION + 1, NOW + 2 * RESOLUTION + 2])
        ),
        st.tuples(st.just("restore"), exports),
    ),
    max_size=12,
)


def outcome_of(store: AnyStore, step: tuple[Any, ...], change: Change) -> object:
    """Do one step; return what it returned, or what it was refused with."""
    name, *told = step
    try:
        if name == "add":
            letter, pepper_id, print_, expires_at = told
            return store.add(token(letter * 12, pepper_id=pepper_id, created_at=change.at, expires_at=expires_at), print_, change)
        if name == "revoke":
            return store.revoke([letter * 12 for letter in told[0]], "why", change, chain=told[1])
        if name == "revoke_user":
            return store.revoke_user(told[0], None, change)
        if name == "rotate":
            old, new, expires_at = told
            return store.rotate(old * 12, token(new * 12, created_at=change.at), expires_at, "1" * 16, change)
        if name == "use":
            return use(store, {told[0] * 12: (told[1], "10.0.0.1")})
        return store.accept_restore(told[0], change)
    except StoreError as error:
        return str(error)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_all_stores_agree_about_any_history(
    sqlite_template: Path, postgresql: PostgresServer, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    database = postgresql.make()
    path = Path(shutil.copy(sqlite_template, folder / "tokens.db"))
    stores: list[AnyStore] = [
        MemoryTokenStore(audit=KEY),
        SqlTokenStore(path, audit=KEY),
        SqlTokenStore(postgresql.url(database), audit=KEY),
    ]
    try:
        for number, step in enumerate(steps):
            outcomes = [outcome_of(store, step, replace(ANA, at=NOW + number)) for store in stores]
            assert outcomes[0] == outcomes[1] == outcomes[2], step
        for facts in (
            lambda store: store.list_tokens(),
            lambda store: store.read_feed(0),
            lambda store: store.audit_page(),
            lambda store: replace(store.status(NOW + 9), kind="any"),
            lambda store: list(store.export_audit()),
            lambda store: store.verify_audit({"p1": KEY.key}, store.audit_head()),
        ):
            told = [facts(store) for store in stores]
            assert told[0] == told[1] == told[2]
        assert stores[0].verify_audit({"p1": KEY.key}, stores[0].audit_head()) is None
    finally:
        for store in stores:
            store.close()
        postgresql.drop(database)
        shutil.rmtree(folder)


# --- races


def at_once(*actions: Callable[[], object]) -> list[object]:
    """Run actions in threads that set out together; return what each returned, or the StoreError that it raised."""
    barrier = threading.Barrier(len(actions))
    outcomes: list[object] = [None] * len(actions)

    def run(index: int) -> None:
        barrier.wait(timeout=30)
        try:
            outcomes[index] = actions[index]()
        except StoreError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [thread.is_alive() for thread in threads] == [False] * len(actions)
    return outcomes


class Halt:
    """Stops a store before a statement, or before its commit, until it may go on."""

    def __init__(self, store: SqlTokenStore, *, before: str) -> None:
        """Stop before a statement that holds this text, or before "COMMIT"."""
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._text = before
        engine = store._database._writers
        if before == "COMMIT":
            sa.event.listen(engine, "commit", lambda _: self._stop())
        else:
            sa.event.listen(engine, "before_cursor_execute", self._look)

    def _look(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if self._text in statement:
            self._stop()

    def _stop(self) -> None:
        if not self.go_on.is_set():
            self.reached.set()
            assert self.go_on.wait(timeout=30)


LOCKING = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "FOR UPDATE"}


def waits_for_the_lock(place: Place, thread: threading.Thread) -> bool:
    """Tell whether the other writer waits; on SQLite, which shows nobody who waits, whether it is kept from going on."""
    if place.kind == "postgresql":
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        return any(place.rows(waiting) for _ in range(200))
    thread.join(timeout=0.2)
    return thread.is_alive()


@pytest.mark.parametrize("first", ["revoke", "rotate"])
def test_of_two_admins_at_one_token_the_second_meets_what_the_first_did(place: Place, first: str) -> None:
    """The second asks while the first has done everything but commit."""
    with place.opened() as one, place.opened() as other:
        fill(one, token())
        one.verify_audit({})
        halt = Halt(one, before="COMMIT")
        revoke = lambda store: store.revoke([A], "leaked", ANA)  # noqa: E731
        rotate = lambda store: store.rotate(A, token(B), NOW + 3600, FINGERPRINT, ANA)  # noqa: E731
        actions = [revoke, rotate] if first == "revoke" else [rotate, revoke]
        outcomes: list[object] = [None, None]

        def run(index: int, store: SqlTokenStore) -> None:
            try:
                outcomes[index] = actions[index](store)
            except StoreError as error:
                outcomes[index] = error

        threads = [threading.Thread(target=run, args=(index, store)) for index, store in enumerate((one, other))]
        threads[0].start()
        assert halt.reached.wait(timeout=30)
        threads[1].start()
        assert waits_for_the_lock(place, threads[1])
        assert feed(other) == [(1, "a")], "a change is seen before its commit"
        halt.go_on.set()
        for thread in threads:
            thread.join(timeout=30)

        if first == "revoke":
            assert outcomes[0] == (A,)
            assert "is revoked" in str(outcomes[1])
            assert (ids_of(one.list_tokens()), feed(one, 1)) == (["a"], [(2, "a")])
        else:
            assert isinstance(outcomes[0], StoredToken)
            assert outcomes[1] == (A,)
            assert feed(one, 1) == [(2, "b"), (3, "a"), (4, "a")]
        assert one.audit_head()[0] == one.read_feed(0).head
        assert one.verify_audit({"p1": KEY.key}, one.audit_head()) is None


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_admins_who_set_out_together_leave_a_whole_audit(kind: str, make_place: MakePlace) -> None:
    memory = MemoryTokenStore(audit=KEY)
    place = None if kind == "memory" else make_place(kind)
    stores: list[AnyStore] = [memory] * 4 if place is None else [place.open() for _ in range(4)]
    try:
        for number in range(10):
            old, *new = (f"{name}{number:011}" for name in "abcd")
            fill(stores[0], token(old))
            outcomes = at_once(
                lambda old=old: stores[0].revoke([old], "one", Change(NOW, "one")),
                lambda old=old: stores[1].revoke([old], "two", Change(NOW, "two")),
                lambda old=old, id_=new[0]: stores[2].rotate(old, token(id_), NOW + 9, FINGERPRINT, Change(NOW, "three")),
                lambda old=old, id_=new[1]: stores[3].rotate(old, token(id_), NOW + 9, FINGERPRINT, Change(NOW, "four")),
            )
            assert {outcomes[0], outcomes[1]} == {(), (old,)}
            assert sum(isinstance(outcome, StoredToken) for outcome in outcomes) <= 1
            found = stores[0].get(old)
            assert found is not None
            assert found.revoked_by == ("one" if outcomes[0] else "two")
            successors = [item for item in (stores[0].get(id_) for id_ in new) if item is not None]
            assert [item.id for item in successors] == ([found.rotated_to] if found.rotated_to else [])
        rows = stores[0].audit_page(limit=1000)
        assert len(rows) == stores[0].read_feed(0).head
        assert stores[0].verify_audit({"p1": KEY.key}, stores[0].audit_head()) is None
    finally:
        for store in stores:
            store.close()


def test_numbers_follow_the_commits_and_not_who_asked_first(place: Place) -> None:
    with place.opened() as one, place.opened() as other:
        fill(one, token())
        halt = Halt(one, before=LOCKING[place.kind])
        thread = threading.Thread(target=lambda: fill(one, token(B)))
        thread.start()
        assert halt.reached.wait(timeout=30)
        fill(other, token(C))
        assert feed(other) == [(1, "a"), (2, "c")]
        halt.go_on.set()
        thread.join(timeout=30)

        assert feed(other) == [(1, "a"), (2, "c"), (3, "b")]


def test_nobody_sees_a_number_before_the_lower_ones(place: Place) -> None:
    """Four write, one reads: what a reader has seen is never added to in the middle."""
    stores = [place.open() for _ in range(4)]
    done = threading.Event()
    seen: list[FeedBatch] = []

    def write(store: SqlTokenStore, name: str) -> None:
        for number in range(10):
            fill(store, token(f"{name}{number:011}"))

    def read() -> None:
        with place.opened() as reader:
            while not done.is_set():
                seen.append(reader.read_feed(0))

    reading = threading.Thread(target=read)
    reading.start()
    try:
        outcomes = at_once(*(lambda store=store, name=name: write(store, name) for store, name in zip(stores, "abcd", strict=True)))
    finally:
        done.set()
        reading.join(timeout=30)
    last = stores[0].read_feed(0)
    for store in stores:
        store.close()

    assert outcomes == [None] * 4
    assert [number for number, _ in last.changes] == list(range(1, 41))
    assert len(seen) > 5
    for batch in seen:
        assert batch.changes == last.changes[: batch.head]


# --- files


@pytest.fixture
def path(sqlite_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sqlite_template, tmp_path / "tokens.db"))


def filled(path: Path, *token_ids: str) -> None:
    """Add tokens and leave no connection open."""
    with closing(SqlTokenStore(path, audit=KEY)) as store:
        fill(store, *map(token, token_ids))


@pytest.fixture
def reader(path: Path) -> Iterator[SqliteReader]:
    filled(path, "a" * 12)
    opened = SqliteReader(path)
    yield opened
    opened.close()


def unavailable(reader: SqliteReader, token_id: str = "a" * 12) -> None:
    """The answer to a look-up is neither a record nor "unknown" but that nobody can say."""
    with pytest.raises(Unavailable) as caught:
        reader.find(token_id)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "a?mode=rw.db", "a#b.db", "é.db", "'.db", "a%20b.db"])
def test_any_file_name_will_do(sqlite_template: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name / name
    writer = SqlTokenStore(path, create=True, audit=KEY)
    writer.migrate()
    fill(writer, token())
    reader = SqliteReader(path)
    found = reader.find("aaaaaaaaaaaa")
    reader.close()
    writer.close()

    assert found == token()
    assert path.read_bytes()[:15] == b"SQLite format 3"


def test_a_replaced_file_is_noticed(reader: SqliteReader, path: Path, sqlite_template: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(sqlite_template, tmp_path / "other.db"))
    filled(other, "b" * 12)
    before = reader.version()
    assert reader.find("a" * 12) is not None
    other.replace(path)

    assert reader.version() != before
    assert reader.find("a" * 12) is None
    assert reader.find("b" * 12) == token("b" * 12)
    again = reader.version()
    filled(path, "c" * 12)
    assert reader.version() != again
    assert reader.find("c" * 12) is not None


# SQLite lays the old file's -wal, which lives as long as the reader is connected, over the new file: after `extauthz token revoke`
# beside a running sidecar, a restored backup would be read as the old store.
def test_a_file_replaced_after_changes_is_never_read_as_the_old_one(
    reader: SqliteReader, path: Path, sqlite_template: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copy(sqlite_template, tmp_path / "other.db"))
    filled(other, "b" * 12)
    filled(path, "c" * 12)
    assert reader.find("c" * 12) is not None
    other.replace(path)
    try:
        reader.version()
        found = [reader.find(letter * 12) is not None for letter in "abc"]
    except Unavailable:
        return

    assert found == [False, True, False]


# A file that has no name any more can still be read: tokens would stay good and new ones be "unknown", for ever.
def test_a_deleted_file_is_no_answer(reader: SqliteReader, path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(Unavailable) as caught:
        reader.version()

    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    unavailable(reader, "b" * 12)
    unavailable(reader, "a" * 12)


def test_a_deleted_file_may_come_back(reader: SqliteReader, path: Path, sqlite_template: Path, tmp_path: Path) -> None:
    backup = Path(shutil.copy(path, tmp_path / "backup"))
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    with pytest.raises(Unavailable):
        reader.version()
    backup.replace(path)

    reader.version()
    assert reader.find("a" * 12) == token("a" * 12)


def test_a_file_replaced_by_an_empty_one_is_no_answer(reader: SqliteReader, path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "empty").replace(path)
    for file in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    reader.version()

    unavailable(reader)
    unavailable(reader, "b" * 12)


def test_a_file_replaced_by_garbage_is_no_answer(reader: SqliteReader, path: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"garbage " * 4096)
    (tmp_path / "garbage").replace(path)
    with pytest.raises(Unavailable):
        reader.version()

    unavailable(reader)


def test_a_locked_file_is_no_answer(path: Path) -> None:
    filled(path, "a" * 12)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    reader = SqliteReader(path)
    try:
        other.execute("BEGIN EXCLUSIVE")
        unavailable(reader)
        unavailable(reader, "b" * 12)
        with pytest.raises(Unavailable):
            reader.version()
        other.execute("COMMIT")

        reader.version()
        assert reader.find("a" * 12) == token("a" * 12)
    finally:
        other.close()
        reader.close()


# A poll that fails closes the connection, and `PRAGMA data_version` of a new one begins at the same number: that number alone would
# be what it was before the revocation, and the verdicts would stay in memory.
def test_a_change_during_a_time_out_of_reach_changes_the_version(path: Path) -> None:
    filled(path, "a" * 12)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    reader = SqliteReader(path)
    try:
        before = reader.version()
        other.execute("BEGIN EXCLUSIVE")
        other.execute("UPDATE tokens SET revoked_at = 1, revoked_by = 'root'")
        with pytest.raises(Unavailable):
            reader.version()
        other.execute("COMMIT")

        assert reader.version() != before
    finally:
        other.close()
        reader.close()


def test_a_writer_under_way_stops_no_reader(reader: SqliteReader, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE tokens SET revoked_at = 1")

    assert reader.find("a" * 12) == token("a" * 12)
    other.execute("COMMIT")
    other.close()
    found = reader.find("a" * 12)
    assert found is not None
    assert found.revoked_at == 1


def test_a_corrupted_file_is_no_answer(reader: SqliteReader, path: Path) -> None:
    probe = sqlite3.connect(path)
    size = probe.execute("PRAGMA page_size").fetchone()[0]
    roots = probe.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'tokens' AND rootpage > 0").fetchall()
    probe.close()
    assert len(roots) == 5, "a table, the index of its key, and those by age, by user and by expiry"
    with path.open("r+b") as file:
        for (page,) in roots:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)

    unavailable(reader)
    unavailable(reader, "b" * 12)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("permission", "KING"),
        ("permission", ""),
        ("scopes", "SEARCH"),
        ("scopes", ""),
        ("scopes", "null"),
        ("scopes", "5"),
        ("scopes", "[[]]"),
        ("digest", "text"),
        ("digest", None),
        ("permission", "OAUTH"),
        ("scopes", '"SEARCH"'),
        ("scopes", '{"SEARCH": 1}'),
        ("scopes", "[1]"),
        ("scopes", "[" * 5000),
        ("digest", 32),
        ("digest", 2**60),
        ("expires_at", "soon"),
        ("revoked_at", "yesterday"),
        ("created_at", 1.5),
    ],
)
def test_an_unreadable_row_is_no_answer(path: Path, column: str, value: object) -> None:
    """A row that no release wrote tells nothing, and least of all that the token is good."""
    filled(path, "a" * 12, "b" * 12)
    Place("sqlite", path).unguard("tokens")
    other = sqlite3.connect(path)
    # The rules of the columns would refuse the worst of these; a file from elsewhere has no such rules.
    other.execute("PRAGMA writable_schema = ON")
    other.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'tokens'")
    other.commit()
    other.close()
    other = sqlite3.connect(path)
    other.execute(f'UPDATE tokens SET "{column}" = ? WHERE id = ?', (value, "a" * 12))  # noqa: S608 - our own column names
    other.commit()
    other.close()
    reader = SqliteReader(path)
    try:
        unavailable(reader)
        assert reader.find("b" * 12) == token("b" * 12)
    finally:
        reader.close()


ROW = ("a" * 12, "d", "USER", "ana@acme.com", '["SEARCH"]', 1, "root", 9, "p1", bytes(32), None, None)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, 7) for name in ("id", "description", "permission", "user", "scopes", "created_by", "pepper_id", "revoked_by")),
        *((name, b"text") for name in ("id", "description", "user", "created_by", "pepper_id", "revoked_by")),
        *((name, None) for name in ("id", "description", "permission", "scopes", "created_by", "pepper_id", "digest")),
        *((name, "7") for name in ("created_at", "expires_at", "revoked_at", "digest")),
        *((name, 7.0) for name in ("created_at", "expires_at", "revoked_at")),
        *((name, None) for name in ("created_at", "expires_at")),
        ("scopes", b'["SEARCH"]'),
        ("scopes", "null"),
        ("scopes", '["SEARCH", 7]'),
    ],
)
def test_a_row_with_one_value_of_another_type_is_refused(column: str, value: object) -> None:
    assert record(ROW).scopes == {"SEARCH"}
    index = COLUMNS.index(column)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        record((*ROW[:index], value, *ROW[index + 1 :]))
    assert str(caught.value) == "a row that no release wrote"


def test_a_row_of_another_length_is_refused() -> None:
    for row in (ROW[:-1], (*ROW, None)):
        with pytest.raises(ValueError, match="zip"):
            record(row)


def test_the_writer_says_which_store_has_an_unreadable_row(path: Path) -> None:
    filled(path, "a" * 12)
    Place("sqlite", path).unguard("tokens")
    other = sqlite3.connect(path)
    other.execute("UPDATE tokens SET permission = 'KING'")
    other.commit()
    other.close()
    store = SqlTokenStore(path)
    try:
        with pytest.raises(StoreError):
            store.list_tokens()
        with pytest.raises(StoreError):
            store.get("a" * 12)
    finally:
        store.close()


# --- schemas


def revision_set_to(path: Path, revision: str | None) -> None:
    other = sqlite3.connect(path)
    other.execute("DELETE FROM alembic_version")
    if revision is not None:
        other.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    other.commit()
    other.close()


@pytest.mark.parametrize("revision", ["9999", "0000", "", None])
def test_another_schema_is_refused_with_a_hint(path: Path, revision: str | None) -> None:
    revision_set_to(path, revision)
    with pytest.raises(StoreError, match="extauthz store migrate"):
        SqliteReader(path)


MIGRATE = "run 'extauthz store migrate'"
NEWER = "use the release that ran 'extauthz store migrate' last, or a later one"


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        (None, f"the token store is empty: {MIGRATE}"),
        ("0001", f"the token store has schema 0001, this release serves 0003 and 0004: {MIGRATE}"),
        ("0005", f"the token store has schema 0005, this release serves 0003 and 0004: {NEWER}"),
    ],
)
def test_another_schema_is_refused_with_what_mends_it(revision: str | None, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        check_revision(revision)
    assert str(caught.value) == message


def test_no_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    for store in (SqliteReader, SqlTokenStore):
        with pytest.raises(StoreError, match="extauthz store migrate"):
            store(tmp_path / "tokens.db")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "tokens.db").touch()
    with pytest.raises(StoreError, match="extauthz store migrate"):
        SqliteReader(tmp_path / "tokens.db")


@pytest.mark.parametrize("content", [b"garbage " * 512, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"tokens\.db"):
        SqliteReader(path)
    store = SqlTokenStore(path)
    with pytest.raises(StoreError, match=r"tokens\.db"):
        store.migrate()
    store.close()
    assert path.read_bytes() == content


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        SqliteReader(tmp_path)


# --- processes

ADD_MANY = """
import sys, time
from pathlib import Path
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.core.tokens import TokenRecord

path, letter = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
store = SqlTokenStore(path, create=True, audit=AuditKey("p1", bytes(32)))
store.migrate()
for number in range(25):
    token_id = f"{letter}{number:011}"
    store.add(TokenRecord(token_id, "d", AuthType.GLOBAL, None, frozenset({"S"}), number, "root", 9, "p1", bytes(32)), "f" * 16)
    if number % 5 == 0:
        store.revoke([token_id], None, Change(1, letter))
store.close()
"""


def test_two_processes_make_and_fill_one_store(tmp_path: Path) -> None:
    """Both begin at once with a store that does not exist; nothing is lost and nobody is refused."""
    path = tmp_path / "data" / "tokens.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", ADD_MANY, str(path), letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for letter in "ab"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [(process.returncode, error) for process, (_, error) in zip(processes, outputs, strict=True)] == [(0, ""), (0, "")]
    store = SqlTokenStore(path)
    records = store.list_tokens()
    broken = store.verify_audit({"p1": bytes(32)}, store.audit_head())
    numbers = [number for number, _ in store.read_feed(0).changes]
    store.close()
    assert sorted(record.id for record in records) == [f"{letter}{number:011}" for letter in "ab" for number in range(25)]
    assert {record.revoked_by for record in records if record.id[0] == "a"} == {None, "a"}
    assert sum(record.revoked_at is not None for record in records) == 10
    assert (broken, numbers) == (None, list(range(1, 61)))


def test_a_file_that_is_copied_over_changes_the_version(
    reader: SqliteReader, path: Path, sqlite_template: Path, tmp_path: Path
) -> None:
    """SQLite itself notices only what it wrote itself."""
    other = Path(shutil.copy(sqlite_template, tmp_path / "other.db"))
    filled(other, "b" * 12)
    before = reader.version()
    assert reader.find("b" * 12) is None
    shutil.copyfile(other, path)

    assert reader.version() != before
    assert reader.find("b" * 12) is not None
