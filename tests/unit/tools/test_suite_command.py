"""`extauthz test`: what it prints and writes, its flags and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from xmlschema import XMLSchema

from extauthz.cli import main
from tests.support.command_line import configured
from tests.support.project import TESTS

SUITE = """\
people: {ana: USER user=ana@acme.com scopes=SEARCH}
cases:
  - {request: POST /search, who: ana, expect: allow}
  - {request: POST /search, who: nobody, expect: allow}
  - {name: Nobody knows it, request: GET /chat, who: ana, expect: {reason: route_unknown, status: 404}}
"""
TOKEN = "glean_4fK2pQ9sXb1Z_" + "Zk4vX8bQ1nT6yR3mW7cJ5hD2gF9sL0pA4uE8iO6qB1rM3tY5x"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJlMTIz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration, and a suite with two cases that fail."""
    configured(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "suite.yaml").write_text(SUITE)
    return tmp_path


def run(folder: Path, *arguments: str, color: bool = False) -> Result:
    """Run the command on a folder."""
    return CliRunner().invoke(main, ["test", *arguments, "--config", str(folder / "extauthz.yaml")], color=color)


def lines(result: Result, folder: Path) -> list[str]:
    """Return what was printed, without the folder and the seconds."""
    return re.sub(r" in \d+\.\d\d s", "", result.stdout.replace(f"{folder}/", "")).splitlines()


def test_failures_are_told_with_what_was_expected_and_found(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 1
    assert lines(result, folder) == [
        "tests/suite.yaml .FF",
        "",
        "FAILED tests/suite.yaml:4 cases[1] POST /search, as nobody",
        "  decision: expected allow, found deny",
        "  decided: deny, credential_missing, route POST /search",
        "",
        "FAILED tests/suite.yaml:5 cases[2] Nobody knows it",
        "  status: expected 404, found 403",
        "  decided: deny, route_unknown, no route",
        "",
        "2 failed, 1 passed",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("::error::x", "\\u003a:error::x"),
        ("  ::error::x", "  \\u003a:error::x"),
        ("a ##[set-output name=x;]", "a \\u0023#[set-output name=x;]"),
        ("a::b", "a::b"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-v"]])
def test_no_name_of_a_file_is_a_command_of_a_workflow(
    folder: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], name: str, shown: str
) -> None:
    """A runner obeys lines that start with two colons, behind white space too, and two hashes with a bracket anywhere."""
    monkeypatch.chdir(folder)
    (folder / name).mkdir()
    (folder / name / "a.yaml").write_text(SUITE.replace("Nobody knows it", f'"{name}"'))
    at_home = run(folder, name, *flags).stdout
    assert f"{name}/a.yaml" in at_home
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    in_workflow = run(folder, name, *flags).stdout
    assert f"{shown}/a.yaml" in in_workflow
    assert [line for line in in_workflow.splitlines() if line.lstrip().startswith("::") or "##[" in line] == []


def test_every_case_has_a_line_where_that_is_asked_for(folder: Path) -> None:
    assert lines(run(folder, "-v"), folder)[:4] == [
        "tests/suite.yaml:3 cases[0] POST /search, as ana PASSED",
        "tests/suite.yaml:4 cases[1] POST /search, as nobody FAILED",
        "tests/suite.yaml:5 cases[2] Nobody knows it FAILED",
        "",
    ]


@pytest.mark.parametrize(
    ("flags", "last", "code"),
    [
        (["-k", "AS ANA"], "1 passed, 2 deselected", 0),
        (["-k", "suite.yaml"], "2 failed, 1 passed", 1),
        (["-k", "nothing"], "no case was run, 3 deselected", 1),
        (["-x"], "1 failed, 1 passed", 1),
        (["-x", "-k", "cases[0]"], "1 passed, 2 deselected", 0),
    ],
)
def test_some_cases_are_run(folder: Path, flags: list[str], last: str, code: int) -> None:
    result = run(folder, *flags)
    assert (lines(result, folder)[-1], result.exit_code) == (last, code)


def test_colours_are_for_terminals(folder: Path) -> None:
    assert "\x1b" not in run(folder).stdout
    coloured = run(folder, color=True).stdout
    assert "\x1b[31m" in coloured
    assert "\x1b[32m" in coloured


def test_many_letters_are_wrapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    each = ", ".join(str(number) for number in range(100, 150))
    case = (
        f"cases:\n  - {{each: {{n: ['{each.replace(', ', chr(39) + ', ' + chr(39))}']}}, request: 'GET /${{n}}', expect: deny}}\n"
    )
    (folder / "s.yaml").write_text(case)
    monkeypatch.chdir(folder)
    assert lines(run(folder, "s.yaml"), folder)[:2] == ["s.yaml " + "." * 50, ""]
    monkeypatch.setenv("COLUMNS", "30")
    assert lines(run(folder, "s.yaml"), folder)[:3] == ["s.yaml " + "." * 23, "       " + "." * 23, "       " + "." * 4]


def test_programs_get_json(folder: Path) -> None:
    result = run(folder, "--json", "--coverage")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["passed"], told["failed"], told["deselected"]) == (1, 1, 2, 0)
    assert told["cases"][1] == {
        "file": str(folder / "tests" / "suite.yaml"),
        "line": 4,
        "case": "cases[1]",
        "name": "POST /search, as nobody",
        "passed": False,
        "decision": "deny",
        "reason": "credential_missing",
        "route": "POST /search",
        "differences": [{"field": "decision", "expected": "allow", "found": "deny"}],
        "error": None,
    }
    assert told["coverage"]["reached"] == {"routes": 1, "scopes": 1, "reasons": 3}
    assert {"kind": "scope", "name": "CHAT", "place": None, "example": None} in told["coverage"]["unreachable"]
    assert json.loads(run(folder, "--json").stdout)["coverage"] is None


def test_junit_is_written_and_valid(folder: Path) -> None:
    file = folder / "results.xml"
    run(folder, "--junit", str(file))
    root = XMLSchema(TESTS / "data" / "junit.xsd").to_dict(file.read_text())
    assert (root["@tests"], root["@failures"], root["@errors"]) == (3, 2, 0)
    assert root["testsuite"][0]["testcase"][1]["failure"]["@message"] == "decision: expected allow, found deny"


def test_results_of_an_earlier_run_do_not_stay_where_no_case_was_run(folder: Path) -> None:
    file = folder / "results.xml"
    assert run(folder, "--junit", str(file)).exit_code == run(folder, "--junit", str(file), "-k", "nothing").exit_code == 1
    root = XMLSchema(TESTS / "data" / "junit.xsd").to_dict(file.read_text())
    assert (root["@tests"], "testsuite" in root) == (0, False)


def test_a_folder_that_is_not_there_is_told_before_anything_runs(folder: Path) -> None:
    result = run(folder, "--junit", str(folder / "no" / "results.xml"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--junit: its folder is not there: make it first" in result.stderr


@pytest.mark.parametrize(("percent", "code"), [("1", 0), ("99", 1)])
def test_coverage_has_a_limit(folder: Path, percent: str, code: int) -> None:
    (folder / "tests" / "suite.yaml").write_text("cases: [{request: POST /search, who: nobody, expect: deny}]\n")
    result = run(folder, "--fail-under", percent)
    assert result.exit_code == code
    told = lines(result, folder)
    assert told[2].startswith("coverage 9.1%: 1 of 1 routes, 0 of 1 scopes, 1 of 20 reasons")
    assert "  no case reaches the scope SEARCH (routes.yaml:1)" in told
    assert "  no case reaches the reason route_unknown, like POST /no-such-path/0 as nobody" in told
    assert "  no request reaches the scope CHAT" in told
    assert "  no request reaches the reason public" in told
    assert told[-1] == ("1 passed" if code == 0 else "1 passed; 9.1% is reached, and 99% is asked for")


def test_a_first_suite_is_written_once_and_passes(folder: Path) -> None:
    file = folder / "tests" / "routes.yaml"
    result = run(folder, "--init")
    assert (result.exit_code, result.stdout) == (0, f"Wrote {file}\n")
    assert run(folder, str(file)).exit_code == 0
    file.write_text("mine")
    again = run(folder, "--init")
    assert (again.exit_code, file.read_text()) == (1, "mine")
    assert f"nothing was written, because {file} is there: name another file" in again.stderr
    assert run(folder, "--init", str(folder / "new" / "s.yaml")).exit_code == 0
    assert run(folder, str(folder / "new")).exit_code == 0
    assert "was not written: " in run(folder, "--init", str(file / "s.yaml")).stderr


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--init", "-v"], 2, "--init writes one file, and runs nothing"),
        (["--init", "--json"], 2, "--init writes one file, and runs nothing"),
        (["--init", "a", "b"], 2, "--init writes one file, and runs nothing"),
        (["--fail-under", "101"], 2, "--fail-under"),
        (["no/such.yaml"], 2, "nothing is at no/such.yaml: name a suite or a folder, or write one with extauthz test --init"),
        (["empty"], 3, "empty: no suite is here: `extauthz test --init` writes one"),
        (["broken.yaml"], 3, "broken.yaml:1: cases: is empty: name at least one"),
    ],
)
def test_what_cannot_be_run_has_an_exit_code(
    folder: Path, flags: list[str], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.yaml").write_text("cases: []\n")
    monkeypatch.chdir(folder)
    result = run(folder, *flags)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr


def test_a_configuration_with_problems_is_told_first(folder: Path) -> None:
    (folder / "routes.yaml").write_text("routes: [{match: GET /a, scop: SEARCH}]")
    result = run(folder)
    assert result.exit_code == 3
    assert "routes[0].scop: unknown key, did you mean 'scope'?" in result.stderr


PASTED = [
    "cases: [{request: GET /a, who: <>, expect: deny}]",
    "cases: [{request: GET /a, who: GLOBAL scopes=<>, expect: deny}]",
    "cases: [{request: GET /a, who: <>=<> scopes=<>, expect: deny}]",
    "cases: [{request: GET /a, who: oauth user=<>, expect: deny}]",
    "cases: [{request: GET /a, who: oauth user=a@b.example client=<> subject=<>, expect: allow}]",
    "cases: [{request: <>, expect: deny}]",
    "cases: [{<>: GET /a, expect: deny}]",
    "cases: [{request: GET /a, headers: {authorization: Bearer <>}, expect: deny}]",
    "cases: [{request: POST /search, headers: {authorization: Token <>}, expect: allow}]",
    "cases: [{request: GET /a/<>?access_token=<>&code=<>, expect: allow}]",
    "cases: [{request: GET /a, act_as: <>, who: GLOBAL scopes=*, expect: allow}]",
    "cases: [{request: GET /a, host: <>, time: <>, expect: <>}]",
    "cases: [{name: <>, request: GET /a, expect: {body: <>, route: <>, response_headers: {<>: <>}}}]",
    "cases: [{request: GET /a, each: {<>: [<>]}, expect: deny}]",
    "people: {<>: <>}\ncases: [{request: GET /a, expect: allow}]",
    "cases: [{request: POST /public, headers: {x-key: <>, cookie: s=<>}, expect: {headers: {x-key: b, cookie: c}}}]",
    "<>",
    "cases: [<>",
]


@pytest.mark.parametrize("token", [TOKEN, JWT], ids=["issued", "jwt"])
@pytest.mark.parametrize("text", PASTED)
def test_nothing_that_is_printed_or_written_holds_a_token(folder: Path, text: str, token: str) -> None:
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}, {match: "POST /public", public: true}]')
    file = folder / f"{token}.yaml"
    file.write_text(text.replace("<>", token) + "\n")
    outputs = [folder / "results.xml"]
    printed = []
    for flags in (["-v", "--coverage", "--junit", str(outputs[0])], ["--json"], ["-k", token], [token]):
        result = run(folder, *flags, *([] if flags == [token] else [str(file)]))
        assert not isinstance(result.exception, Exception), result.exception
        printed.append(result.output)
    printed += [output.read_text() for output in outputs if output.exists()]
    for part in (token, *token.split("_")[2:], *token.split(".")[1:]):
        assert [found for found in printed if part in found] == []
