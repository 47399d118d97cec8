"""Which route a request that matches none is most like, what that costs at most, and which lines of the log tell it."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.decision_log import hints as hints_module
from extauthz.adapters.decision_log.hints import INTERVAL, Hints
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.config.patterns import parse_match
from extauthz.core.model import Allow, Deny, HeaderEdits, Reason, Request
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, compile_routes
from extauthz.core.upstream import Upstream
from extauthz.telemetry.nearest_route import MAX_WAYS, nearest_route
from tests.support.world import DECISION_ID
from tests.unit.adapters.test_decision_log import Lines, Memory


def policy(*matches: str, upstream: Upstream = Upstream(), **hosts: Policy) -> Policy:  # noqa: B008 - frozen
    routes = [Route(match, parse_match(match).read_by(upstream), ("S",)) for match in matches]
    return Policy(routes=compile_routes(routes, upstream), hosts={name: other.routes for name, other in hosts.items()})


API = policy(
    *("POST /rest/api/v1/search", "POST /rest/api/v1/chat", "GET /rest/api/v1/people/{id}", "GET /files/**"),
    *("GET /reports/", "GET /a/{x}/b", "PUT /a/{x}/b"),
)


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("POST /rest/api/v1/serach", "POST /rest/api/v1/search"),
        ("POST /rest/api/v1/SEARCH", "POST /rest/api/v1/search"),
        ("GET /rest/api/v1/serach", "POST /rest/api/v1/search"),
        ("POST /api/v1/search", "POST /rest/api/v1/search"),
        ("POST /rest/api/v1/search/", "POST /rest/api/v1/search"),
        ("POST /rest/api/v2/search", "POST /rest/api/v1/search"),
        ("POST /rest/api/v1/search/more", "POST /rest/api/v1/search"),
        ("GET /rest/api/v1/person/7", "GET /rest/api/v1/people/{id}"),
        ("GET /rest/api/v1/people", "GET /rest/api/v1/people/{id}"),
        ("GET /file/a/b/c", "GET /files/**"),
        ("GET /reports", "GET /reports/"),
        ("PUT /a/7/c/b", "PUT /a/{x}/b"),
        ("GET /quite/another/thing", None),
        ("GET /nothing", None),
        ("GET /", None),
        ("GET //", None),
        ("GET x", None),
        ("GET /" + "s" * 65, None),
        ("GET " + "/rest" * 17, None),
    ],
)
def test_the_nearest_route(line: str, nearest: str | None) -> None:
    method, path = line.split(" ")
    assert nearest_route(API, method, path, "api.acme.com") == nearest


def test_it_is_one_of_the_host_and_none_that_refuses() -> None:
    own = policy("GET /search", own=policy("GET /chats"))
    assert (nearest_route(own, "GET", "/serch", "other"), nearest_route(own, "GET", "/serch", "own")) == ("GET /search", None)
    assert nearest_route(own, "GET", "/serch", "a,b") is None
    denied = Policy(routes=compile_routes([Route("no", parse_match("* /search"), deny=True)]))
    assert nearest_route(denied, "GET", "/serch", "") is None


def test_an_upstream_that_ignores_case_is_read_as_it_reads() -> None:
    loose = policy("GET /Search/Me", upstream=Upstream(ignores_case=True))
    assert nearest_route(loose, "GET", "/SEARCH/ME/too", "") == "GET /Search/Me"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["aaa1", "aab", "b", "", "aaaa", "aaab"]), min_size=1, max_size=16))
def test_what_it_costs_has_a_bound(segments: list[str]) -> None:
    """Calls are counted, as clocks of a busy machine say nothing: a table of 9,000 routes costs what a small one does."""
    calls = 0

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(counted)
    try:
        nearest_route(MANY, "GET", "/" + "/".join(segments), "")
    finally:
        sys.setprofile(None)
    assert calls < 40 * MAX_WAYS


MANY = policy(*(f"GET /aaa{one}/aaa{two}/{{id}}" for one in range(30) for two in range(300)))


def unknown(path: str, decision_id: str = DECISION_ID) -> Request:
    return Request("POST", path, "api.acme.com", {"authorization": "Bearer hunter2"}, raw=True, decision_id=decision_id)


def logged(log: DecisionLog, sink: Memory) -> list[dict[str, Any]]:
    log.close()
    return [json.loads(line) for line in sink.text.splitlines()]


def test_the_log_tells_it_and_only_with_a_reason_that_asks_for_it() -> None:
    sink = Memory()
    log = DecisionLog(sink, hints=Hints(API))
    for decided in (Deny(Reason.ROUTE_UNKNOWN), Deny(Reason.METHOD_NOT_ALLOWED), Allow(Reason.PUBLIC, "r", HeaderEdits((), ()))):
        log.record(unknown("/rest/api/v1/serach?q=hunter2"), decided, 0.0)
    assert [line.get("nearest_route") for line in logged(log, sink)] == ["POST /rest/api/v1/search", None, None]
    assert "hunter2" not in sink.text


def test_ten_lines_a_second_at_most_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hints_module, "nearest_route", lambda *arguments: asked.append(arguments[2]))
    hints = Hints(API)
    moments = [100 + number / 1000 for number in range(1000)]
    lines = [hints.chosen(b"{}\n", Reason.ROUTE_UNKNOWN, unknown(f"/{moment}"), moment) for moment in moments]
    assert asked == [], "nothing is worked out where checks are answered"
    assert [hints.written(line, 100) for line in lines] == [b"{}\n"] * 1000
    assert len(asked) <= 1 / INTERVAL
    assert [hints.written(hints.chosen(b"{}\n", Reason.ROUTE_UNKNOWN, unknown("/" + "p" * 600), 200), 100)] == [b"{}\n"]
    assert len(asked) <= 1 / INTERVAL


def test_a_line_without_room_or_a_fault_in_the_search_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hints = Hints(API)
    line = hints.chosen(b'{"a": 1}\n', Reason.ROUTE_UNKNOWN, unknown("/rest/api/v1/serach"), 100)
    assert hints.written(line, 20) == b'{"a": 1}\n'
    assert hints.written(line, 100) == b'{"a": 1, "nearest_route": "POST /rest/api/v1/search"}\n'

    def broken(*arguments: str) -> None:
        raise RuntimeError

    monkeypatch.setattr(hints_module, "nearest_route", broken)
    assert [hints.written(line, 100) for _ in range(2)] == [b'{"a": 1}\n'] * 2
    assert [record.message for record in caplog.records] == ["decision log: no nearest route"]


def test_without_routes_or_the_field_there_is_no_hint() -> None:
    lines = Lines(["reason"])
    lines.log.hints.policy = API
    lines.log.record(unknown("/rest/api/v1/serach"), Deny(Reason.ROUTE_UNKNOWN), 0.0)
    assert lines.read() == [{"reason": "route_unknown"}]
