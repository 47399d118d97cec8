"""What another configuration makes of lines that were written under an earlier one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauthz.adapters.decision_log.lines import Lines
from extauthz.config.loader import Configuration
from extauthz.core.model import AuthType, Reason
from extauthz.telemetry.decision_record import RecordField
from extauthz.tools import replay as replay_module
from extauthz.tools.log_lines import LogLine, Undecidable, read_line
from extauthz.tools.masking import HIDDEN, Mask
from extauthz.tools.replay import Replay, ReplayOutcome
from extauthz.tools.replay_report import EXAMPLES, ReplayDifference, ReplayReport, difference_of
from tests.support import vectors
from tests.support.world import DECISION_ID, NOW, World, check_request

ROUTES: list[Any] = [
    {"match": "POST /search", "scope": "SEARCH", "name": "search"},
    {"match": "GET /chat/{id}", "scope": "CHAT", "name": "chat", "anonymous": True},
    {"match": "GET /open", "public": True, "name": "open"},
    {"match": "GET /closed", "deny": True, "name": "closed"},
]


def configured(folder: Path, routes: Any = None, **changes: Any) -> Configuration:
    """Return a configuration: that of every test, or one that differs in its routes or in sections."""
    return vectors.build(folder, {"routes": ROUTES if routes is None else routes, **changes}, {}).world.configuration


def replay_of(configuration: Configuration, **more: Any) -> Replay:
    return Replay(configuration.policy, configuration.providers, configuration.settings.scopes, **more)


def line(reason: str = "allowed", route: str | None = "search", **more: Any) -> bytes:
    decision = "allow" if reason in ("allowed", "public") else "deny"
    caller = {"auth_type": "GLOBAL", "actor": "token:abc", "token_id": "abc", "user": "ana@acme.com"}
    given = {"decision": decision, "reason": reason, "route": route, "method": "POST", "path": "/search", "time": NOW}
    known = caller if reason in ("allowed", "scope_missing") else {}
    data = given | {"decision_id": DECISION_ID} | known | more
    return json.dumps({name: value for name, value in data.items() if value is not None}).encode()


def told(replay: Replay, text: bytes) -> str:
    """Return what a line comes to, in words."""
    read = read_line(text)
    assert read is not None
    found = replay.decided(read)
    return found if isinstance(found, Undecidable) else " ".join(filter(None, found))


OAUTH = {"auth_type": "OAUTH", "actor": "oauth:okta:7", "token_id": None, "user": "ana@acme.com"}
CHAT = {"method": "GET", "path": "/chat/7"}
# What is new, a line, and what it comes to.
CASES: dict[str, tuple[dict[str, Any], bytes, str]] = {
    "the scopes of a token are not in its line": ({}, line(), "scopes"),
    "an access token holds every scope": ({}, line(**OAUTH), "allow allowed search"),
    "an access token of a provider that is gone": ({}, line(**OAUTH | {"actor": "oauth:google:7"}), "provider"),
    "a provider that gives other scopes now": ({"oauth": {"scopes": ["CHAT"]}}, line(**OAUTH), "deny scope_missing search"),
    "the line tells what the token holds": (
        {"routes": [{"match": "POST /search", "scope": "CHAT"}]},
        line("scope_missing", held_scopes="CHAT FEED", required_scopes="SEARCH"),
        "allow allowed POST /search",
    ),
    "and that it still holds too little": ({}, line("scope_missing", held_scopes="CHAT"), "deny scope_missing search"),
    "a token without scopes": ({}, line("scope_missing", held_scopes=""), "deny scope_missing search"),
    "a list that may be cut": ({}, line("scope_missing", held_scopes="A" * 63 + " " + "B" * 400), "scopes"),
    "no scopes are asked for any more": (
        {"routes": [{"match": "POST /search", "public": True}]},
        line(),
        "allow public POST /search",
    ),
    "a route that is gone": ({"routes": ["GET /other"]}, line(), "deny route_unknown"),
    "a method that is gone": ({"routes": ["GET /search"]}, line(), "deny method_not_allowed"),
    "a route that was opened": (
        {"routes": ["GET /closed"]},
        line("route_denied", "closed", method="GET", path="/closed"),
        "allow public GET /closed",
    ),
    "a public route that needs a token now": (
        {"routes": [{"match": "GET /open", "scope": "SEARCH"}]},
        line("public", "open", method="GET", path="/open"),
        "credential_not_read",
    ),
    "a kind that is switched off": ({"oauth": {"enabled": False}}, line(**OAUTH), "deny credential_disabled search"),
    "a kind that is not accepted": (
        {"routes": [{"match": "POST /search", "scope": "SEARCH", "accept": ["user"]}]},
        line(**OAUTH),
        "deny credential_not_accepted POST /search",
    ),
    "a user for whom nobody may act any more": ({"act_as": {"deny": ["ana@acme.com"]}}, line(), "deny act_as_forbidden search"),
    "a user who was refused": ({"act_as": {"allow": ["*@acme.com"]}}, line("act_as_forbidden", auth_type="GLOBAL"), "act_as"),
    "nobody may be acted for": (
        {"act_as": {"allow": []}},
        line("act_as_forbidden", auth_type="GLOBAL"),
        "deny act_as_forbidden search",
    ),
    "a token that was refused stays so": ({}, line("token_revoked"), "deny token_revoked search"),
    "monitor mode lets it through": ({"mode": "monitor"}, line("token_revoked"), "would_deny token_revoked search"),
    "monitor mode had let it through": ({}, line("credential_missing", decision="would_deny"), "deny credential_missing search"),
    "an access token that was never verified": ({}, line("credential_disabled"), "token_not_verified"),
    "the log has no paths": ({}, line(path=None), "request_absent"),
    "a path that was cut": ({}, line("route_unknown", None, path="/" + "a" * 511), "cut"),
    "a line that was cut": ({}, line(**OAUTH | {"user": "é" * 170 + "@acme.com"}), "cut"),
    "the log has no callers": ({}, line(auth_type=None), "caller_absent"),
    "nobody could read the request": ({"routes": ["GET /**"]}, line("path_malformed", None, path="/a"), "deny path_malformed"),
    "a fault of the sidecar": ({}, line("internal", None), "not_by_policy"),
    "a sidecar that was stopping": ({}, line("draining", None), "not_by_policy"),
    "a reason of another version": ({}, line("frobnicated"), "reason_unknown"),
    "the host decides": (
        {"routes": ["GET /x"], "files": {"a.yaml": {"hosts": ["a.acme.com"], "routes": ["GET /open"]}}},
        line("public", "open", method="GET", path="/open"),
        "host",
    ),
    "it decides on the route, not here": (
        {"files": {"a.yaml": {"hosts": ["a.acme.com"], "routes": ["GET /only"]}}},
        line("route_unknown", None, path="/neither"),
        "deny route_unknown",
    ),
    "hosts are not read": ({}, line("host_malformed", None, method="GET", path="/open"), "allow public open"),
    "an anonymous token": ({}, line(**CHAT, route="chat", auth_type="ANONYMOUS", actor="token:abc", user=None), "scopes"),
    "a query that names a method": ({}, line("method_in_query", "open", method="GET", path="/open"), "deny method_in_query open"),
    "an upstream that does not care": (
        {"routes": {"upstream": {"method_override": "none"}, "routes": ["GET /o"]}},
        line("method_in_query", "o", method="GET", path="/o"),
        "allow public GET /o",
    ),
}


@pytest.mark.parametrize("about", CASES)
def test_a_line_under_another_configuration(about: str, tmp_path: Path) -> None:
    changes, text, expected = CASES[about]
    if "oauth" in changes:
        issuer = {"provider": "okta", "issuer": "https://acme.okta.com/oauth2/default", "client_ids": ["c"], "audience": "api"}
        changes = changes | {"oauth": issuer | changes["oauth"]}
    assert told(replay_of(configured(tmp_path, **changes)), text) == expected


def test_every_undecidable_has_a_case() -> None:
    expected = {found for _, _, found in CASES.values()}
    elsewhere = {Undecidable.PREFLIGHT, Undecidable.IDENTITY, Undecidable.CALLER_UNREADABLE}
    assert set(Undecidable) - expected == elsewhere
    assert all(each.hint for each in Undecidable)


def test_the_store_knows_what_a_line_does_not(tmp_path: Path) -> None:
    """In this order: what the line says, then the record of its token."""
    configuration = configured(tmp_path)
    asked: list[str] = []

    def scopes_of(token_id: str) -> frozenset[str] | None:
        asked.append(token_id)
        return frozenset({"CHAT"}) if token_id == "abc" else None

    replay = replay_of(configuration, scopes_of=scopes_of)
    assert told(replay, line()) == "deny scope_missing search"
    assert told(replay, line(token_id="other")) == Undecidable.SCOPES
    assert told(replay, line("scope_missing", held_scopes="SEARCH")) == "allow allowed search"
    assert [told(replay, line()) for _ in range(3)] == ["deny scope_missing search"] * 3
    assert asked == ["abc", "other"], "each token is looked up once, and not where its line tells"


def test_a_host_may_be_named(tmp_path: Path) -> None:
    files = {"a.yaml": {"hosts": ["a.acme.com"], "routes": ["GET /open"]}}
    configuration = configured(tmp_path, ["GET /x"], files=files)
    text = line("public", "open", method="GET", path="/open")
    assert told(replay_of(configuration, host="a.acme.com:443"), text) == "allow public GET /open"
    assert told(replay_of(configuration, host="b.acme.com"), text) == "deny route_unknown"
    assert replay_of(configuration).reads_hosts


def test_a_preflight_is_told_from_other_requests_only_by_headers(tmp_path: Path) -> None:
    routes = {"preflight": True, "routes": [{"match": "GET /p", "scope": "CHAT"}]}
    configuration = configured(tmp_path, files={"p.yaml": routes})
    text = line("method_not_allowed", None, method="OPTIONS", path="/p")
    assert told(replay_of(configuration), text) == Undecidable.PREFLIGHT
    assert (
        told(replay_of(configuration), line("method_not_allowed", None, method="OPTIONS", path="/open"))
        == "deny method_not_allowed"
    )


# --- what is remembered changes nothing

LINES = st.builds(
    line,
    st.sampled_from([reason.value for reason in Reason]),
    st.sampled_from(["search", "chat", None]),
    decision=st.sampled_from(["allow", "deny", "would_deny"]),
    method=st.sampled_from(["GET", "POST", "OPTIONS", None]),
    path=st.sampled_from(["/search", "/chat/1", "/chat/2", "/open", "/closed", "/none", "/a%2Fb", "/chat/é", None]),
    auth_type=st.sampled_from([*(kind.value for kind in AuthType), "other", None]),
    actor=st.sampled_from(["token:abc", "oauth:okta:7", "oauth:okta:" + "é" * 130, "oauth:google:1", None]),
    user=st.sampled_from(["ana@acme.com", "ceo@acme.com", "bob@other.org", "no address", None]),
    client_id=st.sampled_from(["c", "c" * 200, None]),
    held_scopes=st.sampled_from(["CHAT", "SEARCH CHAT", "", None]),
    token_sha256=st.sampled_from(["0a1b2c3d", None]),
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    """A configuration of which every part matters."""
    files = {"a.yaml": {"hosts": ["a.acme.com"], "routes": [{"match": "GET /chat/1", "scope": "CHAT", "name": "hosted"}]}}
    return configured(tmp_path_factory.mktemp("other"), files=files, act_as={"allow": ["*@acme.com"], "deny": ["ceo@acme.com"]})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, min_size=1, max_size=25))
def test_lines_are_decided_alike_in_any_company(other: Configuration, texts: list[bytes]) -> None:
    together = replay_of(other)
    reads = [read for text in texts if (read := read_line(text)) is not None]
    assert [together.decided(read) for read in reads] == [replay_of(other).decided(read) for read in reads]


@given(LINES)
def test_what_is_remembered_is_bounded(other: Configuration, text: bytes) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(replay_module, "MAX_REMEMBERED", 2)
        replay = replay_of(other)
        for number in range(5):
            read = read_line(text)
            if isinstance(read, LogLine):
                read.path = f"/{number}"
                assert replay.decided(read) == replay_of(other).decided(read)
        assert max(len(replay._routes), len(replay._decided)) <= 2


# --- the report


def test_what_differs_is_counted_with_examples(tmp_path: Path) -> None:
    routes = [
        {"match": "POST /search", "scope": "CHAT", "name": "search"},
        "GET /closed",
        {"match": "GET /open", "public": True, "name": "free"},
    ]
    report = ReplayReport(replay_of(configured(tmp_path, routes)))
    held = {"reason": "scope_missing", "held_scopes": "CHAT"}
    for number in range(5):
        report.add(line(**held, path="/search", decision_id=f"{number:032}"))
    report.add(line("route_denied", "closed", method="GET", path="/closed", sample=0.01))
    report.add(line(**OAUTH | {"route": "chat", "method": "GET", "path": "/chat/7"}))
    report.add(line("public", "open", method="GET", path="/open"))
    report.add(line("credential_missing"))
    report.add(line("method_not_allowed", None, method="GET"))
    report.add(line())
    report.add(b"{}")
    report.add(b'{"decision": "allow", "reason": "scope_missing"}')
    assert (report.lines, report.broken, report.sampled) == (11, 2, 1)
    assert (report.decisions, report.same, report.left_open) == (110, 2, 1)
    assert report.differences == {
        ReplayDifference.WIDENED: 105,
        ReplayDifference.NARROWED: 1,
        ReplayDifference.REASON: 0,
        ReplayDifference.ROUTE: 1,
    }
    rows = [(*key, row.count) for key, row in report.ordered_changes()]
    assert rows == [
        ("widened", ("deny", "route_denied", "closed"), ("allow", "public", "GET /closed"), 100),
        ("widened", ("deny", "scope_missing", "search"), ("allow", "allowed", "search"), 5),
        ("narrowed", ("allow", "allowed", "chat"), ("deny", "route_unknown", None), 1),
        ("route", ("allow", "public", "open"), ("allow", "public", "free"), 1),
    ]
    examples = report.ordered_changes()[1][1].examples
    assert [one.decision_id for one in examples] == [f"{number:032}" for number in range(EXAMPLES)]
    assert (examples[0].method, examples[0].path, examples[0].caller, examples[0].time) == ("POST", "/search", "token:abc", NOW)
    assert [(*key, row.count) for key, row in report.ordered_undecidable()] == [("scopes", ("allow", "allowed", "search"), 1)]


OUTCOMES = st.builds(
    ReplayOutcome, st.sampled_from(["allow", "deny", "would_deny"]), st.sampled_from("ab"), st.sampled_from(["r", "s", None])
)


@given(OUTCOMES, OUTCOMES)
def test_a_difference_is_one_of_four_and_has_an_opposite(before: ReplayOutcome, now: ReplayOutcome) -> None:
    opposite = {ReplayDifference.WIDENED: ReplayDifference.NARROWED, ReplayDifference.NARROWED: ReplayDifference.WIDENED}
    found, back = difference_of(before, now), difference_of(now, before)
    if found is not ReplayDifference.ROUTE and back is not ReplayDifference.ROUTE:
        assert back == opposite.get(found, found)  # type: ignore[call-overload]
    assert (found is None) >= (before == now)


def test_only_lines_of_a_time_count(tmp_path: Path) -> None:
    report = ReplayReport(replay_of(configured(tmp_path)), NOW, NOW + 10.0)
    for at in (NOW - 1, NOW, NOW + 9.5, NOW + 10, None):
        report.add(line("credential_missing", time=at))
    assert (report.lines, report.broken) == (2, 1)


def test_rows_are_bounded_and_what_is_given_up_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauthz.tools.replay_report.MAX_ROWS", 5)
    report = ReplayReport(replay_of(configured(tmp_path)))
    for number in range(8):
        report.add(line("credential_missing", route=f"forged {number}"))
    assert (len(report.changed), report.others, report.differences[ReplayDifference.ROUTE]) == (5, 3, 8)


def test_no_example_holds_a_token(tmp_path: Path) -> None:
    world = World(tmp_path, ROUTES)
    token = world.token()
    report = ReplayReport(replay_of(world.configuration), mask=Mask())
    report.add(line("route_unknown", f"/x/{token}", path=f"/{token}/a", user=token, method=token))
    report.add(line(f"{token}", f"/x/{token}", path=f"/{token}/a"))
    shown = repr(report.changed) + repr(report.undecidable)
    assert HIDDEN in shown
    assert token.split("_")[2][:16] not in shown


def test_lines_are_as_the_decision_log_writes_them(tmp_path: Path) -> None:
    """Of a log with few fields, each that is left out is missed where it decides, and nowhere else."""
    world = World(tmp_path, ROUTES)
    replay = replay_of(world.configuration)
    world.check_bytes(check_request("GET", "/open"))
    request, decision = world.recorder.requests[-1], world.recorder.decisions[-1]
    expected = {"path": Undecidable.REQUEST_ABSENT, "method": Undecidable.REQUEST_ABSENT}
    for left_out in RecordField:
        fields = [field for field in RecordField if field is not left_out]
        text = Lines(fields, {}).line(NOW, request, decision, 0.0)
        if left_out in (RecordField.DECISION, RecordField.REASON):
            assert read_line(text) is None
        else:
            read = read_line(text)
            assert read is not None
            assert replay.decided(read) == expected.get(left_out, ReplayOutcome("allow", "public", "open"))
