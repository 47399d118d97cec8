"""Lines of decisions are read alike by every tool."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.cli.refusals import EVER, RefusalReport
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Reason
from extauthz.errors import LineError
from extauthz.telemetry.decision_record import MAX_VALUE, RecordField
from extauthz.tools.log_lines import LATEST, MAX_LINE, LogLine, RecordedLine, line_in, read_line, read_record, seconds
from tests.support.world import DECISION_ID, NOW

WHOLE = {
    "time": NOW,
    "decision": "deny",
    "reason": "scope_missing",
    "decision_id": DECISION_ID,
    "route": "search",
    "method": "POST",
    "path": "/search",
    "auth_type": "OAUTH",
    "actor": "oauth:okta:7",
    "user": "ana@acme.com",
    "client_id": "c1",
    "required_scopes": "SEARCH",
    "held_scopes": "CHAT FEED",
    "sample": 0.25,
}
ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=1)


def test_each_field_is_told() -> None:
    found = read_record(WHOLE)
    assert (found.outcome, found.reason, found.reason_name) == ("deny", Reason.SCOPE_MISSING, "scope_missing")
    assert (found.decision_id, found.route, found.method, found.path) == (DECISION_ID, "search", "POST", "/search")
    assert (found.auth_type, found.actor, found.user, found.client_id) == (AuthType.OAUTH, "oauth:okta:7", "ana@acme.com", "c1")
    assert (found.required_scopes, found.held, found.token_id) == ("SEARCH", {"CHAT", "FEED"}, None)
    assert (found.time, found.weight, found.kind) == (NOW, 4.0, None)


@pytest.mark.parametrize("name", ["token_sha256", "token_issuer", "token_key_id"])
def test_one_field_of_an_access_token_tells_the_kind(name: str) -> None:
    """The log may leave out the others."""
    assert read_record(WHOLE | {name: "x"}).kind is Kind.OAUTH


@pytest.mark.parametrize(("length", "is_known"), [(MAX_VALUE - 65, True), (MAX_VALUE - 64, False)])
def test_a_list_of_scopes_that_may_be_cut_is_not_known(length: int, is_known: bool) -> None:
    assert (read_record(WHOLE | {"held_scopes": "A" * length}).held is not None) is is_known


@given(st.dictionaries(st.sampled_from([*RecordField, "caller"]), ODD))
def test_every_tool_reads_a_line_alike(changes: dict[str, Any]) -> None:
    text = json.dumps(WHOLE | changes)
    line = read_line(text.encode())
    report = RefusalReport()
    report.add(text.encode(), *EVER)
    assert (report.lines, report.broken) == ((0, 1) if line is None else (1, 0))
    try:
        given_line: LogLine | RecordedLine | None = line_in(text)
    except LineError:
        given_line = None
    if line is not None:
        assert given_line == line
    if isinstance(given_line, LogLine):
        assert read_record(json.loads(text)) == replace(given_line, is_cut=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no JSON"),
        ("{", "no JSON"),
        ("[" * 60_000, "no JSON"),
        (" " * (MAX_LINE + 1), "longer than any"),
        (json.dumps(WHOLE | {"reason": "allowed"}), "contradicts itself"),
        (json.dumps(WHOLE | {"caller": "nobody"}), "no request that this version"),
        (json.dumps({"caller": "nobody"}), "no request that this version"),
    ],
    ids=lambda value: value[:30],
)
def test_a_line_that_somebody_gives_is_refused_with_its_cause(text: str, message: str) -> None:
    with pytest.raises(LineError, match=message):
        line_in(text)
    assert read_line(text.encode()) is None


@pytest.mark.parametrize("missing", ["decision", "reason"])
def test_what_a_line_has_to_tell_depends_on_who_asks(missing: str) -> None:
    """The log may leave out either; who counts decisions needs both."""
    text = json.dumps({name: value for name, value in WHOLE.items() if name != missing})
    assert read_line(text.encode()) is None
    assert isinstance(line_in(text), LogLine)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (LATEST - 1, LATEST - 1),
        ("9999-12-31T23:59:59Z", LATEST - 1),
        *((value, None) for value in (LATEST, 2**38 - 1, "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+14:00")),
    ],
)
def test_no_time_is_later_than_a_calendar_has(value: object, expected: float | None) -> None:
    assert seconds(value) == expected
