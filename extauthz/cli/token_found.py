"""Secrets that somebody has: read from a file or standard input, never from the command line, and never repeated."""

from __future__ import annotations

import getpass
import re
import sys
from pathlib import Path
from typing import Any

import click

from extauthz.cli import configuration
from extauthz.cli.encodings import Decoded, decode
from extauthz.cli.output import json_option, metadata, now, write_facts, write_json
from extauthz.cli.session import Session
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenText, parse
from extauthz.core.tokens import verify as verify_secret

_VERDICTS = {
    Reason.TOKEN_MALFORMED: "malformed",
    Reason.TOKEN_CHECKSUM: "wrong checksum",
    Reason.TOKEN_UNKNOWN: "unknown",
    Reason.TOKEN_SECRET_WRONG: "wrong secret",
    Reason.TOKEN_REVOKED: "revoked",
    Reason.TOKEN_EXPIRED: "expired",
}
_GOOD = ("well-formed", "active")


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
    given = read_text(files)
    if given.error is not None:
        raise click.ClickException(f"the text cannot be read: {given.error}")
    text = given.text.strip()
    session = Session(config_file)
    told: dict[str, Any] = {"verdict": "well-formed"}
    token = parse(text, session.prefixes)
    if not isinstance(token, TokenText):
        # The prefix is named only where the rest shows that it is one, and not a piece of a secret.
        prefix = text.partition("_")[0]
        whole = not isinstance(parse(text, frozenset({prefix})), Reason)
        told = {"verdict": f"unknown prefix {prefix!r}" if whole else _VERDICTS[token]}
    else:
        told["id"] = token.id
        if ask_store:
            told |= _known(session, token)
    if as_json:
        write_json(told)
    else:
        write_facts(told)
    if told["verdict"] not in _GOOD:
        raise click.exceptions.Exit(1)


def _known(session: Session, token: TokenText) -> dict[str, Any]:
    with session.store() as store:
        record = store.get(token.id)
        peppers = session.peppers(store) if record is not None else {}
    at = now()
    found = verify_secret(token, record, peppers, at)
    verdict = _VERDICTS[found] if isinstance(found, Reason) else "active"
    if record is None or found is Reason.TOKEN_SECRET_WRONG:
        return {"verdict": verdict}
    return {"verdict": verdict, **metadata(record, at)}


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


def found_in(text: str, prefixes: frozenset[str]) -> list[str]:
    """Return everything in a text that has the form of a token, each once."""
    names = "|".join(map(re.escape, sorted(prefixes)))
    pattern = rf"(?<![0-9A-Za-z])(?:{names})_[0-9A-Za-z]{{12}}_[0-9A-Za-z]{{49}}(?![0-9A-Za-z])"
    return list(dict.fromkeys(re.findall(pattern, text)))
