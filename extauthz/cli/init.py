"""`extauthz init`: a first configuration, written once and never over anything."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.cli.output import ask, now, yes_option
from extauthz.cli.pepper_file import make_pepper
from extauthz.cli.session import Session
from extauthz.cli.terminal import echo, printable
from extauthz.errors import ConfigurationError
from extauthz.initial import files
from extauthz.initial.files import CONFIGURATION, EXAMPLES, PEPPER, STORE, SUITE, NewApi
from extauthz.initial.providers import TokenIssuer
from extauthz.process import private_files

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration

_FIELDS = {
    "--client-id": "client_ids",
    "--audience": "audience",
    "--user-claim": "user_claims",
    "--token-scopes": "token_scopes",
}
NAME, SCOPES, HEADER_PREFIX, DOMAIN = "api", ("READ", "WRITE"), "x-extauthz-", "example.com"


@click.command("init")
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--name", help=f"What the API is called, like orders.  [default: {NAME}]")
@click.option("--scope", "scopes", multiple=True, help="A scope, the one for reading first; repeat it.  [default: READ, WRITE]")
@click.option("--prefix", help=f"What the headers for your API begin with.  [default: {HEADER_PREFIX}]")
@click.option("--domain", "domains", multiple=True, help=f"Of your users' e-mail addresses; repeat it.  [default: {DOMAIN}]")
@click.option("--issuer", metavar="URL", help="Whose access tokens count too; without it, only tokens that you issue.")
@click.option("--client-id", "client_ids", multiple=True, help="With --issuer: an application whose tokens count; repeat it.")
@click.option("--audience", help="With --issuer: what the tokens are for, as the settings of the provider have it.")
@click.option("--user-claim", "user_claims", multiple=True, help="With --issuer: the claim with the user's address; repeat it.")
@click.option(
    "--token-scopes",
    type=click.Choice(["claim", "all"]),
    help="With --issuer: tokens hold the scopes that they claim, or all.  [default: claim; all for azure, gsuite, okta, onelogin]",
)
@click.option("--example", type=click.Choice(list(EXAMPLES)), help="A complete route map in place of a few lines.")
@yes_option
def command(folder: Path, *, scopes: tuple[str, ...], example: str | None, yes: bool, **flags: Any) -> None:
    """Write a first configuration for an API of yours, and check it.

    It asks for what no flag says; with --yes, or without a terminal, what no flag says has its default. Written are the
    configuration, a route file, tests of it, requests to try, the store of issued tokens, its pepper, and a .gitignore for both,
    each a new file: if one of them is there already, nothing is written.

    \b
    Example: extauthz init
             extauthz init --name orders --scope READ --scope WRITE --yes
             extauthz init --example glean-client-api --yes
    """
    if example is not None and scopes:
        raise click.UsageError("--scope does not go with --example: the route map has its own scopes")
    may_ask = not yes and sys.stdin is not None and sys.stdin.isatty()
    api = _api(scopes, example, flags, may_ask=may_ask)
    texts = files.texts_of(api)
    if existing := [path for path in (*texts, SUITE, PEPPER, STORE) if os.path.lexists(folder / path)]:
        names = ", ".join(printable(str(folder / path), lines=False) for path in existing)
        raise click.ClickException(f"nothing was written, because this is there: {names}: name another folder, or move it away")
    loaded = _write(folder, texts)
    _tell(folder, texts, loaded)


def _api(scopes: tuple[str, ...], example: str | None, flags: dict[str, Any], *, may_ask: bool) -> NewApi:
    name = _answer(flags["name"], example or NAME, "What is the API called", may_ask=may_ask)
    if example is not None:
        scopes = files.example_scopes(example)
    elif not scopes:
        scopes = _list(_answer(None, ", ".join(SCOPES), "Its scopes, the one for reading first", may_ask=may_ask))
    prefix = _answer(flags["prefix"], HEADER_PREFIX, "What headers for it begin with", may_ask=may_ask)
    domains = flags["domains"] or _list(_answer(None, DOMAIN, "The domain of its users' e-mail addresses", may_ask=may_ask))
    api = NewApi(
        name=name,
        scopes=scopes,
        header_prefix=prefix,
        domains=domains,
        provider=_provider(flags, domains if domains != (DOMAIN,) else (), may_ask=may_ask),
        example=example,
    )
    for is_there, flag, hint in (
        (api.slug, "--name", "write a name with letters or digits, like orders"),
        (scopes, "--scope", "write at least one scope, like READ"),
        (domains, "--domain", "write a domain, like acme.com"),
    ):
        if not is_there:
            raise click.BadParameter(hint, param_hint=flag)
    return api


def _provider(flags: dict[str, Any], domains: tuple[str, ...], *, may_ask: bool) -> TokenIssuer | None:
    issuer = _answer(flags["issuer"], "", "Whose access tokens count too (an https address, or nothing)", may_ask=may_ask)
    if not issuer:
        if given := [flag for flag, field in _FIELDS.items() if flags[field]]:
            raise click.UsageError(f"{given[0]} needs --issuer")
        return None
    client_ids = flags["client_ids"]
    if not client_ids:
        client_ids = _several("Client ids of the applications whose tokens count", "--client-id", may_ask=may_ask)
    audience = _answer(flags["audience"], "", "What its tokens are for (the audience, or nothing)", may_ask=may_ask)
    provider = TokenIssuer(
        issuer=issuer,
        client_ids=client_ids,
        audience=audience or None,
        user_claims=flags["user_claims"],
        domains=domains,
        scopes=flags["token_scopes"],
    )
    if provider.kind is None:
        raise click.BadParameter(f"{issuer!r}: write an https address, exactly as tokens have it in iss", param_hint="--issuer")
    return provider


def _several(question: str, flag: str, *, may_ask: bool) -> tuple[str, ...]:
    if not may_ask:
        raise click.UsageError(f"{flag} is missing: this issuer needs it")
    return _list(ask(question))


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def _answer(flag: str | None, default: str, question: str, *, may_ask: bool) -> str:
    if flag is not None:
        return flag
    return ask(question, default) if may_ask else default


def _write(folder: Path, texts: Mapping[Path, str]) -> Configuration:
    """Write everything and read it as `serve` does; what cannot stay is removed again."""
    from extauthz.config.loader import load
    from extauthz.tools.suite_writing import suite_of

    written: list[Path] = []
    others = _store_files(folder)
    try:
        for path, text in texts.items():
            _make_folders((folder / path).parent, written)
            with open(folder / path, "x", encoding="utf-8") as stream:
                written.append(folder / path)
                stream.write(text)
        make_pepper(folder / PEPPER)
        written.append(folder / PEPPER)
        loaded = load(folder / CONFIGURATION)
        loaded.peppers(os.environ)
        with open(folder / SUITE, "x", encoding="utf-8") as stream:
            written.append(folder / SUITE)
            stream.write(suite_of(loaded, float(now())))
        with Session(folder / CONFIGURATION).administration(create=True):
            pass
    except BaseException as error:
        for path in (*(_store_files(folder) - others), *reversed(written)):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(error, ConfigurationError):
            lines = "\n".join(f"  {printable(str(problem), lines=False)}" for problem in error.problems)
            raise click.ClickException(f"nothing was written, it would have problems:\n{lines}") from error
        if isinstance(error, OSError):
            where = printable(str(error.filename or folder), lines=False)
            raise click.ClickException(f"nothing was written: {where}: {error.strerror or error}") from error
        raise
    return loaded


def _store_files(folder: Path) -> set[Path]:
    """Find the store and what SQLite keeps beside it."""
    return set((folder / STORE).parent.glob(f"{STORE.name}*"))


def _make_folders(folder: Path, written: list[Path]) -> None:
    """Make the folders that are missing, and note each; what holds secrets is for its owner alone."""
    if folder.is_dir():
        return
    _make_folders(folder.parent, written)
    folder.mkdir(private_files.FOLDER_MODE if folder.name == PEPPER.parent.name else 0o777)
    written.append(folder)


def _tell(folder: Path, texts: Mapping[Path, str], loaded: Configuration) -> None:
    for path in sorted((*texts, SUITE, PEPPER, STORE)):
        echo(f"Wrote {printable(str(folder / path), lines=False)}")
    for warning in loaded.warnings:
        echo(f"warning: {printable(str(warning), lines=False)}", err=True)
    flag = "" if folder == Path() else f" --config {shlex.quote(str(folder / CONFIGURATION))}"
    user = f"ana@{loaded.settings.act_as.allow[0].rpartition('@')[2]}"
    token = f"--permission USER --user {shlex.quote(user)} --scope {shlex.quote(loaded.settings.scopes[0])}"
    echo("\nIt is checked, and in order. Write the routes of your API, then:\n")
    echo(f"  extauthz config check{flag}")
    echo(f"  extauthz test{flag}")
    echo(f"  extauthz token create {token} --description 'to try' --expires 30d{flag}")
    echo(f"  extauthz serve{flag}")
