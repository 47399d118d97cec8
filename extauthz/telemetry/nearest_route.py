"""Which route a request that matches none is most like: a hint for whoever reads the decision log, never for a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, nlargest
from itertools import islice

from extauthz.core.model import Reason
from extauthz.core.paths import Path, parse_with_slashes
from extauthz.core.policy import Policy
from extauthz.core.routes import MethodTable, Node, Route
from extauthz.telemetry.similar_words import Comparisons, Word

MAX_COMPARED = 5_000
"""Characters that are compared for one request, whatever the routes: a millisecond."""
MAX_WAYS = 200
"""Ways through the table that are looked at for one request: half a millisecond."""
MAX_SEGMENTS, MAX_SEGMENT = 16, 64
"""Longer paths, and longer segments, are like nothing."""
MAX_SIMILAR, MAX_LEFT_OUT = 8, 32
"""Ways from one place that are taken for a word with a typing error, and for a segment that the request leaves out."""

_PARAMETER, _TYPING_ERROR, _SLASH, _SEGMENT = 0.01, 0.05, 0.1, 1.0
"""What differences count: a parameter, a typing error besides its size, a slash at the end, a segment too many or too few."""
_MOST = 2.0
"""All differences together count less."""
_EXACT, _SIMILAR, _LEFT_OUT = range(3)
"""Which ways on are looked at: those that are looked up at once, and, when nothing cheaper is left, those that take comparing."""


def nearest_route(policy: Policy, method: str, raw_path: str, host: str) -> str | None:
    """Return the name of the route, None where no route is like the request; `raw_path` is as it came, without a query.

    The work has a bound, whatever the routes: among thousands of names in one place those with one typing error are found first.
    """
    path, table = parse_with_slashes(raw_path), policy.table_for(host)
    if isinstance(path, Reason) or isinstance(table, Reason):
        return None
    segments = Path(table.upstream.one_spelling(path.text)).segments if table.upstream.is_loose else path.segments
    if segments == ("",) or len(segments) > MAX_SEGMENTS or max(map(len, segments), default=0) > MAX_SEGMENT:
        return None
    return _search(table.root, segments, method)


def _search(root: Node, segments: tuple[str, ...], method: str) -> str | None:
    """Follow the ways with the fewest differences first."""
    budget, words, ways = Comparisons(MAX_COMPARED), tuple(map(Word, segments)), 0
    queue: list[tuple[float, int, int, Node, int]] = [(0.0, 0, _EXACT, root, 0)]
    seen: set[tuple[int, int, int]] = set()
    while queue:
        cost, _, kind, node, at = heappop(queue)
        if (id(node), at, kind) in seen:
            continue
        seen.add((id(node), at, kind))
        if kind == _EXACT:
            if at == len(segments) and (route := _of_method(node.methods, method)):
                return route.name
            if cost < _SEGMENT and (route := _of_method(node.rest, method)):
                return route.name
        for more, next_kind, following, index in _ways_on(kind, node, words[at] if at < len(segments) else None, at, budget):
            if cost + more < _MOST and ways < MAX_WAYS:
                ways += 1
                heappush(queue, (cost + more, ways, next_kind, following, index))
    return None


_Way = tuple[float, int, Node, int]


def _ways_on(kind: int, node: Node, word: Word | None, at: int, budget: Comparisons) -> Iterator[_Way]:
    """Yield what each way on costs, and where it leads: along a segment, past one too many, or past one that is left out."""
    segment = word.text if word else None
    if kind == _SIMILAR and word:
        similar = nlargest(MAX_SIMILAR, ((ratio, name) for name, ratio in word.similar(node.literals, budget)))
        yield from ((1 - ratio, _EXACT, node.literals[name], at + 1) for ratio, name in similar)
    elif kind == _LEFT_OUT:
        yield from ((0.0, _EXACT, following, at) for following in _left_out(node, segment))
    elif kind == _EXACT:
        if segment is not None:
            if segment in node.literals:
                yield 0.0, _EXACT, node.literals[segment], at + 1
            elif segment:
                yield _TYPING_ERROR, _SIMILAR, node, at
            if node.parameter is not None and segment:
                yield _PARAMETER, _EXACT, node.parameter, at + 1
            yield _SEGMENT if segment else _SLASH, _EXACT, node, at + 1
        if segment != "" and "" in node.literals:
            yield _SLASH, _EXACT, node.literals[""], at
        yield _SEGMENT, _LEFT_OUT, node, at


def _left_out(node: Node, segment: str | None) -> Iterable[Node]:
    """Return where a segment of the pattern leads that the request lacks, those first at which the request goes on or ends."""
    if node.parameter is not None:
        yield node.parameter
    following = [each for word, each in islice(node.literals.items(), MAX_LEFT_OUT) if word]
    yield from sorted(following, key=lambda each: not (each.methods if segment is None else segment in each.literals))


def _of_method(methods: MethodTable | None, method: str) -> Route | None:
    """Return the route of a pattern for a method, or for another one; none that only denies."""
    routes = [route for route in (methods or {}).values() if not route.deny]
    own = (methods or {}).get(method)
    return own if own in routes else next(iter(routes), None)
