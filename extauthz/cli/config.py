"""`extauthz config …`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauthz.cli import configuration
from extauthz.cli.output import now
from extauthz.cli.terminal import echo, printable
from extauthz.config.wording import counted
from extauthz.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration


@click.group("config")
def command() -> None:
    """Look at a configuration before it serves.

    Example: extauthz config check --config config/extauthz.yaml
    """


@command.command("check")
@configuration.option
@click.option("--store", "with_store", is_flag=True, help="Also whether the peppers are those that its active tokens need.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with problems, warnings and notes.")
def check(config_file: Path, *, with_store: bool, as_json: bool) -> None:
    """List every problem, every warning and what else is good to know, with file and line; exit 3 if there is a problem.

    Certificates that are here and that ended, or end soon, are warnings; with --store the token store is looked at too.

    Example: extauthz config check --config config/extauthz.yaml
    """
    from extauthz.config.loader import load
    from extauthz.config.notes import notes_of
    from extauthz.serve.certificate_warnings import certificate_warnings

    problems, warnings, notes = [], [], []
    try:
        loaded = load(config_file)
        warnings, notes = [*loaded.warnings, *certificate_warnings(loaded, now())], notes_of(loaded)
        problems = _of_store(config_file, loaded) if with_store else []
    except ConfigurationError as error:
        problems = error.problems
    if as_json:
        kinds = {"problems": problems, "warnings": warnings, "notes": notes}
        echo(json.dumps({kind: list(map(asdict, found)) for kind, found in kinds.items()}))
    else:
        for problem in problems:
            echo(printable(str(problem), lines=False))
        for problem in warnings:
            echo(f"warning: {printable(str(problem), lines=False)}")
        for note in notes:
            echo(f"note: {printable(str(note), lines=False)}")
        echo(f"{config_file}: {counted(len(problems), 'problem')}, {counted(len(warnings), 'warning')}")
    if problems:
        raise click.exceptions.Exit(configuration.CONFIGURATION_EXIT)


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
