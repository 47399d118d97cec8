"""All routes together: one table for each host, and what no single line shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from extauthz.config import route_review, spellings
from extauthz.config.lints import Lint
from extauthz.config.pacing import paced
from extauthz.config.routes import LocatedRoute
from extauthz.core.routes import Route, RouteTable, compile_routes
from extauthz.core.upstream import STRICT, Upstream
from extauthz.errors import Problem

T = TypeVar("T")

_ADVICE = (
    "write `upstream: {case: insensitive, trailing_slash: ignored}` beside `routes`, "
    "or `upstream: {}` if yours reads paths to the letter"
)


def compile_tables(placed: list[LocatedRoute]) -> tuple[RouteTable, Mapping[str, RouteTable], list[Problem], list[Problem]]:
    """Return the table of all other hosts, the table of each named host, problems and warnings."""
    lines = _Lines({id(entry.route): entry for entry in placed})
    hosts = sorted({host for entry in placed for host in entry.hosts})
    problems, warnings = _names_used_twice(placed), []
    tables = {}
    steps = route_review.Steps(route_review.MAX_STEPS)
    for host in ("", *hosts):
        entries = [entry for entry in placed if (host in entry.hosts if host else not entry.hosts)]
        upstream = entries[0].reading if entries else STRICT
        table = tables[host] = compile_routes(paced([entry.route for entry in entries]), upstream)
        problems += [*_other_upstreams(entries), *_same_patterns(entries, upstream, lines)]
        warnings += [*_warnings(table, entries, lines, steps), *_other_readings(table, entries, lines)]
    for entry in paced(placed):
        if any(segment and "?" in segment for segment in entry.route.match.segments):
            message = "'?' in a pattern is the character of a path (%3F): queries are not matched"
            warnings.append(entry.problem(message, name=Lint.QUESTION_MARK))
    return tables.pop(""), tables, problems, sorted(set(warnings))


@dataclass(frozen=True, slots=True)
class _Lines:
    """Where routes stand."""

    entries: Mapping[int, LocatedRoute]

    def __getitem__(self, route: Route) -> LocatedRoute:
        """Return the line of a route."""
        return self.entries[id(route)]

    def label(self, route: Route) -> str:
        """Name a route and its line."""
        return f"{route.match.text!r} ({self[route].place})"


def _other_upstreams(entries: list[LocatedRoute]) -> Iterator[Problem]:
    """Yield each file whose upstream reads otherwise than that of the first file: one table has one reader."""
    first = {entry.document.file: entry for entry in reversed(entries)}
    for entry in first.values():
        if entry.reading != entries[0].reading:
            earlier = entries[0].document.file
            message = f"{earlier} has routes for the same hosts and another `upstream`: write the same in both, or other `hosts`"
            yield entry.document.problem(("upstream",), message)


def _same_patterns(entries: list[LocatedRoute], upstream: Upstream, lines: _Lines) -> Iterator[Problem]:
    """Yield patterns that are one, for requests or for the upstream, and words that it may take for one."""
    routes = [entry.route for entry in entries]
    duplicates = list(route_review.duplicates(routes))
    for later, earlier in duplicates:
        yield lines[later].problem(f"the same pattern and method as in {lines[earlier].place}: remove one of them")
    duplicate_ids = {id(later) for later, _ in duplicates}
    for later, earlier in spellings.written_otherwise(routes, upstream):
        if id(later) not in duplicate_ids:
            yield lines[later].problem(f"this upstream reads the path as that of {lines.label(earlier)}: write both alike")
    for later, earlier, word, other in spellings.confused_words(routes, upstream):
        one = f"{word!r} and {other!r} ({lines[earlier].place})"
        yield lines[later].problem(f"{one} are one word for some servers that ignore case, and two for others: rename one")


def _warnings(table: RouteTable, entries: list[LocatedRoute], lines: _Lines, steps: route_review.Steps) -> Iterator[Problem]:
    routes = [entry.route for entry in entries]
    seen: set[int] = set()
    not_reviewed: list[Route] = []
    for strict, weaker in route_review.cuts(table, routes, steps):
        if weaker is None:
            not_reviewed.append(strict)
            continue
        others = []
        for route in weaker:
            name, why = _of_its_own(route, strict)
            if name is None:
                others.append(route)
            elif id(route) not in seen:
                # The line that lets others in is the one to look at, and the one that a review shows.
                seen.add(id(route))
                yield lines[route].problem(f"takes a part of the stricter route {lines.label(strict)}: {why}", name=name)
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            message = f"{lines.label(others[0])}{more} takes a part of this stricter route"
            yield lines[strict].problem(message, name=Lint.WEAKER_UNDER_STRICTER)
    if not_reviewed:
        more = f" and of {len(not_reviewed) - 1:,} more behind it" if len(not_reviewed) > 1 else ""
        message = f"not reviewed: whether weaker routes take a part of this one{more}. Patterns overlap too much: make them simpler"
        yield lines[not_reviewed[0]].problem(message, name=Lint.NOT_REVIEWED)
    choices = route_review.most_choices(table)
    if choices > route_review.MAX_CHOICES and routes:
        message = f"a look-up can visit {choices} nodes, because literals and parameters share levels: look for a simpler map"
        yield entries[0].document.problem(("routes",), message, Lint.COSTLY_LOOK_UP)


def _of_its_own(weaker: Route, strict: Route) -> tuple[Lint | None, str]:
    """Return the lint that a weaker route is named by on its own line, and what it does; None for the lint of the stricter one."""
    if weaker.public:
        return Lint.PUBLIC_UNDER_PROTECTED, "it asks for no token"
    if weaker.any_scope and len(weaker.scopes) > 1 and not strict.deny:
        return Lint.ANY_OF_HIDES_STRICTER, "one scope of its any_of is enough here"
    return None, ""


def _other_readings(table: RouteTable, entries: list[LocatedRoute], lines: _Lines) -> Iterator[Problem]:
    """Yield at most one warning of each kind for a file: other spellings, where it names no reader, and decoded slashes."""
    unsaid = [entry.route for entry in entries if entry.upstream is None]
    weaker_spellings = [(lines[hole.strict], hole) for hole in spellings.weaker_spellings(table, unsaid)]
    for entry, hole, more in _first_of_each_file((entry, hole) for entry, hole in weaker_spellings if entry.upstream is None):
        message = (
            f"{lines.label(hole.weaker)} decides {hole.path!r}, which is this stricter route{more} for an upstream that ignores "
            f"letter case and a last slash, as Express and Koa do by default: {_ADVICE}"
        )
        yield entry.problem(message, name=Lint.OTHER_SPELLING)
    decoded = ((lines[route], other) for route, other in spellings.reached_when_decoded(table, [entry.route for entry in entries]))
    for entry, other, more in _first_of_each_file(decoded):
        message = (
            f"an upstream that decodes %2F before it routes takes some paths of it{more} for {lines.label(other)}, which asks for "
            "something else: make sure that yours does not, or leave encoded_slashes out"
        )
        yield entry.problem(message, "encoded_slashes", name=Lint.DECODED_SLASHES)


def _first_of_each_file(pairs: Iterable[tuple[LocatedRoute, T]]) -> Iterator[tuple[LocatedRoute, T, str]]:
    """Yield the first finding of each file, and how many more there are in words."""
    files: dict[str, list[tuple[LocatedRoute, T]]] = {}
    for entry, each in pairs:
        files.setdefault(entry.document.file, []).append((entry, each))
    for several in files.values():
        yield *several[0], f" (and {len(several) - 1} more)" if len(several) > 1 else ""


def _names_used_twice(placed: list[LocatedRoute]) -> list[Problem]:
    first: dict[str, LocatedRoute] = {}
    problems = []
    for entry in paced(placed):
        earlier = first.setdefault(entry.route.name, entry)
        same_line = earlier.route.match.text == entry.route.match.text and earlier.hosts == entry.hosts
        if earlier is not entry and not same_line:
            message = f"the name {entry.route.name!r} is that of {earlier.place}: give one of them another `name`"
            problems.append(entry.problem(message, "name"))
    return problems
