"""Secrets that somebody has: read from a file or standard input, never from the command line, and never repeated."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import click

from extauthz.admin.metadata import token_metadata
from extauthz.admin.verification import WELL_FORMED, VerificationResult, check_form
from extauthz.admin.verification import verify as check_store
from extauthz.cli import configuration
from extauthz.cli.encodings import Decoded, decode
from extauthz.cli.output import json_option, now, write_facts, write_json
from extauthz.cli.session import Session
from extauthz.core.tokens import TokenText


@click.command("verify")
@configuration.option
@click.argument("files", metavar="[FILE|-]", nargs=-1)
@click.option("--store", "ask_store", is_flag=True, help="Also look whether the store knows the token, and whether it is active.")
@json_option
def verify(config_file: Path, files: tuple[str, ...], *, ask_store: bool, as_json: bool) -> None:
    """Check a token that somebody has.

    It is read from standard input or a file: form, prefix and checksum; exit 0 only if it is good.

    Example: extauthz token verify --store < token.txt
    """
    source = read_text(files)
    if source.error is not None:
        raise click.ClickException(f"the text cannot be read: {source.error}")
    text = source.text.strip()
    session = Session(config_file)
    at = now()
    outcome = check_form(text, session.prefixes)
    if isinstance(outcome, TokenText):
        token, outcome = outcome, VerificationResult(WELL_FORMED, outcome.id)
        if ask_store:
            with session.administration() as administration:
                outcome = check_store(administration, token, at)
    facts: dict[str, Any] = {"verdict": outcome.verdict}
    if outcome.id is not None:
        facts["id"] = outcome.id
    if outcome.token is not None:
        facts |= token_metadata(outcome.token, at)
    if as_json:
        write_json(facts)
    else:
        write_facts(facts)
    if not outcome.is_good:
        raise click.exceptions.Exit(1)


def read_text(files: tuple[str, ...]) -> Decoded:
    """Return the text of the one file, or of standard input; a terminal is asked without showing what is typed."""
    if len(files) > 1:
        raise click.UsageError("name one file, or '-' for standard input")
    name = files[0] if files else "-"
    if name == "-":
        if sys.stdin.isatty():
            return Decoded(getpass.getpass("Token: "))
        return decode(sys.stdin.buffer.read())
    try:
        return decode(Path(name).read_bytes())
    except (OSError, ValueError):
        # Not repeated: what stands there may be the token itself.
        message = (
            "the file cannot be read; if that was a token, it is in the shell's history now: revoke it, and use standard input"
        )
        raise click.ClickException(message) from None
