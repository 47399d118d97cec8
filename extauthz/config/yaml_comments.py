"""Comments of a YAML text, which its reader drops."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What ends a line for the YAML reader, which counts them."""
_SIGN = re.compile(r"(?<!\S)#")

Span = tuple[int, int]
"""Where something begins in a text and where it ends."""


def comments(text: str) -> Iterator[Span]:
    """Yield where the comments of a text stand that can be read; a sign within a scalar, or within a comment, begins none."""
    spans = scalars(text) if "#" in text else []
    position, end_of_comment = 0, 0
    for start in (sign.start() for sign in _SIGN.finditer(text)):
        while position < len(spans) and spans[position][1] <= start:
            position += 1
        is_text = position < len(spans) and spans[position][0] <= start
        if not is_text and start >= end_of_comment:
            found = BREAK.search(text, start)
            end_of_comment = found.start() if found else len(text)
            yield start, end_of_comment


def scalars(text: str) -> list[Span]:
    """Return where the scalars of a text stand, in their order; raises YAMLError."""
    return [span for span, _ in scalars_with_values(text)]


def scalars_with_values(text: str) -> list[tuple[Span, str]]:
    """Return where the scalars of a text stand and what they say, in their order; raises YAMLError."""
    found = (event for event in yaml.parse(text, Loader=yaml.CSafeLoader) if isinstance(event, yaml.ScalarEvent))
    return [((event.start_mark.index, event.end_mark.index), event.value) for event in found if event.start_mark and event.end_mark]
