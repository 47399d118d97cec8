"""`extauthz report`: what was refused, from decision logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from extauthz.cli.log_files import log_argument, read_logs
from extauthz.cli.moments import Moment
from extauthz.cli.output import json_option, write_json
from extauthz.cli.refusals import EVER, KEYS, OUTCOMES, REFUSALS, Key, NameCounts, RefusalReport, RefusalRow
from extauthz.cli.rendering import Column, Fit, write_table
from extauthz.cli.terminal import echo, printable
from extauthz.config.wording import counted
from extauthz.tools.refusal_hints import hint

TOLD_NAMES = 3
"""Names of one kind that the table tells."""

_KEY_COLUMNS = {
    "route": Column("route", need=1, fit=Fit.WRAP, least=12),
    "reason": Column("reason"),
    "client": Column("client", need=1, fit=Fit.WRAP, least=12),
    "user": Column("user", need=1, fit=Fit.WRAP, least=12),
}
_ABSENT = {"route": "(no route)", "client": "(no client)", "user": "(no user)"}
_OF_KEYS = {"client": "clients", "user": "users"}
_DETAILS = ("required scopes", "held scopes", "nearest routes", "paths", "callers", "clients", "users")
_COLUMNS = (
    Column("share", need=2),
    Column("first", need=5),
    Column("last", need=4),
    Column("details", need=3, fit=Fit.BELOW, least=60),
)


class By(click.ParamType[tuple[str, ...]]):
    """Some of route, reason, client and user."""

    name = "KEYS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read them, separated by commas."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in value.split(","))
        if not set(names) <= KEYS.keys() or len(set(names)) != len(names):
            self.fail(f"{value!r}: write one or more of {', '.join(KEYS)}, like client,reason", param, ctx)
        return names


@click.command("report")
@log_argument
@click.option(
    "--by", type=By(), default="route,reason", show_default=True, help="What rows tell apart: route, reason, client, user."
)
@click.option(
    "--only",
    type=click.Choice(["refused", "monitored"]),
    help="Requests that were stopped, or those that monitor mode let through; without it both.",
)
@click.option("--since", type=Moment(), default=EVER[0], help="Decisions since then: 2026-01-31, 2026-01-31T08:00:00Z, or 24h ago.")
@click.option("--until", type=Moment(ends=True), default=EVER[1], help="Decisions before then; a day belongs to them.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Rows of the table.")
@click.option("--fail", is_flag=True, help="Exit 1 if a row is there, to be run as a gate.")
@json_option
def command(logs: tuple[Path, ...], *, as_json: bool, **flags: Any) -> None:
    """Tell what was refused, or only would have been, from decision logs.

    LOG is a file with one JSON object per line, or - for standard input. With monitor mode it tells what enforcing would refuse.
    Exits with 0, with --fail with 1 when there is a refusal, and always with 1 when there is no decision to judge by.

    \b
    Example: extauthz report decisions.log --since 24h
             extauthz report decisions.log --by client,reason --only refused --json
             extauthz report decisions.log --only monitored --since 7d --fail
    """
    tell(logs, as_json=as_json, **flags)


def tell(
    logs: tuple[Path, ...],
    *,
    by: tuple[str, ...],
    only: str | None,
    since: float,
    until: float,
    limit: int,
    fail: bool,
    as_json: bool,
) -> None:
    """Read the logs and print the report."""
    outcomes = {"refused": frozenset({OUTCOMES[1]}), "monitored": frozenset({OUTCOMES[2]})}.get(only or "", REFUSALS)
    report = RefusalReport(by=by, outcomes=outcomes)
    read_logs(logs, lambda line: report.add(line, since, until))
    if not report.lines:
        raise click.ClickException(f"no decisions found, {counted(report.broken, 'line')} without one: see docs/decision-log.md")
    if as_json:
        write_json(_document(report))
    else:
        _print(report, limit)
    if fail and (report.rows or report.others):
        raise click.exceptions.Exit(1)


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
        "in_other_rows": round(report.others),
    }


def _row_document(report: RefusalReport, key: Key, row: RefusalRow) -> dict[str, Any]:
    first, last = row.span.texts()
    share = report.share(key, row)
    names = {kind.replace(" ", "_"): _names_document(row.names[kind]) for kind in _DETAILS if kind in row.names}
    reason = dict(zip(report.by, key, strict=True)).get("reason")
    return {
        **dict(zip(report.by, key, strict=True)),
        "count": round(row.count),
        "monitored": round(row.monitored),
        "share": None if share is None else round(share, 6),
        "first": first,
        "last": last,
        **names,
        **({} if reason is None else {"what_to_do": hint(reason)}),
    }


def _names_document(names: NameCounts) -> dict[str, Any]:
    return {"most": [{"name": name, "count": round(count)} for name, count in names.most()], "others": round(names.rest())}


def _print(report: RefusalReport, limit: int) -> None:
    total = sum(report.totals.values())
    allowed, refused, monitored = (report.totals[outcome] for outcome in OUTCOMES)
    first, last = report.span.texts()
    when = f" from {first} to {last}" if first else ""
    about = "about " if report.sampled else ""
    echo(f"{about}{counted(round(total), 'decision')}{when}: {allowed:,.0f} allowed, {refused:,.0f} refused,")
    echo(f"{monitored:,.0f} forwarded that enforcing would have refused ({_share(monitored / total)}).")
    if report.broken:
        was = "line is no decision and was" if report.broken == 1 else "lines are no decisions and were"
        echo(f"{report.broken:,} {was} left out.", err=True)
    rows = report.ordered()
    if not rows:
        return
    echo()
    write_table(_columns(report), (_cells(report, *row) for row in rows[:limit]))
    if len(rows) > limit:
        there = "There is" if len(rows) - limit == 1 else "There are"
        echo(f"{there} {counted(len(rows) - limit, 'more row')}: --limit {len(rows)}", err=True)
    if report.others:
        echo(f"{report.others:,.0f} more are in rows that were given up because there were too many.", err=True)
    if "reason" in report.by:
        echo("\nWhat to do:")
        place = report.by.index("reason")
        for reason in dict.fromkeys(key[place] or "" for key, _ in rows):
            echo(f"  {printable(reason, lines=False)}: {hint(reason) or 'a reason that this version does not know'}")


def _columns(report: RefusalReport) -> list[Column]:
    return [Column("refusals"), *(_KEY_COLUMNS[name] for name in report.by), *_COLUMNS]


def _cells(report: RefusalReport, key: Key, row: RefusalRow) -> list[str | None]:
    named = [_ABSENT.get(name) if part is None else part for name, part in zip(report.by, key, strict=True)]
    first, last = (text and text[5:16].replace("T", " ") for text in row.span.texts())
    share = report.share(key, row)
    return [f"{row.count:,.0f}", *named, None if share is None else _share(share), first, last, _details(report, row)]


def _details(report: RefusalReport, row: RefusalRow) -> str:
    known = {_OF_KEYS.get(name) for name in report.by}
    parts = []
    if row.monitored:
        parts.append("all forwarded" if row.monitored == row.count else f"{row.monitored:,.0f} forwarded")
    for kind in _DETAILS:
        names = row.names.get(kind)
        if names is None or kind in known:
            continue
        told = [f"{name} ({count:,.0f})" for name, count in names.most(TOLD_NAMES)]
        rest = names.rest(TOLD_NAMES)
        parts.append(f"{kind}: {', '.join([*told, *([f'others ({rest:,.0f})'] if rest else [])])}")
    return "; ".join(parts)


def _share(part: float) -> str:
    return f"{100 * part:.1f} %"
