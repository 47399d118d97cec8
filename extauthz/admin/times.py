"""How long, and until when, as people write it on the command line."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

from extauthz.config.units import duration

_LONG = re.compile(r"([0-9]{1,15})([wy])").fullmatch
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_DAYS = {"w": 7, "y": 365}
_FORMS = "write a number and h, d, w or y, like 90d"


def length(text: object) -> int:
    """Read "12h", "90d", "4w" or "1y" (365 days) in whole seconds, and whatever the configuration takes; raise ValueError."""
    match = _LONG(text) if isinstance(text, str) else None
    try:
        return int(duration(f"{int(match[1]) * _DAYS[match[2]]}d" if match else text))
    except ValueError as error:
        if match:
            raise ValueError(f"{text!r} is longer than 100 years: write at most 36500d") from error
        raise ValueError(f"{text!r} is not a length of time: {_FORMS}") from error


def expiry(text: object, at: int) -> int:
    """Read a length of life from `at` on, or a date, which lasts to its end in UTC; raise ValueError."""
    if not isinstance(text, str) or not _DATE(text):
        try:
            return at + length(text)
        except ValueError as error:
            raise ValueError(f"{error}, or a date like 2027-01-31") from error
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no day of the calendar: write a date like 2027-01-31") from error
    # The last second, so that what is shown of it is the day that was written.
    return int(datetime.combine(day, time(23, 59, 59), UTC).timestamp())
