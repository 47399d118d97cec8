"""`extauthz token list` and `show`: metadata only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from extauthz.adapters.store.records import Sort
from extauthz.admin import tokens
from extauthz.admin.metadata import token_metadata
from extauthz.admin.outcomes import Refused
from extauthz.admin.times import length
from extauthz.admin.token_search import TokenSearch, TokenStatus
from extauthz.cli import configuration
from extauthz.cli.completion_values import scopes as complete_scopes
from extauthz.cli.output import json_option, now, write_facts, write_json
from extauthz.cli.rendering import Column, Fit, write_table
from extauthz.cli.session import Session, TokenId, as_option, unwrap
from extauthz.cli.terminal import echo
from extauthz.config.vocabulary import scope
from extauthz.core.act_as import address
from extauthz.core.model import AuthType

_FLAGS = {"text": "--text", "cursor": "--after", "scope": "--scope", "created_by": "--created-by"}
_COLUMNS = (
    Column("id"),
    Column("status", need=2),
    Column("expires", need=1),
    Column("permission", need=3, fit=Fit.WRAP, least=13),
    Column("description", need=4, fit=Fit.WRAP, least=13),
    Column("scopes", need=5, fit=Fit.WRAP, least=15),
    Column("last used", need=6),
)
_STATUS = 1


@click.command("list")
@configuration.option
@as_option
@click.option("--text", default="", help="Those with this in their description, in any case, or with this id.")
@click.option("--permission", type=click.Choice(["GLOBAL", "USER", "ANONYMOUS"], case_sensitive=False))
@click.option("--scope", "scope_name", shell_complete=complete_scopes, help="Those that hold this scope.")
@click.option("--user", help="Those that act for this e-mail address.")
@click.option("--pepper", help="Those made with the pepper of this id.")
@click.option("--created-by", metavar="ACTOR", help="Those that this actor made: the whole name, like os:ana or an e-mail address.")
@click.option("--expiring", "--expiring-within", "expiring_within", metavar="TIME", help="Those that end within a time, like 30d.")
@click.option("--unused-for", help="Those that nobody used for a time, like 90d, and that are older than that.")
@click.option("--all", "everything", is_flag=True, help="Revoked and expired tokens too.")
@click.option(
    "--sort", type=click.Choice([sort.value for sort in Sort]), default="newest", show_default=True, help="What stands first."
)
@click.option("--limit", type=click.IntRange(1, tokens.MAX_PAGE), default=100, show_default=True)
@click.option("--after", "cursor", metavar="CURSOR", help="Go on behind a page, by what stands at its end.")
@json_option
def list_tokens(
    config_file: Path, email: str | None, sort: str, limit: int, cursor: str | None, *, as_json: bool, **criteria: Any
) -> None:
    """List active tokens, the newest first unless told otherwise.

    Secrets are not kept and not shown.

    Example: extauthz token list --permission GLOBAL --expiring 30d --json
    """
    at = now()
    session = Session(config_file, email)
    search = _search(session.rules.vocabulary, **criteria)
    with session.administration() as administration:
        outcome = tokens.list_tokens(administration, session.actor, search, at, sort=Sort(sort), cursor=cursor, limit=limit)
        if not isinstance(outcome, Refused) and not outcome.tokens:
            outcome = tokens.unknown_scope(administration, search) or outcome
    if isinstance(outcome, Refused) and (flag := _FLAGS.get(outcome.refusals[0].field)):
        raise click.BadParameter(outcome.refusals[0].message, param_hint=flag)
    page = unwrap(outcome)
    rows = [token_metadata(token, at) for token in page.tokens]
    if as_json:
        write_json({"tokens": rows, "after": page.after})
        return
    if not rows:
        echo("No such tokens. --all lists revoked and expired ones too; make one with: extauthz token create --help")
        return
    # Without --all each of them is active.
    shown = [index for index in range(len(_COLUMNS)) if criteria["everything"] or index != _STATUS]
    write_table([_COLUMNS[index] for index in shown], ([_row(row)[index] for index in shown] for row in rows))
    if page.after is not None:
        echo(f"There are more: repeat the command with --after {page.after}", err=True)


@click.command("show")
@configuration.option
@as_option
@click.argument("token_id", metavar="ID", type=TokenId())
@json_option
def show(config_file: Path, email: str | None, token_id: str, *, as_json: bool) -> None:
    """Show what is known of one token.

    Example: extauthz token show 4fK2pQ9sXb1Z
    """
    session = Session(config_file, email)
    with session.administration() as administration:
        facts = token_metadata(unwrap(tokens.show(administration, session.actor, token_id)), now())
    if as_json:
        write_json(facts)
    else:
        write_facts(facts)


def _row(row: dict[str, Any]) -> tuple[str | None, ...]:
    expires, used = (row[name] and row[name][:10] for name in ("expires_at", "last_used_at"))
    who = " ".join(filter(None, (row["permission"], row["user"])))
    return row["id"], row["status"], expires, who, row["description"], ", ".join(row["scopes"]), used


def _search(
    vocabulary: Collection[str],
    *,
    text: str,
    permission: str | None,
    scope_name: str | None,
    user: str | None,
    pepper: str | None,
    created_by: str | None,
    expiring_within: str | None,
    unused_for: str | None,
    everything: bool,
) -> TokenSearch:
    return TokenSearch(
        text=text,
        status=None if everything else TokenStatus.ACTIVE,
        permission=AuthType(permission.upper()) if permission else None,
        scope=_scope(scope_name, vocabulary),
        user=_user(user),
        pepper_id=pepper,
        # Addresses are kept in lower case.
        created_by=address(created_by or "") or created_by,
        expiring_within=_time("--expiring-within", expiring_within),
        unused_for=_time("--unused-for", unused_for),
    )


def _time(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return length(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=flag) from error


def _scope(name: str | None, vocabulary: Collection[str]) -> str | None:
    if name is None:
        return None
    try:
        return scope(name, vocabulary)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scope") from error


def _user(text: str | None) -> str | None:
    if text is None:
        return None
    user = address(text)
    if user is None:
        raise click.BadParameter("write one e-mail address", param_hint="--user")
    return user
