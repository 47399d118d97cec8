"""Where each line of a route file begins and ends, so that lines can be added without touching the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Span:
    """One item of `routes`: its first and last line from 0, and the column behind its last character."""

    first: int
    last: int
    end: int


@dataclass(frozen=True, slots=True)
class RouteSpans:
    """The items of `routes` in their order, the column of their dashes, and whether they stand one below the other.

    `line` is that of an empty list, None where there are items.
    """

    spans: tuple[Span, ...]
    indent: int
    is_block: bool
    line: int | None = None


def route_spans(text: str) -> RouteSpans:
    """Return the places of the items of `routes` in a route file without problems; aliases are problems there."""
    depth, key, indent, is_block, line = 0, None, 2, False, 0
    spans: list[Span] = []
    first: Any = None
    last: Any = None
    events: Iterable[Any] = yaml.parse(text, Loader=yaml.CSafeLoader)
    for event in events:
        start = event.start_mark
        closes = isinstance(event, yaml.CollectionEndEvent)
        if closes:
            depth -= 1
        if depth == 1:
            if isinstance(event, yaml.ScalarEvent):
                key = event.value if key is None else None
            elif isinstance(event, yaml.SequenceStartEvent) and key == "routes":
                indent, is_block, line = start.column, not event.flow_style, start.line
            if closes:
                key = None
        if key == "routes" and depth >= 2:
            if depth == 2 and not closes:
                first = start
            if isinstance(event, yaml.ScalarEvent) or not _is_block(event, closes=closes):
                last = event.end_mark
            if depth == 2 and (closes or isinstance(event, yaml.ScalarEvent)):
                spans.append(_span(first, last))
        depth += isinstance(event, yaml.CollectionStartEvent)
    return RouteSpans(tuple(spans), indent, is_block, None if spans else line)


def _is_block(event: Any, *, closes: bool) -> bool:
    """Tell whether an event has no characters of its own: the end of a block is where the next token begins."""
    if closes:
        return bool(event.start_mark.index == event.end_mark.index)
    return not event.flow_style


def _span(first: Any, last: Any) -> Span:
    # A block scalar ends at the beginning of the next line.
    line = last.line - 1 if last.column == 0 and last.line > first.line else last.line
    return Span(first.line, line, last.column if line == last.line else -1)
