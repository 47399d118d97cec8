"""A check of a configuration as SARIF 2.1.0, the format of static analysis that code hosts show (OASIS)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from extauthz.config.lints import Lint
from extauthz.errors import Problem
from extauthz.tools.config_formats import CheckReport, relative

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
"""The folder to which relative paths belong, by its usual name."""
ERROR, NOTE = "configuration-error", "configuration-note"


def sarif(report: CheckReport, folder: PurePath, version: str) -> dict[str, Any]:
    """Return one run: every lint as a rule, a result for each finding, and the reason of those that are silenced."""
    driver = {"name": "extauthz config check", "version": version, "rules": list(_rules())}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": list(_results(report, folder))}],
    }


def _rules() -> Iterator[dict[str, Any]]:
    yield _rule(ERROR, "The configuration cannot be used.", "error")
    for lint in Lint:
        yield _rule(lint.value, lint.meaning, "warning")
    yield _rule(NOTE, "Neither wrong nor a risk, and not what everybody expects.", "note")


def _rule(name: str, meaning: str, level: str) -> dict[str, Any]:
    return {"id": name, "shortDescription": {"text": meaning}, "defaultConfiguration": {"level": level}}


def _results(report: CheckReport, folder: PurePath) -> Iterator[dict[str, Any]]:
    for level, problems in (("error", report.problems), ("warning", report.warnings), ("note", report.notes)):
        for problem in problems:
            yield _result(problem, level, folder)
    for finding in report.silenced:
        suppression = {"kind": "inSource", "justification": finding.reason}
        yield _result(finding.problem, "warning", folder) | {"suppressions": [suppression]}


def _result(problem: Problem, level: str, folder: PurePath) -> dict[str, Any]:
    rule = problem.name or (NOTE if level == "note" else ERROR)
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    if not problem.line:
        return {"ruleId": rule, "level": level, "message": {"text": f"{problem.file}: {text}"}}
    location = {"artifactLocation": _artifact(problem.file, folder), "region": {"startLine": problem.line}}
    return {"ruleId": rule, "level": level, "message": {"text": text}, "locations": [{"physicalLocation": location}]}


def _artifact(file: str, folder: PurePath) -> dict[str, str]:
    path = relative(file, folder)
    if path.startswith("/"):
        return {"uri": f"file://{quote(path)}"}
    return {"uri": quote(path), "uriBaseId": ROOT}
