"""`extauthz routes …`."""

from __future__ import annotations

import click

from extauthz.cli import routes_coverage, routes_import


@click.group("routes")
def command() -> None:
    """Look at the routes of a configuration, and bring them up to date with API descriptions.

    Example: extauthz routes coverage openapi.yaml
    """


command.add_command(routes_import.command)
command.add_command(routes_coverage.command)
