"""Decisions as lines of a terminal, and which of them are shown when somebody follows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from extauthz.cli import decisions, main, record
from extauthz.cli.decision_lines import decision_line
from extauthz.cli.decisions import MOST, Shown
from extauthz.cli.terminal import Styled, printable
from extauthz.errors import LiveError
from extauthz.tools import live
from extauthz.tools.live import OpsListener, RecentDecisions, RecordedRequests, ops_listener
from extauthz.tools.log_lines import read_record

RECORD: dict[str, Any] = {
    "time": 1_800_000_000.25,
    "decision": "deny",
    "reason": "scope_missing",
    "status": 403,
    "decision_id": "0123456789abcdef" * 2,
    "method": "POST",
    "path": "/rest/api/v1/search",
    "route": "POST /rest/api/v1/search",
    "user": "ana@acme.com",
}


def text(record: dict[str, Any], width: int | None) -> str:
    return "".join(part.text if isinstance(part, Styled) else part for part in decision_line(read_record(record), width))


START = "08:00:00Z  scope_missing  POST /rest/"
ID = RECORD["decision_id"]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (50, f"{START}ap…"),
        (80, f"{START}api/v1/search"),
        (100, f"{START}api/v1/search  {ID}"),
        (130, f"{START}api/v1/search  ana@acme.com  {ID}"),
        (160, f"{START}api/v1/search  ana@acme.com  POST /rest/api/v1/search  {ID}"),
    ],
)
def test_a_decision_is_one_line_as_wide_as_the_terminal(width: int, line: str) -> None:
    assert re.sub("  +", "  ", text(RECORD, width)) == line
    assert cell_len(text(RECORD, width)) <= width


def test_without_a_terminal_a_line_is_whole() -> None:
    path = "/a" * 200
    line = text(RECORD | {"path": path}, None)
    assert line == f"08:00:00Z  scope_missing  POST {path}  ana@acme.com  POST /rest/api/v1/search  {ID}"


@pytest.mark.parametrize(("decision", "colour"), [("allow", "green"), ("would_deny", "yellow"), ("deny", "red"), ("\x1b", None)])
def test_what_became_of_a_request_has_a_colour(decision: str, colour: str | None) -> None:
    (styled,) = (part for part in decision_line(read_record(RECORD | {"decision": decision}), 80) if isinstance(part, Styled))
    assert styled.fg == colour


@given(st.dictionaries(st.sampled_from([*RECORD]), st.text() | st.integers() | st.none()), st.integers(50, 200))
def test_nothing_that_a_client_chose_is_obeyed_or_takes_more_than_its_line(changes: dict[str, Any], width: int) -> None:
    line = text(RECORD | changes, width)
    assert printable(line, lines=False) == line
    assert cell_len(line) <= width


def found(*numbers: int, started: float = 1.0, silent: tuple[str, ...] = ()) -> RecentDecisions:
    """An answer with these decisions, newest first."""
    return RecentDecisions(tuple({"decision_id": str(number)} for number in numbers), 2, silent, started=started)


def test_each_decision_is_shown_once_and_in_its_order() -> None:
    shown = Shown()
    seen = [
        [one["decision_id"] for one in shown.fresh(answer)]
        for answer in (found(3, 2, 1), found(4, 3, 2), found(6, 4, 5), found(6, 4, 5), found(7, started=2.0))
    ]
    assert seen == [["1", "2", "3"], ["4"], ["5", "6"], [], ["7"]]
    assert shown.notices == ["The sidecar was restarted: what it decided before is forgotten."]
    assert shown.fresh(found(7, started=2.0)) == []
    assert shown.notices == []


def test_what_went_by_unseen_and_who_does_not_answer_is_said_once() -> None:
    shown = Shown()
    shown.fresh(found(1))
    shown.fresh(found(*range(MOST + 10, 10, -1), silent=("worker 1",)))
    assert shown.notices == [
        "More decisions came than are shown: narrow them down, as with --reason.",
        "Without the decisions of worker 1: it did not answer in time.",
    ]
    shown.fresh(found(MOST + 11, silent=("worker 1",)))
    assert shown.notices == []


def test_what_was_shown_is_remembered_without_growing() -> None:
    shown = Shown()
    for start in range(0, 2 * decisions.REMEMBERED, MOST):
        shown.fresh(found(*range(start + MOST, start, -1)))
    assert len(shown._ids) == decisions.REMEMBERED


# --- following


class Interrupted(KeyboardInterrupt):
    """Somebody has seen enough."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RecentDecisions | str]]:
    """What a sidecar answers, one after the other, or why it does not; then Ctrl-C."""
    made: list[RecentDecisions | str] = []

    class Sidecar:
        def __init__(self, listener: OpsListener) -> None:
            self.listener = listener

        async def decisions(self, query: dict[str, str]) -> RecentDecisions:
            if not made:
                raise Interrupted
            answer = made.pop(0)
            if isinstance(answer, str):
                raise LiveError(answer)
            return replace(answer, decisions=answer.decisions[: int(query["limit"])])

        async def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(live, "LiveSidecar", Sidecar)
    monkeypatch.setattr(decisions, "PAUSE", 0.0)
    yield made
    assert made == []


def test_following_survives_a_restart_and_ends_well(answers: list[RecentDecisions | str]) -> None:
    gone = "127.0.0.1:9090: nothing answers there: is the sidecar running?"
    answers += [found(4, 3, 2, 1), found(5, 4, 3, 2, 1), gone, gone, found(6, started=2.0), found(7, 6, started=2.0)]
    result = CliRunner().invoke(main, ["decisions", "--follow", "--limit", "2", "--ops", "127.0.0.1:9090", "--json"])
    assert result.exit_code == 0
    assert [json.loads(line)["decision_id"] for line in result.stdout.splitlines()] == ["3", "4", "5", "6", "7"]
    assert result.stderr.splitlines() == [
        gone,
        "Waiting until it answers again.",
        "The sidecar answers again.",
        "The sidecar was restarted: what it decided before is forgotten.",
    ]


@pytest.mark.parametrize("flags", [["--follow"], []])
def test_without_a_sidecar_it_ends_with_1(answers: list[RecentDecisions | str], flags: list[str]) -> None:
    answers += ["unix:///run/ops.sock: nothing answers there: is the sidecar running?"]
    result = CliRunner().invoke(main, ["decisions", "--ops", "unix:///run/ops.sock", *flags])
    assert (result.exit_code, result.stderr) == (1, "Error: unix:///run/ops.sock: nothing answers there: is the sidecar running?\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["decisions", "--ops", "nowhere"],
        ["decisions", "--ops", "http://ana:secret@127.0.0.1:9090"],
        ["decisions", "--ops", "127.0.0.1:9090/decisions"],
        ["decisions", "--ops", "127.0.0.1:9090", "--limit", "0"],
        ["decisions", "--ops", "127.0.0.1:9090", "--cert", __file__],
        ["record", "--ops", "127.0.0.1:9090"],
        ["record", "--ops", "127.0.0.1:9090", "--output", "a", "--for", "2h"],
        ["record", "--ops", "127.0.0.1:9090", "--output", "a", "--number", "10001"],
    ],
    ids=" ".join,
)
def test_wrong_flags_end_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("text", "origin", "socket"),
    [
        ("127.0.0.1:9090", "http://127.0.0.1:9090", None),
        (" http://localhost:9090/ ", "http://localhost:9090", None),
        ("[::1]:9090", "http://[::1]:9090", None),
        ("https://ops.acme.com:9090", "https://ops.acme.com:9090", None),
        ("unix:///run/ops.sock", "http://localhost", "/run/ops.sock"),
    ],
)
def test_an_address_is_read_as_people_write_it(text: str, origin: str, socket: str | None) -> None:
    place = ops_listener(text)
    assert (place.origin, str(place.unix_socket) if place.unix_socket else None) == (origin, socket)


# --- recording


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RecordedRequests | BaseException]]:
    """What a sidecar hands out of a recording, one after the other; after the last it has to be ended or over."""
    made: list[RecordedRequests | BaseException] = []
    calls: list[str] = []

    class Sidecar:
        def __init__(self, listener: OpsListener) -> None:
            self.listener = listener

        async def start_recording(self, query: dict[str, str]) -> str:
            if isinstance(made[0], LiveError) and str(made[0]).endswith("403"):
                raise made.pop(0)  # type: ignore[misc]
            assert query == {"seconds": "60", "number": "100", "reason": "allowed"}
            return "r"

        async def next_recorded(self, recording: str) -> RecordedRequests:
            answer = made.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        async def end_recording(self, recording: str) -> None:
            calls.append(recording)

        async def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(live, "LiveSidecar", Sidecar)
    monkeypatch.setattr(record, "PAUSE", 0.0)
    yield made
    assert made == []


def run_record(folder: Path, *flags: str) -> tuple[int, str, str]:
    words = ["record", "--ops", "127.0.0.1:9090", "--reason", "allowed", "--output", str(folder / "out.jsonl"), *flags]
    result = CliRunner().invoke(main, words)
    return result.exit_code, result.stdout, result.stderr


def test_what_is_recorded_is_in_a_file_for_its_owner_alone(
    tmp_path: Path, recorded: list[RecordedRequests | BaseException]
) -> None:
    recorded += [
        RecordedRequests(({"path": "/é"},), 1, is_over=False),
        RecordedRequests((), 0, is_over=False, silent=("worker 1",)),
        RecordedRequests(({"path": "/b"},), 0, is_over=True),
    ]
    code, told, said = run_record(tmp_path, "--json")
    file = tmp_path / "out.jsonl"
    assert (code, json.loads(told)) == (0, {"file": str(file), "requests": 2, "left_out": 1})
    assert said.splitlines() == [
        "Without the requests of worker 1: no answer in time.",
        "1 request left out: they cannot be told without a secret.",
    ]
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"path": "/é"}, {"path": "/b"}]
    assert file.stat().st_mode & 0o777 == 0o600
    code, _, said = run_record(tmp_path)
    assert (code, said) == (1, f"Error: {file}: File exists: name another one\n")


@pytest.mark.parametrize("end", [Interrupted(), LiveError("127.0.0.1:9090: nothing answers there")], ids=["Ctrl-C", "gone"])
def test_what_was_recorded_before_the_end_is_kept(
    tmp_path: Path, recorded: list[RecordedRequests | BaseException], end: BaseException
) -> None:
    recorded += [RecordedRequests(({"path": "/a"},), 0, is_over=False), end]
    code, told, _ = run_record(tmp_path)
    assert (code, told) == (0, f"1 request recorded in {tmp_path / 'out.jsonl'}.\n")
    assert (tmp_path / "out.jsonl").read_text() == '{"path": "/a"}\n'


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (LiveError("127.0.0.1:9090: recording is off, 403"), "127.0.0.1:9090: recording is off, 403"),
        (RecordedRequests((), 0, is_over=True), "nothing was recorded: no request came that is wanted"),
    ],
    ids=["refused", "nothing"],
)
def test_where_nothing_is_recorded_there_is_no_file(
    tmp_path: Path, recorded: list[RecordedRequests | BaseException], answer: RecordedRequests | BaseException, error: str
) -> None:
    recorded += [answer]
    assert run_record(tmp_path) == (1, "", f"Error: {error}\n")
    assert list(tmp_path.iterdir()) == []
