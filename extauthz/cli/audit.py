"""`extauthz audit …`: who changed which token."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import click

from extauthz.adapters.store import chain
from extauthz.adapters.store.records import AuditFilter, Difference, Subject
from extauthz.admin import audit_search, audits
from extauthz.admin.audit_search import AuditEntry, FieldChange
from extauthz.admin.metadata import utc
from extauthz.admin.outcomes import Refused
from extauthz.cli import configuration
from extauthz.cli.moments import Moment
from extauthz.cli.output import json_option, write_json
from extauthz.cli.rendering import Column, Fit, progress, write_table
from extauthz.cli.session import Session, as_option, unwrap
from extauthz.cli.terminal import echo
from extauthz.config.wording import counted
from extauthz.core.act_as import address

_COLUMNS = (
    Column("number"),
    Column("at (UTC)", need=1),
    Column("action", need=2),
    Column("token"),
    Column("actor", need=3, fit=Fit.WRAP),
    Column("source", need=5, fit=Fit.CUT, least=12),
    Column("changes", need=4, fit=Fit.BELOW, least=50),
)
_WHEN, _WHO = ("created_at", "revoked_at"), ("created_by", "revoked_by")
_FLAGS = {"actor": "--actor", "action": "--action", "token": "--token", "since": "--since", "until": "--until"}


class AuditHead(click.ParamType[tuple[int, str]]):
    """Number and MAC of a row, as `status`, `backup` and `audit verify` print them."""

    name = "NUMBER:MAC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        """Read both."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]{1,15}):([0-9a-f]{64})", value.strip().lower())
        if match is None:
            self.fail(
                "write the number and the 64 hex digits that 'extauthz audit verify' or 'extauthz store status' prints", param, ctx
            )
        return int(match[1]), match[2]


@click.group("audit")
def command() -> None:
    """The audit: append-only rows, chained by MACs whose key comes from the peppers.

    Example: extauthz audit list --since 30d
    """


@command.command("list")
@configuration.option
@as_option
@click.option("--actor", help="Those of this actor: the whole name, like os:ana, key:4fK2pQ9sXb1Z or an e-mail address.")
@click.option("--token", "token_id", metavar="ID", help="Those about the token of this id.")
@click.option("--action", help="Those of this kind, like create, rotate or revoke.")
@click.option("--since", type=Moment(), help="Those since then: 2026-01-31, 2026-01-31T08:00:00Z, or 24h ago.")
@click.option("--until", type=Moment(ends=True), help="Those before then; a day belongs to them.")
@click.option("--after", type=click.IntRange(0, 2**53), help="Rows behind this number; without it, the newest ones.")
@click.option("--before", type=click.IntRange(1, 2**53), help="Rows before this number, the newest of them.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@json_option
def list_rows(
    config_file: Path, email: str | None, after: int | None, before: int | None, limit: int, *, as_json: bool, **criteria: Any
) -> None:
    """List changes, the newest last, and what each of them changed.

    Example: extauthz audit list --actor os:ana --action revoke --since 30d
    """
    if after is not None and before is not None:
        raise click.UsageError("--after and --before do not go together")
    search = _search(**criteria)
    session = Session(config_file, email)
    with session.administration() as administration:
        outcome = audit_search.list_rows(administration, session.actor, search, after=after, before=before, limit=limit)
    if isinstance(outcome, Refused) and (flag := _FLAGS.get(outcome.refusals[0].field)):
        raise click.BadParameter(outcome.refusals[0].message, param_hint=flag)
    page = unwrap(outcome)
    rows = [entry.row for entry in page.entries]
    if as_json:
        write_json({"rows": [json.loads(chain.line(row)) for row in rows], "after": page.after, "before": page.before})
        return
    if not rows:
        echo("No such rows." if search != AuditFilter() else "No rows.")
        return
    write_table(_COLUMNS, map(_row, page.entries))
    if page.before is not None:
        echo(f"There are older ones: repeat the command with --before {page.before}", err=True)
    if page.after is not None:
        echo(f"There are more: repeat the command with --after {page.after}", err=True)


@command.command("verify")
@configuration.option
@as_option
@click.option(
    "--head", type=AuditHead(), help="The head that you noted outside of the store: shows whether rows were cut off since."
)
@json_option
def verify(config_file: Path, email: str | None, head: tuple[int, str] | None, *, as_json: bool) -> None:
    """Check every row against the chain, and tokens, admin keys, accounts and OAuth settings against the rows.

    Exits with 1 and names the first row that is not what was written, or else every token that may do more than the rows allow:
    whose revocation was undone, whose expiry is later, whose fields are others, or that no row tells of; in the same way admin
    keys, accounts and settings.

    Example: extauthz audit verify --head 42:5f0c3a9d5f0c3a9d5f0c3a9d5f0c3a9d5f0c3a9d5f0c3a9d5f0c3a9d5f0c3a9d
    """
    session = Session(config_file, email)
    with session.administration() as administration, progress("rows and tokens", 1) as bar:

        def advance(done: int, total: int) -> None:
            bar.update(bar.task_ids[0], completed=done, total=total)

        check = unwrap(audits.verify(administration, session.actor, head=head, advance=advance))
    broken, differences = check.checked.first_broken, check.checked.differences
    number, mac = check.checked.head
    if as_json:
        rows = [
            {"subject": item.subject, "id": item.token_id, "field": item.field, "audit": item.audit, "row": item.row}
            for item in differences
        ]
        write_json({"whole": broken is None, "first_broken": broken, "differences": rows, "head": f"{number}:{mac}"})
    elif broken is None:
        for item in differences:
            name = "the OAuth settings" if item.subject is Subject.SETTINGS else f"{item.subject} {item.token_id}"
            echo(f"Error: {name}: {_sentence(item)}", err=True)
        echo(f"The audit is whole, {counted(number, 'row')}. Note its head outside of the store:\n{number}:{mac}")
    else:
        echo(f"Error: row {broken} of the audit is not what was written{_guess(check)}", err=True)
    if differences and not as_json:
        what = "revoke these tokens and keys, remove these accounts, save the settings anew, and find out whose hand it was"
        echo(f"The store was changed by another hand than extauthz: {what}.", err=True)
    if broken is not None or differences:
        raise click.exceptions.Exit(1)


@command.command("export")
@configuration.option
@as_option
@click.option("--after", type=click.IntRange(0, 2**53), default=0, help="Rows behind this number, to go on with an export.")
@json_option
def export(config_file: Path, email: str | None, after: int, *, as_json: bool) -> None:
    """Write the audit as JSON lines.

    The last line tells the state of the store, for `store accept-restore`.

    Example: extauthz audit export > audit.jsonl
    """
    session = Session(config_file, email)
    with session.administration() as administration:
        for line in unwrap(audits.export(administration, session.actor, after=after)):
            echo(line)


def _search(
    *, actor: str | None, token_id: str | None, action: str | None, since: float | None, until: float | None
) -> AuditFilter:
    # Addresses are kept in lower case.
    name = address(actor or "") or actor
    since, until = (None if moment is None else math.ceil(moment) for moment in (since, until))
    return AuditFilter(actor=name, action=action, token_id=token_id, since=since, until=until)


def _row(entry: AuditEntry) -> tuple[str | None, ...]:
    row = entry.row
    at = (utc(row.at) or "")[:16].replace("T", " ")
    # What the row itself tells is no news.
    known = {"id": row.token_id, **dict.fromkeys(_WHEN, utc(row.at)), **dict.fromkeys(_WHO, row.actor)}
    changes = (change for change in entry.changes if change.after is None or known.get(change.field) != change.after)
    return str(row.number), at, row.action, row.token_id, row.actor, row.source, "; ".join(map(_difference, changes))


def _difference(change: FieldChange) -> str:
    before, after = change.before or "nothing", change.after or "nothing"
    return f"{change.field}: {after}" if change.before is None else f"{change.field}: {before} → {after}"


def _sentence(item: Difference) -> str:
    match item.field:
        case "row":
            return "the audit tells that it was made, and its row is gone"
        case "tombstone":
            return "the audit tells that its id may not come back, and its tombstone is gone"
        case "created_at" if item.audit is None:
            return "no row of the audit tells that it was made"
        case "revoked_at":
            return "the audit tells that it was revoked, and its row does not"
        case "rotated_to":
            return "the audit tells that it was rotated, and its row does not"
        case "expires_at":
            return f"it ends at {_moment(item.audit)} at the latest, and its row says {_moment(item.row)}"
        case "version":
            return f"the audit tells of version {item.audit}, and the store of version {item.row}"
        case "body":
            return "the version that counts is not what the audit tells"
    return f"{item.field} was {json.dumps(item.audit)} when it was made, and is {json.dumps(item.row, default=repr)}"


def _moment(seconds: object) -> str:
    try:
        return str(utc(int(str(seconds))))
    except (ValueError, OverflowError, OSError):
        return repr(seconds)


def _guess(check: audits.AuditCheck) -> str:
    if check.row is None:
        return ": it is missing"
    unlisted = f", or cannot be checked: tokens.peppers does not list {check.row.pepper_id!r}"
    return unlisted if check.is_without_pepper else ""
