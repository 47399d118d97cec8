"""The whole path once, before the tables look at every row."""

from __future__ import annotations

from tests.support.world import MakeWorld, bearer, claims, oauth, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}]


def test_a_global_token_acts_for_the_named_user(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    answer = world.check("POST /search", bearer(world.token("GLOBAL"), x_scio_actas="Ana@acme.com"))
    assert (answer.reason, answer.headers["x-extauthz-user"]) == ("allowed", "ana@acme.com")


def test_an_oauth_token_is_verified(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    for algorithm in ("RS256", "ES256"):
        answer = world.check("POST /search", oauth(sign(claims(), algorithm=algorithm)))
        assert (answer.reason, answer.headers["x-extauthz-user"]) == ("allowed", "ana@acme.com")
