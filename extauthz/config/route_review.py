"""Findings about a whole route map that no single line shows: duplicates, holes in strict routes, costly look-ups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from extauthz.config.pacing import paced
from extauthz.core.model import AuthType
from extauthz.core.routes import ANY_METHOD, Match, MethodTable, Node, Route, RouteTable

MAX_CHOICES = 64
MAX_STEPS = 20_000_000
"""Nodes and routes that are looked at for all tables together, some 10 seconds.

Ten thousand ordinary routes take 45,000. Where every pattern overlaps with every other, steps grow with the square of the routes;
to find which of many patterns overlap has no way that is always faster (it is the problem of orthogonal vectors).
"""


@dataclass(slots=True)
class Steps:
    """What a review may still look at; it is over when nothing is left."""

    left: int

    def are_over(self) -> bool:
        """Tell whether something was not looked at."""
        return self.left < 0


def duplicates(routes: Iterable[Route]) -> Iterator[tuple[Route, Route]]:
    """Yield (later, earlier) for routes with the same pattern and a method in common; parameter names do not count."""
    seen: dict[tuple[object, ...], Route] = {}
    for route in paced(routes):
        for method in route.match.methods:
            earlier = seen.setdefault((route.match.segments, route.match.rest, method), route)
            if earlier is not route:
                yield route, earlier
                break


def cuts(table: RouteTable, routes: Iterable[Route], steps: Steps) -> Iterator[tuple[Route, list[Route] | None]]:
    """Yield each route whose paths a more specific but weaker route takes a part of, with those weaker routes.

    Once the steps are over, None stands for them: whether there are any was not looked at.
    """
    for strict in paced(routes):
        if strict.public or not (strict.match.rest or None in strict.match.segments):
            continue
        if steps.are_over():
            yield strict, None
            continue
        weaker = {
            id(route): route
            for methods in _overlapping(table.root, strict.match, steps)
            for route in methods.values()
            if _is_weaker(route, strict) and route.match.specificity < strict.match.specificity and _share_a_method(strict, route)
        }
        if weaker or steps.are_over():
            yield strict, None if steps.are_over() else list(weaker.values())


def covers(route: Route, other: Route) -> bool:
    """Tell whether whoever passes `other` passes `route`: with each least set of scopes that suffices there."""
    if other.deny or route.public:
        return True
    if route.deny or other.public:
        return False
    least = [frozenset({scope}) for scope in other.scopes] if other.any_scope else [frozenset(other.scopes)]
    return route.accept >= other.accept and all(map(route.permits, least))


def most_choices(table: RouteTable) -> int:
    """Return how many nodes a look-up can visit at most: it grows when literals and parameters share a level."""
    return _choices(table.root)


def _overlapping(root: Node, match: Match, steps: Steps) -> Iterator[MethodTable]:
    """Yield the method tables of all patterns that share a path with `match`, as long as there are steps."""
    nodes = [root]
    for segment in match.segments:
        yield from _counted((node.rest for node in nodes if node.rest), steps)
        nodes = [child for node in nodes for child in _children(node, segment)]
        steps.left -= len(nodes)
        if steps.are_over():
            return
    while nodes and not steps.are_over():
        yield from _counted((methods for node in nodes for methods in (node.methods, node.rest) if methods), steps)
        nodes = [child for node in nodes for child in _all_children(node)] if match.rest else []
        steps.left -= len(nodes)


def _counted(several: Iterable[MethodTable], steps: Steps) -> Iterator[MethodTable]:
    for methods in several:
        steps.left -= len(methods)
        if steps.are_over():
            return
        yield methods


def _all_children(node: Node) -> list[Node]:
    return [*node.literals.values(), node.parameter] if node.parameter else [*node.literals.values()]


def _children(node: Node, segment: str | None) -> list[Node]:
    if segment is None:
        # A parameter is never empty: "/a/{name}" does not match "/a/".
        children = [child for literal, child in node.literals.items() if literal]
    else:
        children = [node.literals[segment]] if segment in node.literals else []
    if node.parameter and segment != "":
        children.append(node.parameter)
    return children


def _is_weaker(route: Route, than: Route) -> bool:
    """Compare what they ask for: another kind of route, or one that lets through everything the other does and more."""
    if _strictness(route) != _strictness(than):
        return _strictness(route) < _strictness(than)
    return covers(route, than) and not covers(than, route)


def _share_a_method(strict: Route, weaker: Route) -> bool:
    if ANY_METHOD in strict.match.methods or ANY_METHOD in weaker.match.methods:
        return True
    return not set(strict.match.methods).isdisjoint(weaker.match.methods)


def _choices(node: Node) -> int:
    deepest = max(map(_choices, node.literals.values()), default=0)
    return 1 + deepest + (_choices(node.parameter) if node.parameter else 0)


def _strictness(route: Route) -> int:
    """Rank public, open to anonymous tokens, other scoped routes, denied."""
    if route.deny:
        return 3
    if route.public:
        return 0
    return 1 if AuthType.ANONYMOUS in route.accept else 2
