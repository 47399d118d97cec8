"""`extauthz store …`: for whoever runs the database of issued tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from extauthz.adapters.store import chain
from extauthz.adapters.store.rows import StoreError
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.cli import configuration
from extauthz.cli.output import confirm, json_option, now, write_facts, write_json, yes_option
from extauthz.cli.session import Session, as_option
from extauthz.cli.terminal import echo


@click.group("store")
def command() -> None:
    """The database of issued tokens."""


@command.command("migrate")
@configuration.option
@json_option
def migrate(config_file: Path, *, as_json: bool) -> None:
    """Make the store, or update its schema.

    Example: extauthz store migrate --config config/extauthz.yaml
    """
    session = Session(config_file)
    with session.store(create=True) as store:
        schema = store.migrate()
        if as_json:
            write_json({"store": store.name, "schema": schema})
        else:
            echo(f"{store.name}: schema {schema}")


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
    with session.store() as store:
        found = store.status(now())
        facts: dict[str, Any] = {
            "store": store.name,
            "schema": found.revision,
            "active": found.active,
            "expired": found.expired,
            "revoked": found.revoked,
            "feed": f"epoch {found.epoch}, head {found.head}",
            "audit": _text(found.audit),
            "peppers": dict(found.peppers),
        }
    missing = [name for name, count in found.peppers.items() if count and name not in listed]
    if as_json:
        write_json(facts | {"feed": {"epoch": found.epoch, "head": found.head}, "missing_peppers": missing})
        return
    needs = [f"{name}: {count} active tokens{' (NOT LISTED)' if name in missing else ''}" for name, count in found.peppers.items()]
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
    with Session(config_file).store() as store:
        head = store.backup(file)
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

    Does again what the exported audit tells of revocations, so that sidecars serve issued tokens again.

    Example: extauthz store accept-restore --audit audit.jsonl --yes
    """
    session = Session(config_file, email)
    session.require_super_admin("accepting a restore")
    try:
        rows, export = chain.read_lines(file)
    except (StoreError, UnicodeDecodeError) as error:
        raise click.ClickException(f"--audit: {error}") from error
    broken = chain.first_broken(rows, session.audit_keys(), export.audit if export.audit[0] else None)
    if broken is not None:
        raise click.ClickException(
            f"--audit: row {broken} of the export is missing, or not what was written; give it from row 1 on"
        )
    with session.store() as store:
        first = store.audit_page(0, 1)
        if first and rows and first[0].mac != rows[0].mac:
            raise click.ClickException("--audit: this is the export of another store: their first rows differ")
        _check_reach(store, export.audit[0])
        confirm(f"Accept the restored store {store.name}, with {len(export.revocations)} revocations of the export?", yes=yes)
        session.peppers(store)
        done = store.accept_restore(export, session.change())
    counts: dict[str, Any] = {
        "revoked": list(done.revoked),
        "tombstones": list(done.tombstones),
        "expiries": list(done.expiries),
        "epoch": done.epoch,
        "head": done.head,
    }
    if as_json:
        write_json(counts)
        return
    echo(
        f"Accepted: {len(done.revoked)} tokens revoked again, {len(done.tombstones)} unknown ids may not come back, "
        f"{len(done.expiries)} expiries brought forward. Sidecars serve again."
    )


def _check_reach(store: SqlTokenStore, last: int) -> None:
    number, _ = store.audit_head()
    if number > last:
        text = f"warning: the export ends at row {last}, the restored store at {number}: is there a later export?"
        echo(text, err=True)


def _text(head: tuple[int, str]) -> str:
    return f"{head[0]}:{head[1]}"
