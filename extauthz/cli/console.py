"""`extauthz console …`: the admin console, and who uses it."""

from __future__ import annotations

import click

from extauthz.cli.console_key import key


@click.group("console")
def command() -> None:
    """The admin console: keys for its API."""


command.add_command(key)
