"""`extauthz monitor-report`: what enforcing would have refused, from decision logs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

import click

from extauthz.cli.monitor_hints import hint
from extauthz.cli.output import json_option, now, write_json
from extauthz.cli.refusals import EVER, MAX_CALLERS, OUTCOMES, RefusalReport, RefusalRow, seconds
from extauthz.cli.rendering import progress, write_table
from extauthz.cli.terminal import echo, printable
from extauthz.config.units import duration

MAX_LINE = 64 * 1024
"""Bytes; a longer line is broken."""
STEP = 1 << 20
"""Bytes between two steps of the progress bar."""

_COLUMNS = ("refusals", "share", "reason", "route", "callers", "most often", "first", "last")
_GZIP = b"\x1f\x8b"


class Moment(click.ParamType[float]):
    """A point in time."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a time, or how long ago it was."""
        if isinstance(value, float):
            return value
        moment = seconds(value)
        if moment is not None:
            return moment
        try:
            return now() - duration(value)
        except ValueError:
            self.fail(f"{value!r}: write a time like 2026-01-31T08:00:00Z, or how long ago it was, like 24h", param, ctx)


@click.command("monitor-report")
@click.argument(
    "logs",
    metavar="LOG...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)
@click.option("--since", type=Moment(), default=EVER[0], help="Decisions since then: 2026-01-31T08:00:00Z, or 24h ago.")
@click.option("--until", type=Moment(), default=EVER[1], help="Decisions before then.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Rows of the table.")
@click.option("--fail", is_flag=True, help="Exit 1 if enforcing would have refused anything.")
@json_option
def command(logs: tuple[Path, ...], since: float, until: float, limit: int, *, fail: bool, as_json: bool) -> None:
    """Tell what enforcing would have refused, from the decision logs of monitor mode.

    LOG is a file with one JSON object per line, or - for standard input. Exits with 0, with --fail with 1 when enforcing would
    have refused anything, and always with 1 when there is no decision to judge by.

    Example: extauthz monitor-report decisions.log --since 24h --fail
    """
    report = RefusalReport()
    read_logs(logs, report, since, until)
    if not report.lines:
        broken = f", and {report.broken:,} lines that are no decisions" if report.broken else ""
        raise click.ClickException(f"no decisions found{broken}: name a file with lines of the decision log, and look at --since")
    if as_json:
        write_json(_document(report))
    else:
        _print(report, limit)
    if fail and report.rows:
        raise click.exceptions.Exit(1)


def read_logs(logs: tuple[Path, ...], report: RefusalReport, since: float, until: float) -> None:
    """Read every log into the report; raises ClickException for one that cannot be read."""
    total = sum(log.stat().st_size for log in logs if str(log) != "-")
    with progress("reading", total) as bar:
        for log in logs:
            try:
                with ExitStack() as stack:
                    stream: IO[bytes] = sys.stdin.buffer if str(log) == "-" else stack.enter_context(log.open("rb"))
                    for line in lines(stream, partial(bar.advance, bar.task_ids[0])):
                        report.add(line, since, until)
            except OSError as error:
                raise click.ClickException(f"{log} cannot be read: {error.strerror}") from error
            except EOFError as error:
                raise click.ClickException(f"{log} is compressed: zcat {log} | extauthz monitor-report -") from error


def lines(stream: IO[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    """Yield lines that are not blank; one that is too long comes as its beginning, which is no JSON; raises EOFError for gzip."""
    passed = 0
    first = True
    while line := stream.readline(MAX_LINE):
        if first and line.startswith(_GZIP):
            raise EOFError
        first = False
        passed += len(line)
        part = line
        while not part.endswith(b"\n") and (part := stream.readline(MAX_LINE)):
            passed += len(part)
        if passed >= STEP:
            advance(passed)
            passed = 0
        if line.strip():
            yield line
    advance(passed)


def _document(report: RefusalReport) -> dict[str, Any]:
    first, last = report.span.texts()
    return {
        "decisions": round(sum(report.totals.values())),
        **{outcome: round(count) for outcome, count in report.totals.items()},
        "first": first,
        "last": last,
        "lines": report.lines,
        "broken_lines": report.broken,
        "sampled_lines": report.sampled,
        "rows": [_row_document(report, *row) for row in report.ordered()],
    }


def _row_document(report: RefusalReport, route: str | None, reason: str, row: RefusalRow) -> dict[str, Any]:
    first, last = row.span.texts()
    return {
        "route": route,
        "reason": reason,
        "count": round(row.count),
        "share": round(row.count / report.traffic[route], 6),
        "first": first,
        "last": last,
        "callers": [{"who": who, "count": round(count)} for who, count in row.most()],
        "callers_total": len(row.callers),
        "what_to_do": hint(reason),
    }


def _print(report: RefusalReport, limit: int) -> None:
    total = sum(report.totals.values())
    allowed, refused, watched = (report.totals[outcome] for outcome in OUTCOMES)
    first, last = report.span.texts()
    when = f" from {first} to {last}" if first else ""
    about = "about " if report.sampled else ""
    echo(f"{about}{total:,.0f} decisions{when}: {allowed:,.0f} allowed, {refused:,.0f} refused,")
    echo(f"{watched:,.0f} forwarded that enforcing would have refused ({_share(watched, total)}).")
    if report.broken:
        echo(f"{report.broken:,} lines are no decisions and were left out.", err=True)
    rows = report.ordered()
    if not rows:
        return
    echo()
    write_table(_COLUMNS, (_cells(report, *row) for row in rows[:limit]), whole=3)
    if len(rows) > limit:
        echo(f"There are {len(rows) - limit} more rows: --limit {len(rows)}", err=True)
    echo("\nWhat to do before enforcing:")
    for reason in dict.fromkeys(reason for _, reason, _ in rows):
        echo(f"  {printable(reason, lines=False)}: {hint(reason) or 'a reason that this version does not know'}")


def _cells(report: RefusalReport, route: str | None, reason: str, row: RefusalRow) -> tuple[str | None, ...]:
    who, count = row.most()[0]
    callers = f"{len(row.callers):,}" if len(row.callers) < MAX_CALLERS else f"{MAX_CALLERS:,} or more"
    first, last = (text and text[5:16].replace("T", " ") for text in row.span.texts())
    share = _share(row.count, report.traffic[route])
    where = "(no route)" if route is None else route
    return f"{row.count:,.0f}", share, reason, where, callers, f"{who} ({count:,.0f})", first, last


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"
