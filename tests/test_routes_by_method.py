"""A method that is spelled like the YAML's `*` is a method like any other."""

from __future__ import annotations

import pytest

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
