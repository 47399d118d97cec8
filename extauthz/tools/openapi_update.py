"""A route file brought up to date with API descriptions: what people wrote in it stays, letter by letter.

Each imported line ends in a comment that says what was imported. A line that says something else by now was changed by somebody,
and one without the comment is somebody's own: neither is touched. New lines stand behind their neighbours in the description.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from extauthz.config import document, routes, tables
from extauthz.config.files import Files
from extauthz.config.openapi_map import OpenapiMap
from extauthz.config.route_spans import RouteSpans, route_spans
from extauthz.config.routes import LocatedRoute, RouteFile
from extauthz.core.routes import ACCEPTED_BY_DEFAULT, ANY_METHOD, STAR_METHODS, Route
from extauthz.core.upstream import STRICT, Upstream
from extauthz.errors import ConfigurationError, Problem
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_access import Access, of_route
from extauthz.tools.openapi_lines import Line, comment_of, lines_of, written
from extauthz.tools.openapi_sharing import Key
from extauthz.tools.openapi_written import Written, read_line

COLUMN = 88
"""Where the comments of new lines begin, if the lines are not longer."""
GONE = "no description has it any more: remove the line, or this comment to keep the line"
NEW = "# Imported by extauthz routes import openapi, which with the same descriptions brings it up to date.\nroutes: []\n"

_LINE_BREAKS = ("\x85", "\u2028", "\u2029")


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A line of the file, and what is new about it; `denied` says why nobody gets in."""

    route: str
    access: str
    denied: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """The new text of a route file, and what became of its lines; `kept` were changed or written by people."""

    text: str
    added: tuple[RouteChange, ...]
    changed: tuple[RouteChange, ...]
    gone: tuple[str, ...]
    kept: tuple[str, ...]
    denied: tuple[RouteChange, ...]


def update(
    file: Path, before: bytes | None, operations: Sequence[DescribedOperation], rules: OpenapiMap, vocabulary: Sequence[str]
) -> Update:
    """Return a route file with a line for each operation; without `before`, a new file.

    Raises ConfigurationError if the file has problems, or would have some.
    """
    source = NEW.encode() if before is None else before
    placed, upstream = _read(file, source, vocabulary)
    text = source.decode()
    spans = route_spans(text)
    if (spans.spans and not spans.is_block) or len(spans.spans) != len(placed) or _has_odd_lines(text):
        message = "write one route below the other, each behind a '- ', and end lines as usual: lines are added to such a file only"
        raise ConfigurationError([Problem(str(file), 1, "routes", message)])
    rows = text.split("\n")
    there = [read_line(entry, span, rows, upstream) for entry, span in zip(placed, spans.spans, strict=True)]
    wanted = lines_of(operations, rules, vocabulary, upstream, (entry.route.match for entry in placed))
    try:
        result = _Merge(rows, spans, there, wanted, upstream).result()
    except ValueError as error:
        raise ConfigurationError([Problem(str(file), 0, "routes", str(error))]) from error
    _read(file, result.text.encode(), vocabulary)
    return result


def _read(file: Path, source: bytes, vocabulary: Sequence[str]) -> tuple[list[LocatedRoute], Upstream]:
    """Return the routes of a text, and how their upstream reads; raises ConfigurationError."""
    files = Files({file: source})
    placed, problems = routes.read(file, vocabulary, files)
    if not problems:
        _, _, problems, _ = tables.compile_tables(placed)
    if problems:
        raise ConfigurationError(problems)
    section = RouteFile.model_validate(document.read(file, files).data).upstream
    return placed, section.reading if section else STRICT


def _has_odd_lines(text: str) -> bool:
    """Tell whether YAML counts other lines than those that end in LF."""
    return any(letter in text for letter in _LINE_BREAKS) or text.count("\r") != text.count("\r\n")


class _Merge:
    def __init__(
        self, rows: list[str], spans: RouteSpans, there: list[Written], wanted: dict[Key, Line], upstream: Upstream
    ) -> None:
        self._rows = rows
        self._spans = spans
        self._there = there
        self._upstream = upstream
        self._by_pattern: dict[tuple[object, ...], list[Written]] = {}
        for each in there:
            for _, *pattern in each.keys[:1]:
                self._by_pattern.setdefault(tuple(pattern), []).append(each)
        self._present = {key: present for key in wanted if (present := self._line_of(key))}
        self._wanted = self._behind_blankets(wanted)
        self._end = "\r" if rows[0].endswith("\r") else ""

    def result(self) -> Update:
        added, behind = self._added()
        changed = list(self._changed())
        gone = [each.mark_gone(GONE) for each in self._there if each.imported and not self._is_described(each)]
        edits = {each.row: each.text for each in (*changed, *gone)}
        rows = [row for number, row in enumerate(self._rows) for row in (edits.get(number, row), *behind.get(number, ()))]
        if not self._there and added:
            rows = self._in_place_of_the_empty_list(behind)
        theirs = [each.entry.route.match.text for each in self._there if not each.is_untouched]
        denied = [
            RouteChange(line.match.text, "deny", line.access.why)
            for key, line in self._wanted.items()
            if line.access.is_denied and (key not in self._present or self._present[key].is_untouched)
        ]
        rewritten = [RouteChange(each.entry.route.match.text, each.words) for each in changed if each.words]
        marked = [each.entry.route.match.text for each in gone]
        return Update("\n".join(rows), tuple(added), tuple(rewritten), tuple(marked), tuple(theirs), tuple(denied))

    def _line_of(self, key: Key) -> Written | None:
        method, *pattern = key
        for each in self._by_pattern.get(tuple(pattern), ()):
            methods = each.entry.route.match.methods
            if method in methods or (ANY_METHOD in methods and (each.entry.route.deny or method in STAR_METHODS)):
                return each
        return None

    def _is_described(self, each: Written) -> bool:
        return any(key in self._wanted for key in each.keys)

    def _behind_blankets(self, wanted: dict[Key, Line]) -> dict[Key, Line]:
        """Let no imported line open what somebody's own line with `**` refuses."""
        blankets = [each.entry.route for each in self._there if not each.is_untouched and each.entry.route.match.rest]
        blankets.sort(key=lambda route: route.match.specificity)
        lines = dict(wanted)
        for key, line in wanted.items() if blankets else ():
            theirs = next((route for route in blankets if _takes(route, key)), None)
            if theirs is not None and not theirs.public:
                takes_all = theirs.accept >= ACCEPTED_BY_DEFAULT
                access = line.access.both(of_route(theirs)) if takes_all else Access()
                if access.words != line.access.words:
                    why = f"{line.access.why}; {theirs.match.text} is stricter"
                    lines[key] = replace(line, access=replace(access, why=why))
        return lines

    def _changed(self) -> Iterator[Written]:
        """Yield the imported lines that are to say something else, as they are then."""
        for key, each in self._present.items():
            access = self._wanted[key].access
            if each.is_untouched:
                new = each.rewritten(access)
            elif each.imported and each.why == GONE:
                new = each.mark_described(access.why)
            else:
                continue
            if new.text != self._rows[each.row]:
                yield new

    def _added(self) -> tuple[list[RouteChange], dict[int, list[str]]]:
        """Return the new lines, and their texts by the number of the line that they stand behind."""
        missing = [key for key in self._wanted if key not in self._present]
        taken = {each.entry.route.name for each in self._there} | {self._wanted[key].match.text for key in missing}
        behind: dict[int, list[str]] = {}
        added = []
        for key, number in self._neighbours():
            line = self._wanted[key]
            name = line.name if line.name not in taken else None
            taken |= {name} if name else set()
            content = written(line, " " * self._spans.indent if self._there else "  ", name)
            comment = comment_of(line.access.words, line.access.why)
            behind.setdefault(number, []).append(f"{content:<{COLUMN}} {comment}{self._end}")
            added.append(RouteChange(line.match.text, line.access.words, line.access.why if line.access.is_denied else ""))
        return added, behind

    def _neighbours(self) -> Iterator[tuple[Key, int]]:
        """Yield each key that the file lacks, and the last row of the line that it stands behind."""
        rows_of = {key: each.row for key, each in self._present.items()}
        of_pattern: dict[tuple[object, ...], int] = {}
        for (_, *pattern), row in rows_of.items():
            of_pattern[tuple(pattern)] = max(row, of_pattern.get(tuple(pattern), row))
        last = self._spans.spans[-1].last if self._spans.spans else 0
        latest = next(iter(rows_of.values()), last)
        for key in self._wanted:
            latest = rows_of.get(key, latest)
            if key not in rows_of:
                yield key, of_pattern.get(key[1:], latest)

    def _in_place_of_the_empty_list(self, behind: dict[int, list[str]]) -> list[str]:
        number = self._spans.line or 0
        head, bracket, rest = self._rows[number].partition("[")
        if not head.strip() == "routes:" or not bracket or not rest.lstrip().startswith("]"):
            raise ValueError("write `routes: []` in one line, or a first route, so that lines can be added")
        tail = rest.lstrip().removeprefix("]").rstrip()
        first = f"{head.rstrip()}{tail}{self._end}"
        return [*self._rows[:number], first, *(row for each in behind.values() for row in each), *self._rows[number + 1 :]]


def _takes(blanket: Route, key: Key) -> bool:
    """Tell whether a route with `**` would decide all that a pattern matches, if there were no other."""
    method, segments, _ = key
    begin = blanket.match.segments
    fits = len(segments) >= len(begin) and all(mine in (None, theirs) for mine, theirs in zip(begin, segments, strict=False))
    return fits and (method in blanket.match.methods or ANY_METHOD in blanket.match.methods)
