"""`extauthz token export` and `import`: tokens from one store to another, as digests; nobody gets a new secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from extauthz.admin import transfer
from extauthz.admin.outcomes import Refused
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, now, write_json, yes_option
from extauthz.cli.session import Session, as_option, unwrap
from extauthz.cli.terminal import echo
from extauthz.config.wording import counted
from extauthz.core.model import AuthType


@click.command("export")
@configuration.option
@as_option
@click.option("--permission", type=click.Choice(["GLOBAL", "USER", "ANONYMOUS"], case_sensitive=False))
@json_option
def export(config_file: Path, email: str | None, permission: str | None, *, as_json: bool) -> None:
    """Write the active tokens as JSON lines.

    They are for `token import` on another store with the same peppers, and hold digests, no secrets.

    Example: extauthz token export > tokens.jsonl
    """
    session = Session(config_file, email)
    token_permission = AuthType(permission.upper()) if permission else None
    with session.administration() as administration:
        for line in unwrap(transfer.export(administration, session.actor, now(), token_permission)):
            echo(line)


@click.command("import")
@configuration.option
@as_option
@click.argument("file", type=click.File("r", encoding="utf-8"))
@yes_option
@json_option
def import_tokens(config_file: Path, email: str | None, file: Any, *, yes: bool, as_json: bool) -> None:
    """Take over what `token export` wrote.

    All or none; the secrets of these tokens stay good. Known ids are refused, and those that may not come back.

    Example: extauthz token import tokens.jsonl --yes
    """
    session = Session(config_file, email)
    at = now()
    try:
        outcome = transfer.prepare(file, session.actor, at, rules=session.rules, peppers=session.peppers())
    except UnicodeDecodeError as error:
        raise click.ClickException("FILE: not UTF-8: write it with 'extauthz token export'") from error
    prepared = _prepared(outcome)
    confirm(f"Import {counted(len(prepared.records), 'token')}?", yes=yes)
    with session.administration(create=True) as administration:
        ids = unwrap(transfer.import_tokens(administration, prepared, at))
    if as_json:
        write_json({"imported": list(ids)})
    else:
        echo(f"{counted(len(ids), 'token')} {'was' if len(ids) == 1 else 'were'} imported.")


def _prepared(outcome: transfer.Import | Refused) -> transfer.Import:
    match outcome:
        case Refused((refusal,)) if refusal.position is None:
            raise click.ClickException(f"no token was imported: {refusal.message}")
        case Refused(refusals):
            lines = "\n".join(f"  line {(each.position or 0) + 1}: {each.field}: {each.message}" for each in refusals)
            raise click.ClickException(f"no token was imported\n{lines}")
        case prepared:
            return prepared
