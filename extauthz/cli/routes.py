"""`extauthz routes`: the route map, which route takes a request, and what a scope or a token opens."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.cli import configuration
from extauthz.cli.completion_values import scopes as complete_scopes
from extauthz.cli.output import json_option, now, write_json
from extauthz.cli.rendering import Column, Fit, write_table
from extauthz.cli.route_rows import opened_by, route_document, route_map
from extauthz.cli.session import Session, TokenId, as_option, unwrap
from extauthz.cli.terminal import echo
from extauthz.config.vocabulary import kept_scope, scope
from extauthz.config.wording import counted
from extauthz.core.model import AuthType

if TYPE_CHECKING:
    from extauthz.admin.route_map import RouteEntry
    from extauthz.config.loader import Configuration

MODULES = {"import": "routes_import", "coverage": "routes_coverage"}
"""Subcommands, and the module of each."""

_COLUMNS = (
    Column("route", fit=Fit.WRAP, least=20),
    Column("opened by", fit=Fit.WRAP, least=12),
    Column("accepts", need=2, fit=Fit.WRAP, least=10),
    Column("host", need=3, fit=Fit.WRAP, least=10),
    Column("where", need=4),
)


class RoutesGroup(click.Group):
    """Imports the module of a subcommand when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in MODULES:
            return None
        command = importlib.import_module(f"extauthz.cli.{MODULES[cmd_name]}").command
        return command if isinstance(command, click.Command) else None


@click.group("routes", cls=RoutesGroup, invoke_without_command=True)
@configuration.option
@as_option
@click.option("--text", help="Only routes that have these words somewhere, or that take a request like 'GET /items/42'.")
@click.option("--path", "path", help="Which route takes this path, and why. With --method, GET without it.")
@click.option("--method", help="The method of --path.")
@click.option("--host", help="The host of --path, where route files have `hosts`.")
@click.option(
    "--scope",
    "scope_name",
    shell_complete=complete_scopes,
    help="What tokens open that have this scope alone, and what they need besides.",
)
@click.option(
    "--token", "token_id", metavar="ID", type=TokenId(), help="What the issued token with this id opens; it reads the store."
)
@json_option
def command(config_file: Path, *, as_json: bool, **flags: Any) -> None:
    """Show the route map: all of it, or what takes a request, or what a scope or a token opens.

    Exits with 0; with 1 if no route takes the request of --path, if it is denied to everybody, or if the token opens nothing, is
    not known, or has ended; with 3 if the configuration has problems.

    \b
    Example: extauthz routes --config config/extauthz.yaml
             extauthz routes --path /rest/api/v1/serch --method POST
             extauthz routes --scope SEARCH --json
             extauthz routes --token 4fK2pQ9sXb1Z
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    _check_flags(flags)
    loaded = configuration.read(config_file)
    if flags["path"] is not None:
        from extauthz.cli.routes_match import show_match

        show_match(loaded, flags["method"] or "GET", flags["path"], flags["host"] or "", as_json=as_json)
    elif flags["scope_name"] is not None:
        _show_scope(loaded, flags["scope_name"], as_json=as_json)
    elif flags["token_id"] is not None:
        _show_token(config_file, flags["email"], flags["token_id"], as_json=as_json)
    else:
        _show_table(loaded, flags["text"] or "", as_json=as_json)


def _check_flags(flags: dict[str, Any]) -> None:
    names = {"text": "--text", "path": "--path", "scope_name": "--scope", "token_id": "--token"}
    given = [flag for name, flag in names.items() if flags[name] is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} do not go together: write one of them")
    for name in ("method", "host"):
        if flags[name] is not None and flags["path"] is None:
            raise click.UsageError(f"--{name} goes with --path")


def _show_table(loaded: Configuration, text: str, *, as_json: bool) -> None:
    entries = route_map(loaded).search(text)
    if as_json:
        write_json({"routes": [route_document(entry) for entry in entries]})
        return
    if not entries:
        echo(f"No route {'has this, or takes it' if text else 'is configured: every request is refused'}.")
        return
    _write(entries, loaded)
    echo(f"{counted(len(entries), 'route')}.", err=True)


def _show_scope(loaded: Configuration, text: str, *, as_json: bool) -> None:
    name = _scope(text, loaded)
    opened = _opened_by(loaded, {name})
    routes = route_map(loaded).entries
    opens = {entry.route.name for entries in opened.values() for entry in entries}
    here = [entry for entry in routes if entry.route.name in opens and not entry.route.public]
    also = [entry for entry in routes if name in entry.route.scopes and entry.route.name not in opens and not entry.route.deny]
    kinds = {
        entry.route.name: [
            kind.value for kind, entries in opened.items() if entry.route.name in {one.route.name for one in entries}
        ]
        for entry in here
    }
    if as_json:
        needing = [route_document(entry) | {"missing_scopes": sorted(set(entry.route.scopes) - {name})} for entry in also]
        opening = [route_document(entry) | {"opened_by": kinds[entry.route.name]} for entry in here]
        write_json({"scope": name, "routes": opening, "need_more": needing})
        return
    if not here:
        echo(f"{name} alone opens no route.")
    else:
        echo(f"{name} opens {counted(len(here), 'route')}:\n")
        _write(here, loaded, accepts=kinds)
    if also:
        echo(f"\n{counted(len(also), 'route asks', 'routes ask')} for more than {name}, or for a token of another kind:\n")
        _write(also, loaded)


def _scope(text: str, loaded: Configuration) -> str:
    from extauthz.config.messages import unknown_scope
    from extauthz.tools.masking import Mask

    vocabulary = loaded.settings.scopes
    if Mask(names=frozenset(vocabulary))(text) != text:
        raise click.BadParameter("this may be a secret, and was not looked for: write the name of a scope", param_hint="--scope")
    try:
        name = scope(text, vocabulary)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scope") from error
    if name not in vocabulary:
        raise click.BadParameter(unknown_scope(name, vocabulary), param_hint="--scope")
    return name


def _opened_by(loaded: Configuration, scopes: Iterable[str]) -> dict[AuthType, tuple[RouteEntry, ...]]:
    """Return what each kind of token that is switched on opens with these scopes."""
    from dataclasses import replace

    from extauthz.admin.rights import PERMISSIONS
    from extauthz.admin.route_map import RouteMap
    from extauthz.core.credentials import Kind

    policy = loaded.policy
    # The map asks with an issued token: what an access token opens, it tells where both kinds are switched on.
    every = RouteMap(replace(policy, kinds=frozenset(Kind)), loaded.route_places)
    kinds = [*([AuthType.OAUTH] if Kind.OAUTH in policy.kinds else []), *(PERMISSIONS if Kind.ISSUED in policy.kinds else ())]
    return {kind: every.opened_by(scopes, kind) for kind in kinds}


def _show_token(config_file: Path, email: str | None, token_id: str, *, as_json: bool) -> None:
    from extauthz.admin import tokens
    from extauthz.admin.metadata import token_metadata
    from extauthz.core.tokens import usable

    session, at = Session(config_file, email), now()
    loaded = session.loaded
    with session.administration() as administration:
        token = unwrap(tokens.show(administration, session.actor, token_id))
    held = frozenset(kept_scope(name, loaded.settings.scopes) for name in token.scopes)
    reason = usable(token, at)
    entries = _opened_by(loaded, held).get(token.permission, ())
    if as_json:
        facts = {name: token_metadata(token, at)[name] for name in ("id", "status", "permission", "user", "scopes")}
        opened = [route_document(entry) for entry in entries]
        write_json({"token": facts, "reason": reason, "routes": [] if reason else opened, "if_active": opened})
    else:
        who = " ".join(filter(None, (token.permission, token.user)))
        of = f"Token {token.id} ({who}, {', '.join(sorted(held)) or 'no scopes'})"
        would = f"has ended ({reason}), and opens nothing; it did open" if reason else "opens"
        echo(f"{of} {would} {counted(len(entries), 'route')}:\n")
        _write(entries, loaded)
    if reason or not entries:
        raise click.exceptions.Exit(1)


def _write(entries: Sequence[RouteEntry], loaded: Configuration, accepts: dict[str, list[str]] | None = None) -> None:
    folder = f"{loaded.file.parent}/"
    rows = [_cells(entry, folder, (accepts or {}).get(entry.route.name)) for entry in entries]
    write_table([column for place, column in enumerate(_COLUMNS) if any(row[place] for row in rows)], _without_empty(rows))


def _without_empty(rows: list[list[str | None]]) -> list[list[str | None]]:
    kept = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    return [[row[place] for place in kept] for row in rows]


def _cells(entry: RouteEntry, folder: str, accepts: list[str] | None) -> list[str | None]:
    route = entry.route
    name = route.match.text if route.name == route.match.text else f"{route.match.text} ({route.name})"
    kinds = None if route.public or route.deny else ", ".join(accepts or sorted(route.accept))
    return [name, opened_by(entry), kinds, ", ".join(entry.hosts) or None, entry.place.removeprefix(folder)]
