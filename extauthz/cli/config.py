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
@click.option("--json", "as_json", is_flag=True, help="One JSON object with problems and warnings.")
def check(config_file: Path, *, as_json: bool) -> None:
    """List every problem and every warning, with file and line; exit 3 if there is a problem.

    Example: extauthz config check --config config/extauthz.yaml
    """
    from extauthz.config.loader import load

    problems, warnings = [], []
    try:
        warnings = list(load(config_file).warnings)
    except ConfigurationError as error:
        problems = error.problems
    if as_json:
        echo(json.dumps({"problems": list(map(asdict, problems)), "warnings": list(map(asdict, warnings))}))
    else:
        for problem in problems:
            echo(printable(str(problem), lines=False))
        for problem in warnings:
            echo(f"warning: {printable(str(problem), lines=False)}")
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
