"""The `traceparent` that a caller sends along (W3C Trace Context 3.2), read without any library."""

from __future__ import annotations

import re

MAX_LENGTH = 256
"""Characters of a header of a later version than 00, which may be longer than 55."""
TRACE_ID, SPAN_ID = slice(3, 35), slice(36, 52)

_IDS = r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_matches = re.compile(rf"00-{_IDS}|(?!00|ff)[0-9a-f]{{2}}-{_IDS}(?:-.*)?").fullmatch
_ODD = frozenset("13579bdf")


def read(text: str) -> str:
    """Return "00-<trace id>-<parent id>-01" for a sampled trace, the same with 00 for another one, and "" for what is neither."""
    if len(text) > MAX_LENGTH or not _matches(text):
        return ""
    return f"00{text[2:53]}{'01' if text[54] in _ODD else '00'}"


def trace_id(text: str) -> str | None:
    """Return the trace id of a header, None when it is not valid."""
    return read(text)[TRACE_ID] or None


def write(trace_id: int, span_id: int) -> str:
    """Return the text for a span that is sampled."""
    return f"00-{trace_id:032x}-{span_id:016x}-01"


def is_sampled(traceparent: str) -> bool:
    """Tell whether a text that `read` or `write` returned belongs to a sampled trace."""
    return traceparent.endswith("1")
