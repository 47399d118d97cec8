"""What `extauthz test` prints: dots or lines, failures, coverage, and how many passed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extauthz.cli.terminal import Styled, echo, printable
from extauthz.tools.suite_junit import FileResults, described, worded
from extauthz.tools.suite_runs import Result
from extauthz.tools.suite_text import shown, shown_place

if TYPE_CHECKING:
    from extauthz.tools.suite_coverage import Missed, SuiteCoverage

GREEN, RED = "green", "red"
_WORKFLOW_COMMAND = re.compile(r"(^\s*):(?=:)|#(?=#\[)")
"""What a runner of GitHub obeys: two colons that start a line, and the older form anywhere in it."""


def write_file(each: FileResults, *, verbose: bool) -> None:
    """Print the results of one file: a letter for each case, or with `verbose` a line."""
    if verbose:
        for result in each.results:
            mark = Styled("PASSED", fg=GREEN) if result.passed else Styled(_mark(result), fg=RED)
            echo(f"{_place(result)} {_name(result)} ", mark)
        return
    name = _line(shown_place(each.file))
    width = max(shutil.get_terminal_size().columns - len(name) - 1, 20)
    letters = ["." if result.passed else _mark(result)[0] for result in each.results]
    for start in range(0, len(letters), width):
        row = letters[start : start + width]
        styled = [Styled(letter, fg=GREEN if letter == "." else RED) for letter in row]
        echo(name if start == 0 else " " * len(name), " ", *styled)


def write_failures(results: Sequence[Result]) -> None:
    """Print each case that failed, with what was expected and found."""
    failed = [result for result in results if not result.passed]
    for result in failed:
        echo()
        echo(Styled(_mark(result), fg=RED, bold=True), f" {_place(result)} {_name(result)}")
        for line in [result.error] if result.error is not None else map(described, result.differences):
            echo(f"  {_line(shown(line))}")
        if result.decision is not None:
            decision = result.decision
            route = "no route" if decision.route is None else f"route {decision.route}"
            echo(f"  decided: {decision.outcome}, {decision.reason.value}, {_line(shown(route))}")


def write_coverage(coverage: SuiteCoverage) -> None:
    """Print what is reached, what no case reaches, and what cannot be reached."""
    counts = [f"{coverage.reached[kind]:,} of {coverage.reachable[kind]:,} {kind}" for kind in coverage.reachable]
    echo()
    echo(Styled("coverage", bold=True), f" {coverage.percent:.1f}%: {', '.join(counts)}")
    for missed in coverage.missed:
        echo(f"  no case reaches the {_missed(missed)}", f", like {_line(shown(missed.example))}" if missed.example else "")
    for missed in coverage.unreachable:
        echo(f"  no request reaches the {_missed(missed)}")
    echo("  Not counted: reasons that only verifying a token comes to.")


def write_summary(files: Sequence[FileResults], deselected: int, fail_under: float | None, coverage: SuiteCoverage | None) -> None:
    """Print the last line, in red if something is wrong."""
    results = [result for each in files for result in each.results]
    failed = sum(not result.passed for result in results)
    few = coverage is not None and fail_under is not None and coverage.percent < fail_under
    parts = [f"{failed:,} failed"] if failed else []
    parts += [f"{len(results) - failed:,} passed"] if results else ["no case was run"]
    parts += [f"{deselected:,} deselected"] if deselected else []
    end = f" in {sum(each.seconds for each in files):.2f} s"
    if few and coverage is not None:
        end += f"; {coverage.percent:.1f}% is reached, and {fail_under:g}% is asked for"
    echo()
    echo(Styled(", ".join(parts) + end, fg=RED if failed or few or not results else GREEN, bold=True))


def plain(files: Sequence[FileResults], coverage: SuiteCoverage | None, deselected: int) -> dict[str, Any]:
    """Return everything as plain data for programs."""
    results = [result for each in files for result in each.results]
    passed = sum(result.passed for result in results)
    return {
        "passed": passed,
        "failed": len(results) - passed,
        "deselected": deselected,
        "seconds": round(sum(each.seconds for each in files), 3),
        "cases": [_plain_result(result) for result in results],
        "coverage": None if coverage is None else _plain_coverage(coverage),
    }


def _plain_result(result: Result) -> dict[str, Any]:
    case, decision = result.case, result.decision
    differences = [
        {"field": shown(each.field), "expected": shown(worded(each.expected)), "found": shown(worded(each.found))}
        for each in result.differences
    ]
    return {
        "file": shown_place(case.file),
        "line": case.line,
        "case": case.label,
        "name": shown(case.name),
        "passed": result.passed,
        "decision": None if decision is None else decision.outcome,
        "reason": None if decision is None else decision.reason.value,
        "route": None if decision is None or decision.route is None else shown(decision.route),
        "differences": differences,
        "error": result.error,
    }


def _plain_coverage(coverage: SuiteCoverage) -> dict[str, Any]:
    def rows(all_missed: Sequence[Missed]) -> list[dict[str, str | None]]:
        return [
            {"kind": each.kind, "name": shown(each.name), "place": each.place, "example": each.example and shown(each.example)}
            for each in all_missed
        ]

    return {
        "percent": round(coverage.percent, 1),
        "reached": dict(coverage.reached),
        "reachable": dict(coverage.reachable),
        "missed": rows(coverage.missed),
        "unreachable": rows(coverage.unreachable),
    }


def _missed(missed: Missed) -> str:
    return f"{missed.kind} {_line(shown(missed.name))}" + (f" ({_line(missed.place)})" if missed.place else "")


def _mark(result: Result) -> str:
    return "FAILED" if result.error is None else "ERROR"


def _place(result: Result) -> str:
    return _line(shown_place(result.case.place))


def _name(result: Result) -> str:
    return _line(f"{result.case.label} {shown(result.case.name)}")


def _line(text: str) -> str:
    text = printable(text, lines=False)
    if "GITHUB_ACTIONS" not in os.environ:
        return text
    return _WORKFLOW_COMMAND.sub(lambda found: f"{found[1]}\\u003a" if found[1] is not None else "\\u0023", text)
