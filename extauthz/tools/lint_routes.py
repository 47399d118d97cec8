"""Lints of the route map: what the compiled tables show to be useless or wider than it looks.

Warnings of the loader stand in config/route_review.py and config/spellings.py; none of them is repeated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from extauthz.admin.route_map import depth_of, example_paths, fresh_word, routes_of, tables
from extauthz.config.lints import Lint
from extauthz.config.patterns import METHODS
from extauthz.config.route_review import covers
from extauthz.core.model import AuthType
from extauthz.core.paths import Path, parse
from extauthz.core.policy import Policy
from extauthz.core.routes import ANY_METHOD, STAR_METHODS, Route, RouteTable
from extauthz.errors import Problem
from extauthz.tools.lint_places import RoutePlaces

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "REPORT", "SEARCH"})
"""Methods that are meant to change nothing (RFC 9110 9.2.1, and the registry of HTTP methods)."""
READS = ("GET", "HEAD")


def findings(policy: Policy, places: RoutePlaces) -> Iterator[Problem]:
    """Yield what the lints of routes find, each finding once whatever hosts share a route."""
    seen: set[tuple[str, str]] = set()
    for finding in _all(policy, places):
        if (finding.route.name, finding.message) not in seen:
            seen.add((finding.route.name, finding.message))
            yield places.problem(finding.route, finding.message, finding.lint)


@dataclass(frozen=True, slots=True)
class _Found:
    route: Route
    lint: Lint
    message: str


def _all(policy: Policy, places: RoutePlaces) -> Iterator[_Found]:
    message = "no request leads here: more specific routes take every path and method of it. Remove it, or one of them"
    yield from (_Found(route, Lint.NEVER_MATCHES, message) for route in never_matching(policy))
    for _, table in tables(policy):
        for twins in _by_pattern(table):
            yield from _twins(twins, places)
            yield from _anonymous_writes(twins)


def never_matching(policy: Policy) -> list[Route]:
    """Return the routes to which no request leads, by asking the tables for the paths that any other path is no better than.

    A word that no pattern has stands in each parameter: with a literal in its place the same patterns match, and perhaps more
    specific ones besides. So do further segments of a final `**` beyond the longest pattern.
    """
    fresh = fresh_word(policy)
    reached: set[str] = set()
    routes: dict[str, Route] = {}
    for _, table in tables(policy):
        depth = depth_of(table.root)
        for route in routes_of(table):
            routes[route.name] = route
            if route.name not in reached and _is_reached(table, route, example_paths(route, fresh, depth)):
                reached.add(route.name)
    return [route for name, route in routes.items() if name not in reached]


def _is_reached(table: RouteTable, route: Route, paths: Iterable[str]) -> bool:
    named = route.match.methods
    methods = (*STAR_METHODS, *METHODS.difference(STAR_METHODS)) if ANY_METHOD in named else named
    for text in paths:
        path = parse(text)
        if isinstance(path, Path) and any(table.find(method, path) is route for method in methods):
            return True
    return False


def _by_pattern(table: RouteTable) -> Iterable[list[Route]]:
    """Return the routes of each pattern, which differ in their methods."""
    patterns: dict[object, list[Route]] = {}
    for route in routes_of(table):
        patterns.setdefault((route.match.segments, route.match.rest), []).append(route)
    return patterns.values()


def _methods_of(route: Route, twins: list[Route]) -> list[str]:
    """Return the methods that a route of a pattern decides; those of `*` are the ones that no other route names."""
    if ANY_METHOD not in route.match.methods:
        return list(route.match.methods)
    named = {method for twin in twins for method in twin.match.methods}
    return [method for method in STAR_METHODS if method not in named]


def _writes(route: Route, twins: list[Route]) -> list[str]:
    return [method for method in _methods_of(route, twins) if method not in SAFE_METHODS]


def _twins(twins: list[Route], places: RoutePlaces) -> Iterator[_Found]:
    """Compare who may read a path with who may write to it."""
    if len(twins) == 1:
        return
    open_twins = [route for route in twins if not route.deny]
    readers = [route for route in open_twins if not set(READS).isdisjoint(_methods_of(route, twins))]
    writers = [route for route in open_twins if _writes(route, twins)]
    for read in readers:
        others = [write for write in writers if write is not read]
        easier = next((write for write in others if covers(write, read) and not covers(read, write)), None)
        if easier is not None:
            message = f"asks for more than {places.label(easier)}, which writes: whoever may not read can write"
            yield _Found(read, Lint.READ_NEEDS_MORE, message)
        guarded = next((write for write in others if not write.public), None)
        if read.public and guarded is not None:
            message = f"is open to everybody, and {places.label(guarded)}, which writes to the same path, is not"
            yield _Found(read, Lint.OPEN_READ, message)


def _anonymous_writes(twins: list[Route]) -> Iterator[_Found]:
    for route in twins:
        is_anonymous = AuthType.ANONYMOUS in route.accept and not route.public
        writes = _writes(route, twins) if not route.deny and (route.public or is_anonymous) else []
        if writes:
            who = "anonymous tokens" if is_anonymous else "everybody"
            message = f"lets {who} call {', '.join(writes)}, which may change something: name the methods that read"
            yield _Found(route, Lint.ANONYMOUS_WRITE, message)
