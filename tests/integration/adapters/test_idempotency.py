"""A request to create a token that is sent twice makes one token: on every store, and by two consoles at once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from extauthz.adapters.store.idempotency import KEPT, EarlierRequest, IdempotencyKey
from extauthz.admin import tokens
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.admin.token_requests import TokenRequest, TokenRules
from extauthz.admin.tokens import NewToken, Repeated
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType
from extauthz.errors import StoreError
from tests.support.postgresql import ANA, FINGERPRINT, NOW, AnyStore, Place, ids_of, token

pytest_plugins = ["tests.support.postgresql"]

A, B, C = ("abc"[number] * 12 for number in range(3))
DAY = 86_400
KEY = IdempotencyKey(b"k" * 32, b"r" * 32)
PEPPERS = {"p1": b"a pepper for tests, 32 bytes long"}
ADMIN = Actor("ana@acme.com", Role.ADMIN, "console 10.0.0.7")
REQUEST = TokenRequest("CI", AuthType.ANONYMOUS, frozenset({"SEARCH", "CHAT"}), NOW, ADMIN.name, NOW + 30 * DAY)


def add(store: AnyStore, token_id: str, *, at: int = NOW, key: IdempotencyKey | None = KEY) -> EarlierRequest | None:
    """Add a token by a request with a key."""
    return store.add_many([token(token_id)], {"p1": FINGERPRINT}, replace(ANA, at=at), idempotency=key)


def administer(store: AnyStore) -> Administration:
    """Return an installation on a store."""
    rules = TokenRules("glean", frozenset({"SEARCH", "CHAT"}), 90.0 * DAY, ActAs(allow=compile_patterns(["*@acme.com"])))
    return Administration(store, rules, frozenset({"glean"}), lambda: PEPPERS)  # type: ignore[arg-type]


# --- the store


def test_a_key_makes_one_token_and_leaves_no_other_trace(store: AnyStore) -> None:
    assert add(store, A) is None
    before = store.audit_head(), store.read_feed(0)
    earlier = EarlierRequest(A, KEY.request, NOW)

    assert add(store, B, at=NOW + 7) == earlier
    assert add(store, C, key=replace(KEY, request=b"s" * 32)) == earlier

    assert ids_of(store.list_tokens()) == ["a"]
    assert (store.audit_head(), store.read_feed(0)) == before


def test_other_keys_and_none_make_other_tokens(store: AnyStore) -> None:
    keys = [KEY, None, replace(KEY, digest=b"l" * 32)]
    assert [add(store, token_id, key=key) for token_id, key in zip((A, B, C), keys, strict=True)] == [None] * 3
    assert ids_of(store.list_tokens()) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("later", "is_kept"), [(KEPT - 1, True), (KEPT, False), (-DAY, True)], ids=["day", "more", "clock set back"]
)
def test_a_key_is_forgotten_after_a_day(store: AnyStore, later: int, is_kept: bool) -> None:
    add(store, A)
    assert add(store, B, at=NOW + later) == (EarlierRequest(A, KEY.request, NOW) if is_kept else None)
    assert ids_of(store.list_tokens()) == (["a"] if is_kept else ["b", "a"])


def test_rows_are_removed_after_a_day(place: Place) -> None:
    with place.opened() as store:
        add(store, A)
        add(store, B, at=NOW + KEPT, key=replace(KEY, digest=b"l" * 32))
    assert place.rows("SELECT token_id FROM idempotency_keys") == [(B,)]


def test_a_refused_token_leaves_its_key_free(store: AnyStore) -> None:
    add(store, A, key=None)
    with pytest.raises(StoreError, match="exists already"):
        add(store, A)
    assert add(store, B) is None


# --- the use case


def create(administration: Administration, **changes: Any) -> tuple[NewToken, ...] | Repeated | Refused:
    """Ask for a token; changes are those of the request, and `actor`, `at` and `key`."""
    actor, at, key = changes.pop("actor", ADMIN), changes.pop("at", NOW), changes.pop("key", "one of a kind")
    request = replace(REQUEST, created_at=at, **changes)
    return tokens.create(administration, actor, [request], at, idempotency_key=key)


@pytest.fixture
def first(store: AnyStore) -> tuple[Administration, str]:
    """An installation, and the id of a token that was made in it."""
    administration = administer(store)
    made = create(administration)
    assert isinstance(made, tuple), made
    return administration, made[0].record.id


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"at": NOW + 60},
        {"at": NOW + 60, "expires_at": REQUEST.expires_at + 60},
        {"actor": replace(ADMIN, role=Role.SUPER_ADMIN, source="another browser")},
    ],
    ids=["again", "a minute later, the same date", "a minute later, the same length", "from elsewhere"],
)
def test_a_repetition_is_the_fact_alone(first: tuple[Administration, str], changes: dict[str, Any]) -> None:
    administration, token_id = first
    assert create(administration, **changes) == Repeated(token_id)
    assert administration.store.status(NOW).active == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "CD"},
        {"permission": AuthType.USER, "user": "ana@acme.com"},
        {"scopes": frozenset({"SEARCH"})},
        {"expires_at": REQUEST.expires_at + 1},
        {"at": NOW + 60, "expires_at": REQUEST.expires_at + 61},
    ],
    ids=str,
)
def test_another_request_with_the_same_key_is_refused(first: tuple[Administration, str], changes: dict[str, Any]) -> None:
    administration, token_id = first
    outcome = create(administration, **changes)
    assert isinstance(outcome, Refused)
    assert [refusal.field for refusal in outcome.refusals] == ["idempotency_key"]
    assert token_id in outcome.refusals[0].message
    assert administration.store.status(NOW).active == 1


@pytest.mark.parametrize(
    "changes", [{"key": "another"}, {"key": None}, {"actor": Actor("bea@acme.com", Role.ADMIN)}], ids=["key", "no key", "actor"]
)
def test_a_key_is_of_one_actor(first: tuple[Administration, str], changes: dict[str, Any]) -> None:
    administration, _ = first
    assert isinstance(create(administration, **changes), tuple)
    assert administration.store.status(NOW).active == 2


@pytest.mark.parametrize("key", ["", " ", "a\nb", "\0", "\ud800", "x" * 201])
def test_what_is_no_key_is_refused(store: AnyStore, key: str) -> None:
    outcome = create(administer(store), key=key)
    assert isinstance(outcome, Refused)
    assert [refusal.field for refusal in outcome.refusals] == ["idempotency_key"]
    assert store.list_tokens() == []


def test_rights_and_rules_come_before_a_repetition(first: tuple[Administration, str]) -> None:
    outcome = create(first[0], actor=replace(ADMIN, role=Role.VIEWER))
    assert isinstance(outcome, Refused)
    assert [refusal.field for refusal in outcome.refusals] == ["actor"]


def test_a_key_is_for_one_token(store: AnyStore) -> None:
    with pytest.raises(ValueError, match="one token"):
        tokens.create(administer(store), ADMIN, [REQUEST, REQUEST], NOW, idempotency_key="both")
    assert store.list_tokens() == []


def test_two_consoles_at_once_make_one_token(place: Place) -> None:
    outcomes: list[object] = []
    with place.opened() as one, place.opened() as other:
        # Each has its connections before they begin, so that both come at once.
        consoles = [administer(store) for store in (one, other, one, other)]
        barrier = threading.Barrier(len(consoles))

        def run(console: Administration) -> None:
            console.store.audit_head()
            barrier.wait(timeout=30)
            outcomes.append(create(console))

        threads = [threading.Thread(target=run, args=(console,)) for console in consoles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        stored = one.list_tokens()

    assert len(stored) == 1
    made = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    assert [new.record.id for new in made[0]] == [stored[0].id]
    assert [outcome for outcome in outcomes if outcome not in made] == [Repeated(stored[0].id)] * 3
