"""Denials in a company's own words, through a real Envoy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from extauthz.config.answers import MAX_BODY
from extauthz.core.model import Reason
from extauthz.demo.launcher import Demo
from tests.support.answers import ANSWERS, BEARER, FEED, METADATA, SEARCH
from tests.support.running import RunningDemo, running_demo


async def nothing(demo: Demo) -> None:
    """Need no more than the demo has."""


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    with running_demo(tmp_path_factory.mktemp("answers"), nothing, settings=ANSWERS) as running:
        yield running


@pytest.mark.envoy
def test_a_body_and_headers_of_ones_own_arrive(envoy: RunningDemo) -> None:
    for line in ("POST /nowhere", f"POST {FEED}x"):
        reply = envoy.send(line)
        assert reply.status == 404
        assert reply.headers["content-type"] == "application/vnd.acme+json"
        assert reply.headers["x-hint"] == "no route_unknown in extauthz"
        assert reply.headers["set-cookie"] == "seen=1; Path=/"
        assert (reply.headers["cache-control"], "www-authenticate" in reply.headers) == ("no-store", False)
        decision_id = reply.headers["x-extauthz-decision-id"]
        assert reply.document == {"code": "route_unknown", "id": decision_id, "braces": {"a": "${b}"}}


@pytest.mark.envoy
def test_problem_details_and_resource_metadata_arrive(envoy: RunningDemo) -> None:
    reply = envoy.send(f"POST {SEARCH}")
    assert (reply.status, reply.headers["content-type"]) == (401, "application/problem+json")
    assert reply.headers["www-authenticate"] == f'{BEARER}, resource_metadata="{METADATA}"'
    assert reply.document == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "A Bearer token is required.",
        "error": "authentication_required",
        "reason": "credential_missing",
        "decision_id": reply.headers["x-extauthz-decision-id"],
    }
    reply = envoy.send(f"POST {SEARCH}", {"Authorization": "Bearer x"})
    assert (reply.status, reply.document["status"], reply.document["detail"]) == (403, 403, "Prüfen Sie das Token.")
    assert reply.headers["www-authenticate"] == f'{BEARER}, error="invalid_token", resource_metadata="{METADATA}"'


@pytest.mark.envoy
def test_the_longest_body_arrives_whole(envoy: RunningDemo) -> None:
    reply = envoy.send(f"POST {FEED}", {"Authorization": f"Bearer {envoy.demo.tokens['USER_TOKEN']}"})
    assert (reply.status, reply.headers["content-type"]) == (403, "text/plain")
    assert reply.text == "z" * (MAX_BODY - 20) + " FEED"


@pytest.mark.envoy
def test_no_body_and_when_to_try_again(envoy: RunningDemo) -> None:
    reply = envoy.send(f"POST {SEARCH}", {"Authorization": "Bearer x y"})
    assert (reply.status, reply.text, reply.headers.get("content-type")) == (400, "", None)
    reply = envoy.send(f"POST {SEARCH}", {"Authorization": "Bearer x", "X-Glean-Auth-Type": "SAML"})
    assert (reply.status, reply.headers["retry-after"], reply.document["title"]) == (429, "7", "Too Many Requests")


@pytest.mark.envoy
def test_head_gets_the_headers(envoy: RunningDemo) -> None:
    reply = envoy.send("HEAD /nowhere", body=b"")
    assert (reply.status, reply.text, reply.headers["x-hint"]) == (404, "", "no route_unknown in extauthz")
    assert reply.headers["content-type"] == "application/vnd.acme+json"


@pytest.mark.envoy
def test_grpc_clients_get_trailers_only(envoy: RunningDemo) -> None:
    for line, headers, status, message in (
        ("POST /nowhere", {}, "7", Reason.ROUTE_UNKNOWN.message),
        (f"POST {SEARCH}", {"Authorization": "Bearer x"}, "16", "Pr%C3%BCfen Sie das Token."),
        (f"POST {SEARCH}", {"Authorization": "Bearer x", "X-Glean-Auth-Type": "SAML"}, "3", Reason.AUTH_TYPE_UNKNOWN.message),
    ):
        reply = envoy.send(line, {"content-type": "application/grpc", "te": "trailers"} | headers)
        assert (reply.status, reply.text, reply.headers["grpc-status"]) == (200, "", status)
        assert reply.headers["grpc-message"] == f"{message} (decision {reply.headers['x-extauthz-decision-id']})"
        assert "retry-after" not in reply.headers
    assert "x-hint" in envoy.send("POST /nowhere", {"content-type": "application/grpc"}).headers
