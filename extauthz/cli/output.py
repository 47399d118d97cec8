"""What commands print: JSON for programs, tables and lines for people. No secret goes through here."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from extauthz.core.tokens import TokenRecord, usable

WIDE = 240
"""Columns of a table that no terminal shows."""
PATIENCE = 2.0
"""Seconds that a command takes before it shows how far it is."""

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")

_LINKS = ("revoked_why", "rotated_from", "rotated_to", "last_used_at", "last_used_from")


def now() -> int:
    """Return this second since the epoch."""
    return int(time.time())  # noqa: TID251 - a command runs now


def moment(seconds: int | None) -> str | None:
    """Write a time for people and programs, in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata(record: TokenRecord, at: int) -> dict[str, Any]:
    """Return what may be told of a token; a StoredToken has more to tell than a new record."""
    refusal = usable(record, at)
    more = {name: getattr(record, name, None) for name in _LINKS}
    return (
        {
            "id": record.id,
            "description": record.description,
            "permission": record.permission.value,
            "user": record.user,
            "scopes": sorted(record.scopes),
            "status": refusal.value.removeprefix("token_") if refusal else "active",
            "created_at": moment(record.created_at),
            "created_by": record.created_by,
            "expires_at": moment(record.expires_at),
            "pepper_id": record.pepper_id,
            "revoked_at": moment(record.revoked_at),
            "revoked_by": record.revoked_by,
        }
        | more
        | {"last_used_at": moment(more["last_used_at"])}
    )


def write_json(value: object) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value))


def write_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line; what is None is left out."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name:<{width}} {', '.join(value) if isinstance(value, list) else value}")


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str | None]], *, whole: int = 1) -> None:
    """Print a table, one line a row, as wide as the terminal; the first `whole` columns are never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(_cell(name), no_wrap=index < whole, overflow="ellipsis")
    for row in rows:
        table.add_row(*(_cell(value or "-") for value in row))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)


def _cell(text: str) -> Text:
    """Make a cell of one line, cut where the column ends; no markup is read."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person at a terminal; without one, and without --yes, refuse."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"--yes is missing, and there is no terminal to ask: {question}")
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was done")


@contextmanager
def progress(title: str, total: int, *, console: Console | None = None, patience: float = PATIENCE) -> Iterator[Progress]:
    """Show on a terminal how far the block is, once it has taken longer than `patience`; it advances task 0."""
    bar = Progress(console=console or Console(stderr=True), transient=True)
    bar.add_task(title, total=total)
    if not bar.console.is_terminal:
        yield bar
        return
    timer = threading.Timer(patience, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield bar
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
