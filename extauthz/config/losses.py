"""What a reload takes away: routes that no longer exist, and denials that no longer deny."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.config.pacing import paced
from extauthz.core.policy import Policy
from extauthz.core.routes import MethodTable, Node, Route, RouteTable

MAX_NAMED = 5
"""Names of routes in one warning."""

Place = tuple[str, tuple[str | None, ...], bool, str | None]
"""Host, segments, rest and method: what a route stands for, whatever its name and its parameters are called."""


def warning(before: Policy, after: Policy) -> str | None:
    """Say how many routes and denials of one policy the next one lacks, and name some; None if it lacks none."""
    successors = dict(paced(_places(after)))
    removed: dict[int, Route] = {}
    weakened: dict[int, Route] = {}
    for place, route in paced(_places(before)):
        successor = successors.get(place)
        if successor is None:
            removed[id(route)] = route
        if route.deny and (successor is None or not successor.deny):
            weakened[id(route)] = route
    if not removed and not weakened:
        return None
    counts = [_counted(len(routes), noun) for routes, noun in ((removed, "route"), (weakened, "denial")) if routes]
    # Denials first: they are what is missed.
    losses = sorted((weakened | removed).values(), key=lambda route: (id(route) not in weakened, route.name))
    names = [repr(route.name) for route in losses]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{' and '.join(counts)} disappeared with this reload: {', '.join(names[:MAX_NAMED])}{more}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _places(policy: Policy) -> Iterator[tuple[Place, Route]]:
    for host, table in {"": policy.routes, **policy.hosts}.items():
        for methods in _method_tables(table):
            for method, route in methods.items():
                yield (host, route.match.segments, route.match.rest, method), route


def _method_tables(table: RouteTable) -> Iterator[MethodTable]:
    nodes: list[Node] = [table.root]
    while nodes:
        node = nodes.pop()
        yield from (methods for methods in (node.methods, node.rest) if methods)
        nodes += [*node.literals.values(), *([node.parameter] if node.parameter else [])]
