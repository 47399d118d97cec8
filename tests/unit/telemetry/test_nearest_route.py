"""Which route a request that matches none is most like, what that costs at most, and which lines of the log tell it."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from types import FrameType
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz.adapters.decision_log import hints as hints_module
from extauthz.adapters.decision_log.hints import PER_SECOND, Hints, LineOfUnknownRoute
from extauthz.adapters.decision_log.lines import Lines as LogLines
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.config.patterns import parse_match
from extauthz.core.model import Allow, Deny, HeaderEdits, Reason, Request
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, compile_routes
from extauthz.core.upstream import Upstream
from extauthz.telemetry.decision_record import RecordField
from extauthz.telemetry.nearest_route import MAX_COMPARED, nearest_route
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


USUAL = [
    f"GET /api/v1/{noun}-{kind}-service-{number:02}/items/{{id}}"
    for noun, kind, number in itertools.product(
        ("customer", "order", "invoice", "shipment", "payment", "inventory", "catalog", "pricing", "notification", "identity"),
        ("management", "processing", "reporting", "integration", "reconciliation", "administration", "synchronisation", "audit"),
        range(125),
    )
]
FLAT = [f"GET /svc{number}/items/{{id}}" for number in range(10_000)]
HEX = [f"GET /blobs/{sha256(bytes([number])).hexdigest()}" for number in range(200)]
TWO_LETTERS = [f"GET /{f'{number * 7919:060b}'.translate({48: 'a', 49: 'b'})}/x" for number in range(500)]
DEEP = ["GET /" + "/".join(f"seg{digit}" for digit in f"{number:03}") + "/x" for number in range(1_000)]
EITHER = ["GET /" + "/".join("{p}" if number >> place & 1 else f"a{place}" for place in range(11)) for number in range(500)]
MATCHES = {"small": FLAT[:20], "usual": USUAL, "flat": FLAT, "hex": HEX, "two letters": TWO_LETTERS, "deep": DEEP, "either": EITHER}


@cache
def table_of(name: str) -> Policy:
    """Return a table, which is made when a test first asks for it: every process collects, and one runs these tests."""
    return policy(*MATCHES[name])


@pytest.mark.parametrize("table", ["small", "flat"])
@pytest.mark.parametrize(
    ("difference", "line", "nearest"),
    [
        ("a letter is missing", "GET /svc7/itms/3", "GET /svc7/items/{id}"),
        ("a letter too many", "GET /svvc17/items/3", "GET /svc17/items/{id}"),
        ("two letters changed places", "GET /scv17/items/3", "GET /svc17/items/{id}"),
        ("another letter", "GET /swc17/items/3", "GET /svc17/items/{id}"),
        ("upper case", "GET /SVC17/items/3", "GET /svc17/items/{id}"),
        ("plural", "GET /svc17s/items/3", "GET /svc17/items/{id}"),
        ("singular", "GET /svc5/item/3", "GET /svc5/items/{id}"),
        ("a slash too many", "GET /svc5/items/3/", "GET /svc5/items/{id}"),
        ("a segment too many", "GET /svc5/items/3/more", "GET /svc5/items/{id}"),
        ("a segment too many before", "GET /api/svc5/items/3", "GET /svc5/items/{id}"),
        ("a segment is missing", "GET /svc5/3", "GET /svc5/items/{id}"),
        ("the last one is missing", "GET /svc5/items", "GET /svc5/items/{id}"),
        ("another method and a typing error", "DELETE /svc5/itmes/3", "GET /svc5/items/{id}"),
    ],
)
def test_usual_errors_are_seen_in_small_and_in_large_tables(table: str, difference: str, line: str, nearest: str) -> None:
    method, path = line.split(" ")
    assert nearest_route(table_of(table), method, path, "") == nearest, difference


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/api/v1/identity-audit-servce-24/items/3", "GET /api/v1/identity-audit-service-24/items/{id}"),
        ("/api/v1/identity-audits-service-24/items/3", "GET /api/v1/identity-audit-service-24/items/{id}"),
        ("/v1/identity-audit-service-24/items/3", "GET /api/v1/identity-audit-service-24/items/{id}"),
        ("/api/v1/identity-audit-service-24/item/3/", "GET /api/v1/identity-audit-service-24/items/{id}"),
    ],
)
def test_long_names_among_ten_thousand(path: str, nearest: str) -> None:
    assert nearest_route(table_of("usual"), "GET", path, "") == nearest


SEGMENT = st.one_of(
    st.sampled_from(["", "x", "api", "v1", "svc", "svc9999x", "items", "blobs", "seg", "a0", "a5", "é" * 60, "svc" + "9" * 60]),
    st.text("ab", min_size=60, max_size=64),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.just("notification-reconciliation-administration-service-integrat"),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(SEGMENT, min_size=1, max_size=16))
@example(["ab" * 32] * 7)
@example(["seg"] * 16)
@example(["svc"] * 16)
@example(["blobs", "0123456789abcdef" * 4])
@example(["api", "v1", *["notification-reconciliation-administration-service-integrat"] * 7])
@example(["zz"] * 11 + ["y"])
def test_what_it_costs_has_a_bound_and_what_it_answers_is_a_route(segments: list[str]) -> None:
    """Lines that run are counted, as clocks of a busy machine say nothing; ten of them take a microsecond or less."""
    path = quote("/" + "/".join(segments))
    for name in MATCHES:
        table = table_of(name)
        lines, answer = lines_of(lambda table=table: nearest_route(table, "GET", path, ""))
        assert lines < MAX_LINES, name
        assert {answer} <= {None, *MATCHES[name]}


MAX_LINES = 8 * MAX_COMPARED


def lines_of(call: Callable[[], str | None]) -> tuple[int, str | None]:
    """Return how many lines of Python a call takes, those of the standard library too, and what it returns."""
    lines, before = 0, sys.gettrace()

    def counted(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return counted

    sys.settrace(counted)
    try:
        answer = call()
    finally:
        sys.settrace(before)
    return lines, answer


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


def test_a_few_lines_a_second_get_it_whatever_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hints_module, "nearest_route", lambda *arguments: asked.append(arguments[2]))
    hints = Hints(API)

    def written(moment: float, path: str = "/x") -> int:
        """Return for how many of 100 lines of a millisecond each a route was looked for."""
        before = len(asked)
        lines = [hints.chosen(b"{}\n", unknown(path), moment + number / 1000) for number in range(100)]
        assert len(asked) == before, "nothing is worked out where checks are answered"
        assert [hints.written(line, 100) for line in lines] == [b"{}\n"] * 100
        return len(asked) - before

    assert [written(1_000 + tenth / 10) for tenth in range(30)].count(0) >= 30 - 3 * PER_SECOND - PER_SECOND
    assert len(asked) == 3 * PER_SECOND - 1 + PER_SECOND
    assert [written(2_000), written(100), written(99.5), written(99)] == [PER_SECOND, 0, 0, 0], "the clock was set back"
    assert (written(101), written(4_000, "/" + "p" * 600), written(4_000)) == (PER_SECOND, 0, PER_SECOND)


def test_a_line_without_room_or_a_fault_in_the_search_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hints = Hints(API)
    line = hints.chosen(b'{"a": 1}\n', unknown("/rest/api/v1/serach"), 100)
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


def test_lines_without_a_hint_are_made_by_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXTAUTHZ_PURE", raising=False)
    lines, decided = LogLines(RecordField, {}, Hints(API)), Deny(Reason.ROUTE_UNKNOWN)
    first = lines.line(1_000, unknown("/serach"), decided, 0.0)
    monkeypatch.setattr(lines, "_common_line", None)
    others = [type(lines.line(1_000 + number / 1000, unknown("/serach"), decided, 0.0)) for number in range(50)]
    assert [type(first), *others].count(LineOfUnknownRoute) == PER_SECOND
