"""`extauthz pepper …`: keys of the token digests."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import click

from extauthz.admin import peppers
from extauthz.cli import configuration
from extauthz.cli.output import json_option, write_json
from extauthz.cli.pepper_file import make_pepper
from extauthz.cli.session import Session, unwrap
from extauthz.cli.terminal import echo


@click.group("pepper")
def command() -> None:
    """Peppers: the keys that token digests and the audit are made with.

    Example: extauthz pepper new p2
    """


@command.command("new")
@configuration.option
@click.argument("pepper_id", metavar="ID")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it; must not exist. [default: beside the newest one]",
)
@click.option("--store", "with_store", is_flag=True, help="Also ask the store whether a pepper of this id was ever used.")
@json_option
def new(config_file: Path, pepper_id: str, file: Path | None, *, with_store: bool, as_json: bool) -> None:
    """Write a new pepper that only this user may read, and say what to do with it.

    Nothing changes until it is listed in tokens.peppers.

    Example: extauthz pepper new p2 --config config/extauthz.yaml
    """
    session = Session(config_file)
    listed = [pepper.id for pepper in session.tokens.peppers]
    known: frozenset[str] = frozenset()
    if with_store:
        with session.administration() as administration:
            known = frozenset(administration.store.pepper_fingerprints())
    unwrap(peppers.check_new(pepper_id, listed=listed, known=known))
    newest = session.loaded.pepper_file()
    if file is None and newest is None:
        raise click.UsageError("the newest pepper stands in no file: name the file of the new one with --file")
    target = file or newest.with_name(f"pepper-{pepper_id}")  # type: ignore[union-attr]
    if not make_pepper(target):
        raise click.ClickException(f"{target} exists, and a pepper is never overwritten: name another file with --file")
    place = str(file) if file is not None and file.is_absolute() else os.path.relpath(target, config_file.parent)
    entry = {"id": pepper_id, "file": place}
    if as_json:
        write_json({"written": str(target), "entry": entry, "newest": listed[0]})
        return
    echo(f"Wrote {target}: back it up, apart from the store. What to do with it:\n")
    line = f"- {{id: {pepper_id}, file: {_quoted(place)}}}"
    echo(f"1. Give it to every sidecar, and list it as the last of tokens.peppers there: {line}")
    echo("2. When each of them has it, move it to the front, where commands run too: new tokens are made with it.")
    echo(f"3. extauthz token rotate --pepper {listed[0]} --all --overlap 7d --output rotated.jsonl")
    echo(f"4. When 'extauthz store status' counts no active token of {listed[0]} any more, take that one out of the list.")


def _quoted(text: str) -> str:
    """Write a text as YAML takes it within braces."""
    return text if re.fullmatch(r"[A-Za-z0-9./_-]+", text) else json.dumps(text)
