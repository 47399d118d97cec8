"""What can be reached of a configuration, what a suite reaches of it, and that a written suite passes for any configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from extauthz.config.loader import Configuration, load
from extauthz.core.model import Reason
from extauthz.errors import ConfigurationError
from extauthz.tools.callers import VERIFYING
from extauthz.tools.suite_cases import Suite, read_suites
from extauthz.tools.suite_coverage import FIXED, SuiteCoverage, coverage_of
from extauthz.tools.suite_runs import Result, Runner
from extauthz.tools.suite_writing import suite_of
from tests.support.documents import CONFIG, EXAMPLE
from tests.support.world import NOW, SETTINGS

SCOPES = ("A", "B", "read:c")
STRANGE = "a ${name}, # of 'two'\u2028lines \U0001f600"


def configured(folder: Path, lines: list[dict[str, Any]], **changes: Any) -> Configuration:
    """Read a configuration with these lines in its route file; `head` in changes are the other keys of that file."""
    head = changes.pop("head", {})
    (folder / "routes.yaml").write_text(yaml.safe_dump({**head, "routes": lines}))
    merged = {**SETTINGS, "scopes": list(SCOPES), **changes}
    (folder / "extauthz.yaml").write_text(yaml.safe_dump({name: value for name, value in merged.items() if value is not None}))
    return load(folder / "extauthz.yaml")


def run(text: str, configuration: Configuration) -> list[Result]:
    file = configuration.file.parent / "suite.yaml"
    file.write_text(text, encoding="utf-8")
    (suite,) = read_suites([file], configuration)
    return list(Runner(configuration, NOW).run(suite.cases))


def covered(text: str, configuration: Configuration) -> SuiteCoverage:
    decisions = [result.decision for result in run(text, configuration)]
    return coverage_of([decision for decision in decisions if decision], configuration, NOW)


@st.composite
def lines_of(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Lines over so few words that patterns overlap and hide each other."""
    lines: list[dict[str, Any]] = []
    taken: set[tuple[str, str]] = set()
    for number in range(draw(st.integers(0, 6))):
        pieces = draw(st.lists(st.sampled_from(("a", "B", "{x}", "é b")), max_size=3))
        pattern = "/" + "/".join([*pieces, *draw(st.sampled_from(([""], ["**"], [])))])
        methods = draw(st.sampled_from(("*", "GET", "GET|HEAD", "PURGE", "OPTIONS|POST")))
        if {(pattern.lower(), method) for method in methods.split("|")} & taken:
            continue
        taken |= {(pattern.lower(), method) for method in methods.split("|")}
        scopes = draw(st.lists(st.sampled_from(SCOPES), min_size=1, unique=True))
        kind = draw(st.sampled_from(("scope", "all_of", "any_of", "public", "deny")))
        line: dict[str, Any] = {"match": f"{methods} {pattern}", kind: {"scope": scopes[0]}.get(kind, scopes)}
        if kind in ("public", "deny"):
            line[kind] = True
        else:
            kinds = st.lists(st.sampled_from(("oauth", "global", "user", "anonymous")), min_size=1, unique=True)
            line |= draw(st.sampled_from(({}, {"anonymous": True}))) | draw(
                st.one_of(st.just({}), kinds.map(lambda some: {"accept": some}))
            )
        if kind != "deny":
            line |= draw(st.sampled_from(({}, {}, {"mode": "monitor"})))
        lines.append(line | draw(st.sampled_from(({}, {"name": f"{STRANGE} {number}"}))))
    return lines


CHANGES = st.fixed_dictionaries(
    {"head": st.sampled_from(({}, {"hosts": ["api.acme.com"]}, {"upstream": {"case": "insensitive"}}, {"preflight": True}))},
    optional={
        "scopes": st.just(["A", "B", "read:c"]),
        "act_as": st.sampled_from(
            ({}, {"allow": ["*@*"]}, {"allow": ["*@*.acme.com"], "deny": ["ana@*"]}, {"allow": ["bob@acme.com"]})
        ),
        "auth_type": st.just("by_token"),
        "mode": st.just("monitor"),
        "identity": st.sampled_from(({"prefix": "x-a-"}, {"keep": ["authorization"]})),
        "oauth": st.sampled_from((None, {**SETTINGS["oauth"], "scopes": ["A"]}, {**SETTINGS["oauth"], "scopes": "claim"})),
        "tokens": st.none(),
    },
)


@settings(max_examples=40, deadline=None)
@given(lines_of(), CHANGES)
def test_a_written_suite_passes_as_it_is_and_reaches_every_route(lines: list[dict[str, Any]], changes: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        try:
            configuration = configured(Path(folder), lines, **changes)
        except ConfigurationError:
            # Two lines that are one for this upstream, or nothing that verifies a token: hypothesis says so if these are many.
            reject()
        text = suite_of(configuration, NOW)
        results = run(text, configuration)
        assert [(result.case.place, result.differences) for result in results if not result.passed] == []
        coverage = covered(text, configuration)
        assert coverage.reached["routes"] == coverage.reachable["routes"]
        hidden = sum(missed.kind == "route" for missed in coverage.unreachable)
        assert coverage.reachable["routes"] + hidden == len(configuration.route_places)


def test_each_route_is_asked_with_the_least_scopes_without_them_and_by_nobody(tmp_path: Path) -> None:
    lines = [
        {"match": "GET /a", "scope": "A"},
        {"match": "GET /b", "all_of": ["A", "B"]},
        {"match": "GET /c", "any_of": ["A", "B"], "accept": ["global"]},
        {"match": "GET /d", "any_of": list(SCOPES)},
    ]
    results = run(suite_of(configured(tmp_path, lines), NOW), configured(tmp_path, lines))
    found = [(result.case.call.caller.description, result.decision and result.decision.reason.value) for result in results]
    assert found == [
        ("USER user=ana@acme.com scopes=A", "allowed"),
        ("USER user=ana@acme.com scopes=B,read:c", "scope_missing"),
        ("nobody", "credential_missing"),
        ("USER user=ana@acme.com scopes=A,B", "allowed"),
        ("USER user=ana@acme.com scopes=A,read:c", "scope_missing"),
        ("nobody", "credential_missing"),
        ("GLOBAL scopes=A", "allowed"),
        ("GLOBAL scopes=read:c", "scope_missing"),
        ("nobody", "credential_missing"),
        ("USER user=ana@acme.com scopes=A", "allowed"),
        ("nobody", "credential_missing"),
        ("nobody", "route_unknown"),
    ]


def test_a_route_that_nobody_gets_through_is_written_as_it_is(tmp_path: Path) -> None:
    configuration = configured(tmp_path, [{"match": "GET /a", "scope": "A", "accept": ["global"]}], act_as={})
    results = run(suite_of(configuration, NOW), configuration)
    assert all(result.passed for result in results)
    assert "allowed" not in {result.decision and result.decision.reason.value for result in results}


EVERYWHERE = [
    {"match": "GET /a", "scope": "A", "accept": ["user"]},
    {"match": "GET /b", "scope": "B"},
    {"match": "GET /public", "public": True},
    {"match": "* /deny/**", "deny": True},
]


def reachable(configuration: Configuration) -> set[str]:
    found = coverage_of([], configuration, NOW)
    return {missed.name for missed in found.missed if missed.kind == "reason"}


def test_every_reason_that_some_configuration_comes_to_is_reached_in_one(tmp_path: Path) -> None:
    whole = configured(tmp_path, EVERYWHERE, head={"hosts": ["api.acme.com"]})
    without = configured(tmp_path, EVERYWHERE, oauth=None)
    found = reachable(whole) | reachable(without)
    assert found == {reason.value for reason in Reason if reason not in (FIXED | VERIFYING) or reason is Reason.TOKEN_EXPIRED}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head": {}}, "host_malformed"),
        ({"oauth": SETTINGS["oauth"]}, "credential_disabled"),
        ({"auth_type": "by_token"}, "auth_type_unknown"),
        ({"tokens": None, "oauth": SETTINGS["oauth"]}, "act_as_missing"),
    ],
)
def test_what_cannot_be_reached_is_said(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    changes = {"oauth": None, "head": {"hosts": ["api.acme.com"]}} | changes
    configuration = configured(tmp_path, EVERYWHERE, **changes)
    assert reason in {missed.name for missed in coverage_of([], configuration, NOW).unreachable}
    assert reason not in reachable(configuration)


def test_what_no_case_reaches_is_named_with_its_place_and_an_example(tmp_path: Path) -> None:
    lines = [*EVERYWHERE[2:], {"match": "GET /b", "any_of": ["A", "B"]}, {"match": "GET /a/{x}/**", "scope": "B"}]
    configuration = configured(tmp_path, lines)
    case = "cases: [{request: GET /b, who: USER user=ana@acme.com scopes=B, expect: allow}]\n"
    coverage = covered(case, configuration)
    assert dict(coverage.reached) == {"routes": 1, "scopes": 1, "reasons": 1}
    assert (coverage.reachable["routes"], coverage.reachable["scopes"]) == (4, 2)
    missed = {(each.kind, each.name): each for each in coverage.missed}
    assert missed["route", "GET /a/{x}/**"].example == "GET /a/example0/example0"
    assert str(missed["route", "GET /public"].place).startswith(str(tmp_path / "routes.yaml:"))
    assert ("scope", "A") in missed
    assert [each.name for each in coverage.unreachable if each.kind == "scope"] == ["read:c"]
    total = sum(coverage.reachable.values())
    assert coverage.percent == pytest.approx(300 / total)


def test_every_missed_reason_has_an_example(tmp_path: Path) -> None:
    configuration = configured(tmp_path, EVERYWHERE, head={"hosts": ["api.acme.com"]})
    examples = {each.name: each.example for each in coverage_of([], configuration, NOW).missed if each.kind == "reason"}
    assert len(examples) == 24
    assert None not in examples.values()
    assert examples["act_as_missing"] == "GET /b as GLOBAL scopes=B"
    assert examples["host_malformed"] == "GET /a as nobody at api.acme.com,api.acme.com"


def shipped() -> Iterator[Path]:
    yield from sorted((CONFIG / "tests").glob("*.yaml"))


def test_the_shipped_suite_passes_and_reaches_everything() -> None:
    configuration = load(EXAMPLE)
    suites: list[Suite] = read_suites([*shipped()], configuration)
    results = [result for suite in suites for result in Runner(configuration, NOW).run(suite.cases)]
    assert [(result.case.place, result.differences, result.error) for result in results if not result.passed] == []
    coverage = coverage_of([result.decision for result in results if result.decision], configuration, NOW)
    assert coverage.missed == ()
    assert coverage.percent == 100
    assert {each.name for each in coverage.unreachable} == {
        "public",
        "host_malformed",
        "credential_disabled",
        "credential_not_accepted",
    }
