"""`extauthz token …`: whoever can open the store and the pepper is a super admin."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from extauthz.adapters.store.rows import StoreError, check_peppers
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.cli import configuration
from extauthz.cli.pepper import make_pepper
from extauthz.config.loader import Configuration
from extauthz.config.values import duration, scope
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, fingerprint, usable
from extauthz.issuing import Order, Rules, issue, refusals

_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


@click.group("token")
def command() -> None:
    """Issued tokens: create, list, show, revoke."""


@command.command("create")
@configuration.option
@click.option("--permission", required=True, type=click.Choice(["GLOBAL", "USER", "ANONYMOUS"], case_sensitive=False))
@click.option("--scope", "scopes", required=True, multiple=True, help="A scope of the vocabulary; repeat it for several.")
@click.option("--description", required=True, help="What the token is for, 1 to 200 characters.")
@click.option("--expires", required=True, help="Length of life, like 90d or 12h.")
@click.option("--user", help="The e-mail address that a USER token acts for.")
@_JSON
def create(
    config_file: Path, permission: str, scopes: tuple[str, ...], description: str, expires: str, user: str | None, *, as_json: bool
) -> None:
    """Create a token and print its secret, this once.

    Example: extauthz token create --permission USER --user ana@acme.com --scope SEARCH --description "Ana's notebook" --expires 90d
    """
    loaded = configuration.read(config_file)
    now = _now()
    order = Order(
        description=description,
        permission=AuthType(permission.upper()),
        scopes=frozenset(_scope(name) for name in scopes),
        created_at=now,
        created_by=_operator(),
        expires_at=now + _lifetime(expires),
        user=user,
    )
    rules = _rules(loaded)
    wrong = list(refusals(order, rules))
    if wrong:
        raise click.ClickException("no token was made\n" + "\n".join(f"  --{field}: {message}" for field, message in wrong))
    with _store(loaded, create=True) as store:
        store.migrate()
        pepper_id, pepper = _pepper(loaded, store)
        text, record = issue(order, rules, pepper_id=pepper_id, pepper=pepper, entropy=os.urandom(ENTROPY_BYTES))
        store.add(record, fingerprint(pepper))
    if as_json:
        click.echo(json.dumps({"id": record.id, "token": text.text, **_metadata(record, now)}))
        return
    click.echo("The token is shown this once; only a keyed hash of it is stored.\n")
    click.echo(f"  {text.text}\n")
    _show(record, now)


@command.command("list")
@configuration.option
@_JSON
def list_tokens(config_file: Path, *, as_json: bool) -> None:
    """List all tokens, the newest first; secrets are not kept and not shown.

    Example: extauthz token list --json
    """
    now = _now()
    with _store(configuration.read(config_file)) as store:
        records = store.list_tokens()
    if as_json:
        click.echo(json.dumps([_metadata(record, now) for record in records]))
        return
    if not records:
        click.echo("No tokens yet. Make one with: extauthz token create --help")
        return
    table = Table("id", "permission", "user", "scopes", "description", "expires", "status", box=None, header_style="bold")
    for record in records:
        row = _metadata(record, now)
        table.add_row(
            record.id,
            row["permission"],
            record.user or "-",
            ", ".join(row["scopes"]),
            escape(record.description),
            row["expires_at"],
            row["status"],
        )
    console = Console()
    if not console.is_terminal:
        console.width = 240
    console.print(table)


@command.command("show")
@configuration.option
@click.argument("token_id", metavar="ID")
@_JSON
def show(config_file: Path, token_id: str, *, as_json: bool) -> None:
    """Show what is known of one token.

    Example: extauthz token show 4fK2pQ9sXb1Z
    """
    with _store(configuration.read(config_file)) as store:
        record = _known(store, token_id)
    if as_json:
        click.echo(json.dumps(_metadata(record, _now())))
    else:
        _show(record, _now())


@command.command("revoke")
@configuration.option
@click.argument("token_id", metavar="ID")
@_JSON
def revoke(config_file: Path, token_id: str, *, as_json: bool) -> None:
    """Revoke a token for good; running servers refuse it within two seconds.

    Example: extauthz token revoke 4fK2pQ9sXb1Z
    """
    with _store(configuration.read(config_file)) as store:
        done = store.revoke(token_id, at=_now(), by=_operator())
        record = _known(store, token_id)
    if as_json:
        click.echo(json.dumps(_metadata(record, _now())))
    else:
        moment = _text(record.revoked_at)
        click.echo(f"Token {token_id} is revoked." if done else f"Token {token_id} was revoked before, at {moment}.")


@contextmanager
def _store(loaded: Configuration, *, create: bool = False) -> Iterator[SqlTokenStore]:
    path = loaded.store_path
    if path is None:
        raise click.ClickException("issued tokens are switched off: set tokens.enabled in the configuration")
    try:
        store = SqlTokenStore(path, create=create)
        try:
            yield store
        finally:
            store.close()
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def _pepper(loaded: Configuration, store: SqlTokenStore) -> tuple[str, bytes]:
    """Return the newest pepper; make its file if this is the first token."""
    known = store.pepper_fingerprints()
    file = loaded.pepper_file()
    if file is not None and not file.exists() and not known:
        make_pepper(file)
        click.echo(f"Made the pepper {file}: back it up, apart from the store.", err=True)
    with configuration.explained():
        peppers = loaded.peppers(os.environ)
    check_peppers(known, peppers)
    return next(iter(peppers.items()))


def _rules(loaded: Configuration) -> Rules:
    tokens = loaded.settings.tokens
    if tokens is None or not tokens.enabled:
        raise click.ClickException("issued tokens are switched off: set tokens.enabled in the configuration")
    return Rules(tokens.prefix, frozenset(loaded.settings.scopes), tokens.max_lifetime, loaded.policy.act_as)


def _scope(name: str) -> str:
    try:
        return scope(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scope") from error


def _lifetime(text: str) -> int:
    try:
        return int(duration(text))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires") from error


def _known(store: SqlTokenStore, token_id: str) -> TokenRecord:
    record = store.get(token_id)
    if record is None:
        raise click.ClickException(f"no token has the id {token_id!r}; see: extauthz token list")
    return record


def _metadata(record: TokenRecord, now: int) -> dict[str, Any]:
    refusal = usable(record, now)
    return {
        "id": record.id,
        "description": record.description,
        "permission": record.permission.value,
        "user": record.user,
        "scopes": sorted(record.scopes),
        "status": refusal.value.removeprefix("token_") if refusal else "active",
        "created_at": _text(record.created_at),
        "created_by": record.created_by,
        "expires_at": _text(record.expires_at),
        "revoked_at": _text(record.revoked_at),
        "revoked_by": record.revoked_by,
    }


def _show(record: TokenRecord, now: int) -> None:
    for name, value in _metadata(record, now).items():
        if value is not None:
            click.echo(f"{name:<12} {', '.join(value) if isinstance(value, list) else value}")


def _now() -> int:
    return int(time.time())  # noqa: TID251 - a command runs now


def _text(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _operator() -> str:
    try:
        return f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"os:{os.getuid()}"
