"""`extauthz console key …`: admin keys, which programs use the API of the console with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Role
from extauthz.admin.times import expiry
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, now, write_facts, write_json, yes_option
from extauthz.cli.rendering import Column, Fit, write_table
from extauthz.cli.session import Session, TokenId, as_option, unwrap
from extauthz.cli.terminal import echo, showing_secrets

if TYPE_CHECKING:
    from extauthz.admin import keys

_COLUMNS = (
    Column("id"),
    Column("role", need=2),
    Column("status", need=3),
    Column("expires", need=1),
    Column("last used", need=5),
    Column("created by", need=6, fit=Fit.WRAP),
    Column("description", need=4, fit=Fit.WRAP),
)
_FLAGS = {"description": "--description", "expires_at": "--expires", "actor": "--as"}


@click.group("key")
def key() -> None:
    """Admin keys for programs that use the API of the console: create, list, revoke.

    Example: extauthz console key list
    """


@key.command("create")
@configuration.option
@as_option
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What the key may do.")
@click.option("--description", required=True, help="What the key is for, 1 to 200 characters.")
@click.option("--expires", required=True, help="Length of life, like 30d, 12w or 1y, or the last day in UTC, like 2027-01-31.")
@json_option
def create(config_file: Path, email: str | None, role: str, description: str, expires: str, *, as_json: bool) -> None:
    """Create an admin key and print it, once.

    Only a super admin makes keys. A key never does more than its maker may do: one that was made with --as does nothing once
    `roles` has that address no more.

    Example: extauthz console key create --role admin --description "rotation in CI" --expires 90d
    """
    from extauthz.admin import keys
    from extauthz.admin.keys import KeyRequest, key_metadata

    at = now()
    try:
        expires_at = expiry(expires, at)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires") from error
    session = Session(config_file, email)
    with showing_secrets("console", "key", "revoke") as stored:
        with session.administration(create=True, make_pepper=True) as administration:
            new = _made(keys.create(administration, session.actor, KeyRequest(description, Role(role), expires_at), at))
            stored.append(new.record.id)
        facts = key_metadata(new.record, at, session.loaded.settings.roles)
        if as_json:
            write_json({"key": new.text.text, **facts})
            return
        echo("The key is shown this once; only a keyed hash of it is stored.\n")
        echo(f"  {new.text.text}\n")
        write_facts(facts)


@key.command("list")
@configuration.option
@as_option
@click.option("--all", "everything", is_flag=True, help="Revoked and expired keys too.")
@json_option
def list_keys(config_file: Path, email: str | None, *, everything: bool, as_json: bool) -> None:
    """List admin keys, the newest first. One that is suspended does nothing, because its maker has no role any more.

    Example: extauthz console key list --all
    """
    from extauthz.admin import keys
    from extauthz.admin.keys import key_metadata

    session = Session(config_file, email)
    at = now()
    with session.administration() as administration:
        records = unwrap(keys.list_keys(administration, session.actor, at, everything=everything))
    rows = [key_metadata(record, at, session.loaded.settings.roles) for record in records]
    if as_json:
        write_json({"keys": rows})
        return
    if not rows:
        echo("No such keys. --all lists revoked and expired ones too; make one with: extauthz console key create --help")
        return
    write_table(_COLUMNS, map(_row, rows))


@key.command("revoke")
@configuration.option
@as_option
@click.argument("key_id", metavar="ID", type=TokenId())
@yes_option
@json_option
def revoke(config_file: Path, email: str | None, key_id: str, *, yes: bool, as_json: bool) -> None:
    """Revoke an admin key for good, from its next request on.

    Example: extauthz console key revoke 4fK2pQ9sXb1Z --yes
    """
    from extauthz.admin import keys
    from extauthz.admin.keys import key_metadata

    session = Session(config_file, email)
    confirm(f"Revoke the admin key {key_id}, for good?", yes=yes)
    at = now()
    with session.administration() as administration:
        before = unwrap(keys.revoke(administration, session.actor, key_id, at))
    if as_json:
        write_json({"id": key_id, "was_revoked_before": before.revoked_at is not None})
    elif before.revoked_at is None:
        echo(f"Admin key {key_id} is revoked.")
    else:
        facts = key_metadata(before, at, session.loaded.settings.roles)
        echo(f"Admin key {key_id} was revoked before, at {facts['revoked_at']} by {facts['revoked_by']}.")


def _made(outcome: keys.NewKey | Refused) -> keys.NewKey:
    if not isinstance(outcome, Refused):
        return outcome
    lines = "\n".join(f"  {_FLAGS[refusal.field]}: {refusal.message}" for refusal in outcome.refusals)
    raise click.ClickException(f"no key was made\n{lines}")


def _row(row: dict[str, Any]) -> tuple[str | None, ...]:
    expires, used = (row[name] and row[name][:10] for name in ("expires_at", "last_used_at"))
    limited = f", acts as {row['acts_as']}" if row["acts_as"] not in (None, row["role"]) else ""
    return row["id"], f"{row['role']}{limited}", row["status"], expires, used, row["created_by"], row["description"]
