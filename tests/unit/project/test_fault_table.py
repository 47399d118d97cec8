"""The table of faults is read strictly, judged by answers that can fail, and is what docs/reliability.md shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.faults import report, results, trial
from tests.faults.injector import INJECTORS
from tests.faults.load import Answer, Client, NeverAllowed, Request, judged
from tests.faults.table import FAULTS, Kind, LeftOut, Limit, Phase, Row, TableError, read
from tests.support.ports import free_port

ROW: dict[str, Any] = {
    "id": "away",
    "group": "The issuer",
    "what": "The issuer is away.",
    "inject": "away",
    "databases": ["sqlite"],
    "hold": 1,
    "expect": {
        "before_start": {"left_out": "Nobody is there."},
        "idle": {"otherwise": 200},
        "under_load": {"otherwise": 200, "new_oauth": "503 key_set_unavailable or 503 envoy"},
    },
    "recovery": {"promised": 1, "control": "round", "factor": 10},
    "noticed": None,
    "slowest": None,
    "log": None,
    "metric": "extauthz_keys_age_seconds >= 1",
    "readyz": None,
    "in_suite": {"phase": "idle", "kind": "public"},
}


def table(*rows: Mapping[str, Any]) -> tuple[Row, ...]:
    return read(yaml.safe_dump([dict(row) for row in rows]), injectors={"away": None})


def test_a_row_is_read_and_otherwise_stands_for_the_other_kinds() -> None:
    (row,) = table(ROW)
    assert row.phases == [Phase.IDLE, Phase.UNDER_LOAD]
    assert row.cells(Phase.IDLE) == {kind: {"200"} for kind in Kind}
    expected = {"503 key_set_unavailable", "503 envoy"}
    assert row.cells(Phase.UNDER_LOAD) == {kind: {"200"} for kind in Kind} | {Kind.NEW_OAUTH: expected}
    assert isinstance(row.expect[Phase.BEFORE_START], LeftOut)
    assert row.suite_databases == ["sqlite"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"what": "no sentence"}, "away: what:"),
        ({"surprise": 1}, "away: surprise: Extra inputs are not permitted"),
        ({"databases": ["oracle"]}, "away: databases.0:"),
        ({"databases": []}, "away: databases:"),
        ({"hold": 0}, "away: hold:"),
        ({"group": "Weather"}, "away: group:"),
        ({"inject": "nobody"}, "away: inject: nobody makes 'nobody'; there are away"),
        ({"recovery": {"promised": 1}}, "away: recovery.control:"),
        ({"recovery": {"promised": -1, "control": "round", "factor": 1}}, "away: recovery.promised:"),
        ({"metric": "extauthz_keys is large"}, "away: metric: Value error, 'extauthz_keys is large' is no condition"),
        ({"metric": "extauthz_nothing grows"}, "away: metric: Value error, there is no metric extauthz_nothing"),
        ({"expect": {**ROW["expect"], "idle": {"otherwise": 201}}}, "away: expect.idle"),
        ({"expect": {**ROW["expect"], "idle": {"otherwise": "503 tired"}}}, "'503 tired' is no outcome"),
        ({"expect": {**ROW["expect"], "idle": {"otherwise": 200, "new": 200}}}, "away: expect.idle"),
        (
            {"expect": {**ROW["expect"], "idle": {"public": 200}}},
            "expect.idle: known_oauth, known_token, new_oauth, new_token missing",
        ),
        ({"expect": {"idle": {"otherwise": 200}}}, "expect.before_start: missing; say why with left_out"),
        ({"in_suite": {"phase": "before_start", "kind": "public"}}, "in_suite.phase: before_start is left out"),
        ({"in_suite": ROW["in_suite"] | {"databases": ["postgresql"]}}, "in_suite.databases: the row has no postgresql"),
        *[({key: ...}, f"away: {key}: Field required") for key in ROW if key not in ("id", "expect")],
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else None,
)
def test_what_is_not_understood_is_an_error_that_names_row_and_cell(change: Mapping[str, Any], error: str) -> None:
    with pytest.raises(TableError) as caught:
        table({key: value for key, value in (ROW | change).items() if value is not ...})
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"), [("a: [", "no YAML"), ("{}", "a list of rows"), ("[]", "a list of rows"), ("[1]", "1: ")]
)
def test_what_is_no_table_is_an_error(text: str, error: str) -> None:
    with pytest.raises(TableError, match=error):
        read(text, injectors={})


def test_rows_with_one_name_and_injectors_without_a_row_are_errors() -> None:
    with pytest.raises(TableError, match="away: id: stands 2 times"):
        table(ROW, ROW)
    with pytest.raises(TableError, match="idle: an injector without a row"):
        read(yaml.safe_dump([ROW]), injectors={"away": None, "idle": None})


def test_the_table_holds_every_injector() -> None:
    rows = read(FAULTS.read_text(encoding="utf-8"), injectors=INJECTORS)
    assert {row.inject for row in rows} == set(INJECTORS)


def test_a_limit_grows_with_its_control() -> None:
    limit = Limit(promised=1, control="start", factor=3)
    assert limit.seconds(round_=100, start=2) == 7


# --- how answers are judged


def echoed(user: str | None) -> str:
    return json.dumps({"upstream": "reached", "headers": {} if user is None else {"x-extauthz-user": user}})


@pytest.mark.parametrize(
    ("user", "status", "text", "outcome"),
    [
        ("ana@acme.com", 200, echoed("ana@acme.com"), "200"),
        ("", 200, echoed(None), "200"),
        (None, 401, '{"reason": "token_invalid"}', "401 token_invalid"),
        ("ana@acme.com", 503, '{"reason": "store_unavailable"}', "503 store_unavailable"),
        ("ana@acme.com", 503, "upstream connect error", "503 envoy"),
        ("ana@acme.com", 503, '{"reason": "made_up"}', "503 envoy"),
        ("ana@acme.com", 503, "[1]", "503 envoy"),
    ],
)
def test_an_answer_is_named(user: str | None, status: int, text: str, outcome: str) -> None:
    assert judged(Request("POST /chat", (), user), status, text) == outcome


@pytest.mark.parametrize(
    ("user", "status", "text"),
    [
        ("ana@acme.com", 200, echoed("bob@acme.com")),
        ("ana@acme.com", 200, echoed(None)),
        ("", 200, echoed("ceo@acme.com")),
        (None, 200, echoed("ana@acme.com")),
        (None, 200, echoed(None)),
        (None, 200, "{}"),
        ("ana@acme.com", 200, ""),
        ("ana@acme.com", 204, ""),
        ("ana@acme.com", 302, ""),
        ("ana@acme.com", 500, echoed("ana@acme.com")),
    ],
)
def test_what_should_never_be_ends_everything(user: str | None, status: int, text: str) -> None:
    with pytest.raises(NeverAllowed):
        judged(Request("POST /chat", (), user), status, text)


def test_nobody_who_answers_is_an_outcome() -> None:
    assert Client(free_port()).ask(Request("GET /", (), "")).outcome == "no answer"


# --- how a trial is compared


def compared(**answers: list[tuple[float, float, str]]) -> list[str]:
    """Return the errors of answers to kinds, each with begin and end; the fault is in force from 10 to 20."""
    (row,) = table(ROW)
    found = trial.Trial(row, "sqlite", Phase.UNDER_LOAD)
    trial.compare(found, {Kind(kind): [Answer(*one) for one in listed] for kind, listed in answers.items()}, 10.0, 20.0)
    return found.errors


def test_what_was_expected_is_no_error() -> None:
    assert compared(public=[(11, 12, "200")], new_oauth=[(11, 12, "503 key_set_unavailable"), (13, 14, "503 envoy")]) == []


def test_another_answer_while_the_fault_is_in_force_is_an_error() -> None:
    errors = compared(public=[(11, 12, "200"), (12, 13, "503 envoy")], new_oauth=[(11, 12, "200")])
    assert errors == ["public: 503 envoy instead of 200", "new_oauth: 200 instead of 503 envoy or 503 key_set_unavailable"]


@pytest.mark.parametrize("moment", [(8, 9), (9, 11), (19, 21), (21, 22)])
def test_an_answer_around_the_fault_is_good_or_one_that_the_fault_excuses(moment: tuple[float, float]) -> None:
    during = (11, 12, "503 envoy")
    assert compared(new_oauth=[during, (*moment, "200")]) == []
    assert compared(new_oauth=[during, (*moment, "503 overloaded")]) == ["new_oauth: 503 overloaded around the fault"]
    assert compared(public=[(11, 12, "200"), (*moment, "503 envoy")]) == ["public: 503 envoy around the fault"]


def test_no_answer_at_all_shows_nothing() -> None:
    assert compared(public=[(8, 9, "200")]) == ["public: nothing was answered while the fault was in force"]


# --- the page


def measured(row: Row, **changes: Any) -> dict[str, Any]:
    """Return results of every trial of a row, as `make faults` writes them."""
    found = trial.Trial(row, "sqlite", Phase.IDLE, recovery=0.25, limit=1.5, slowest=0.12)
    one = results.entry(found) | {"seen": {kind.value: {"200": 7} for kind in Kind}} | changes
    return {"measured": "today", "trials": {f"{row.id}/sqlite/{phase}": one for phase in row.phases}}


def test_the_page_is_what_the_table_says_and_what_was_measured() -> None:
    before = report.PAGE.read_text(encoding="utf-8")
    assert before == report.page(trial.rows(), results.load(), before), "run `make reference`"


def test_a_measurement_stands_beside_its_expectation() -> None:
    (row,) = table(ROW)
    text = report.page((row,), measured(row))
    assert "| 200: 7 of 7 |" in text
    assert "0.25 s, at most 1.50 s (1 s and 10 times the slowest request before the fault)" in text
    assert "2 trials: 2 went as the table says. Measured last: today." in text
    assert "not measured" not in text


def test_an_answer_that_is_another_one_is_shown_with_the_error() -> None:
    (row,) = table(ROW)
    found = measured(row, seen={"public": {"200": 7, "503 envoy": 2}}, errors=["public: 503 envoy instead of 200"])
    text = report.page((row,), found)
    assert "200: 7 of 9, **503 `envoy` 2**" in text
    assert "2 trials: 0 went as the table says" in text
    assert "- [Away](#away), idle, SQLite: public: 503 envoy instead of 200" in text


@pytest.mark.parametrize("change", [{"hold": 2}, {"expect": ROW["expect"] | {"idle": {"otherwise": "503 envoy"}}}])
def test_a_row_that_was_changed_is_not_measured_since(change: Mapping[str, Any]) -> None:
    (row,), (changed,) = table(ROW), table(ROW | change)
    text = report.page((changed,), measured(row))
    assert "- [Away](#away), idle, SQLite: not measured since" in text
    assert "7 of 7" not in text


def test_what_make_test_runs_of_a_row_changes_no_measurement() -> None:
    (row,), (changed,) = table(ROW), table(ROW | {"in_suite": {"phase": "under_load", "kind": "new_token"}})
    assert report.page((changed,), measured(row)) == report.page((row,), measured(row))


def test_what_others_write_behind_the_faults_stays() -> None:
    (row,) = table(ROW)
    text = report.page((row,), measured(row))
    others = "\n## Mutants\n\n98 of 100.\n"
    assert report.page((row,), measured(row), text + others) == text + others
