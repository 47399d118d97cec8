"""`extauthz store …`: for whoever runs the database of issued tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from extauthz.admin import stores
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, now, write_facts, write_json, yes_option
from extauthz.cli.session import Session, as_option, unwrap
from extauthz.cli.terminal import echo
from extauthz.config.wording import counted

_SHOWN = 20
"""Ids that a message names."""


@click.group("store")
def command() -> None:
    """The database of issued tokens.

    Example: extauthz store status
    """


@command.command("migrate")
@configuration.option
@json_option
def migrate(config_file: Path, *, as_json: bool) -> None:
    """Make the store, or update its schema.

    Example: extauthz store migrate --config config/extauthz.yaml
    """
    session = Session(config_file)
    with session.administration(create=True) as administration:
        schema = unwrap(stores.migrate(administration, session.actor))
        name = administration.store.name
    if as_json:
        write_json({"store": name, "schema": schema})
    else:
        echo(f"{name}: schema {schema}")


@command.command("status")
@configuration.option
@json_option
def status(config_file: Path, *, as_json: bool) -> None:
    """Count tokens, and tell how the store is.

    Schema, change feed, the head of the audit, and how many active tokens need which pepper.

    Example: extauthz store status --json
    """
    session = Session(config_file)
    listed = [pepper.id for pepper in session.tokens.peppers]
    with session.administration() as administration:
        report = unwrap(stores.status(administration, session.actor, now(), listed=listed))
        name = administration.store.name
    state, missing = report.status, list(report.missing_peppers)
    facts: dict[str, Any] = {
        "store": name,
        "schema": state.revision,
        "active": state.active,
        "expired": state.expired,
        "revoked": state.revoked,
        "feed": f"epoch {state.epoch}, head {state.head}",
        "audit": _text(state.audit),
        "peppers": dict(state.peppers),
    }
    if as_json:
        write_json(facts | {"feed": {"epoch": state.epoch, "head": state.head}, "missing_peppers": missing})
        return
    needs = [
        f"{name}: {counted(count, 'active token')}{' (NOT LISTED)' if name in missing else ''}"
        for name, count in state.peppers.items()
    ]
    write_facts(facts | {"peppers": needs or None})


@command.command("backup")
@configuration.option
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def backup(config_file: Path, file: Path, *, as_json: bool) -> None:
    """Copy a SQLite store into a new file.

    Others may use it meanwhile. Prints the head of the audit; back up the peppers apart from it.

    Example: extauthz store backup backups/tokens-2026-08-01.db
    """
    session = Session(config_file)
    with session.administration() as administration:
        head = unwrap(stores.back_up(administration, session.actor, file))
    if as_json:
        write_json({"file": str(file), "audit": _text(head)})
    else:
        echo(f"{file} is the copy. Note the head of its audit:\n{_text(head)}")


@command.command("accept-restore")
@configuration.option
@as_option
@click.option(
    "--audit",
    "file",
    required=True,
    type=click.File("r", encoding="utf-8"),
    help="All that 'audit export' wrote, up to the accident.",
)
@yes_option
@json_option
def accept_restore(config_file: Path, email: str | None, file: Any, *, yes: bool, as_json: bool) -> None:
    """Accept a backup that was put back.

    Does again what the exported audit tells of revocations, so that sidecars serve issued tokens again. Tokens that were made after
    the backup are lost: it names them, and they have to be made again.

    Example: extauthz store accept-restore --audit audit.jsonl --yes
    """
    session, at = Session(config_file, email), now()
    first, export = unwrap(stores.read_export(session.actor, file, session.audit_keys()))
    with session.administration() as administration:
        restore = unwrap(stores.prepare_restore(administration, session.actor, first, export, at))
        if restore.is_behind:
            ends = f"the export ends at row {export.audit[0]}, the restored store at {restore.head}"
            echo(f"warning: {ends}: is there a later export?", err=True)
        if restore.has_older_settings:
            versions = f"version {restore.settings} of the OAuth settings counts again, after version {export.settings}"
            echo(f"warning: {versions}: look at them in the console, and save what should count", err=True)
        if restore.lost:
            shown = ", ".join(restore.lost[:_SHOWN]) + (" …" if len(restore.lost) > _SHOWN else "")
            were = "was made after the backup and is" if len(restore.lost) == 1 else "were made after the backup and are"
            echo(f"warning: {counted(len(restore.lost), 'token')} {were} lost, make them again: {shown}", err=True)
        name, count = administration.store.name, counted(len(export.revocations), "revocation")
        confirm(f"Accept the restored store {name}, with {count} of the export?", yes=yes)
        accepted = unwrap(stores.accept_restore(administration, session.actor, restore, at))
    counts: dict[str, Any] = {
        "revoked": list(accepted.revoked),
        "tombstones": list(accepted.tombstones),
        "expiries": list(accepted.expiries),
        "keys": list(accepted.keys),
        "lost": list(restore.lost),
        "epoch": accepted.epoch,
        "head": accepted.head,
    }
    if as_json:
        write_json(counts)
        return
    echo(
        f"Accepted: {counted(len(accepted.revoked), 'token')} revoked again, "
        f"{counted(len(accepted.tombstones), 'unknown id')} may not come back, "
        f"{counted(len(accepted.expiries), 'expiry', 'expiries')} brought forward, "
        f"{counted(len(accepted.keys), 'admin key')} revoked again. Sidecars serve again."
    )


def _text(head: tuple[int, str]) -> str:
    return f"{head[0]}:{head[1]}"
