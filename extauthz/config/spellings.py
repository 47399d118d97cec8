"""Findings about an upstream that reads paths otherwise than they are written: a pattern twice, a weaker one of a strict route."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from extauthz.config.pacing import paced
from extauthz.config.patterns import parse_match
from extauthz.config.route_review import covers
from extauthz.core.routes import ANY_METHOD, STAR_METHODS, MethodTable, Node, Route, RouteTable
from extauthz.core.upstream import Upstream, widest

_SAMPLE = "{}"
"""Stands for a parameter; no literal has braces."""


@dataclass(frozen=True, slots=True)
class WeakerSpelling:
    """`path` is another spelling of a path of `strict`, and `weaker` decides it."""

    strict: Route
    weaker: Route
    path: str


def written_otherwise(routes: Iterable[Route], upstream: Upstream) -> Iterator[tuple[Route, Route]]:
    """Yield (later, earlier) for patterns that are one for this upstream and are not written alike."""
    first: dict[tuple[object, ...], tuple[Route, object]] = {}
    for route in routes if upstream.is_loose else ():
        segments = parse_match(route.match.text).segments
        loose = route.match.read_by(upstream)
        earlier, first_segments = first.setdefault((loose.segments, loose.rest), (route, segments))
        if first_segments != segments:
            yield route, earlier


def confused_words(routes: Iterable[Route], upstream: Upstream) -> Iterator[tuple[Route, Route, str, str]]:
    """Yield (later, earlier) and a literal of each, where some servers that ignore case take the two for one word."""
    first: dict[str, tuple[Route, str]] = {}
    for route in routes if upstream.ignores_case else ():
        for word in filter(None, route.match.read_by(upstream).segments):
            earlier, other = first.setdefault(widest(word), (route, word))
            if other != word:
                yield route, earlier, word, other


def weaker_spellings(table: RouteTable, routes: Iterable[Route]) -> Iterator[WeakerSpelling]:
    """Yield routes beside which another letter case or last slash leads to one that lets others in; one for each pattern."""
    seen: set[int] = set()
    for route in paced(routes):
        for segments in _samples(route):
            methods = table.search(segments)
            if methods is not None and id(methods) not in seen:
                seen.add(id(methods))
                yield from islice(_holes_beside(table, methods, segments), 1)


def _holes_beside(table: RouteTable, methods: MethodTable, segments: tuple[str, ...]) -> Iterator[WeakerSpelling]:
    seen = {id(methods)}
    for spelling in _spellings(segments):
        others = table.search(spelling)
        if others is None or id(others) in seen:
            continue
        seen.add(id(others))
        for method in dict.fromkeys((*filter(None, methods), *STAR_METHODS)):
            strict, weaker = _in(methods, method), _in(others, method)
            if strict and weaker and not covers(strict, weaker):
                yield WeakerSpelling(strict, weaker, "/" + "/".join(spelling))


def _in(methods: MethodTable, method: str) -> Route | None:
    return methods.get(method, methods.get(None))


def _samples(route: Route) -> Iterator[tuple[str, ...]]:
    """Yield paths of a route, as segments: with `**` one that has nothing in its place, and one that has something."""
    segments = tuple(_SAMPLE if segment is None else segment for segment in route.match.segments)
    if segments:
        yield segments
    if route.match.rest:
        yield (*segments, _SAMPLE)


def _spellings(segments: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield other spellings of a path, which an upstream may read as the path."""
    swapped = tuple(segment.swapcase() if segment.isascii() else segment for segment in segments)
    cases = [(*segments[:index], other, *segments[index + 1 :]) for index, other in enumerate(swapped)]
    for case in dict.fromkeys((segments, swapped, *cases)):
        yield from (spelling for spelling in (case, _with_other_end(case)) if spelling != segments)


def _with_other_end(segments: tuple[str, ...]) -> tuple[str, ...]:
    if segments[-1]:
        return (*segments, "")
    return segments[:-1] or segments


def reached_when_decoded(table: RouteTable, routes: Iterable[Route]) -> Iterator[tuple[Route, Route]]:
    """Yield routes that take encoded slashes with another route that somebody reaches by them who may not.

    It is reached where the upstream decodes them before it routes: then a parameter can be several segments.
    """
    start = _Reach([table.root], [])
    for route in routes:
        if not route.encoded_slashes:
            continue
        reach = start
        reached: list[MethodTable] = []
        for segment in route.match.segments:
            reach = reach.after(segment)
            reached += reach.rests
        reached += reach.below if route.match.rest else reach.ends
        names = STAR_METHODS if ANY_METHOD in route.match.methods else route.match.methods
        others = (_in(methods, name) for methods in reached for name in names)
        wrong = (other for other in others if other and not covers(other, route))
        yield from ((route, other) for other in islice(wrong, 1))


class _Reach:
    """Where a pattern leads to: the nodes that it reaches as it is written, and those that it reaches with decoded slashes.

    What follows is worked out once for all patterns that begin alike.
    """

    def __init__(self, written: list[Node], decoded: list[Node], *, in_parameter: bool = False) -> None:
        self._written = written
        self._decoded = decoded
        self._in_parameter = in_parameter
        self._after: dict[str | None, _Reach] = {}

    def after(self, segment: str | None) -> _Reach:
        """Return what one more segment of a pattern leads to; None is a parameter."""
        if segment not in self._after:
            self._after[segment] = self._further() if segment is None else self._literal(segment)
        return self._after[segment]

    @cached_property
    def ends(self) -> list[MethodTable]:
        """The routes of the patterns that end here, behind a decoded slash."""
        return [node.methods for node in self._decoded if node.methods]

    @cached_property
    def rests(self) -> list[MethodTable]:
        """The routes of the patterns with a `**` here that takes something behind a decoded slash."""
        nodes = [*self._written, *self._decoded] if self._in_parameter else self._decoded
        return [node.rest for node in nodes if node.rest]

    @cached_property
    def below(self) -> list[MethodTable]:
        """The routes of the patterns that end here or further down, behind a decoded slash."""
        further = _descendants(self._decoded)
        return [*self.ends, *(methods for node in further for methods in (node.methods, node.rest) if methods)]

    def _further(self) -> _Reach:
        written = _children(self._written)
        return _Reach(written, _descendants([*self._decoded, *written]), in_parameter=True)

    def _literal(self, segment: str) -> _Reach:
        written = [child for node in self._written for child in (node.literals.get(segment),) if child]
        decoded = [*self._by_literal.get(segment, ())]
        if segment:  # a parameter is never empty
            written += [node.parameter for node in self._written if node.parameter]
            decoded += self._parameters
        return _Reach(written, decoded)

    @cached_property
    def _by_literal(self) -> dict[str, list[Node]]:
        children: dict[str, list[Node]] = {}
        for node in self._decoded:
            for literal, child in node.literals.items():
                children.setdefault(literal, []).append(child)
        return children

    @cached_property
    def _parameters(self) -> list[Node]:
        return [node.parameter for node in self._decoded if node.parameter]


def _children(nodes: Iterable[Node]) -> list[Node]:
    """Return what one segment leads to that is not empty."""
    children = [child for node in nodes for literal, child in node.literals.items() if literal]
    return children + [node.parameter for node in nodes if node.parameter]


def _descendants(nodes: list[Node]) -> list[Node]:
    """Return what one segment or more lead to."""
    descendants: dict[int, Node] = {}
    while nodes:
        nodes = [child for child in _children(nodes) if id(child) not in descendants]
        descendants |= {id(child): child for child in nodes}
    return list(descendants.values())
