"""`extauthz token create` and `rotate`: the two that make a secret, and show it once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from extauthz.cli import configuration, orders
from extauthz.cli.output import json_option, metadata, moment, now, progress, write_facts, write_json
from extauthz.cli.session import Session, TokenId, as_option, known
from extauthz.cli.terminal import echo, showing_secrets
from extauthz.cli.times import length
from extauthz.core.tokens import TokenRecord, TokenText
from extauthz.issuing import Order, refusals, successor, useless_scopes

Made = tuple[TokenText, TokenRecord]


@click.command("create")
@configuration.option
@as_option
@click.option("--permission", type=click.Choice(["GLOBAL", "USER", "ANONYMOUS"], case_sensitive=False))
@click.option("--scope", "scopes", multiple=True, help="A scope of the vocabulary; repeat it for several.")
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
    ordered = orders.from_file(session, from_file, at) if from_file else [orders.from_flags(session, at=at, **flags)]
    _warn(session, ordered)
    with showing_secrets() as stored:
        made = _make(session, ordered, stored)
        if from_file is not None:
            _write_many(made, at, as_json=as_json)
        elif as_json:
            write_json(_told(made[0], at))
        else:
            _write_one(made[0], at)


@click.command("rotate")
@configuration.option
@as_option
@click.argument("token_id", metavar="ID", type=TokenId())
@click.option(
    "--overlap", default="24h", show_default=True, help="How long both tokens are good, like 24h; 0s ends the old one now."
)
@json_option
def rotate(config_file: Path, email: str | None, token_id: str, overlap: str, *, as_json: bool) -> None:
    """Replace a token by a successor.

    The successor has the same rights and length of life; the old token ends after the overlap.

    Example: extauthz token rotate 4fK2pQ9sXb1Z --overlap 24h
    """
    try:
        seconds = length(overlap)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--overlap") from error
    session = Session(config_file, email)
    with showing_secrets() as stored:
        with session.store() as store:
            old = known(store, token_id)
            session.require(old.permission, f"token {token_id} was not rotated")
            peppers = session.peppers(store)
            change = session.change()
            order = successor(old, at=change.at, by=change.actor, max_lifetime=session.rules.max_lifetime)
            text, record, fingerprint = session.make(order, peppers)
            # The store looks at the token's state first, under its lock; only then is it time for what the configuration forbids.
            wrong = list(refusals(order, session.rules)) if old.revoked_at is None and old.expires_at > change.at else []
            if wrong:
                told = "\n".join(f"  {field}: {message}" for field, message in wrong)
                raise click.ClickException(f"token {token_id} was not rotated, its successor would not be allowed\n{told}")
            old = store.rotate(token_id, record, change.at + seconds, fingerprint, change)
            stored.append(record.id)
        new = _told((text, record), change.at) | {"rotated_from": token_id}
        if as_json:
            write_json(new | {"old": metadata(old, change.at)})
            return
        _write_one((text, record), change.at)
        echo(f"\nIt follows token {token_id}, which ends at {moment(old.expires_at)}: give the new one to whoever uses it.")


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


def _warn(session: Session, ordered: Sequence[Order]) -> None:
    useless = sorted({name for order in ordered for name in useless_scopes(order, session.loaded.policy)})
    if useless:
        names = ", ".join(useless)
        echo(f"warning: --scope: no route with anonymous: true asks for {names}: an ANONYMOUS token gains nothing by it", err=True)


def _make(session: Session, ordered: Sequence[Order], stored: list[str]) -> list[Made]:
    """Store all tokens in one change, and note their ids; their secrets are only known when they are stored."""
    made: list[Made] = []
    fingerprints: dict[str, str] = {}
    with session.store(create=True) as store, progress(f"{len(ordered)} tokens", len(ordered) + 1) as bar:
        peppers = session.peppers(store, make=True)
        for order in ordered:
            text, record, fingerprints[record.pepper_id] = session.make(order, peppers)
            made.append((text, record))
            bar.advance(bar.task_ids[0])
        store.add_many([record for _, record in made], fingerprints, session.change())
        stored += [record.id for _, record in made]
    return made


def _told(made: Made, at: int) -> dict[str, Any]:
    text, record = made
    return {"id": record.id, "token": text.text, **metadata(record, at)}


def _write_one(made: Made, at: int) -> None:
    text, record = made
    echo("The token is shown this once; only a keyed hash of it is stored.\n")
    echo(f"  {text.text}\n")
    write_facts(metadata(record, at))


def _write_many(made: Sequence[Made], at: int, *, as_json: bool) -> None:
    """Write one line for each token; a secret is never cut to the width of a terminal."""
    if as_json:
        echo("\n".join(json.dumps(_told(each, at)) for each in made))
        return
    echo("The tokens are shown this once; only keyed hashes of them are stored.\n")
    whom = max(len(record.user or record.permission) for _, record in made)
    for text, record in made:
        echo(f"{text.text}  {record.user or record.permission:<{whom}}  {record.description}")
