"""What follows a token, and which scopes an anonymous token holds in vain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.admin.token_requests import TokenRequest, successor, unused_scopes
from extauthz.config.patterns import parse_match
from extauthz.core.model import AuthType
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, compile_routes
from extauthz.core.tokens import TokenRecord

NOW = 1_800_000_000
DAY = 86_400


OLD = TokenRecord(
    id="aaaaaaaaaaaa",
    description="Ana's notebook",
    permission=AuthType.USER,
    user="ana@acme.com",
    scopes=frozenset({"SEARCH"}),
    created_at=NOW - 10 * DAY,
    created_by="os:root",
    expires_at=NOW + 80 * DAY,
    pepper_id="p1",
    digest=bytes(32),
)


def test_a_successor_lives_as_long_as_its_predecessor_was_to_live() -> None:
    order = successor(OLD, at=NOW, by="os:ana", max_lifetime=365.0 * DAY)
    assert order == TokenRequest(
        OLD.description, OLD.permission, OLD.scopes, created_at=NOW, created_by="os:ana", expires_at=NOW + 90 * DAY, user=OLD.user
    )


def test_a_successor_lives_no_longer_than_the_configuration_allows() -> None:
    assert successor(OLD, at=NOW, by="os:ana", max_lifetime=30.0 * DAY).expires_at == NOW + 30 * DAY


ANYBODY = frozenset({AuthType.ANONYMOUS, AuthType.USER})


def _policy(*routes: Route) -> Policy:
    return Policy(routes=compile_routes(routes))


def _order(permission: AuthType, *scopes: str) -> TokenRequest:
    return replace(successor(OLD, at=NOW, by="os:ana", max_lifetime=DAY), permission=permission, scopes=frozenset(scopes))


ROUTES = (
    Route("a", parse_match("POST /search"), ("SEARCH",), accept=ANYBODY),
    Route("b", parse_match("GET /people/{id}/photo"), ("PEOPLE",), accept=ANYBODY),
    Route("c", parse_match("* /feed/**"), ("FEED", "CHAT"), any_scope=True, accept=ANYBODY),
    Route("d", parse_match("GET /pins"), ("PINS",)),
)


@pytest.mark.parametrize(
    ("scopes", "useless"),
    [(("SEARCH",), []), (("PEOPLE", "FEED", "CHAT"), []), (("PINS", "SEARCH"), ["PINS"]), (("X", "PINS"), ["PINS", "X"])],
)
def test_scopes_that_no_anonymous_route_asks_for(scopes: tuple[str, ...], useless: list[str]) -> None:
    assert unused_scopes(_order(AuthType.ANONYMOUS, *scopes), _policy(*ROUTES)) == useless
    assert unused_scopes(_order(AuthType.USER, *scopes), _policy(*ROUTES)) == []


def test_the_routes_of_every_host_count() -> None:
    policy = Policy(hosts={"api.acme.com": compile_routes(ROUTES)})
    assert unused_scopes(_order(AuthType.ANONYMOUS, "SEARCH", "PINS"), policy) == ["PINS"]
