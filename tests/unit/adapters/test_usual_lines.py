"""The compiled maker of usual lines against the one in Python: whatever it answers is the same, byte for byte."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz.adapters.decision_log import _lines
from extauthz.adapters.decision_log.lines import (
    MAX_LINE,
    MAX_METHOD,
    MAX_REQUEST_ID,
    OF_PYTHON,
    ORDINARY,
    UNVERIFIED,
    Lines,
)
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.telemetry.client_address import MAX_ADDRESS
from extauthz.telemetry.decision_record import RecordField
from tests.support.world import DECISION_ID, NOW
from tests.unit.adapters.test_decision_log import TRACE_ID, TRACEPARENT, request

FOUND = sorted(set(Reason) - UNVERIFIED - OF_PYTHON)
"""Reasons whose line needs nothing of the token, the scopes or the routes."""
REQUEST_ID = "7bca5c86-bf55-432c-b212-8c0f1dc999ec"
USUAL = request("/rest/api/v1/search?a=%20", **{"x-request-id": REQUEST_ID, "traceparent": TRACEPARENT})
OAUTH = Identity(AuthType.OAUTH, "oauth:okta:00u1", "ana@acme.com", frozenset({"S"}), NOW, "0oa1")
ISSUED = Identity(AuthType.GLOBAL, "token:abc", None, frozenset(), NOW, token_id="abc")
NO_EDITS = HeaderEdits((), ())
ALLOWED = Allow(Reason.ALLOWED, "search", NO_EDITS, OAUTH, "ana@acme.com")


class Both:
    """The two makers of the same lines, with the same texts remembered."""

    def __init__(self, fields: Collection[str] = tuple(RecordField), shares: Mapping[Reason, float] | None = None) -> None:
        lines = Lines(fields, shares or {})
        self.in_python: Callable[[float, Request, Decision, float], bytes] = lines._common_line
        self.compiled = _lines.UsualLines(lines._fields, lines._reasons, lines._samples, lines._caller).line

    def make(
        self, decided: Decision, asked: Request = USUAL, *, moment: float = NOW, seconds: float = 12.3e-6
    ) -> tuple[bytes | None, bytes]:
        """Return both lines, the compiled one first; what both need is remembered since the line of a usual request."""
        self.in_python(NOW, USUAL, decided, 0.0)
        expected = self.in_python(moment, asked, decided, seconds)
        return self.compiled(moment, asked, decided, seconds), expected


def is_plain(*texts: str) -> bool:
    return all(re.fullmatch(r"[ !#-\[\]-~]*", text) for text in texts)


PLAIN = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\%#?'), max_size=40)
TEXTS = (
    PLAIN
    | st.text(max_size=8)
    | st.integers(0, 600).map("x".__mul__)
    | st.sampled_from(["/a?b=%", "/%41", "/a#b", "a b", '"', "\x7f"])
)
IDENTITIES = st.none() | st.builds(
    Identity,
    st.sampled_from(AuthType),
    st.text(max_size=20),
    st.none(),
    st.just(frozenset[str]()),
    st.just(NOW),
    st.none() | st.text(max_size=20),
    st.none() | PLAIN,
)
DECISIONS = st.builds(
    lambda kind, reason, route, identity, user: (
        Deny(reason, route, identity, user) if kind is Deny else kind(reason, route, NO_EDITS, identity, user)
    ),
    st.sampled_from([Allow, Deny, WouldDeny]),
    st.sampled_from(Reason),
    st.none() | PLAIN,
    IDENTITIES,
    st.none() | st.text(max_size=20),
)
TRACEPARENTS = st.sampled_from(["", TRACEPARENT]) | st.builds(
    lambda at, character: TRACEPARENT[:at] + character + TRACEPARENT[at + 1 :],
    st.integers(0, len(TRACEPARENT)),
    st.sampled_from("0f1gFG-"),
)


@settings(deadline=None, max_examples=200)
@given(
    texts=st.lists(PLAIN, min_size=4, max_size=4) | st.lists(TEXTS, min_size=4, max_size=4),
    ours=st.sampled_from(["", TRACEPARENT]),
    theirs=TRACEPARENTS,
    decided=DECISIONS,
    fields=st.sampled_from([tuple(RecordField)]) | st.sets(st.sampled_from(RecordField)),
    share=st.sampled_from([1.0, 0.01]),
)
def test_whatever_is_answered_is_the_line_of_python(
    texts: list[str], ours: str, theirs: str, decided: Decision, fields: Collection[str], share: float
) -> None:
    path, method, request_id, source = texts
    headers = {"x-request-id": request_id, "traceparent": theirs}
    asked = Request(method, path, "h", headers, raw=True, decision_id=DECISION_ID, source=source, traceparent=ours)
    line, expected = Both(fields, {reason: share for reason in Reason if share < 1}).make(decided, asked)
    assert line == (expected if line is not None else None)
    written = path.partition("?")[0]
    is_short = len(written) + len(request_id) <= ORDINARY - len(TRACEPARENT) and len(request_id) <= MAX_REQUEST_ID
    is_usual = (
        is_short
        and len(method) <= MAX_METHOD
        and len(source) <= MAX_ADDRESS
        and is_plain(written, method, request_id, source)
        and not set(written) & set("%#")
        and " " not in request_id
        and (ours or theirs) in ("", TRACEPARENT)
        and decided.reason not in UNVERIFIED | OF_PYTHON
        and expected != b"{}\n"
    )
    assert (line is not None) >= is_usual


@settings(deadline=None, max_examples=300)
@given(moment=st.floats() | st.floats(0, 2**41) | st.integers(0, 2**45).map(lambda sixteenth: sixteenth / 16))
@example(moment=1_760_000_000.0625)
@example(moment=1_760_000_000.1875)
@example(moment=1_759_999_999.9995)
@example(moment=1_759_999_999.9996)
@example(moment=127.9999)
@example(moment=128)
@example(moment=2**40)
@example(moment=math.nextafter(2**40, 0))
def test_every_moment_is_rounded_alike(moment: float) -> None:
    line, expected = Both(["time", "reason"]).make(ALLOWED, moment=moment)
    assert line == (expected if 128 <= moment < 2**40 else None)


@settings(deadline=None, max_examples=300)
@given(seconds=st.floats() | st.floats(0, 10) | st.integers(0, 2**30).map(lambda half: (half + 0.5) / 1e6))
@example(seconds=0)
@example(seconds=0.5e-6)
@example(seconds=1.5e-6)
@example(seconds=2.5e-6)
@example(seconds=-0.0)
@example(seconds=math.nan)
@example(seconds=math.inf)
@example(seconds=-1e-6)
def test_every_duration_is_rounded_alike(seconds: float) -> None:
    both = Both(["microseconds", "reason"])
    both.make(ALLOWED)
    line = both.compiled(NOW, USUAL, ALLOWED, seconds)
    assert line == (both.in_python(NOW, USUAL, ALLOWED, seconds) if 0 <= seconds * 1e6 < 2**40 else None)


def with_headers(asked: Request, headers: Mapping[str, str]) -> Request:
    return dataclasses.replace(asked, headers=headers)


USUAL_REQUESTS = {
    "as Envoy sends it": USUAL,
    "no header": request(),
    "empty headers": request(**{"x-request-id": "", "traceparent": ""}),
    "traced here": dataclasses.replace(USUAL, traceparent=TRACEPARENT, headers={"traceparent": "what else"}),
    "a query that would be escaped": request('/a?"\\\x7f%#'),
    "a query alone": request("?a"),
    "nothing": Request("", "", "", {}, raw=False, decision_id="0" * 32),
    "IPv6": dataclasses.replace(USUAL, source="2001:db8::1"),
    "the longest path": request("/" + "p" * (ORDINARY - 1)),
    "the longest of each": dataclasses.replace(
        request("/", "M" * MAX_METHOD, **{"x-request-id": "i" * MAX_REQUEST_ID}), source="a" * MAX_ADDRESS
    ),
    "the first and the last": dataclasses.replace(request("/ ~", "! ~", **{"x-request-id": "!~"}), source=" ~"),
}
UNUSUAL_REQUESTS = {
    **{
        f"{name} with {character!a}": dataclasses.replace(USUAL, **{name: f"/a{character}b"})
        for name in ("method", "path", "source")
        for character in '"\\\x7f\x1f\n\x00\xe9\u20ac\U0001f600'
    },
    **{
        f"request id with {character!a}": request(**{"x-request-id": f"a{character}"})
        for character in ' "\\\x7f\x1f\n\x00\xe9\u20ac'
    },
    **{f"path with {character}": request(f"/a{character}b") for character in "%#"},
    **{
        f"traceparent {text!a}": request(traceparent=text)
        for text in (
            TRACEPARENT.upper(),
            f"01{TRACEPARENT[2:]}",
            f"{TRACEPARENT}-",
            TRACEPARENT[:-1],
            f"00-{'0' * 32}-b7ad6b7169203331-01",
            f"00-{TRACE_ID}-{'0' * 16}-01",
            f"00-{TRACE_ID}-b7ad6b7169203331-0g",
            *(f"{TRACEPARENT[:at]}_{TRACEPARENT[at + 1 :]}" for at in (0, 1, 2, 3, 34, 35, 36, 51, 52, 53, 54)),
            "\xe9",
        )
    },
    "a long path": request("/" + "p" * ORDINARY),
    "a path that is long with the rest": request("/" + "p" * (ORDINARY - 36), **{"x-request-id": REQUEST_ID}),
    "a long method": request(method="M" * (MAX_METHOD + 1)),
    "a long request id": request(**{"x-request-id": "i" * (MAX_REQUEST_ID + 1)}),
    "a long address": dataclasses.replace(USUAL, source="a" * (MAX_ADDRESS + 1)),
    "headers that are no dictionary": with_headers(USUAL, MappingProxyType({"x-request-id": "a"})),
    "a decision id that is none": dataclasses.replace(USUAL, decision_id='"'),
    "a decision id that is no text": dataclasses.replace(USUAL, decision_id=7),
    "a text that is more than one": dataclasses.replace(USUAL, method=AuthType.OAUTH),
}


@pytest.mark.parametrize("name", USUAL_REQUESTS)
def test_usual_requests_are_answered(name: str) -> None:
    line, expected = Both().make(ALLOWED, USUAL_REQUESTS[name])
    assert line == expected


@pytest.mark.parametrize("name", UNUSUAL_REQUESTS)
def test_unusual_requests_are_left_to_python(name: str) -> None:
    line, expected = Both().make(ALLOWED, UNUSUAL_REQUESTS[name])
    assert line is None
    assert expected.endswith(b"}\n")


@pytest.mark.parametrize(
    "decided",
    [
        *(Deny(reason) for reason in FOUND),
        Allow(Reason.ALLOWED, "r", NO_EDITS, ISSUED, "zo\xeb@acme.com"),
        Allow(Reason.PUBLIC, 'a "route"', NO_EDITS),
        WouldDeny(Reason.ACT_AS_MISSING, None, NO_EDITS, ISSUED),
        Deny(Reason.ACT_AS_FORBIDDEN, "r", OAUTH, "\u99ac\U0001f600\x7f"),
    ],
    ids=lambda decided: f"{decided.outcome} {decided.reason}",
)
def test_decisions_that_need_nothing_of_the_token_are_answered(decided: Decision) -> None:
    for shares in ({}, {decided.reason: 0.25}):
        line, expected = Both(shares=shares).make(decided)
        assert line == expected
        assert (b'"sample": 0.25' in expected) is bool(shares)


def test_refused_tokens_are_left_to_python() -> None:
    both = Both()
    lines = {reason: both.make(Deny(reason, "r", OAUTH))[0] for reason in UNVERIFIED}
    assert len(lines) > 20
    assert set(lines.values()) == {None}


def test_every_set_of_one_field_is_written_alike() -> None:
    """With none of a reason's fields too, and with no field at all."""
    for field in RecordField:
        for fields in ([field], [field, "reason"], []):
            line, expected = Both(fields, {Reason.ALLOWED: 0.5}).make(ALLOWED)
            assert line == (expected if expected != b"{}\n" else None)


def test_a_line_is_as_long_as_may_be_and_no_longer() -> None:
    """Every length around the limit, in which each of the last pieces is the first that does not fit."""
    both, lines = Both(shares={Reason.ALLOWED: 0.5}), Lines(RecordField, {Reason.ALLOWED: 0.5})
    short = len(both.make(dataclasses.replace(ALLOWED, route=""))[1])
    for size in range(MAX_LINE - 200, MAX_LINE + 200):
        decided = dataclasses.replace(ALLOWED, route="r" * (size - short))
        line, expected = both.make(decided)
        assert (line and len(line)) == (size if size <= MAX_LINE else None)
        assert line == (expected if size <= MAX_LINE else None)
        assert lines.line(NOW, USUAL, decided, 12.3e-6) == expected
    huge = Allow(Reason.ALLOWED, "r" * 100_000, NO_EDITS, OAUTH, "\x7f" * 512)
    assert both.make(huge)[0] is None


def test_what_raises_raises_in_both() -> None:
    """The log counts a line that could not be made."""
    both = Both()
    both.make(ALLOWED)
    broken = dataclasses.replace(ALLOWED, identity="no identity")
    for make in (both.in_python, both.compiled):
        with pytest.raises(AttributeError, match="auth_type"):
            make(NOW, USUAL, broken, 0.0)


# --- which one makes the lines


def test_the_second_line_of_a_reason_is_made_by_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a fault there would only show as time that every check takes."""
    monkeypatch.delenv("EXTAUTHZ_PURE", raising=False)
    lines = Lines(RecordField, {Reason.ALLOWED: 0.5})
    first = lines.line(NOW, USUAL, ALLOWED, 12.3e-6)
    monkeypatch.setattr(lines, "_common_line", None)
    assert lines.line(NOW, USUAL, ALLOWED, 12.3e-6) == first


def test_a_switch_leaves_the_compiled_code_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTAUTHZ_PURE", "1")
    is_made_in_python(monkeypatch)


def test_without_the_compiled_module_lines_are_made_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXTAUTHZ_PURE", raising=False)
    monkeypatch.setitem(sys.modules, "extauthz.adapters.decision_log._lines", None)
    is_made_in_python(monkeypatch)


def is_made_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines(RecordField, {})
    made = [lines.line(NOW, USUAL, ALLOWED, 12.3e-6) for _ in range(2)]
    monkeypatch.setattr(lines, "_common_line", lambda *_: b"")
    assert made == [Both().make(ALLOWED)[1]] * 2
    assert lines.line(NOW, USUAL, ALLOWED, 12.3e-6) == b""
