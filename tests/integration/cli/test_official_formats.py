"""SARIF and JUnit XML by the official schemas, and by the official validator with the rules of GitHub's code scanning."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xmlschema import XMLSchemaValidationError

from extauthz.cli import main
from extauthz.config.lints import Lint
from extauthz.errors import Problem
from extauthz.tools.calls import Call
from extauthz.tools.config_formats import CheckReport
from extauthz.tools.lint import LintFinding, LintLevel
from extauthz.tools.sarif import sarif
from extauthz.tools.suite_cases import SuiteCase
from extauthz.tools.suite_junit import FileResults, junit_of
from extauthz.tools.suite_runs import Mismatch, Result
from tests.support.command_line import configured
from tests.support.official_schemas import junit_schema, sarif_schema, validated
from tests.support.world import NOW

FOLDER = Path("/srv/ana/api")
ODD = "\x00\x07\x1b[31m\r\n\t <b>&amp;\"']]> {0} {id} [a](1) \\ é 漢 \U0001f600 \u2028 \ufffe \ud800 \udcff"
PATHS = (
    *("config/routes.yaml", "./a/../b.yaml", "../other/x.yaml", "/etc/extauthz/my file.yaml", "//host/share/x.yaml"),
    *("C:\\authz\\routes.yaml", "C:/authz/routes.yaml", "..\\routes.yaml", "\\\\host\\share\\routes.yaml"),
    *("a,b:c;d?e#f%41[g]{h}.yaml", "é漢\U0001f600.yaml", "a\udcff.yaml", " .yaml", "-", "~/x.yaml", "file:x.yaml", "a\nb.yaml"),
)


def problem(file: str = "config/routes.yaml", line: int = 3, path: str = "routes[0].match", message: str = "is open") -> Problem:
    """Return one with these parts."""
    return Problem(file, line, path, message)


def of_lint(lint: Lint, level: LintLevel = LintLevel.WARNING, reason: str = "") -> LintFinding:
    """Return a finding."""
    return LintFinding(Problem("config/routes.yaml", 4, "routes[1]", "is worth a look", lint), level, reason)


REPORTS: dict[str, CheckReport] = {
    "nothing": CheckReport([]),
    "errors": CheckReport([problem(), problem(path=""), problem(line=1_000_000)]),
    "without a line": CheckReport([problem("the store of tokens", 0), problem("the store of tokens", 0, "")]),
    "warnings": CheckReport([], [of_lint(lint) for lint in Lint]),
    "warnings that count": CheckReport([], [of_lint(lint, LintLevel.ERROR) for lint in Lint]),
    "silenced": CheckReport([], [of_lint(lint, LintLevel.SILENCED, f"it is meant: {ODD}") for lint in Lint]),
    "notes": CheckReport([], [], [problem(), problem("/etc/extauthz/extauthz.yaml", 1)]),
    "odd": CheckReport([problem(path=ODD, message=ODD), problem(ODD, 0, ODD, ODD), problem(message="")]),
    "long": CheckReport([problem(message="long " * 20_000)]),
    "a hundred": CheckReport([problem(line=line) for line in range(1, 101)]),
    "the same twice": CheckReport([problem(), problem()], [of_lint(Lint.OPEN_READ)] * 2),
    "paths": CheckReport([problem(file) for file in PATHS]),
}


def document_of(report: CheckReport, config_file: str = "config/extauthz.yaml") -> dict[str, Any]:
    """Return the document as others read it."""
    return json.loads(json.dumps(sarif(report, FOLDER, "1.0", config_file)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_sarif(name: str) -> None:
    sarif_schema().validate(document_of(REPORTS[name]))


@pytest.mark.parametrize("config_file", PATHS)
def test_what_has_no_line_is_told_of_a_configuration_of_any_name(config_file: str) -> None:
    sarif_schema().validate(document_of(REPORTS["without a line"], config_file))


def test_the_official_validator_and_the_rules_of_github_find_nothing(tmp_path: Path) -> None:
    documents = [json.dumps(document_of(report), indent=2) for report in REPORTS.values()]
    found = validated(documents, tmp_path)
    # There is no address of this program that every company could name.
    no_address = "runs[0].tool.driver: The tool 'extauthz config check' does not provide 'informationUri'."
    assert [(rule, text) for _, rule, text in found if not text.startswith(no_address)] == []
    assert sorted(number for number, _, _ in found) == list(range(len(documents)))


WRITTEN = {
    "warned": """routes:
  - {match: "GET /a", public: true}
  - {match: "POST /a", scope: SEARCH}
  - {match: "POST /hook/{id}", public: true}  # extauthz: ignore anonymous-write: the sender signs it
""",
    "broken": 'routes:\n  - {match: "GET /{a", scope: NONE}\n  - 7\n  - {match: "a\\x85\\u2028", scop: x}\n',
    os.fsdecode(b"\xff [a](1) {0}"): 'routes:\n  - {match: "GET /a"}\n',
}


def test_what_the_command_writes_is_sarif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documents = []
    for name, routes in WRITTEN.items():
        (tmp_path / name).mkdir()
        (configured(tmp_path / name) / "routes.yaml").write_text(routes)
        result = CliRunner().invoke(main, ["config", "check", "--config", f"{name}/extauthz.yaml", "--format", "sarif"])
        assert not isinstance(result.exception, Exception), result.exception
        documents.append(result.stdout)
        sarif_schema().validate(json.loads(result.stdout))
        assert json.loads(result.stdout)["runs"][0]["results"]
    assert {rule for _, rule, _ in validated(documents, tmp_path)} == {"SARIF2005"}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.text(min_size=1), st.integers(0, 2**31 - 1))
def test_whatever_is_told_is_sarif(file: str, path: str, message: str, reason: str, line: int) -> None:
    silenced = LintFinding(Problem(file, line, path, message, Lint.OPEN_READ), LintLevel.SILENCED, reason)
    sarif_schema().validate(document_of(CheckReport([Problem(file, line, path, message)], [silenced]), file or "x"))


WRONG_SARIF: dict[str, Any] = {
    "a level": {"level": "warn"},
    "a message": {"message": "is wrong"},
    "a line": {"locations": [{"physicalLocation": {"artifactLocation": {"uri": "a"}, "region": {"startLine": 0}}}]},
    "a suppression": {"suppressions": [{"kind": "silenced"}]},
    "more": {"more": 1},
}


@pytest.mark.parametrize("name", WRONG_SARIF)
def test_the_official_schema_of_sarif_notices(name: str) -> None:
    document = deepcopy(document_of(REPORTS["errors"]))
    document["runs"][0]["results"][0] |= WRONG_SARIF[name]
    assert list(sarif_schema().iter_errors(document))


def test_the_official_validator_notices(tmp_path: Path) -> None:
    placeless = document_of(REPORTS["errors"])
    del placeless["runs"][0]["results"][1]["locations"]
    short = document_of(REPORTS["errors"])
    for text in ("fullDescription", "help"):
        del short["runs"][0]["tool"]["driver"]["rules"][0][text]
    found = validated([json.dumps(placeless), json.dumps(short), json.dumps(document_of(CheckReport([])) | {"more": 1})], tmp_path)
    assert {(number, rule) for number, rule, _ in found if rule != "SARIF2005"} >= {(0, "GH1015"), (1, "GH2012"), (2, "JSON1005")}


SUITE = """\
people: {ana: USER user=ana@acme.com scopes=SEARCH}
cases:
  - {request: POST /search, who: ana, expect: allow}
  - {name: "a \\a<&>\\"']]>\\x85\\u2028\\ufffd {0}", request: POST /search, who: nobody, expect: {body: "<&>]]>\\e", status: 200}}
  - {request: GET /a, headers: {authorization: Bearer x}, expect: deny}
"""


@pytest.mark.parametrize("flags", [[], ["-x"], ["-k", "ana"], ["-k", "no such case"], ["--coverage", "--fail-under", "99"]])
def test_what_the_command_writes_is_junit_xml(tmp_path: Path, flags: list[str]) -> None:
    """Cases that pass, fail and cannot be decided, in several files, and none at all."""
    configured(tmp_path)
    suites = [tmp_path / name for name in ("a<&>\"'.yaml", "b]]>.yaml", os.fsdecode(b"c\xff.yaml"))]
    for suite in suites:
        suite.write_text(SUITE)
    written = tmp_path / "results.xml"
    call = ["test", "--config", str(tmp_path / "extauthz.yaml"), "--junit", str(written), *flags, *map(str, suites)]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == (0 if flags == ["-k", "ana"] else 1), result.output
    junit_schema().validate(written.read_text(encoding="utf-8"))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text(), st.text(), st.text(min_size=1), st.none() | st.text(min_size=1), st.floats(0, 1e6))
def test_whatever_is_told_is_junit_xml(file: str, name: str, expected: str, found: str, error: str | None, seconds: float) -> None:
    case = SuiteCase(file, 3, "cases[0]", name, Call("GET", "/a"), None, {})
    results = [Result(case, None), Result(case, None, (Mismatch(name, expected, found),), error)]
    for told in ([], [FileResults(file, [], seconds)], [FileResults(file, results, seconds)] * 2):
        junit_schema().validate(junit_of(told, NOW).decode())


WRONG_JUNIT = {
    "no name": b'<testsuite name="a" tests="1"><testcase/></testsuite>',
    "another order": b'<testsuite name="a" tests="1"><testcase name="b"><failure/><error/></testcase></testsuite>',
    "another element": b'<testsuite name="a" tests="1"><case/></testsuite>',
    "another attribute": b'<testsuite name="a" tests="1" line="1"/>',
}


@pytest.mark.parametrize("name", WRONG_JUNIT)
def test_the_official_schema_of_junit_xml_notices(name: str) -> None:
    with pytest.raises(XMLSchemaValidationError):
        junit_schema().validate((b"<testsuites>" + WRONG_JUNIT[name] + b"</testsuites>").decode())
