"""`extauthz token revoke` and `leaked`: the end of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from extauthz.adapters.store.records import StoredToken
from extauthz.admin import revocation
from extauthz.admin.administration import Administration
from extauthz.admin.leaks import LeakOutcome, end_leaked
from extauthz.admin.metadata import utc
from extauthz.admin.revocation import Revoked
from extauthz.admin.verification import tokens_in
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, now, write_json, yes_option
from extauthz.cli.session import Session, TokenId, Why, as_option, unwrap
from extauthz.cli.terminal import echo
from extauthz.cli.token_leaks import read_text
from extauthz.config.wording import counted
from extauthz.core.act_as import address

_NO_SUCH = "no token has this id"


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
    if user is not None and address(user) is None:
        raise click.BadParameter("write one e-mail address", param_hint="--all-of-user")
    session = Session(config_file, email)
    with session.administration() as administration:
        if user is not None:
            revoked = _revoke_user(session, administration, user, why, yes=yes)
        else:
            revoked = _revoke_ids(session, administration, token_ids, why, chain=chain, yes=yes)
    reasons = dict.fromkeys(revoked.unknown, _NO_SUCH) | {name: _before(token) for name, token in revoked.before.items()}
    if as_json:
        not_revoked = [{"id": token_id, "reason": reason} for token_id, reason in reasons.items()]
        write_json({"revoked": list(revoked.ids), "not_revoked": not_revoked})
    else:
        for token_id in revoked.ids:
            echo(f"Token {token_id} is revoked.")
        for token_id, reason in reasons.items():
            echo(f"Token {token_id} was not revoked: {reason}.")
    if revoked.unknown:
        raise click.exceptions.Exit(1)


def _revoke_ids(
    session: Session, administration: Administration, token_ids: tuple[str, ...], why: str | None, *, chain: bool, yes: bool
) -> Revoked:
    selection = unwrap(revocation.select(administration, session.actor, token_ids))
    linked = " and those they were rotated from and to" if chain else ""
    confirm(f"Revoke {_names(selection.tokens)}{linked}, for good?", yes=yes)
    return unwrap(revocation.revoke(administration, session.actor, token_ids, now(), why=why, linked=chain))


def _revoke_user(session: Session, administration: Administration, user: str, why: str | None, *, yes: bool) -> Revoked:
    count = unwrap(revocation.count_active(administration, session.actor, user, now()))
    number = f"{count:,} or more" if count == revocation.MAX_COUNTED else f"{count:,}"
    confirm(f"Revoke all tokens of {user} ({number} active), for good?", yes=yes)
    return unwrap(revocation.revoke_user(administration, session.actor, user, now(), why=why))


def _before(token: StoredToken) -> str:
    return f"it was revoked before, at {utc(token.revoked_at)} by {token.revoked_by}"


def _names(records: Mapping[str, StoredToken]) -> str:
    if len(records) > 3:
        return counted(len(records), "token")
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
    source = read_text(files)
    session = Session(config_file, email)
    texts = tokens_in(source.text, session.prefixes)
    if not texts and source.error is not None:
        raise click.ClickException(f"the text cannot be read: {source.error}")
    if not texts:
        raise click.ClickException(f"no token stands there: they begin with {', '.join(sorted(session.prefixes))} and '_'")
    with session.administration() as administration:
        leaks = end_leaked(administration, session.actor, texts, now(), why=why)
    if as_json:
        write_json({"found": [{"id": leak.id, "outcome": leak.outcome} for leak in leaks]})
    else:
        for leak in leaks:
            echo(f"Token {leak.id}: {leak.outcome}.")
    outcomes = {leak.outcome for leak in leaks}
    for refusal in {leak.refusal.message for leak in leaks if leak.refusal is not None}:
        echo(f"Error: --as: {refusal}", err=True)
    if source.error is not None:
        echo(f"Error: there may be more, as not all of the text can be read: {source.error}", err=True)
    is_ended = LeakOutcome.REFUSED not in outcomes and outcomes & {LeakOutcome.REVOKED, LeakOutcome.REVOKED_BEFORE}
    if source.error is not None or not is_ended:
        raise click.exceptions.Exit(1)
