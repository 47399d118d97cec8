"""`extauthz config …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauthz import __version__
from extauthz.cli import config_files, configuration
from extauthz.cli.output import now
from extauthz.cli.terminal import echo, printable
from extauthz.config.wording import counted
from extauthz.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration
    from extauthz.tools.config_formats import CheckReport

FORMATS = ("text", "json", "github", "sarif")


@click.group("config")
def command() -> None:
    """Look at a configuration before it serves.

    Example: extauthz config check --config config/extauthz.yaml
    """


command.add_command(config_files.schema)
command.add_command(config_files.fmt)


@command.command("check")
@configuration.option
@click.option("--store", "with_store", is_flag=True, help="Also whether the peppers are those that its active tokens need.")
@click.option("--strict", is_flag=True, help="Exit 1 if there is a warning and no problem.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="text for people, json for programs, github for annotations in a workflow, sarif for code scanning.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def check(config_file: Path, *, with_store: bool, strict: bool, form: str, as_json: bool) -> None:
    """List every problem, every warning and what else is good to know, with file and line.

    A warning has a name; a comment "# extauthz: ignore NAME: reason" on its line, or above it, silences it. Certificates that are
    here and that ended, or end soon, are warnings; with --store the token store is looked at too.

    Exit codes: 0 no problem; 1 a warning, with --strict; 2 wrong flags; 3 a problem.

    Example: extauthz config check --config config/extauthz.yaml
    """
    if as_json and form not in ("text", "json"):
        raise click.UsageError(f"--json is --format json: write one of --json and --format {form}")
    report = _report(config_file, with_store=with_store)
    _show(report, config_file, "json" if as_json else form)
    if report.problems:
        raise click.exceptions.Exit(configuration.CONFIGURATION_EXIT)
    if strict and report.warnings:
        raise click.exceptions.Exit(1)


def _report(config_file: Path, *, with_store: bool) -> CheckReport:
    from extauthz.config.loader import load
    from extauthz.config.notes import notes_of
    from extauthz.process.memory import without_full_collections
    from extauthz.serve.certificate_warnings import certificate_warnings
    from extauthz.tools.config_formats import CheckReport
    from extauthz.tools.lint import LintFinding, lints

    try:
        with without_full_collections():
            loaded = load(config_file)
            findings = [*lints(loaded), *map(LintFinding, certificate_warnings(loaded, now()))]
        return CheckReport(_of_store(config_file, loaded) if with_store else [], findings, notes_of(loaded))
    except ConfigurationError as error:
        return CheckReport(error.problems)


def _show(report: CheckReport, config_file: Path, form: str) -> None:
    from extauthz.tools import config_formats

    match form:
        case "json":
            echo(json.dumps(config_formats.plain(report)))
        case "sarif":
            from extauthz.tools.sarif import sarif

            echo(json.dumps(sarif(report, Path.cwd(), __version__, str(config_file)), indent=2))
        case "github":
            for line in config_formats.github(report, Path.cwd()):
                echo(printable(line, lines=False))
        case _:
            for prefix, problems in (("", report.problems), ("warning: ", report.warnings), ("note: ", report.notes)):
                for problem in problems:
                    echo(f"{prefix}{printable(config_formats.named(problem), lines=False)}")
            counts = [counted(len(report.problems), "problem"), counted(len(report.warnings), "warning")]
            counts += [f"{len(report.silenced):,} silenced"] if report.silenced else []
            echo(f"{config_file}: {', '.join(counts)}")


def _of_store(config_file: Path, loaded: Configuration) -> list[Problem]:
    """Return what is wrong with the peppers, with the line of their list."""
    from extauthz.admin.stores import pepper_error
    from extauthz.cli.session import Session, unwrap

    if loaded.store_place is None:
        return []
    session = Session(config_file)
    with session.administration() as administration:
        error = unwrap(pepper_error(administration, session.actor, now()))
    return [] if error is None else [loaded.problem(("tokens", "peppers"), error.removeprefix("tokens.peppers: "))]


@command.command("show")
@configuration.option
def show(config_file: Path) -> None:
    """Show the settings as they count, as JSON: defaults filled in, short issuers written out, no place of a secret.

    Example: extauthz config show --config config/extauthz.yaml
    """
    from extauthz.config import effective

    echo(json.dumps(effective.plain_settings(configuration.read(config_file)), indent=2))
