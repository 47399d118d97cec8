"""What a check of a configuration comes to, in the formats that people and machines read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath

from extauthz.errors import Problem
from extauthz.tools.lint import LintFinding, LintLevel


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Errors, findings with their level, and notes of what is neither wrong nor a risk."""

    errors: Sequence[Problem]
    findings: Sequence[LintFinding] = ()
    notes: Sequence[Problem] = ()

    @property
    def problems(self) -> list[Problem]:
        """What keeps the configuration from being right."""
        return [*self.errors, *(finding.problem for finding in self.findings if finding.level is LintLevel.ERROR)]

    @property
    def warnings(self) -> list[Problem]:
        """What is worth a look and not silenced."""
        return [finding.problem for finding in self.findings if finding.level is LintLevel.WARNING]

    @property
    def silenced(self) -> list[LintFinding]:
        """What a comment silences."""
        return [finding for finding in self.findings if finding.level is LintLevel.SILENCED]


def named(problem: Problem) -> str:
    """Write a problem with its place and, in brackets, the name of the lint."""
    return f"{problem} [{problem.name}]" if problem.name else str(problem)


def plain(report: CheckReport) -> dict[str, list[dict[str, object]]]:
    """Return the report as lists of plain data by level."""
    return {
        "problems": list(map(asdict, report.problems)),
        "warnings": list(map(asdict, report.warnings)),
        "notes": list(map(asdict, report.notes)),
        "silenced": [asdict(finding.problem) | {"reason": finding.reason} for finding in report.silenced],
    }


def github(report: CheckReport, folder: PurePath) -> Iterator[str]:
    """Yield a workflow command of GitHub Actions for each problem, warning and note; its files are relative to `folder`."""
    for command, problems in (("error", report.problems), ("warning", report.warnings), ("notice", report.notes)):
        for problem in problems:
            # The place is told by the properties; a place without a line is told in the text.
            text = named(replace(problem, file="", line=0)).removeprefix(": ") if problem.line else named(problem)
            place = {"file": relative(problem.file, folder), "line": str(problem.line)} if problem.line else {}
            properties = place | {"title": f"extauthz config check: {problem.name or command}"}
            written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
            yield f"::{command} {written}::{_data(text)}"


def relative(file: str, folder: PurePath) -> str:
    """Return a path as it stands below `folder`, with slashes; a path elsewhere stays absolute."""
    path = os.path.normpath(folder / file)
    inside = os.path.relpath(path, folder)
    return PurePath(path if inside.startswith(os.pardir) else inside).as_posix()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
