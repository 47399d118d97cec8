"""The whole path once, before the tables look at every row."""

from __future__ import annotations

from dataclasses import replace

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy import EnvoyCodec
from tests.support.world import DECISION_ID, MakeWorld, bearer, check_request, claims, oauth, sign

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


def test_a_spliced_answer_is_the_one_that_protobuf_would_write(make_world: MakeWorld) -> None:
    """The first answer of a kind makes the template, the second is spliced: both must parse to the freshly built message."""
    world = make_world(ROUTES)
    act_as = {"x-scio-actas": "ana@acme.com", "x.extauthz.user": "ceo@acme.com"}
    requests = [
        bearer(world.token("GLOBAL")) | act_as,
        bearer(world.token("USER")),
        bearer(world.token("USER", "CHAT")),
        oauth(sign(claims())),
        {},
        {"content-type": "application/grpc"},
    ]
    codec = EnvoyCodec()
    for headers in requests:
        data = check_request("POST", "/search", headers.items())
        answers = [world.check_bytes(data) for _ in range(2)]
        request = codec.read(data, DECISION_ID)
        assert request is not None
        fresh = codec._serialised(answers[1].decision, DECISION_ID, grpc="content-type" in headers)
        assert [answer.message for answer in answers] == [pb.CheckResponse.FromString(fresh)] * 2


def test_a_swap_under_warm_traffic_shows_no_answer_of_the_old_policy(make_world: MakeWorld) -> None:
    """Routes and identity change while verdicts stay in memory, and even the codec with its templates."""
    world = make_world(ROUTES)
    headers = bearer(world.token("USER"))

    def serve(routes: list[dict[str, str]], changes: dict[str, dict[str, str]]) -> None:
        world.routes, world.changes = routes, changes
        world.configuration = world._configure()
        world.authorizer.swap(replace(world.authorizer._runtime, policy=world.configuration.policy))

    for prefix in ("x-extauthz-", "x-acme-", "x-extauthz-"):
        serve(ROUTES, {"identity": {"prefix": prefix}})
        for _ in range(3):
            answer = world.check("POST /search", headers)
            assert (answer.reason, answer.headers[f"{prefix}user"]) == ("allowed", "ana@acme.com")
            assert all(name.startswith(prefix) for name in answer.headers)
        serve([{"match": "POST /search", "scope": "CHAT", "name": "search"}], {"identity": {"prefix": prefix}})
        for _ in range(3):
            assert (world.check("POST /search", headers).reason, world.recorder.decisions[-1].route) == ("scope_missing", "search")
