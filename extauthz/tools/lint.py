"""Everything that is no error and worth a look, and what of it somebody has silenced with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from extauthz.config.lints import Lint
from extauthz.config.loader import Configuration
from extauthz.errors import Problem
from extauthz.tools import lint_ignores, lint_routes, lint_settings
from extauthz.tools.lint_ignores import Ignore
from extauthz.tools.lint_places import RoutePlaces


class LintLevel(StrEnum):
    """What a finding comes to: only an error keeps a configuration from being right."""

    ERROR = "error"
    WARNING = "warning"
    SILENCED = "silenced"


@dataclass(frozen=True, slots=True, order=True)
class LintFinding:
    """One finding with its level; `reason` is that of the comment that silences it."""

    problem: Problem
    level: LintLevel = LintLevel.WARNING
    reason: str | None = None


def lints(configuration: Configuration) -> list[LintFinding]:
    """Return what is worth a look, in the order of files and lines: the warnings of the loader, the lints, and wrong comments.

    It is pure: it reads what the configuration was made of, and nothing else.
    """
    places = RoutePlaces(configuration)
    policy = configuration.policy
    found = {
        *configuration.warnings,
        *lint_routes.findings(policy, places),
        *lint_settings.findings(configuration.settings, policy, places.settings),
    }
    ignores: list[Ignore] = []
    errors: list[Problem] = []
    for file in configuration.yaml_files:
        read, wrong = lint_ignores.read(str(file), configuration.files.read(file))
        ignores += read
        errors += wrong
    return sorted([*(LintFinding(error, LintLevel.ERROR) for error in errors), *_with_reasons(found, ignores)])


def _with_reasons(found: Iterable[Problem], ignores: Iterable[Ignore]) -> list[LintFinding]:
    """Silence what comments are about; a comment that is about nothing is a finding of its own."""
    by_place = {(ignore.file, ignore.target, ignore.lint.value): ignore for ignore in ignores}
    findings, used = [], set()
    for problem in found:
        ignore = by_place.get((problem.file, problem.line, problem.name))
        if ignore is None:
            findings.append(LintFinding(problem))
        else:
            used.add(ignore)
            findings.append(LintFinding(problem, LintLevel.SILENCED, ignore.reason))
    for ignore in ignores:
        if ignore not in used:
            message = f"nothing of {ignore.lint} is found there: remove the comment"
            findings.append(LintFinding(Problem(ignore.file, ignore.line, "", message, Lint.UNUSED_IGNORE)))
    return findings
