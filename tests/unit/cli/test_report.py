"""`extauthz report`: what it counts, what it says, and what it does with logs that are not in order."""

from __future__ import annotations

import gzip
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.sinks import File
from extauthz.cli import main, refusals
from extauthz.cli.log_files import STEP, lines
from extauthz.cli.refusals import EVER, MAX_NAMES, SHOWN_NAMES, NameCounts, RefusalReport
from extauthz.core.model import ALLOWING, Reason
from extauthz.service import Authorizer
from extauthz.tools.log_lines import MAX_LINE, seconds
from extauthz.tools.refusal_hints import HINTS, hint
from tests.support.narrow_terminal import narrow
from tests.support.world import DECISION_ID, NOW, MakeWorld, bearer, check_request

KINDS = ("callers", "clients", "users")


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
    return CliRunner().invoke(main, ["report", *map(str, arguments)], input=stdin)


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
        ("denied", "route_denied", 1, 1.0),
        ("search", "credential_missing", 1, 0.166667),
        ("search", "token_signature", 1, 0.166667),
    ]
    first = found["rows"][0]
    assert (first["first"], first["last"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:00:09Z")
    assert first["callers"] == {"most": [{"name": "token:one", "count": 2}, {"name": "token:two", "count": 1}], "others": 0}
    assert first["clients"] == {"most": [{"name": "c1", "count": 1}], "others": 0}
    assert [(row["reason"], row["monitored"]) for row in found["rows"] if row["monitored"] != row["count"]] == [("route_denied", 0)]
    assert first["what_to_do"] == hint("scope_missing")
    callers = [row["callers"]["most"][0]["name"] for row in found["rows"][1:]]
    assert callers == ["not known", "not known", "not known", "access token 0a1b2c3d"]


def test_the_table_says_it_in_words(log: Path) -> None:
    result = run(log)
    assert result.exit_code == 0
    assert "10 decisions from 2027-01-15T07:59:00Z to 2027-01-15T08:01:00Z: 3 allowed, 1 refused," in result.stdout
    assert "6 forwarded that enforcing would have refused (60.0 %)." in result.stdout
    rows = [re.split(" {2,}", text.strip()) for text in result.stdout.splitlines()]
    details = "all forwarded; callers: token:one (2), token:two (1); clients: c1 (1)"
    assert ["3", "search", "scope_missing", "50.0 %", "01-15 08:00", "01-15 08:00", details] in rows
    assert [
        "1",
        "(no route)",
        "route_unknown",
        "100.0 %",
        "01-15 08:00",
        "01-15 08:00",
        "all forwarded; callers: not known (1)",
    ] in rows
    assert ["1", "denied", "route_denied", "100.0 %", "01-15 08:01", "01-15 08:01", "callers: not known (1)"] in rows
    advice = result.stdout.partition("What to do:")[2]
    assert advice.count("\n  ") == 5
    assert f"  credential_missing: {hint('credential_missing')}" in advice
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("content", "flags", "code"),
    [
        (LOG, (), 0),
        (LOG, ("--fail",), 1),
        (LOG, ("--fail", "--json"), 1),
        (LOG[6:], ("--fail",), 1),
        (LOG[6:], ("--fail", "--only", "monitored"), 0),
        (LOG[:6], ("--fail", "--only", "refused"), 0),
        (LOG, ("--fail", "--since", "2027-01-15T08:00:30Z", "--only", "monitored"), 0),
        ([], (), 1),
        ([], ("--fail",), 1),
        (["not json", '{"message": "serving"}'], ("--fail",), 1),
        (LOG, ("--since", "2028-01-01"), 1),
        (LOG, ("--limit", "0"), 2),
        (LOG, ("--by", "colour"), 2),
        (LOG, ("--by", "route,route"), 2),
        (LOG, ("--by", ""), 2),
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


def test_names_that_strangers_choose_are_bounded() -> None:
    """Who comes often stays, also late among many who come once; the sum is right."""
    report = RefusalReport()
    for number in range(20 * MAX_NAMES):
        report.add(line(actor=f"oauth:x:{number}", client_id=f"c{number}", user=f"u{number}@acme.com").encode(), *EVER)
        if number > 10 * MAX_NAMES:
            report.add(line(actor="oauth:x:often").encode(), *EVER)
    (row,) = report.rows.values()
    assert {kind: len(names.counts) <= MAX_NAMES for kind, names in row.names.items()} == dict.fromkeys(KINDS, True)
    assert {kind: len(names.most()) for kind, names in row.names.items()} == dict.fromkeys(KINDS, SHOWN_NAMES)
    callers = row.names["callers"]
    assert callers.most()[0] == ("oauth:x:often", 10 * MAX_NAMES - 1)
    assert sum(callers.counts.values()) + callers.others == row.count == 30 * MAX_NAMES - 1
    assert sum(count for _, count in callers.most()) + callers.rest() == row.count


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 5)), max_size=60))
def test_no_refusal_is_lost_where_names_are_given_up(added: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(refusals, "MAX_NAMES", 4)
        names = NameCounts()
        for name, weight in added:
            names.add(name, weight)
    true = Counter[str]()
    for name, weight in added:
        true[name] += weight
    assert len(names.counts) <= 4
    assert sum(names.counts.values()) + names.others == true.total()
    assert [name for name, count in names.counts.items() if count > true[name]] == []


def test_rows_are_bounded_and_what_is_given_up_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_ROWS", most := 50)
    report = RefusalReport(by=("user",))
    for number in range(2 * most):
        report.add(line(user=f"u{number}@acme.com").encode(), *EVER)
        report.add(line(user="often@acme.com").encode(), *EVER)
    assert len(report.rows) <= most
    assert sum(row.count for row in report.rows.values()) + report.others == 4 * most
    key, row = report.ordered()[0]
    assert (key, row.count, report.share(key, row)) == (("often@acme.com",), 2 * most, None)
    file = tmp_path / "many.log"
    file.write_text("\n".join(line(user=f"u{number}@acme.com") for number in range(most + 1)), encoding="utf-8")
    assert told(file, "--by", "user")["in_other_rows"] == most + 1 - most // 2
    result = run(file, "--by", "user", "--fail", "--limit", "1")
    assert (result.exit_code, "more are in rows that were given up" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("client", [("c1", 4, 0.8), (None, 2, 0.5)]),
        ("user", [("ana@acme.com", 3, 0.6), ("bob@acme.com", 2, 1.0), (None, 1, 0.5)]),
        ("reason", [("scope_missing", 4, 0.444444), ("credential_missing", 1, 0.111111), ("token_expired", 1, 0.111111)]),
        ("route", [("search", 5, 0.833333), ("chat", 1, 0.333333)]),
    ],
)
def test_rows_by_what_is_asked_for(tmp_path: Path, by: str, rows: list[tuple[str | None, int, float]]) -> None:
    ana, bob = {"client_id": "c1", "user": "ana@acme.com"}, {"client_id": "c1", "user": "bob@acme.com"}
    log = [
        *[line("deny", **ana)] * 2,
        line(**ana, route="chat"),
        line("deny", "scope_missing", user="bob@acme.com"),
        line("deny", "token_expired", **bob),
        line("deny", "credential_missing"),
        line("allow", "allowed", **ana, route="chat"),
        line("allow", "allowed", user="ana@acme.com", route="chat"),
        line("allow", "allowed"),
    ]
    file = tmp_path / "decisions.log"
    file.write_text("\n".join(log), encoding="utf-8")
    found = told(file, "--by", by)["rows"]
    assert [(row[by], row["count"], row["share"]) for row in found] == rows
    assert {"what_to_do" in row for row in found} == {by == "reason"}
    both = told(file, "--by", f"{by}, route" if by != "route" else "route,user")["rows"]
    assert sum(row["count"] for row in both) == 6
    assert run(file, "--by", by).stdout.splitlines()[3].split()[:2] == ["refusals", by]


def test_scopes_paths_and_the_nearest_route_are_told(tmp_path: Path) -> None:
    file = tmp_path / "decisions.log"
    log = [
        *[line("deny", required_scopes="CHAT SEARCH", held_scopes="SEARCH")] * 2,
        line("deny", required_scopes="CHAT SEARCH", held_scopes=""),
        line("deny", "route_unknown", route=None, method="GET", path="/serch", nearest_route="search"),
    ]
    file.write_text("\n".join(log), encoding="utf-8")
    scopes, unknown = told(file)["rows"]
    assert scopes["required_scopes"]["most"] == [{"name": "CHAT SEARCH", "count": 3}]
    assert scopes["held_scopes"]["most"] == [{"name": "SEARCH", "count": 2}, {"name": "none", "count": 1}]
    assert unknown["nearest_routes"]["most"] == [{"name": "search", "count": 1}]
    assert unknown["paths"]["most"] == [{"name": "GET /serch", "count": 1}]
    shown = run(file).stdout
    assert "required scopes: CHAT SEARCH (3); held scopes: SEARCH (2), none (1)" in shown
    assert "nearest routes: search (1); paths: GET /serch (1)" in shown


def test_a_million_lines_take_less_than_a_minute() -> None:
    """Of the processor, that is: 60 microseconds a line, of which it takes about ten."""
    texts = [
        line("deny", reason, actor=f"oauth:okta:{number}", client_id=f"c{number % 7}", user=f"u{number}@acme.com").encode() + b"\n"
        for number in range(10_000)
        for reason in ("scope_missing", "token_expired")
    ]
    report = RefusalReport()
    started = time.process_time()
    for text in lines(io.BytesIO(b"".join(texts)), lambda _: None):
        report.add(text, *EVER)
    assert time.process_time() - started < 60 * len(texts) / 1_000_000
    assert report.lines == len(texts)


def test_the_name_of_before_says_what_to_write(log: Path) -> None:
    result = CliRunner().invoke(main, ["monitor-report", str(log), "--fail", "--json"])
    assert result.exit_code == 1
    assert "monitor-report is deprecated: write 'extauthz report --only monitored'" in result.stderr
    assert json.loads(result.stdout) == told(log, "--only", "monitored")
    assert "monitor-report" not in CliRunner().invoke(main, ["--help"]).stdout


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_a_person_reads_the_table_at_any_width(log: Path, columns: int) -> None:
    seen = narrow(columns, "report", str(log))
    head = next(text for text in seen.splitlines() if text.startswith("refusals"))
    table = seen.partition(head)[2].partition("Left out" if "Left out" in seen else "What to do")[0]
    assert max(map(len, table.splitlines())) <= columns
    assert [name for name in ("route", "reason") if name not in head] == []
    assert "callers: token:one (2)" in " ".join(table.split())


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


def test_a_compressed_log_is_read_as_one_that_is_not(log: Path, tmp_path: Path) -> None:
    text = "\n".join(LOG).encode()
    packed = tmp_path / "decisions.log.1"
    packed.write_bytes(gzip.compress(text[:200]) + gzip.compress(text[200:]))
    assert told(packed) == told("-", stdin=packed.read_bytes()) == told(log)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:60] + b"x" * 20 + data[80:], lambda data: data[:12]]
)
def test_a_damaged_log_is_not_reported_as_if_it_were_whole(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    packed = tmp_path / "decisions.log.gz"
    packed.write_bytes(damage(gzip.compress("\n".join(LOG).encode())))
    result = run(packed)
    assert (result.exit_code, "is damaged" in result.stderr, result.stdout) == (1, True, "")


def test_logs_that_cannot_be_read(tmp_path: Path) -> None:
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


def test_every_reason_of_a_refusal_has_a_hint() -> None:
    assert set(HINTS) == set(Reason) - ALLOWING
    assert hint("allowed") is None
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
        (None, "path_ambiguous", 1.0),
        ("search", "scope_missing", 0.5),
        ("search", "credential_missing", 0.5),
    }
    callers = {row["reason"]: row["callers"]["most"][0]["name"] for row in found["rows"] if row["route"]}
    assert callers == {"scope_missing": f"token:{token.split('_')[1]}", "credential_missing": "not known"}
