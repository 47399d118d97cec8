"""Which token meets which filter, at the bounds of each, and where a token stands in each order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from extauthz.adapters.store.records import Sort, StoredToken, TokenFilter
from extauthz.adapters.store.rules import meets
from extauthz.core.model import AuthType

TOKEN = StoredToken(
    id="4fK2pQ9sXb1Z",
    description="Nightly Export",
    permission=AuthType.USER,
    user="ana@acme.com",
    scopes=frozenset({"SEARCH"}),
    created_at=100,
    created_by="os:root",
    expires_at=200,
    pepper_id="p1",
    digest=bytes(32),
)
REVOKED = replace(TOKEN, revoked_at=150, revoked_by="os:root")
USED = replace(TOKEN, last_used_at=160)

CASES: list[tuple[StoredToken, dict[str, Any], bool]] = [
    (TOKEN, {}, True),
    (TOKEN, {"permission": AuthType.USER}, True),
    (TOKEN, {"permission": AuthType.GLOBAL}, False),
    (TOKEN, {"text": "4fK2pQ9sXb1Z"}, True),
    (TOKEN, {"text": "4fK2pQ9sXb1"}, False),
    (TOKEN, {"text": "nightly ex"}, True),
    (TOKEN, {"text": "EXPORT"}, True),
    (TOKEN, {"text": "weekly"}, False),
    (TOKEN, {"scope": "SEARCH"}, True),
    (TOKEN, {"scope": "CHAT"}, False),
    (TOKEN, {"scope": "search", "kept_scope": "SEARCH"}, True),
    (TOKEN, {"scope": "SEARCH", "kept_scope": "search"}, True),
    (TOKEN, {"scope": "chat", "kept_scope": "CHAT"}, False),
    (TOKEN, {"user": "ana@acme.com"}, True),
    (TOKEN, {"user": "bob@acme.com"}, False),
    (TOKEN, {"created_by": "os:root"}, True),
    (TOKEN, {"created_by": "os:ana"}, False),
    (TOKEN, {"pepper_id": "p1"}, True),
    (TOKEN, {"pepper_id": "p2"}, False),
    (TOKEN, {"expires_after": 199}, True),
    (TOKEN, {"expires_after": 200}, False),
    (TOKEN, {"expires_before": 201}, True),
    (TOKEN, {"expires_before": 200}, False),
    (TOKEN, {"never_used": True}, True),
    (USED, {"never_used": True}, False),
    (USED, {"never_used": False}, True),
    (TOKEN, {"unused_since": 101}, True),
    (TOKEN, {"unused_since": 100}, False),
    (USED, {"unused_since": 161}, True),
    (USED, {"unused_since": 160}, False),
    (replace(TOKEN, last_used_at=90), {"unused_since": 100}, False),  # younger than that, whatever its last use says
    (TOKEN, {"active_at": 199}, True),
    (TOKEN, {"active_at": 200}, False),
    (REVOKED, {"active_at": 199}, False),
    (TOKEN, {"expired_at": 200}, True),
    (TOKEN, {"expired_at": 199}, False),
    (REVOKED, {"expired_at": 200}, False),
    (REVOKED, {"expired_at": 199}, False),
    (TOKEN, {"revoked": True}, False),
    (REVOKED, {"revoked": True}, True),
    (REVOKED, {"revoked": False}, True),
]


@pytest.mark.parametrize(("token", "filters", "wanted"), CASES)
@pytest.mark.parametrize("more", [{}, {"user": "ana@acme.com", "expires_before": 300}])
def test_a_token_meets_a_filter(token: StoredToken, filters: dict[str, Any], wanted: bool, more: dict[str, Any]) -> None:
    assert meets(token, TokenFilter(**(more | filters))) is wanted


@pytest.mark.parametrize(("token", "filters", "wanted"), [case for case in CASES if not case[2]])
def test_one_condition_that_fails_is_enough(token: StoredToken, filters: dict[str, Any], wanted: bool) -> None:
    every = {"permission": AuthType.USER, "text": "export", "scope": "SEARCH", "created_by": "os:root", "pepper_id": "p1"}
    assert meets(token, TokenFilter(**(every | filters))) is wanted


@pytest.mark.parametrize(
    ("sort", "position", "is_descending"),
    [
        (Sort.NEWEST, (100, TOKEN.id), True),
        (Sort.OLDEST, (100, TOKEN.id), False),
        (Sort.EXPIRES_LATEST, (200, TOKEN.id), True),
        (Sort.EXPIRES_SOONEST, (200, TOKEN.id), False),
        (Sort.RECENTLY_USED, (160, TOKEN.id), True),
        (Sort.LEAST_RECENTLY_USED, (160, TOKEN.id), False),
    ],
)
def test_a_token_stands_at_its_time_and_id(sort: Sort, position: tuple[int, str], is_descending: bool) -> None:
    assert sort.position(USED) == position
    assert sort.is_descending is is_descending


def test_a_token_that_was_never_used_has_no_time() -> None:
    assert Sort.RECENTLY_USED.position(TOKEN) == (None, TOKEN.id)


def test_orders_have_the_names_that_commands_and_addresses_take() -> None:
    assert [*map(str, Sort)] == ["newest", "oldest", "expires-soonest", "expires-latest", "recently-used", "least-recently-used"]
