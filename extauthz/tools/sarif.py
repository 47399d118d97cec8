"""A check of a configuration as SARIF 2.1.0, the format of static analysis that code hosts show (OASIS)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from extauthz.config.lints import LASTING, Lint
from extauthz.errors import Problem
from extauthz.tools.config_formats import CheckReport, relative

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
"""The folder to which relative paths belong, by its usual name."""
ERROR, NOTE = "configuration-error", "configuration-note"


def sarif(report: CheckReport, folder: PurePath, version: str, config_file: str) -> dict[str, Any]:
    """Return one run: every lint as a rule, a result for each finding, and the reason of those that are silenced.

    What has no lines is told of the first line of `config_file`: GitHub refuses a document in which a result has no place.
    """
    driver = {"name": "extauthz config check", "version": version, "rules": list(_rules())}
    results = [_result(problem, level, folder, config_file) | more for problem, level, more in _findings(report)]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


def _rules() -> Iterator[dict[str, Any]]:
    yield _rule(ERROR, "The configuration cannot be used.", "error", "The message says what is wrong, and what to write.")
    for lint in Lint:
        silenced = f"A comment with a reason, on the line or above it, silences it: # extauthz: ignore {lint.value}: REASON"
        yield _rule(lint.value, lint.meaning, "warning", "No comment silences it." if lint in LASTING else silenced)
    yield _rule(NOTE, "Neither wrong nor a risk, and not what everybody expects.", "note", "Nothing has to be done.")


def _rule(name: str, meaning: str, level: str, remedy: str) -> dict[str, Any]:
    # GitHub asks for all three texts.
    texts = {"shortDescription": {"text": meaning}, "fullDescription": {"text": meaning}, "help": {"text": remedy}}
    return {"id": name, **texts, "defaultConfiguration": {"level": level}}


def _findings(report: CheckReport) -> Iterator[tuple[Problem, str, dict[str, Any]]]:
    for level, problems in (("error", report.problems), ("warning", report.warnings), ("note", report.notes)):
        for problem in problems:
            yield problem, level, {}
    for finding in report.silenced:
        yield finding.problem, "warning", {"suppressions": [{"kind": "inSource", "justification": _unicode(finding.reason or "")}]}


def _result(problem: Problem, level: str, folder: PurePath, config_file: str) -> dict[str, Any]:
    rule = problem.name or (NOTE if level == "note" else ERROR)
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    file, line = problem.file, problem.line
    if not line:
        text, file, line = f"{file}: {text}", config_file, 1
    # Braces are not doubled, as section 3.11.5 has it: readers, the standard's own SDK too, show a text without arguments as it is.
    location = {"artifactLocation": _artifact(file, folder), "region": {"startLine": line}}
    return {"ruleId": rule, "level": level, "message": {"text": _unicode(text)}, "locations": [{"physicalLocation": location}]}


def _artifact(file: str, folder: PurePath) -> dict[str, str]:
    path = relative(file, folder)
    uri = quote(path, errors="surrogateescape")
    if path.startswith("/"):
        return {"uri": f"file://{uri}"}
    return {"uri": uri, "uriBaseId": ROOT}


def _unicode(text: str) -> str:
    """Write half a character as Python does: readers of its escape disagree (RFC 8259, section 8.2)."""
    return text.encode(errors="backslashreplace").decode()
