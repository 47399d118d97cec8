"""What is said when Envoy keeps headers of a request from the check: `allowed_headers`, or headersToExtAuth of Envoy Gateway."""

from __future__ import annotations

import logging

import pytest

from extauthz._pb import ext_authz_pb2 as pb
from tests.support.world import Answer, World, bearer, check_request

HINT = "allowed_headers"
SEARCH = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "GET /open", "public": True}]
PSEUDO = (":authority", ":path", ":method", ":scheme")


def filtered(data: bytes, *kept: str) -> pb.CheckRequest:
    """Return a question as Envoy writes it with `allowed_headers`: the pseudo-headers are kept from it too."""
    message = pb.CheckRequest.FromString(data)
    http = message.attributes.request.http
    lines = [line for line in http.header_map.headers if line.key in kept]
    for name in set(http.headers) - set(kept):
        del http.headers[name]
    del http.header_map.headers[:]
    http.header_map.headers.extend(lines)
    return message


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("filtered"), SEARCH)


def ask(world: World, headers: dict[str, str | bytes], *kept: str, form: str = "raw", size: int = 0) -> Answer:
    message = filtered(check_request("POST", "/search", headers.items(), form=form), *kept)
    message.attributes.request.http.size = size
    return world.check_bytes(message.SerializeToString())


@pytest.mark.parametrize("form", ["raw", "map"])
def test_the_answer_says_that_headers_did_not_arrive(world: World, form: str) -> None:
    token = world.token("GLOBAL")
    headers = bearer(token, x_scio_actas="ana@acme.com")
    hidden = ask(world, headers, form=form)
    assert (hidden.status, hidden.reason, hidden.body["reason"]) == (401, "credential_missing", "credential_missing")
    assert HINT in hidden.body["message"]
    no_act_as = ask(world, headers, "authorization", form=form)
    assert (no_act_as.status, no_act_as.reason) == (400, "act_as_missing")
    assert HINT in no_act_as.body["message"]
    # An OAuth access token without its mark is read as an issued one.
    oauth = ask(world, bearer("a.b.c", x_glean_auth_type="OAUTH"), "authorization", form=form)
    assert (oauth.status, oauth.body["reason"]) == (401, "token_invalid")
    assert HINT in oauth.body["message"]
    assert ask(world, headers, "authorization", "x-scio-actas", form=form).allowed


@pytest.mark.parametrize("form", ["raw", "map"])
def test_what_came_whole_has_no_hint(world: World, form: str) -> None:
    answers = [
        world.check("POST /search", form=form),
        world.check("POST /search", bearer(world.token("GLOBAL")), form=form),
        world.check("POST /search", bearer("a.b.c"), form=form),
    ]
    assert [answer.status for answer in answers] == [401, 400, 401]
    assert not any(HINT in answer.body["message"] for answer in answers)


def test_refusals_that_no_header_could_change_have_no_hint(world: World) -> None:
    message = filtered(check_request("GET", "/none"))
    answer = world.check_bytes(message.SerializeToString())
    assert (answer.status, HINT in answer.body["message"]) == (403, False)
    expired = ask(world, bearer(world.token("USER", lifetime=1)), "authorization")
    assert (expired.reason, HINT in expired.body["message"]) == ("token_expired", False)


@pytest.mark.parametrize("kept", [("authorization",), ()])
def test_grpc_itself_sends_no_pseudo_headers(world: World, kept: tuple[str, ...]) -> None:
    """gRFC A92: servers of gRPC ask with header_map, without pseudo-headers, and with a size of -1."""
    answer = ask(world, bearer(world.token("GLOBAL")), *kept, size=-1)
    assert answer.status == (400 if kept else 401)
    assert HINT not in answer.body["message"]


@pytest.mark.parametrize("name", PSEUDO[:3])
def test_one_pseudo_header_shows_that_headers_come(world: World, name: str) -> None:
    assert HINT not in ask(world, {}, name).body["message"]


def test_the_log_says_so_once_a_minute(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if HINT in record.getMessage()]

    world.reconfigure()
    with caplog.at_level(logging.WARNING):
        ask(world, {})
        ask(world, bearer("x" * 20), "authorization")
        assert len(lines()) == 1
        world.clock.advance(59)
        ask(world, {})
        assert len(lines()) == 1
        world.clock.advance(1)
        ask(world, {})
        assert len(lines()) == 2
        world.check("POST /search")
        world.clock.advance(120)
        world.check("POST /search")
        assert len(lines()) == 2
    assert set(lines()) == {
        "requests were refused whose headers did not all reach the check: remove allowed_headers from ext_authz in Envoy "
        "(headersToExtAuth in Envoy Gateway); see docs/troubleshooting.md"
    }
