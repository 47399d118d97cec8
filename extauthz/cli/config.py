"""`extauthz config …`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from extauthz.cli import configuration
from extauthz.cli.terminal import echo, printable
from extauthz.config import effective
from extauthz.config.document import ConfigurationError
from extauthz.config.loader import load


@click.group("config")
def command() -> None:
    """Look at a configuration before it serves."""


@command.command("check")
@configuration.option
@click.option("--json", "as_json", is_flag=True, help="One JSON object with mistakes and warnings.")
def check(config_file: Path, *, as_json: bool) -> None:
    """List every mistake and every warning, with file and line; exit 3 if there is a mistake.

    Example: extauthz config check --config config/extauthz.yaml
    """
    mistakes, warnings = [], []
    try:
        warnings = list(load(config_file).warnings)
    except ConfigurationError as error:
        mistakes = error.mistakes
    if as_json:
        echo(json.dumps({"mistakes": [asdict(found) for found in mistakes], "warnings": [asdict(found) for found in warnings]}))
    else:
        for found in mistakes:
            echo(printable(str(found), lines=False))
        for found in warnings:
            echo(f"warning: {printable(str(found), lines=False)}")
        echo(f"{config_file}: {len(mistakes)} mistakes, {len(warnings)} warnings")
    if mistakes:
        raise click.exceptions.Exit(configuration.CONFIGURATION_EXIT)


@command.command("show")
@configuration.option
def show(config_file: Path) -> None:
    """Show the settings as they count, as JSON: defaults filled in, short issuers written out, no place of a secret.

    Example: extauthz config show --config config/extauthz.yaml
    """
    echo(json.dumps(effective.shown(configuration.read(config_file)), indent=2))
