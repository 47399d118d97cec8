"""`extauthz decisions`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.cli.completion_values import reasons as complete_reasons
from extauthz.cli.completion_values import routes as complete_routes
from extauthz.cli.decision_lines import decision_line
from extauthz.cli.ops_flags import listener, ops_options
from extauthz.cli.output import json_option, write_json
from extauthz.cli.rendering import terminal_width
from extauthz.cli.terminal import echo
from extauthz.errors import LiveError

if TYPE_CHECKING:
    from extauthz.tools.live import OpsListener, RecentDecisions

PAUSE = 1.0
"""Seconds between two questions."""
REMEMBERED = 50_000
"""Decision ids that are known to have been shown: more than one sidecar of many workers answers at a time."""
MOST = 1_000
"""Decisions of one answer."""


@click.command("decisions")
@ops_options
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--reason", shell_complete=complete_reasons, help="Only with this reason, like scope_missing.")
@click.option("--route", shell_complete=complete_routes, help="Only of this route, by its name.")
@click.option("--user", help="Only for this effective user.")
@click.option("--id", "decision_id", help="Only the decision with this id.")
@click.option("--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="The latest so many.")
@json_option
def command(
    config_file: Path,
    *,
    ops: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    follow: bool,
    limit: int,
    as_json: bool,
    decision_id: str | None,
    **filters: str | None,
) -> None:
    """Show the latest decisions of a running sidecar.

    They come from its memory, over the ops listener, with what the decision log tells of each: by default the last 1,000 refusals
    and 200 allows of each worker. Exit codes: 0 done, 1 no sidecar answers, it refuses, or it does not have the id; 2 wrong flags,
    3 problems in the configuration.

    \b
    Example: extauthz decisions --follow
             extauthz decisions --reason scope_missing --user ana@acme.com
             extauthz decisions --ops unix:///run/extauthz/ops.sock --json
    """
    import asyncio

    from extauthz.tools.live import recent_decisions
    from extauthz.tools.masking import shown_record

    place = listener(config_file, ops, ca, cert, key)
    query = {name: value for name, value in {**filters, "id": decision_id}.items() if value is not None}
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_follow(place, query, limit, as_json=as_json))
        return
    try:
        found = recent_decisions(place, query | {"limit": str(limit)})
    except LiveError as error:
        raise click.ClickException(str(error)) from error
    _tell(found)
    if as_json:
        workers = {"asked": found.workers, "answered": found.workers - len(found.silent), "silent": list(found.silent)}
        write_json({"decisions": [shown_record(one) for one in found.decisions], "workers": workers})
    else:
        _write(reversed(found.decisions))
    if not found.decisions:
        if decision_id is not None:
            raise click.ClickException("no worker has this decision in memory: it is older, or another sidecar's")
        echo("No decisions.", err=True)


async def _follow(place: OpsListener, query: dict[str, str], limit: int, *, as_json: bool) -> None:
    """Ask again and again, and show what was not shown; whatever a sidecar does, go on."""
    import asyncio

    from extauthz.tools.live import asking
    from extauthz.tools.masking import shown_record

    # What is not shown at first is known, and not new with the next answer.
    query, shown, most = query | {"limit": str(MOST)}, Shown(), limit
    async with asking(place) as sidecar:
        try:
            found = await sidecar.decisions(query)
        except LiveError as error:
            # A wrong filter, or nothing there from the beginning.
            raise click.ClickException(str(error)) from error
        while True:
            fresh = shown.fresh(found)[-most:]
            most = MOST
            if as_json:
                for one in fresh:
                    write_json(shown_record(one))
            else:
                _write(fresh)
            for notice in shown.notices:
                echo(notice, err=True)
            await asyncio.sleep(PAUSE)
            found = await _again(sidecar.decisions, query)


async def _again(ask: Any, query: dict[str, str]) -> RecentDecisions:
    """Ask until there is an answer, and say once that there is none."""
    import asyncio

    from extauthz.tools.live import RecentDecisions

    is_said = False
    while True:
        try:
            found = await ask(query)
        except LiveError as error:
            if not is_said:
                echo(f"{error}\nWaiting until it answers again.", err=True)
            is_said = True
            await asyncio.sleep(PAUSE)
            continue
        if is_said:
            echo("The sidecar answers again.", err=True)
        if isinstance(found, RecentDecisions):
            return found


class Shown:
    """What was shown, by decision id, and what there is to say of an answer."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.notices: list[str] = []
        self._ids: dict[str, None] = {}
        self._started: float | None = None
        self._silent: tuple[str, ...] = ()

    def fresh(self, found: RecentDecisions) -> list[Mapping[str, Any]]:
        """Return the decisions that were not shown, oldest first."""
        fresh = [one for one in reversed(found.decisions) if str(one.get("decision_id")) not in self._ids]
        self.notices = []
        if self._started not in (None, found.started):
            self.notices.append("The sidecar was restarted: what it decided before is forgotten.")
        elif self._started is not None and len(fresh) == len(found.decisions) >= MOST:
            self.notices.append("More decisions came than are shown: narrow them down, as with --reason.")
        if found.silent and found.silent != self._silent:
            self.notices.append(_of_silent(found))
        self._started, self._silent = found.started, found.silent
        self._ids |= {str(one.get("decision_id")): None for one in fresh}
        for old in list(self._ids)[: max(len(self._ids) - REMEMBERED, 0)]:
            del self._ids[old]
        return fresh


def _tell(found: RecentDecisions) -> None:
    if found.silent:
        echo(_of_silent(found), err=True)
    if found.is_cut:
        echo("There are older ones, for which the answer had no room: narrow them down, as with --reason.", err=True)


def _of_silent(found: RecentDecisions) -> str:
    return f"Without the decisions of {', '.join(found.silent)}: it did not answer in time."


def _write(decisions: Iterable[Mapping[str, Any]]) -> None:
    from extauthz.tools.log_lines import read_record

    width = terminal_width()
    for line in map(read_record, decisions):
        echo(*decision_line(line, width))
