"""Points in time, as flags take them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import click

from extauthz.admin.times import length
from extauthz.cli.output import now
from extauthz.tools.log_lines import seconds


class Moment(click.ParamType[float]):
    """A point in time, in seconds since the epoch; a day is its beginning in UTC, and with `ends` its end."""

    name = "TIME"

    def __init__(self, *, ends: bool = False) -> None:
        """Let a day that is the end of a stretch belong to it."""
        self._ends = ends

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a time, a day, or how long ago it was."""
        if isinstance(value, float):
            return value
        moment = self._day(value) or seconds(value)
        if moment is not None:
            return moment
        try:
            return max(0.0, float(now() - length(value)))
        except ValueError:
            hint = "write a time like 2026-01-31T08:00:00Z, a day like 2026-01-31, or how long ago it was, like 24h"
            self.fail(f"{value!r}: {hint}", param, ctx)

    def _day(self, text: str) -> float | None:
        try:
            day = date.fromisoformat(text)
            return seconds(datetime.combine(day + timedelta(days=self._ends), time(), UTC).isoformat())
        except (ValueError, OverflowError):
            return None
