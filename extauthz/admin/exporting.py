"""Lists as files: CSV that no spreadsheet calculates with."""

from __future__ import annotations

from collections.abc import Iterable

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a value begins with that a spreadsheet may take for a formula; the last four are wide forms of the first four."""


def csv_line(values: Iterable[object]) -> str:
    """Write a line of CSV (RFC 4180). None is empty, and a list is its parts with blanks between them.

    A value that a spreadsheet would calculate gets an apostrophe in front, which it does not show.
    """
    return ",".join(_quoted(_text(value)) for value in values) + "\r\n"


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case list() | tuple():
            return " ".join(map(str, value))
        case _:
            return str(value)


def _quoted(text: str) -> str:
    safe = f"'{text}" if text.startswith(_FORMULA) else text
    return '"' + safe.replace('"', '""') + '"'
