"""`extauthz monitor-report`: the name that `extauthz report --only monitored` had before."""

from __future__ import annotations

from pathlib import Path

import click

from extauthz.cli.log_files import log_argument
from extauthz.cli.moments import Moment
from extauthz.cli.output import json_option
from extauthz.cli.refusals import EVER
from extauthz.cli.report import tell
from extauthz.cli.terminal import echo


@click.command("monitor-report")
@log_argument
@click.option("--since", type=Moment(), default=EVER[0], help="As in `extauthz report`, and so are the others.")
@click.option("--until", type=Moment(ends=True), default=EVER[1])
@click.option("--limit", type=click.IntRange(1, 10_000), default=50)
@click.option("--fail", is_flag=True)
@json_option
def command(logs: tuple[Path, ...], since: float, until: float, limit: int, *, fail: bool, as_json: bool) -> None:
    """Use `extauthz report --only monitored`: this name will go.

    Example: extauthz monitor-report decisions.log --since 24h --fail
    """
    echo("warning: monitor-report is deprecated: write 'extauthz report --only monitored'", err=True)
    tell(logs, by=("route", "reason"), only="monitored", since=since, until=until, limit=limit, fail=fail, as_json=as_json)
