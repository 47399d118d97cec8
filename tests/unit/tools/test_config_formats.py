"""A check of a configuration for machines: annotations of GitHub, SARIF, and plain data."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from extauthz.config.lints import Lint
from extauthz.config.loader import load
from extauthz.config.notes import notes_of
from extauthz.errors import ConfigurationError, Problem
from extauthz.tools.config_formats import CheckReport, github, plain, relative
from extauthz.tools.lint import LintFinding, LintLevel, lints
from extauthz.tools.sarif import sarif
from tests.support.broken_files import lay_out
from tests.support.project import TESTS

SCHEMA = json.loads((TESTS / "data" / "sarif" / "emitted.schema.json").read_text(encoding="utf-8"))
FOLDER = PurePosixPath("/srv/ana/api")
CONFIG = TESTS / "config"
SECRET = "hunter2"

ERROR = Problem("config/a,b:c.yaml", 3, "realm", "100% wrong,\r\nas it is: so")
LINT = Problem("/srv/ana/api/config/routes.yaml", 4, "routes[0].match", "is open", Lint.OPEN_READ)
SILENCED = LintFinding(Problem("config/routes.yaml", 5, "", "was open", Lint.OPEN_READ), LintLevel.SILENCED, "it is meant")
STORED = Problem("the store of tokens", 0, "issuer", "is wrong")
CONFIG_FILE = "config/extauthz.yaml"
NOTE = Problem("/etc/extauthz/my file.yaml", 1, "oauth", "holds every scope")
REPORT = CheckReport([ERROR, STORED], [LintFinding(LINT), SILENCED], [NOTE])


def test_annotations_land_on_their_lines() -> None:
    assert list(github(REPORT, FOLDER)) == [
        "::error file=config/a%2Cb%3Ac.yaml,line=3,title=extauthz config check%3A error::realm: 100%25 wrong,%0D%0Aas it is: so",
        "::error title=extauthz config check%3A error::the store of tokens: issuer: is wrong",
        "::warning file=config/routes.yaml,line=4,title=extauthz config check%3A open-read::routes[0].match: is open [open-read]",
        "::notice file=/etc/extauthz/my file.yaml,line=1,title=extauthz config check%3A notice::oauth: holds every scope",
    ]


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from([0, 7]))
def test_an_annotation_is_one_command_that_says_everything(file: str, message: str, line: int) -> None:
    (command,) = github(CheckReport([Problem(f"x{file}", line, "", f"m{message}")]), FOLDER)
    assert "\n" not in command.replace("\x0b", "")
    assert "\r" not in command
    found = re.fullmatch(r"::error (?:file=([^:,]*),line=7,)?title=extauthz config check%3A error::(.*)", command, re.DOTALL)
    assert found
    decoded = re.sub("%(25|0D|0A)", lambda match: chr(int(match[1], 16)), found[2])
    assert decoded == (f"m{message}" if line else f"x{file}: m{message}")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("config/extauthz.yaml", "config/extauthz.yaml"),
        ("./config/../config/extauthz.yaml", "config/extauthz.yaml"),
        ("/srv/ana/api/config/extauthz.yaml", "config/extauthz.yaml"),
        ("../other/extauthz.yaml", "/srv/ana/other/extauthz.yaml"),
        ("/etc/extauthz.yaml", "/etc/extauthz.yaml"),
    ],
)
def test_paths_are_those_of_the_folder(file: str, expected: str) -> None:
    assert relative(file, FOLDER) == expected


def test_sarif_word_by_word() -> None:
    document = sarif(REPORT, FOLDER, "1.0", CONFIG_FILE)
    (run,) = document["runs"]
    rules = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in run["tool"]["driver"]["rules"]}
    assert rules == {"configuration-error": "error", **dict.fromkeys(Lint, "warning"), "configuration-note": "note"}
    assert [(each["ruleId"], each["level"], each["message"]["text"]) for each in run["results"]] == [
        ("configuration-error", "error", "realm: 100% wrong,\r\nas it is: so"),
        ("configuration-error", "error", "the store of tokens: issuer: is wrong"),
        ("open-read", "warning", "routes[0].match: is open"),
        ("configuration-note", "note", "oauth: holds every scope"),
        ("open-read", "warning", "was open"),
    ]
    places = [each["locations"][0]["physicalLocation"] for each in run["results"]]
    assert [place["region"]["startLine"] for place in places] == [3, 1, 4, 1, 5]
    assert [place["artifactLocation"] for place in places] == [
        {"uri": "config/a%2Cb%3Ac.yaml", "uriBaseId": "%SRCROOT%"},
        {"uri": "config/extauthz.yaml", "uriBaseId": "%SRCROOT%"},
        {"uri": "config/routes.yaml", "uriBaseId": "%SRCROOT%"},
        {"uri": "file:///etc/extauthz/my%20file.yaml"},
        {"uri": "config/routes.yaml", "uriBaseId": "%SRCROOT%"},
    ]
    assert run["results"][-1]["suppressions"] == [{"kind": "inSource", "justification": "it is meant"}]
    Draft202012Validator(SCHEMA).validate(document)


def test_code_hosts_show_a_rule_with_what_to_do_about_it() -> None:
    rules = {each["id"]: each for each in sarif(REPORT, FOLDER, "1.0", CONFIG_FILE)["runs"][0]["tool"]["driver"]["rules"]}
    for lint in Lint:
        assert rules[lint]["shortDescription"] == rules[lint]["fullDescription"] == {"text": lint.meaning}
    assert rules[Lint.OPEN_READ]["help"]["text"].endswith(" # extauthz: ignore open-read: REASON")
    assert "ignore" not in rules[Lint.CERTIFICATE_DATES]["help"]["text"]


def test_what_is_no_text_in_unicode_is_written_as_some() -> None:
    """Names of files are bytes."""
    report = CheckReport([Problem("config/\udcff.yaml", 1, "", "no \ud800"), Problem("a\udcff", 0, "", "no")])
    document = sarif(report, FOLDER, "1.0", CONFIG_FILE)
    named, nameless = document["runs"][0]["results"]
    assert named["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "config/%FF.yaml"
    assert (named["message"]["text"], nameless["message"]["text"]) == ("no \\ud800", "a\\udcff: no")
    assert json.dumps(document, ensure_ascii=False).encode()


def report_of(folder: Path) -> CheckReport:
    try:
        loaded = load(folder / "extauthz.yaml")
    except ConfigurationError as error:
        return CheckReport(error.problems)
    return CheckReport([], lints(loaded), notes_of(loaded))


def reports(folder: Path) -> list[CheckReport]:
    """Return a report of every third file of tests/config, and of all with a secret."""
    found = []
    for base, name in (("base", "bad"), ("lint_base", "lints")):
        files = sorted((CONFIG / name).iterdir())
        for file in [
            file for number, file in enumerate(files) if number % 3 == 0 or (file.is_file() and SECRET in file.read_text("latin-1"))
        ]:
            lay_out(file, folder / name / file.stem, CONFIG / base)
            found.append(report_of(folder / name / file.stem))
    return found


def test_reports_are_valid_sarif_and_hold_no_secret(tmp_path: Path) -> None:
    found = reports(tmp_path)
    assert sum(bool(report.problems) for report in found) > 90
    for report in found:
        document = sarif(report, tmp_path, "1.0", str(tmp_path / "extauthz.yaml"))
        Draft202012Validator(SCHEMA).validate(document)
        results = document["runs"][0]["results"]
        assert [uri_of(result, tmp_path) for result in results] == [problem.file for problem in every_problem(report)]
        assert len(results) == len(every_problem(report))
        commands = list(github(report, tmp_path))
        assert len(commands) == len(every_problem(report)) - len(report.silenced)
        for text in (json.dumps(document), json.dumps(plain(report)), *commands):
            assert SECRET not in text


def uri_of(result: dict[str, Any], folder: Path) -> str:
    """Return the absolute path that a result names."""
    artifact = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact["uriBaseId"] == "%SRCROOT%"
    return str(folder / unquote(artifact["uri"]))


def every_problem(report: CheckReport) -> list[Problem]:
    return [*report.problems, *report.warnings, *report.notes, *(finding.problem for finding in report.silenced)]


@pytest.mark.parametrize(
    "wrong", [{"level": "warn"}, {"locations": []}, {"suppressions": [{"kind": "inSource"}]}, {"message": "is wrong"}, {"more": 1}]
)
def test_what_is_no_sarif_is_noticed(wrong: dict[str, object]) -> None:
    document = sarif(REPORT, FOLDER, "1.0", CONFIG_FILE)
    document["runs"][0]["results"][0] |= wrong
    assert list(Draft202012Validator(SCHEMA).iter_errors(document))
