"""A method that is spelled like the YAML's `*` is a method like any other, and what a preflight asks about opens no other route."""

from __future__ import annotations

import pytest

from extauthz.config.patterns import parse_match
from extauthz.core.routes import Route
from tests.support.world import MakeWorld, bearer


@pytest.mark.parametrize("route", [{"scope": "SEARCH"}, {"public": True}])
def test_the_method_star_is_not_all_methods(make_world: MakeWorld, route: dict[str, object]) -> None:
    world = make_world([{"match": "* /search", **route}])
    assert world.check("* /search", bearer(world.token("USER"))).reason == "method_not_allowed"
    assert world.check("GET /search", bearer(world.token("USER"))).allowed


def test_a_denying_star_denies_the_method_star(make_world: MakeWorld) -> None:
    world = make_world([{"match": "* /search", "deny": True}])
    assert world.check("* /search").reason == "route_denied"


def test_a_preflight_for_the_method_star_is_not_answered(make_world: MakeWorld) -> None:
    world = make_world({"preflight": True, "routes": [{"match": "* /search", "scope": "SEARCH"}]})
    headers = {"origin": "https://acme.com", "access-control-request-method": "*"}
    assert world.check("OPTIONS /search", headers).reason == "credential_missing"
    assert world.check("OPTIONS /search", headers | {"access-control-request-method": "PUT"}).reason == "public"


@pytest.mark.parametrize(
    ("own", "reason"),
    [({"deny": True}, "route_denied"), ({"scope": "SEARCH"}, "public")],
    ids=["OPTIONS is denied", "OPTIONS needs a scope"],
)
def test_a_preflight_does_not_open_an_options_route_that_is_denied(
    make_world: MakeWorld, own: dict[str, object], reason: str
) -> None:
    routes = [{"match": "OPTIONS /search", **own}, {"match": "POST /search", "scope": "SEARCH"}]
    world = make_world({"preflight": True, "routes": routes})
    headers = {"origin": "https://acme.com", "access-control-request-method": "POST"}
    assert world.check("OPTIONS /search", headers).reason == reason


def test_a_preflight_for_a_denied_method_does_not_open_the_options_route_of_that_path(make_world: MakeWorld) -> None:
    routes = [{"match": "OPTIONS /search", "scope": "SEARCH"}, {"match": "DELETE /search", "deny": True}]
    world = make_world({"preflight": True, "routes": routes})
    headers = {"origin": "https://acme.com", "access-control-request-method": "DELETE"}
    assert world.check("OPTIONS /search", headers).reason == "credential_missing"


@pytest.mark.parametrize("any_scope", [False, True])
@pytest.mark.parametrize("held", [frozenset(), frozenset({"SEARCH"})])
def test_a_route_that_asks_for_nothing_permits_nothing(held: frozenset[str], *, any_scope: bool) -> None:
    """Configuration makes no such route; if another caller does, it must not be open to every token."""
    assert not Route("r", parse_match("GET /a"), any_scope=any_scope).permits(held)
