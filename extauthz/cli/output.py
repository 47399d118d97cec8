"""What commands print: JSON for programs, lines for people. No secret goes through here."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from extauthz.cli.terminal import echo, fitting, printable

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")


def now() -> int:
    """Return this second since the epoch."""
    return int(time.time())  # noqa: TID251 - a command runs now


def write_json(value: object) -> None:
    """Print one line of JSON."""
    echo(json.dumps(value))


def write_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line; what is None is left out."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if value is not None:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            echo(f"{name:<{width}} {printable(text, lines=False)}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person at a terminal; without one, and without --yes, refuse."""
    if yes:
        return
    question = printable(question, lines=False)
    if not sys.stdin.isatty():
        raise click.UsageError(f"--yes is missing, and there is no terminal to ask: {question}")
    if not click.confirm(fitting(question, err=True), err=True):
        raise click.ClickException("nothing was done")


def ask(question: str, default: str | None = None) -> str:
    """Ask a person at a terminal for a text; without a default, until there is one."""
    question = fitting(printable(question, lines=False), err=True)
    return str(click.prompt(question, default=default, show_default=bool(default), err=True))


def ask_password(name: str) -> str:
    """Ask a person at a terminal for a password, twice and unseen; without a terminal refuse."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password: give it with --password-file -")
    return str(click.prompt(printable(name, lines=False), hide_input=True, confirmation_prompt=True, err=True))
