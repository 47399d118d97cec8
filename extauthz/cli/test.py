"""`extauthz test`: suites of cases, decided by a configuration."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.cli import configuration
from extauthz.cli.output import json_option, now, write_json
from extauthz.cli.terminal import echo, printable
from extauthz.cli.written_files import write_file
from extauthz.errors import ConfigurationError

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration
    from extauthz.tools.suite_cases import Suite, SuiteCase
    from extauthz.tools.suite_junit import FileResults

FOLDER = "tests"
"""Where suites are, beside the configuration."""
FIRST = "routes.yaml"
"""The suite that --init writes where no path is given."""
FAILED = 1


@click.command("test")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@configuration.option
@click.option("-k", "only", metavar="TEXT", help="Only cases with this text in their file or their name, in any letter case.")
@click.option("-x", "--exitfirst", "stops", is_flag=True, help="Stop after the first case that fails.")
@click.option("-v", "--verbose", is_flag=True, help="A line for each case.")
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write the results as JUnit XML into this file."
)
@click.option("--coverage", "with_coverage", is_flag=True, help="Tell which routes, scopes and reasons no case reaches.")
@click.option(
    "--fail-under", metavar="PERCENT", type=click.FloatRange(0, 100), help="Exit 1 if less is reached than this; with --coverage."
)
@click.option("--init", "writes", is_flag=True, help="Write a suite for the configuration as it is, into a new file.")
@json_option
def command(
    paths: tuple[Path, ...], *, config_file: Path, writes: bool, as_json: bool, fail_under: float | None, **flags: Any
) -> None:
    """Run cases of requests against a configuration: who asks for what, and what is decided.

    PATH is a suite or a folder of suites; without one, the folder tests beside the configuration. Nothing is served and no token is
    needed: a case describes who asks. Exits with 0 if every case passes, with 1 if one does not or less is covered than asked for,
    with 2 for wrong flags, and with 3 for problems in the configuration or in a suite.

    \b
    Example: extauthz test
             extauthz test --init
             extauthz test config/tests -k search -v
             extauthz test --coverage --fail-under 90 --junit results.xml
    """
    if writes:
        if as_json or fail_under is not None or any(flags.values()) or len(paths) > 1:
            raise click.UsageError("--init writes one file, and runs nothing: give it one path at most, and no other flag")
        _init(paths[0] if paths else None, config_file)
        return
    if flags["junit"] is not None and not flags["junit"].parent.is_dir():
        raise click.BadParameter("its folder is not there: make it first", param_hint="--junit")
    loaded = configuration.read(config_file)
    suites = _read(paths or (config_file.parent / FOLDER,), loaded)
    with_coverage = flags.pop("with_coverage") or fail_under is not None
    _run(suites, loaded, as_json=as_json, with_coverage=with_coverage, fail_under=fail_under, **flags)


def _read(paths: Iterable[Path], loaded: Configuration) -> list[Suite]:
    from extauthz.tools.suite_cases import files_of, read_suites
    from extauthz.tools.suite_text import shown, shown_place

    for path in paths:
        if not path.exists():
            where = printable(shown_place(str(path)), lines=False)
            raise click.UsageError(f"nothing is at {where}: name a suite or a folder, or write one with extauthz test --init")
    try:
        return read_suites(files_of([*paths]), loaded)
    except ConfigurationError as error:
        # What was pasted into a suite may be a token.
        configuration.stop(
            ConfigurationError(
                [
                    replace(problem, file=shown_place(problem.file), path=shown(problem.path), message=shown(problem.message))
                    for problem in error.problems
                ]
            )
        )


def _run(
    suites: list[Suite],
    loaded: Configuration,
    *,
    only: str | None,
    stops: bool,
    verbose: bool,
    junit: Path | None,
    with_coverage: bool,
    fail_under: float | None,
    as_json: bool,
) -> None:
    from extauthz.cli import suite_report
    from extauthz.tools.suite_coverage import coverage_of
    from extauthz.tools.suite_junit import junit_of

    began = now()
    chosen = {suite.file: [case for case in suite.cases if _is_chosen(case, only)] for suite in suites}
    deselected = sum(len(suite.cases) for suite in suites) - sum(map(len, chosen.values()))
    files = []
    for each in _results(chosen, loaded, began, stops=stops):
        files.append(each)
        if not as_json:
            suite_report.write_file(each, verbose=verbose)
    results = [result for each in files for result in each.results]
    decisions = [result.decision for result in results if result.decision is not None]
    coverage = coverage_of(decisions, loaded, float(began)) if with_coverage else None
    if junit is not None:
        write_file(junit, junit_of(files, began).decode("utf-8"))
    if as_json:
        write_json(suite_report.plain(files, coverage, deselected))
    else:
        suite_report.write_failures(results)
        if coverage is not None:
            suite_report.write_coverage(coverage)
        suite_report.write_summary(files, deselected, fail_under, coverage)
    enough = coverage is None or fail_under is None or coverage.percent >= fail_under
    if not results or not enough or not all(result.passed for result in results):
        sys.exit(FAILED)


def _results(chosen: dict[str, list[SuiteCase]], loaded: Configuration, began: int, *, stops: bool) -> Iterable[FileResults]:
    """Yield the results of each file that has some."""
    from extauthz.tools.suite_junit import FileResults
    from extauthz.tools.suite_runs import Runner

    runner = Runner(loaded, float(began))
    for file, cases in chosen.items():
        started = time.perf_counter()
        results = []
        for result in runner.run(cases):
            results.append(result)
            if stops and not result.passed:
                break
        if results:
            yield FileResults(file, results, time.perf_counter() - started)
            if stops and not results[-1].passed:
                return


def _is_chosen(case: SuiteCase, text: str | None) -> bool:
    return text is None or text.lower() in f"{case.file} {case.label} {case.name}".lower()


def _init(path: Path | None, config_file: Path) -> None:
    from extauthz.tools.suite_text import shown_place
    from extauthz.tools.suite_writing import suite_of

    loaded = configuration.read(config_file)
    file = path or config_file.parent / FOLDER / FIRST
    where = printable(shown_place(str(file)), lines=False)
    text = suite_of(loaded, float(now()))
    if os.path.lexists(file):
        raise click.ClickException(f"nothing was written, because {where} is there: name another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise click.ClickException(f"{where} was not written: {error.strerror or error}") from error
    echo(f"Wrote {where}")
