"""`extauthz replay`: decisions that were made, made again by another configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.admin.metadata import utc
from extauthz.cli import configuration
from extauthz.cli.log_files import log_argument, read_logs
from extauthz.cli.moments import Moment
from extauthz.cli.output import json_option, write_json
from extauthz.cli.refusals import EVER
from extauthz.cli.rendering import Column, Fit, write_table
from extauthz.cli.session import as_option
from extauthz.cli.terminal import Styled, echo
from extauthz.config.wording import counted

if TYPE_CHECKING:
    from extauthz.tools.log_lines import Undecidable
    from extauthz.tools.replay import ReplayOutcome
    from extauthz.tools.replay_report import Example, ReplayDifference, ReplayReport, ReplayRow
    from extauthz.tools.replay_senders import ScopesOf

UNDECIDABLE, ANY = "undecidable", "any"
FAILING = ("widened", "narrowed", "reason", "route", UNDECIDABLE, ANY)
"""What --fail-on names: the differences, and two more."""

_COLOURS = {"widened": "red", "narrowed": "yellow"}
_CHANGES = (
    Column("decisions"),
    Column("change"),
    Column("before", need=1),
    Column("now"),
    Column("route", fit=Fit.WRAP, least=12),
    Column("examples", need=2, fit=Fit.BELOW, least=60),
)
_LEFT_OPEN = (
    Column("decisions"),
    Column("not decidable"),
    Column("before", need=1),
    Column("route", fit=Fit.WRAP, least=12),
    Column("examples", need=2, fit=Fit.BELOW, least=60),
)


@click.command("replay")
@log_argument
@configuration.option
@as_option
@click.option("--store", "with_store", is_flag=True, help="Look the scopes of issued tokens up in the token store.")
@click.option("--host", metavar="HOST", help="The host of all requests, where route files have `hosts`: a decision log has none.")
@click.option("--since", type=Moment(), default=EVER[0], help="Decisions since then: 2026-01-31, 2026-01-31T08:00:00Z, or 24h ago.")
@click.option("--until", type=Moment(ends=True), default=EVER[1], help="Decisions before then; a day belongs to them.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Rows of each table.")
@click.option(
    "--fail-on",
    "fail_on",
    multiple=True,
    type=click.Choice(FAILING),
    help="Exit 1 if there is one, to be run as a gate; repeatable.",
)
@json_option
def command(
    logs: tuple[Path, ...],
    config_file: Path,
    email: str | None,
    since: float,
    until: float,
    limit: int,
    fail_on: tuple[str, ...],
    host: str | None,
    *,
    with_store: bool,
    as_json: bool,
) -> None:
    """Decide yesterday's requests again, by a new configuration, and show what would differ.

    LOG is a decision log, or what `extauthz record` wrote, also compressed by gzip, or - for standard input. Nothing is guessed:
    what a log does not tell is not decidable, and is counted as such. Tokens are not verified again: why one was refused stays.

    \b
    widened    would be let through, or with an identity, and was not
    narrowed   would be refused, or forwarded without an identity, and was not
    reason     would come to the same for another reason
    route      would come to the same by a route of another name

    --fail-on also takes undecidable, and any for every difference but those of route names. Exits with 0; with --fail-on with 1 if
    there is one, and always with 1 when there is no decision to decide again; with 3 if the configuration has problems.

    \b
    Example: extauthz replay decisions.log --config new/extauthz.yaml --store
             extauthz replay decisions.log.gz requests.jsonl --config new/extauthz.yaml --fail-on widened --json
    """
    from extauthz.tools.masking import Mask
    from extauthz.tools.replay import Replay
    from extauthz.tools.replay_report import ReplayReport

    loaded = configuration.read(config_file)
    with _tokens(config_file, email, with_store=with_store) as scopes_of:
        replay = Replay(loaded.policy, loaded.providers, loaded.settings.scopes, scopes_of=scopes_of, host=host)
        report = ReplayReport(replay, since, until, Mask().of(loaded.policy))
        read_logs(logs, report.add)
    if not report.lines:
        raise click.ClickException(f"no decisions found, {counted(report.broken, 'line')} without one: see docs/decision-log.md")
    if as_json:
        write_json(_document(report))
    else:
        _print(report, limit)
    if _fails(report, fail_on):
        raise click.exceptions.Exit(1)


@contextmanager
def _tokens(config_file: Path, email: str | None, *, with_store: bool) -> Iterator[ScopesOf]:
    """Yield what knows the scopes of issued tokens: the store, or nobody."""
    if not with_store:
        yield lambda _: None
        return
    from extauthz.admin import tokens
    from extauthz.admin.outcomes import Refused
    from extauthz.cli.session import Session, unwrap

    session = Session(config_file, email)
    with session.administration() as administration:

        def scopes_of(token_id: str) -> frozenset[str] | None:
            found = tokens.show(administration, session.actor, token_id)
            if isinstance(found, Refused) and found.refusals[0].field != "id":
                unwrap(found)
            return None if isinstance(found, Refused) else found.scopes

        yield scopes_of


def _fails(report: ReplayReport, fail_on: tuple[str, ...]) -> bool:
    counts = {difference.value: count for difference, count in report.differences.items()}
    counts[ANY] = sum(count for name, count in counts.items() if name != "route")
    return any((counts | {UNDECIDABLE: report.left_open})[name] > 0 for name in fail_on)


def _notes(report: ReplayReport) -> list[str]:
    """Return what a reader has to know about the figures."""
    notes = []
    if report.replay.reads_hosts:
        notes.append("Routes depend on the host, which a decision log does not have: name it with --host if all requests had one.")
    if report.logged:
        notes.append(
            "A decision log has no query and no headers: a request is taken to have no _method in its query, and a host that is"
            " one, unless it was refused for that. docs/tools.md lists what is taken for granted."
        )
    if report.sampled:
        notes.append(f"{counted(report.sampled, 'line')} of samples counted for all that they stand for: figures are estimates.")
    if report.broken:
        notes.append(
            f"{counted(report.broken, 'line')} left out that {'is no decision' if report.broken == 1 else 'are no decisions'}."
        )
    if report.others:
        notes.append(f"{report.others:,.0f} more are in rows that were given up because there were too many.")
    return notes


def _document(report: ReplayReport) -> dict[str, Any]:
    return {
        "decisions": round(report.decisions),
        "same": round(report.same),
        **{difference.value: round(count) for difference, count in report.differences.items()},
        "undecidable": round(report.left_open),
        "lines": report.lines,
        "broken_lines": report.broken,
        "sampled_lines": report.sampled,
        "rows": [
            {"change": difference.value, "before": before._asdict(), "now": now._asdict(), **_row(row)}
            for (difference, before, now), row in report.ordered_changes()
        ],
        "undecidable_rows": [
            {"why": why.value, "what_to_do": why.hint, "before": before._asdict(), **_row(row)}
            for (why, before), row in report.ordered_undecidable()
        ],
        "in_other_rows": round(report.others),
        "notes": _notes(report),
    }


def _row(row: ReplayRow) -> dict[str, Any]:
    examples = [
        {
            "decision_id": one.decision_id,
            "time": None if one.time is None else utc(int(one.time)),
            "method": one.method,
            "path": one.path,
            "caller": one.caller,
        }
        for one in row.examples
    ]
    return {"count": round(row.count), "examples": examples}


def _print(report: ReplayReport, limit: int) -> None:
    about = "about " if report.sampled else ""
    differing = sum(report.differences.values())
    echo(f"{about}{counted(round(report.decisions), 'decision')}: {report.same:,.0f} the same, {differing:,.0f} different,")
    echo(f"{report.left_open:,.0f} not decidable from the log.")
    for difference, count in report.differences.items():
        if count:
            echo(
                "  ", Styled(f"{difference.value:<10}", fg=_COLOURS.get(difference.value)), f"{count:>12,.0f}  {difference.meaning}"
            )
    if changes := report.ordered_changes():
        echo()
        write_table(_CHANGES, (_change(key, row) for key, row in changes[:limit]))
        _tell_more(len(changes) - limit, len(changes))
    if left_open := report.ordered_undecidable():
        echo()
        write_table(_LEFT_OPEN, (_open(key, row) for key, row in left_open[:limit]))
        _tell_more(len(left_open) - limit, len(left_open))
        echo("\nWhat to do:")
        for why in dict.fromkeys(why for (why, _), _ in left_open):
            echo(f"  {why.value}: {why.hint}")
    for note in _notes(report):
        echo(f"note: {note}", err=True)


def _tell_more(more: int, all_rows: int) -> None:
    if more > 0:
        echo(f"There {'is' if more == 1 else 'are'} {counted(more, 'more row')}: --limit {all_rows}", err=True)


def _change(key: tuple[ReplayDifference, ReplayOutcome, ReplayOutcome], row: ReplayRow) -> list[str | None]:
    difference, before, now = key
    routes = dict.fromkeys(route or "(no route)" for route in (before.route, now.route))
    return [f"{row.count:,.0f}", difference.value, _text(before), _text(now), " → ".join(routes), _examples(row.examples)]


def _open(key: tuple[Undecidable, ReplayOutcome], row: ReplayRow) -> list[str | None]:
    why, before = key
    return [f"{row.count:,.0f}", why.value, _text(before), before.route or "(no route)", _examples(row.examples)]


def _text(outcome: ReplayOutcome) -> str:
    return f"{outcome.decision} {outcome.reason}"


def _examples(examples: list[Example]) -> str:
    return "; ".join(
        " ".join(
            filter(None, (one.method, one.path, one.caller and f"by {one.caller}", one.decision_id and f"({one.decision_id})"))
        )
        for one in examples
    )
