"""`extauthz monitor-report`: what it counts, what it says, and what it does with logs that are not in order."""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.sinks import File
from extauthz.cli import main
from extauthz.cli.monitor_hints import HINTS, hint
from extauthz.cli.monitor_report import MAX_LINE, STEP, lines
from extauthz.cli.refusals import EVER, MAX_CALLERS, SHOWN_CALLERS, RefusalReport, seconds
from extauthz.core.model import FORWARDED
from extauthz.service import Authorizer
from tests.support.world import DECISION_ID, NOW, MakeWorld, bearer, check_request

DAY = 86_400


def line(decision: str = "would_deny", reason: str = "scope_missing", **more: Any) -> str:
    return json.dumps({"time": NOW, "decision": decision, "reason": reason, "route": "search"} | more)


LOG = [
    line(actor="token:one", time=NOW + 5),
    line(actor="token:one", time=NOW + 9.5),
    line(actor="token:two", client_id="c1"),
    line(reason="credential_missing", time=NOW + 3),
    line(reason="token_signature", token_sha256="0a1b2c3d"),
    line(reason="route_unknown", route=None),
    line("allow", "allowed", actor="token:one", time=NOW - 60),
    line("allow", "public", route="open"),
    line("deny", "route_denied", route="denied", time=NOW + 60),
    line("allow", "allowed", route="chat"),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "decisions.log"
    file.write_text("\n".join(LOG) + "\n", encoding="utf-8")
    return file


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["monitor-report", *map(str, arguments)], input=stdin)


def told(*arguments: object, stdin: str | bytes | None = None) -> dict[str, Any]:
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_refusals_are_counted_by_route_and_reason(log: Path) -> None:
    found = told(log)
    totals = {name: found[name] for name in ("decisions", "allow", "deny", "would_deny", "lines", "broken_lines", "sampled_lines")}
    assert totals == {
        "decisions": 10,
        "allow": 3,
        "deny": 1,
        "would_deny": 6,
        "lines": 10,
        "broken_lines": 0,
        "sampled_lines": 0,
    }
    assert (found["first"], found["last"]) == ("2027-01-15T07:59:00Z", "2027-01-15T08:01:00Z")
    rows = [(row["route"], row["reason"], row["count"], row["share"]) for row in found["rows"]]
    assert rows == [
        ("search", "scope_missing", 3, 0.5),
        (None, "route_unknown", 1, 1.0),
        ("search", "credential_missing", 1, 0.166667),
        ("search", "token_signature", 1, 0.166667),
    ]
    first = found["rows"][0]
    assert (first["first"], first["last"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:00:09Z")
    assert first["callers"] == [{"who": "token:one", "count": 2}, {"who": "token:two", "count": 1}]
    assert first["callers_total"] == 2
    assert first["what_to_do"] == hint("scope_missing")
    assert [row["callers"][0]["who"] for row in found["rows"][1:]] == ["not known", "not known", "access token 0a1b2c3d"]


def test_the_table_says_it_in_words(log: Path) -> None:
    result = run(log)
    assert result.exit_code == 0
    assert "10 decisions from 2027-01-15T07:59:00Z to 2027-01-15T08:01:00Z: 3 allowed, 1 refused," in result.stdout
    assert "6 forwarded that enforcing would have refused (60.0 %)." in result.stdout
    rows = [re.split(" {2,}", text.strip()) for text in result.stdout.splitlines()]
    assert ["3", "50.0 %", "scope_missing", "search", "2", "token:one (2)", "01-15 08:00", "01-15 08:00"] in rows
    assert any(row[2:5] == ["route_unknown", "(no route)", "1"] for row in rows if len(row) > 5)
    advice = result.stdout.partition("What to do before enforcing:")[2]
    assert advice.count("\n  ") == 4
    assert f"  credential_missing: {hint('credential_missing')}" in advice
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("content", "flags", "code"),
    [
        (LOG, (), 0),
        (LOG, ("--fail",), 1),
        (LOG, ("--fail", "--json"), 1),
        (LOG[6:], ("--fail",), 0),
        (LOG, ("--fail", "--since", "2027-01-15T08:00:30Z"), 0),
        ([], (), 1),
        ([], ("--fail",), 1),
        (["not json", '{"message": "serving"}'], ("--fail",), 1),
        (LOG, ("--since", "2028-01-01"), 1),
        (LOG, ("--limit", "0"), 2),
        (LOG, ("--since", "yesterday"), 2),
        (LOG, ("--since", "24"), 2),
    ],
)
def test_exit_codes(tmp_path: Path, content: list[str], flags: tuple[str, ...], code: int) -> None:
    """Nothing to judge by is never taken for nothing that would be refused."""
    file = tmp_path / "decisions.log"
    file.write_text("\n".join(content), encoding="utf-8")
    result = run(file, *flags)
    assert result.exit_code == code, result.output
    if code == 2:
        assert flags[0] in result.stderr
    if "time" in result.stderr:
        assert "24h" in result.stderr


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (("--since", "2027-01-15T08:00:03Z"), 3),
        (("--since", "2027-01-15T09:00:03+01:00"), 3),
        (("--until", "2027-01-15T08:00:05Z"), 4),
        (("--since", "2027-01-15T08:00:03", "--until", "2027-01-15T08:00:05"), 1),
        (("--until", "1s"), 0),
    ],
)
def test_a_part_of_the_time(log: Path, flags: tuple[str, ...], count: int) -> None:
    """The times of the log lie in the future, so that what is so long ago holds none of them."""
    if count:
        assert told(log, *flags)["would_deny"] == count
    else:
        assert "no decisions found" in run(log, *flags).stderr


def test_a_time_ago_counts_back_from_now(tmp_path: Path) -> None:
    file = tmp_path / "old.log"
    file.write_text(line(time=1_000_000_000) + "\n" + line(time=2**37) + "\n", encoding="utf-8")
    assert told(file, "--since", "24h")["would_deny"] == 1
    assert told(file, "--until", "24h")["would_deny"] == 1


def test_broken_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "decisions.log"
    broken = [
        b"not json",
        b'{"decision": "would_deny"',
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b'{"message": "serving", "level": "INFO"}',
        b'{"decision": "maybe", "reason": "scope_missing"}',
        b'{"decision": ["would_deny"], "reason": "scope_missing"}',
        b'{"decision": "would_deny", "reason": 7}',
        b"[" * 100_000,
        b'{"decision": "would_deny", "reason": "scope_missing", "x": "' + b"a" * MAX_LINE + b'"}',
        b"9" * 5000,
    ]
    odd = [line(time=text, route=["x"]).encode() for text in ("never", None, [], True, 1e300, -5)]
    odd += [b'{"decision": "would_deny", "reason": "new_reason", "route": "search", "time": NaN}']
    file.write_bytes(b"\n".join([*broken, b"", b"  ", *odd, line().encode()]))

    found = told(file)
    assert (found["broken_lines"], found["lines"], found["would_deny"]) == (len(broken), len(odd) + 1, len(odd) + 1)
    assert {(row["route"], row["reason"]) for row in found["rows"]} == {
        (None, "scope_missing"),
        ("search", "new_reason"),
        ("search", "scope_missing"),
    }
    result = run(file)
    assert f"{len(broken)} lines are no decisions" in result.stderr
    assert "new_reason: a reason that this version does not know" in result.stdout
    # Whether a line without a time belongs to a part of the time is not known.
    assert told(file, "--since", "2020-01-01")["broken_lines"] == len(broken) + len(odd)


def test_a_sample_counts_for_all_that_it_stands_for(tmp_path: Path) -> None:
    file = tmp_path / "decisions.log"
    sampled = [line("allow", "allowed", sample=0.01) for _ in range(3)] + [line(sample=0.5), line(), line(sample=1)]
    odd = [line(route="odd", sample=value) for value in (0, -1, "0.1", True, 1e-300, 5)]
    file.write_text("\n".join([*sampled, *odd]), encoding="utf-8")
    found = told(file)
    assert (found["allow"], found["would_deny"], found["sampled_lines"], found["lines"]) == (300, 10, 4, 12)
    assert [(row["route"], row["count"], row["share"]) for row in found["rows"]] == [("odd", 6, 1.0), ("search", 4, 0.013158)]
    assert run(file).stdout.startswith("about 310 decisions")


def test_callers_are_bounded() -> None:
    report = RefusalReport()
    for number in range(MAX_CALLERS + 50):
        report.add(line(actor=f"oauth:x:{number}").encode(), *EVER)
        report.add(line(actor="oauth:x:0").encode(), *EVER)
    (row,) = report.rows.values()
    assert (row.count, len(row.callers), len(row.most())) == (2 * MAX_CALLERS + 100, MAX_CALLERS, SHOWN_CALLERS)
    assert row.most()[0] == ("oauth:x:0", MAX_CALLERS + 51)


def test_more_rows_than_the_table_shows(tmp_path: Path) -> None:
    file = tmp_path / "decisions.log"
    file.write_text("\n".join(line(route=f"r{number:03}") for number in range(60)), encoding="utf-8")
    result = run(file, "--limit", "7")
    assert len(re.findall("r[0-9]{3}", result.stdout)) == 7
    assert "There are 53 more rows: --limit 60" in result.stderr
    assert len(told(file, "--limit", "7")["rows"]) == 60


def test_several_logs_and_standard_input(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    other.write_text(line() + "\n", encoding="utf-8")
    assert told(log, other, "-", stdin=line() + "\n")["would_deny"] == 8
    assert told("-", stdin="\n".join(LOG))["would_deny"] == 6


def test_logs_that_cannot_be_read(tmp_path: Path) -> None:
    packed = tmp_path / "decisions.log.gz"
    packed.write_bytes(gzip.compress("\n".join(LOG).encode()))
    result = run(packed)
    assert (result.exit_code, f"zcat {packed} | extauthz monitor-report -" in result.stderr) == (1, True)
    assert run(tmp_path / "missing.log").exit_code == 2
    assert run(tmp_path).exit_code == 2
    assert run().exit_code == 2


def test_names_in_a_log_do_not_command_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "decisions.log"
    file.write_text(line(actor="oauth:x:\x1b[2J\x07[red]x\n\u202e", route="\x1b]0;title\x07", reason="\x1b[31m"), encoding="utf-8")
    result = run(file)
    assert not set("\x1b\x07\u202e") & set(result.stdout)
    assert "[red]x" in result.stdout, "no markup is read"


def test_long_lines_are_passed_over_and_progress_is_told() -> None:
    steps: list[int] = []
    text = b"a" * (3 * STEP) + b"\n" + b"short\n" + b"b" * (MAX_LINE + 1)
    found = list(lines(io.BytesIO(text), steps.append))
    assert [len(one) for one in found] == [MAX_LINE, 6, MAX_LINE]
    assert sum(steps) == len(text)
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (NOW + 0.5, NOW + 0.5),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15T10:00:00.000+02:00", NOW),
        ("2027-01-15", NOW - 8 * 3600),
        *((value, None) for value in ("", "x", "24h", None, True, -1, 10**400, float("nan"), float("inf"), [], {})),
    ],
)
def test_times(value: object, expected: float | None) -> None:
    assert seconds(value) == expected


def test_every_reason_that_is_forwarded_has_a_hint() -> None:
    assert set(HINTS) == FORWARDED
    assert hint("path_malformed") is None
    assert all(text == text.strip() and not text.endswith(".") for text in HINTS.values())


def test_what_the_sidecar_writes_is_what_the_report_reads(make_world: MakeWorld, tmp_path: Path) -> None:
    routes = [{"match": "POST /search", "scope": "SEARCH", "name": "search"}, {"match": "GET /open", "public": True}]
    world, written = make_world(routes, mode="monitor"), tmp_path / "lines"
    decisions = DecisionLog(File(written))
    authorizer = Authorizer(world.build().runtime, decisions, clock=world.clock, decision_ids=lambda: DECISION_ID)
    token = world.token("USER", "CHAT")
    requests = [("POST", "/search", bearer(token)), ("POST", "/search", {}), ("GET", "/open", {}), ("GET", "//", {})]
    for method, path, headers in requests:
        authorizer.check(check_request(method, path, headers.items()))
    decisions.close()

    found = told("-", stdin=written.read_text())
    assert (found["allow"], found["deny"], found["would_deny"], found["broken_lines"]) == (1, 1, 2, 0)
    assert {(row["route"], row["reason"], row["share"]) for row in found["rows"]} == {
        ("search", "scope_missing", 0.5),
        ("search", "credential_missing", 0.5),
    }
    callers = {row["reason"]: row["callers"][0]["who"] for row in found["rows"]}
    assert callers == {"scope_missing": f"token:{token.split('_')[1]}", "credential_missing": "not known"}
