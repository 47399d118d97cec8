"""`extauthz token revoke` and `leaked`: the end of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from extauthz.adapters.store.records import StoredToken, TokenFilter
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, moment, now, write_json, yes_option
from extauthz.cli.session import Session, TokenId, Why, as_option
from extauthz.cli.terminal import echo
from extauthz.cli.token_found import found_in, read_text
from extauthz.core.act_as import address
from extauthz.core.model import AuthType, Reason
from extauthz.core.tokens import TokenText, parse, verify

_PAGE = 1000
_NO_SUCH = "no token has this id"

REVOKED, BEFORE, REFUSED = "revoked", "revoked before", "refused"
NO_TOKEN, UNKNOWN, WRONG = "wrong checksum: not a token", "unknown to this store", "wrong secret: not this token"


@click.command("revoke")
@configuration.option
@as_option
@click.argument("token_ids", metavar="ID...", nargs=-1, type=TokenId())
@click.option("--why", type=Why(), help="The reason, for the audit.")
@click.option("--chain", is_flag=True, help="Also those that they were rotated from and to.")
@click.option("--all-of-user", "user", metavar="EMAIL", help="Every token of a user instead of IDs.")
@yes_option
@json_option
def revoke(config_file: Path, email: str | None, token_ids: tuple[str, ...], *, as_json: bool, yes: bool, **flags: Any) -> None:
    """Revoke tokens for good.

    Running servers refuse them within a second or so, and with `feed: poll` within tokens.poll_interval and a second, while they
    can read the store.

    Example: extauthz token revoke 4fK2pQ9sXb1Z --why "laptop stolen" --yes
    """
    user, chain, why = flags["user"], flags["chain"], flags["why"]
    if (user is None) == (not token_ids):
        raise click.UsageError("name the IDs of tokens, or --all-of-user, and not both")
    if user is not None and chain:
        raise click.UsageError("--chain goes with IDs: --all-of-user takes every token of the user anyway")
    session = Session(config_file, email)
    with session.store() as store:
        if user is not None:
            done, left = _revoke_user(session, store, user, why, yes=yes)
        else:
            done, left = _revoke_ids(session, store, token_ids, why, chain=chain, yes=yes)
    if as_json:
        write_json({"revoked": done, "not_revoked": [{"id": token_id, "reason": reason} for token_id, reason in left.items()]})
    else:
        for token_id in done:
            echo(f"Token {token_id} is revoked.")
        for token_id, reason in left.items():
            echo(f"Token {token_id} was not revoked: {reason}.")
    if _NO_SUCH in left.values():
        raise click.exceptions.Exit(1)


def _revoke_ids(
    session: Session, store: SqlTokenStore, token_ids: tuple[str, ...], why: str | None, *, chain: bool, yes: bool
) -> tuple[list[str], dict[str, str]]:
    named = {token_id: store.get(token_id) for token_id in dict.fromkeys(token_ids)}
    records = {token_id: record for token_id, record in named.items() if record is not None}
    if not records:
        names = ", ".join(map(repr, named))
        raise click.ClickException(f"no token has the id {names}; see: extauthz token list")
    for token_id, record in records.items():
        session.require(record.permission, f"no token was revoked, because of {token_id}")
    linked = " and those they were rotated from and to" if chain else ""
    confirm(f"Revoke {_names(records)}{linked}, for good?", yes=yes)
    session.peppers(store, to_revoke=True)
    done = store.revoke(records, why, session.change(), chain=chain)
    left = {token_id: _NO_SUCH for token_id in named if token_id not in records}
    for token_id in records:
        if token_id not in done:
            left[token_id] = _before(store.get(token_id))
    return list(done), left


def _revoke_user(
    session: Session, store: SqlTokenStore, text: str, why: str | None, *, yes: bool
) -> tuple[list[str], dict[str, str]]:
    user = address(text)
    if user is None:
        raise click.BadParameter("write one e-mail address", param_hint="--all-of-user")
    session.require(AuthType.USER, "no token was revoked")
    count = len(store.page(TokenFilter(user=user, active_at=now()), None, _PAGE))
    if not count:
        raise click.ClickException(f"--all-of-user: {user} has no active token; see: extauthz token list --user {user} --all")
    number = f"{count} or more" if count == _PAGE else str(count)
    confirm(f"Revoke all tokens of {user} ({number} active), for good?", yes=yes)
    session.peppers(store, to_revoke=True)
    return list(store.revoke_user(user, why, session.change())), {}


def _before(token: StoredToken | None) -> str:
    return _NO_SUCH if token is None else f"it was revoked before, at {moment(token.revoked_at)} by {token.revoked_by}"


def _names(records: dict[str, StoredToken]) -> str:
    if len(records) > 3:
        return f"{len(records)} tokens"
    return ", ".join(
        f"{token_id} ({record.user or record.permission}, {record.description})" for token_id, record in records.items()
    )


@click.command("leaked")
@configuration.option
@as_option
@click.argument("files", metavar="FILE|-", nargs=-1)
@click.option("--why", type=Why(), default="leaked", show_default=True, help="The reason, for the audit.")
@json_option
def leaked(config_file: Path, email: str | None, files: tuple[str, ...], why: str, *, as_json: bool) -> None:
    """Revoke tokens that somebody found.

    Reads a file or standard input: any text will do, like the report of a secret scanner. Only a token whose secret is right is
    revoked; exit 0 if there was one. It does not ask, and repeats no secret.

    Example: extauthz token leaked report.json
    """
    given = read_text(files)
    session = Session(config_file, email)
    found = found_in(given.text, session.prefixes)
    if not found and given.error is not None:
        raise click.ClickException(f"the text cannot be read: {given.error}")
    if not found:
        raise click.ClickException(f"no token stands there: they begin with {', '.join(sorted(session.prefixes))} and '_'")
    with session.store() as store:
        outcomes = _end_leaked(session, store, found, why)
    if as_json:
        write_json({"found": [{"id": token_id, "outcome": outcome} for token_id, outcome in outcomes]})
    else:
        for token_id, outcome in outcomes:
            echo(f"Token {token_id}: {outcome}.")
    told = {outcome for _, outcome in outcomes}
    if REFUSED in told:
        echo(f"Error: --as: GLOBAL needs a super admin, and {session.actor} is an admin: see roles.super_admins", err=True)
    if given.error is not None:
        echo(f"Error: there may be more, as not all of the text can be read: {given.error}", err=True)
    if REFUSED in told or given.error is not None or not told & {REVOKED, BEFORE}:
        raise click.exceptions.Exit(1)


def _end_leaked(session: Session, store: SqlTokenStore, found: list[str], why: str) -> list[tuple[str, str]]:
    peppers = session.peppers(store)
    change = session.change()
    outcomes: dict[str, str] = {}
    ours: dict[str, str] = {}
    for text in found:
        token = parse(text, session.prefixes)
        if not isinstance(token, TokenText):
            outcomes[text] = NO_TOKEN
            continue
        record = store.get(token.id)
        # What is expired or revoked by now was right all the same.
        if record is None:
            outcomes[text] = UNKNOWN
        elif verify(token, record, peppers, change.at) is Reason.TOKEN_SECRET_WRONG:
            outcomes[text] = WRONG
        elif session.refusal(record.permission):
            outcomes[text] = REFUSED
        else:
            ours[text] = record.id
    done = set(store.revoke(ours.values(), why, change)) if ours else set()
    outcomes |= {text: REVOKED if token_id in done else BEFORE for text, token_id in ours.items()}
    return [(text.split("_")[1], outcomes[text]) for text in found]
