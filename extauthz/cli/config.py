"""`extauthz config …`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from extauthz.cli import configuration
from extauthz.cli.terminal import echo, printable
from extauthz.errors import ConfigurationError


@click.group("config")
def command() -> None:
    """Look at a configuration before it serves."""


@command.command("check")
@configuration.option
@click.option("--json", "as_json", is_flag=True, help="One JSON object with problems, warnings and notes.")
def check(config_file: Path, *, as_json: bool) -> None:
    """List every problem, every warning and what else is good to know, with file and line; exit 3 if there is a problem.

    Example: extauthz config check --config config/extauthz.yaml
    """
    from extauthz.config.loader import load
    from extauthz.config.notes import notes_of

    problems, warnings, notes = [], [], []
    try:
        loaded = load(config_file)
        warnings, notes = list(loaded.warnings), notes_of(loaded)
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
        echo(f"{config_file}: {len(problems)} problems, {len(warnings)} warnings")
    if problems:
        raise click.exceptions.Exit(configuration.CONFIGURATION_EXIT)


@command.command("show")
@configuration.option
def show(config_file: Path) -> None:
    """Show the settings as they count, as JSON: defaults filled in, short issuers written out, no place of a secret.

    Example: extauthz config show --config config/extauthz.yaml
    """
    from extauthz.config import effective

    echo(json.dumps(effective.plain_settings(configuration.read(config_file)), indent=2))
