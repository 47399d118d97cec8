"""`extauthz token create`: makes secrets, and shows them once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from extauthz.admin import tokens
from extauthz.admin.metadata import token_metadata
from extauthz.admin.token_requests import TokenRequest, unused_scopes
from extauthz.admin.tokens import NewToken
from extauthz.cli import configuration
from extauthz.cli import token_requests as requests
from extauthz.cli.completion_values import scopes as complete_scopes
from extauthz.cli.output import json_option, now, write_facts, write_json
from extauthz.cli.rendering import progress
from extauthz.cli.session import Session, as_option, unwrap
from extauthz.cli.terminal import echo, showing_secrets
from extauthz.config.wording import counted


@click.command("create")
@configuration.option
@as_option
@click.option("--permission", type=click.Choice(["GLOBAL", "USER", "ANONYMOUS"], case_sensitive=False))
@click.option(
    "--scope", "scopes", multiple=True, shell_complete=complete_scopes, help="A scope of the vocabulary; repeat it for several."
)
@click.option("--description", help="What the token is for, 1 to 200 characters.")
@click.option("--expires", help="Length of life, like 12h, 90d, 4w or 1y, or the last day in UTC, like 2027-01-31.")
@click.option("--user", help="The e-mail address that a USER token acts for.")
@click.option(
    "--from-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Many at once: a YAML list of {description, permission, user, scopes, expires}; all are made or none.",
)
@json_option
def create(config_file: Path, email: str | None, from_file: Path | None, *, as_json: bool, **flags: Any) -> None:
    """Create tokens and print their secrets, once.

    \b
    Example: extauthz token create --permission USER --user ana@acme.com --scope SEARCH --description "Ana's notebook" --expires 90d
             extauthz token create --permission GLOBAL --scope SEARCH --description "the crawler" --expires 2027-01-31
    """
    _check_flags(flags, from_file)
    session = Session(config_file, email)
    at = now()
    batch = requests.from_file(session, from_file, at) if from_file else [requests.from_flags(session, at=at, **flags)]
    _warn(session, batch)
    with showing_secrets() as stored:
        new_tokens = _make(session, batch, at, stored)
        if from_file is not None:
            _write_many(new_tokens, at, as_json=as_json)
        elif as_json:
            write_json(facts_of(new_tokens[0], at))
        else:
            write_one(new_tokens[0], at)


def _check_flags(flags: dict[str, Any], from_file: Path | None) -> None:
    """Want the flags of one token, or a file of many, and not both."""
    names = {"permission": "--permission", "scopes": "--scope", "description": "--description", "expires": "--expires"}
    if from_file is None:
        for name, flag in names.items():
            if flags[name] is None or flags[name] == ():
                raise click.UsageError(f"Missing option '{flag}'.")
        return
    for name, flag in (names | {"user": "--user"}).items():
        if flags[name] not in (None, ()):
            raise click.UsageError(f"{flag} does not go with --from-file: write it into the file")


def _warn(session: Session, batch: Sequence[TokenRequest]) -> None:
    unused = sorted({name for request in batch for name in unused_scopes(request, session.loaded.policy)})
    if unused:
        names = ", ".join(unused)
        echo(f"warning: --scope: no route with anonymous: true asks for {names}: an ANONYMOUS token gains nothing by it", err=True)


def _make(session: Session, batch: Sequence[TokenRequest], at: int, stored: list[str]) -> Sequence[NewToken]:
    """Store all tokens in one change, and note their ids; their secrets are only known when they are stored."""
    with (
        session.administration(create=True, make_pepper=True) as administration,
        progress(counted(len(batch), "token"), len(batch) + 1) as bar,
    ):
        new_tokens = unwrap(tokens.create(administration, session.actor, batch, at, advance=partial(bar.advance, bar.task_ids[0])))
        stored += [new.record.id for new in new_tokens]
    return new_tokens


def facts_of(new: NewToken, at: int) -> dict[str, Any]:
    """Return the secret of a new token, and what else is known of it."""
    return {"id": new.record.id, "token": new.text.text, **token_metadata(new.record, at)}


def write_one(new: NewToken, at: int) -> None:
    """Show a new token."""
    echo("The token is shown this once; only a keyed hash of it is stored.\n")
    echo(f"  {new.text.text}\n")
    write_facts(token_metadata(new.record, at))


def _write_many(new_tokens: Sequence[NewToken], at: int, *, as_json: bool) -> None:
    """Write one line for each token; a secret is never cut to the width of a terminal."""
    if as_json:
        echo("\n".join(json.dumps(facts_of(each, at)) for each in new_tokens))
        return
    echo("The tokens are shown this once; only keyed hashes of them are stored.\n")
    whom = max(len(new.record.user or new.record.permission) for new in new_tokens)
    for new in new_tokens:
        echo(f"{new.text.text}  {new.record.user or new.record.permission:<{whom}}  {new.record.description}")
