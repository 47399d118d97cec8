"""The compiled route table: path first, then method.

One trie over path segments serves all methods; each node at which a pattern ends holds a method table. Of all patterns that match
a path, whatever their method, the most specific wins: from the left, a literal before `{name}` before a final `**`. A path
without parameters is found in a dictionary in front of the trie, because a full literal is always the most specific.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from extauthz.core.model import AuthType, Reason
from extauthz.core.paths import SLASH, Path
from extauthz.core.upstream import STRICT, Upstream, fold, widest

ANY_METHOD = "*"
STAR_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ACCEPTED_BY_DEFAULT = frozenset({AuthType.OAUTH, AuthType.GLOBAL, AuthType.USER})

_LITERAL, _PARAMETER_RANK, _REST = range(3)


@dataclass(frozen=True, slots=True)
class Match:
    """What a route matches: methods, and pattern segments ("" last for a trailing slash, None for a parameter)."""

    text: str
    methods: tuple[str, ...]
    segments: tuple[str | None, ...]
    rest: bool

    def read_by(self, upstream: Upstream) -> Match:
        """Return the pattern with its segments as this upstream reads them; the text stays."""
        segments = self.segments
        if upstream.ignores_slash and len(segments) > 1 and segments[-1] == "":
            segments = segments[:-1]
        if upstream.ignores_case:
            segments = tuple(segment and fold(segment) for segment in segments)
        return replace(self, segments=segments)

    def takes_slashes(self, path: Path) -> bool:
        """Tell whether every segment of this path that holds a slash stands where the pattern has a parameter."""
        places = [index for index, segment in enumerate(path.segments) if SLASH in segment]
        return all(self.segments[index : index + 1] == (None,) for index in places)

    @property
    def specificity(self) -> tuple[int, ...]:
        """Ranks from the left; the smaller tuple is the more specific pattern."""
        ranks = [_PARAMETER_RANK if segment is None else _LITERAL for segment in self.segments]
        return (*ranks, _REST) if self.rest else tuple(ranks)


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the route map. `scopes` must all be held, or any one of them with `any_scope`.

    With `encoded_slashes` its parameters may hold `%2F`.
    """

    name: str
    match: Match
    scopes: tuple[str, ...] = ()
    any_scope: bool = False
    public: bool = False
    deny: bool = False
    accept: frozenset[AuthType] = ACCEPTED_BY_DEFAULT
    preflight: bool = False
    encoded_slashes: bool = False

    def permits(self, scopes: frozenset[str]) -> bool:
        """Tell whether these scopes suffice; a route that asks for none permits nobody."""
        if self.any_scope:
            return not scopes.isdisjoint(self.scopes)
        return bool(self.scopes) and scopes.issuperset(self.scopes)


MethodTable = dict[str | None, Route]
"""Routes of one pattern by method; None holds the route for `*`, because a client can send "*" as a method."""


@dataclass(slots=True)
class Node:
    """One segment of the trie: the patterns that end here, and where they go on."""

    literals: dict[str, Node] = field(default_factory=dict)
    parameter: Node | None = None
    methods: MethodTable | None = None
    rest: MethodTable | None = None


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Routes compiled for look-up; made by `compile_routes`. `encoded_slashes`: some route takes them."""

    literals: Mapping[str, MethodTable]
    root: Node
    upstream: Upstream
    encoded_slashes: bool

    def find(self, method: str, path: Path) -> Route | Reason:
        """Return the route, or ROUTE_UNKNOWN or METHOD_NOT_ALLOWED; a denying route is returned like any other."""
        methods = self.literals.get(path.text)
        if methods is None:
            methods = self.search(path.segments)
            if methods is None:
                return Reason.ROUTE_UNKNOWN
        route = methods.get(method)
        if route is not None:
            return route
        route = methods.get(None)
        if route is not None and (route.deny or method in STAR_METHODS):
            return route
        return Reason.METHOD_NOT_ALLOWED

    def search(self, segments: tuple[str, ...]) -> MethodTable | None:
        """Return the routes of the most specific pattern that matches, or None."""
        methods, rest = _most_specific(self.root, segments)
        if rest and not segments[-1]:
            without_slash, _ = _most_specific(self.root, segments[:-1])
            if without_slash is not methods:
                return None
        return methods


@dataclass(frozen=True, slots=True)
class LooseRouteTable(RouteTable):
    """Routes in front of an upstream that reads several paths as one: a path is looked up as all of them are written.

    `words` are the literals by what they have in common with words that some upstreams take for them and others do not;
    `is_ascii` tells that this matters for no path in ASCII.
    """

    words: Mapping[str, str]
    is_ascii: bool

    def find(self, method: str, path: Path) -> Route | Reason:
        """Return what `RouteTable.find` does, or PATH_AMBIGUOUS for a word beyond ASCII that may be a literal."""
        text = self.upstream.one_spelling(path.text)
        if not (self.is_ascii and text.isascii()) and self._is_confused(text):
            return Reason.PATH_AMBIGUOUS
        return RouteTable.find(self, method, Path(text))

    def _is_confused(self, text: str) -> bool:
        return any(self.words.get(widest(segment), segment) != segment for segment in text[1:].split("/"))


@dataclass(frozen=True, slots=True)
class SlashedRouteTable:
    """A table for paths in which segments hold slashes: only parameters of routes that say so take them."""

    table: RouteTable

    @property
    def upstream(self) -> Upstream:
        """The reader behind the table."""
        return self.table.upstream

    def find(self, method: str, path: Path) -> Route | Reason:
        """Return the route, or PATH_AMBIGUOUS: what no route was written for may be read in two ways."""
        route = self.table.find(method, path)
        takes_them = isinstance(route, Route) and route.encoded_slashes and route.match.takes_slashes(path)
        return route if takes_them else Reason.PATH_AMBIGUOUS


def compile_routes(routes: Iterable[Route], upstream: Upstream = STRICT) -> RouteTable:
    """Build the table from routes of which no two share a pattern and a method for this upstream."""
    root = Node()
    literals: dict[str, MethodTable] = {}
    encoded_slashes = False
    words: dict[str, str] = {}
    for route in routes:
        match = route.match.read_by(upstream) if upstream.is_loose else route.match
        methods = _methods_at(root, match)
        if not match.rest and None not in match.segments:
            literals["/" + "/".join(map(str, match.segments))] = methods
        for method in match.methods:
            methods[None if method == ANY_METHOD else method] = route
        encoded_slashes |= route.encoded_slashes
        if upstream.ignores_case:
            words |= {widest(segment): segment for segment in match.segments if segment}
    if upstream.is_loose:
        return LooseRouteTable(literals, root, upstream, encoded_slashes, words, all(map(str.isascii, words.values())))
    return RouteTable(literals, root, upstream, encoded_slashes)


def _methods_at(root: Node, match: Match) -> MethodTable:
    node = root
    for segment in match.segments:
        if segment is None:
            node.parameter = node.parameter or Node()
            node = node.parameter
        else:
            node = node.literals.setdefault(segment, Node())
    if match.rest:
        node.rest = node.rest if node.rest is not None else {}
        return node.rest
    node.methods = node.methods if node.methods is not None else {}
    return node.methods


def _most_specific(root: Node, segments: tuple[str, ...]) -> tuple[MethodTable | None, bool]:
    """Walk depth first in order of specificity; the stack holds only the branches that were passed by."""
    passed: list[tuple[Node | MethodTable, int]] = []
    end = len(segments)
    node, index = root, 0
    while True:
        if index == end:
            if node.methods is not None:
                return node.methods, False
            if node.rest is not None:
                return node.rest, True
            child = None
        else:
            segment = segments[index]
            if node.rest is not None:
                passed.append((node.rest, index))
            child = node.literals.get(segment)
            if child is None:
                child = node.parameter if segment else None
            elif node.parameter is not None and segment:
                passed.append((node.parameter, index + 1))
        if child is not None:
            node, index = child, index + 1
            continue
        if not passed:
            return None, False
        branch, index = passed.pop()
        if not isinstance(branch, Node):
            return branch, True
        node = branch
