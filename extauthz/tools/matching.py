"""Which route takes a request, why this one of all that could, and what the request nearly matches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from extauthz.admin.route_map import routes_of
from extauthz.core.model import Decision, Reason, Request
from extauthz.core.paths import Path, parse, parse_with_slashes
from extauthz.core.policy import Policy
from extauthz.core.routes import ANY_METHOD, STAR_METHODS, Match, Route, RouteTable, SlashedRouteTable, compile_routes
from extauthz.telemetry.nearest_route import nearest_route
from extauthz.tools.calls import decided

_LITERAL, _PARAMETER = 0, 1


class Nearness(StrEnum):
    """In what a request differs from one that a route takes; `meaning` says it in words."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Build a member from its row."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    METHOD = "method", "with another method"
    HOST = "host", "on another host"
    SLASH = "slash", "with or without a slash at the end"
    CASE = "case", "in other letter case"
    TYPING = "typing", "if there is an error in the path, or a part of it too many or too few"


@dataclass(frozen=True, slots=True)
class NearRoute:
    """A route that a request nearly matches, and `instead`: what would have to be another one there; "" where nobody can say."""

    nearness: Nearness
    route: Route
    instead: str


@dataclass(frozen=True, slots=True)
class OtherRoute:
    """A route whose pattern takes the path too, and why the other pattern was more specific."""

    route: Route
    why: str


@dataclass(frozen=True, slots=True)
class Matching:
    """What a request comes to before anybody looks at its caller.

    `route` takes it; it is None where none does. `pattern` are the routes of the pattern that takes the path, whatever their
    methods; `others` are those of less specific patterns.
    """

    decision: Decision
    route: Route | None
    pattern: tuple[Route, ...] = ()
    others: tuple[OtherRoute, ...] = ()
    near: tuple[NearRoute, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Tell whether nobody gets through, whoever calls."""
        return self.route is None or self.route.deny or self.decision.reason in (Reason.METHOD_IN_QUERY, Reason.TOKEN_IN_QUERY)


@dataclass(frozen=True, slots=True)
class _Lookup:
    """The table of a request's host, and its path as that table reads it."""

    table: RouteTable
    path: Path
    slashed: bool

    def find(self, method: str, *, table: RouteTable | None = None, text: str | None = None) -> Route | None:
        """Return the route of this table, or of another one, for a method and this path, or another one."""
        searched = table or self.table
        path = self.path if text is None else Path(text)
        found = (SlashedRouteTable(searched) if self.slashed else searched).find(method, path)
        return found if isinstance(found, Route) else None

    @property
    def segments(self) -> tuple[str, ...]:
        """The path as the table compares it."""
        return (
            Path(self.table.upstream.one_spelling(self.path.text)).segments if self.table.upstream.is_loose else self.path.segments
        )


def matching(policy: Policy, method: str, path: str, host: str) -> Matching:
    """Look for the route of a request without a credential; `path` is as a client sends it, with its query."""
    request = Request(method, path, host, {}, raw=True, decision_id="")
    decision = decided(policy, request, lambda _: Reason.TOKEN_UNKNOWN, 0.0)
    raw_path = path.partition("?")[0]
    lookup = _lookup(policy, raw_path, host)
    if lookup is None:
        return Matching(decision, None)
    routes = tuple(routes_of(lookup.table))
    route = next((each for each in routes if each.name == decision.route), None)
    near = (*_near(policy, lookup, routes, route, method, host), *_typing(policy, route, method, raw_path, host))
    pattern = tuple(dict.fromkeys((lookup.table.search(lookup.segments) or {}).values()))
    return Matching(decision, route, pattern, tuple(_others(lookup, routes, pattern)), _distinct(near))


def _lookup(policy: Policy, raw_path: str, host: str) -> _Lookup | None:
    table = policy.table_for(host)
    path = parse(raw_path)
    slashed = path is Reason.PATH_AMBIGUOUS
    if slashed:
        path = parse_with_slashes(raw_path)
    return None if isinstance(table, Reason) or isinstance(path, Reason) else _Lookup(table, path, slashed)


def _others(lookup: _Lookup, routes: Iterable[Route], pattern: tuple[Route, ...]) -> Iterator[OtherRoute]:
    """Yield the routes that would take the path if they stood alone."""
    winner = pattern[0].match if pattern else None
    for route in routes:
        if route not in pattern and compile_routes((route,), lookup.table.upstream).search(lookup.segments) is not None:
            yield OtherRoute(route, _why_not(winner, route.match, lookup.segments))


def _why_not(winner: Match | None, other: Match, segments: tuple[str, ...]) -> str:
    if winner is None:
        return (
            "it takes the path as its rest, but without the slash at the end the path belongs to another pattern: so neither does"
        )
    for place, (ours, theirs) in enumerate(zip(winner.specificity, other.specificity, strict=False)):
        if ours == theirs:
            continue
        word = segments[place] if place < len(segments) else ""
        there = f"segment {place + 1} is the word {word!r}" if word else "the slash at the end"
        what = there if ours == _LITERAL else f"segment {place + 1} is a parameter"
        return f"{what} there, and {'a parameter' if theirs == _PARAMETER else 'part of the rest'} here"
    return "that one ends with the path, and this one goes on with its rest"


def _near(
    policy: Policy, lookup: _Lookup, routes: Iterable[Route], route: Route | None, method: str, host: str
) -> Iterator[NearRoute]:
    for other in _methods(routes, method):
        if (found := lookup.find(other)) is not None and found is not route:
            yield NearRoute(Nearness.METHOD, found, other)
    for name, table in ((None, policy.routes), *policy.hosts.items()):
        found = lookup.find(method, table=table) if table is not lookup.table else None
        if found is not None and found is not route:
            yield NearRoute(Nearness.HOST, found, name or "a host that no file names")
    text = lookup.path.text
    other_text = text[:-1] if text.endswith("/") else f"{text}/"
    if other_text and (found := lookup.find(method, text=other_text)) is not None and found is not route:
        yield NearRoute(Nearness.SLASH, found, Path(other_text).canonical)
    if not lookup.table.upstream.ignores_case:
        # Where two have one spelling the last one counts: one that opens something.
        ordered = sorted(routes, key=lambda each: not each.deny)
        loose = compile_routes(ordered, replace(lookup.table.upstream, ignores_case=True))
        found = lookup.find(method, table=loose) or lookup.find(method.upper(), table=loose)
        if found is not None and found is not route:
            yield NearRoute(Nearness.CASE, found, found.match.text)


def _typing(policy: Policy, route: Route | None, method: str, raw_path: str, host: str) -> Iterator[NearRoute]:
    if route is None and (name := nearest_route(policy, method, raw_path, host)) is not None:
        table = policy.table_for(host)
        found = next((each for each in routes_of(table) if each.name == name), None) if isinstance(table, RouteTable) else None
        if found is not None:
            yield NearRoute(Nearness.TYPING, found, "")


def _methods(routes: Iterable[Route], method: str) -> list[str]:
    """Return every method that a route names, and the given one in capitals, but not itself."""
    named = {each for route in routes for each in route.match.methods if each != ANY_METHOD}
    return sorted({*STAR_METHODS, *named, method.upper()} - {method})


def _distinct(near: Iterable[NearRoute]) -> tuple[NearRoute, ...]:
    """Return each route once for each nearness; one with a typing error only if it is near in nothing else."""
    found: dict[tuple[Nearness, str], NearRoute] = {}
    for one in near:
        before = found.get((one.nearness, one.route.name))
        found[one.nearness, one.route.name] = one if before is None else replace(one, instead=f"{before.instead}, {one.instead}")
    exact = {name for nearness, name in found if nearness is not Nearness.TYPING}
    return tuple(one for (nearness, name), one in found.items() if nearness is not Nearness.TYPING or name not in exact)
