"""Which route a request that matches none is most like: a hint for whoever reads the decision log, never for a client."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from heapq import heappop, heappush

from extauthz.core.model import Reason
from extauthz.core.paths import Path, parse_with_slashes
from extauthz.core.policy import Policy
from extauthz.core.routes import MethodTable, Node, Route

MAX_WAYS = 500
"""Ways through the table that are looked at for one request: one to two milliseconds."""
MAX_SEGMENTS, MAX_SEGMENT = 16, 64
"""Longer paths, and longer segments, are like nothing."""
ALIKE = 0.5
"""From 0 to 1, how much two words have in common at least to be taken for one with a slip of the pen."""

_PARAMETER, _SLIP, _SLASH, _MISSING = 0.01, 0.05, 0.1, 1.0
"""What differences count: a parameter, a slip besides its size, a slash at the end, a segment too many or too few."""
_MOST = 2.0
"""All differences together count less."""


def nearest_route(policy: Policy, method: str, raw_path: str, host: str) -> str | None:
    """Return the name of the route, None where no route is like the request; `raw_path` is as it came, without a query."""
    path, table = parse_with_slashes(raw_path), policy.table_for(host)
    if isinstance(path, Reason) or isinstance(table, Reason):
        return None
    segments = Path(table.upstream.one_spelling(path.text)).segments if table.upstream.is_loose else path.segments
    if segments == ("",) or len(segments) > MAX_SEGMENTS or max(map(len, segments), default=0) > MAX_SEGMENT:
        return None
    ways = iter(range(MAX_WAYS))
    queue: list[tuple[float, int, Node, int]] = [(0.0, -1, table.root, 0)]
    seen: set[tuple[int, int]] = set()
    while queue:
        cost, _, node, at = heappop(queue)
        if (id(node), at) in seen:
            continue
        seen.add((id(node), at))
        if at == len(segments) and (route := _of_method(node.methods, method)):
            return route.name
        if cost < _MISSING and (route := _of_method(node.rest, method)):
            return route.name
        for number, (more, following, index) in zip(ways, _ways_on(node, segments, at), strict=False):
            if cost + more < _MOST and (id(following), index) not in seen:
                heappush(queue, (cost + more, number, following, index))
    return None


def _ways_on(node: Node, segments: tuple[str, ...], at: int) -> Iterator[tuple[float, Node, int]]:
    """Yield what each way on costs, and where it leads: along a segment, past one too many, or past one that is missing."""
    if at < len(segments):
        segment = segments[at]
        yield _MISSING if segment else _SLASH, node, at + 1
        if node.parameter is not None and segment:
            yield _PARAMETER, node.parameter, at + 1
        if segment in node.literals:
            yield 0.0, node.literals[segment], at + 1
        else:
            words = SequenceMatcher(autojunk=False)
            words.set_seq2(segment.lower())
            for word, following in node.literals.items():
                yield _unlikeness(words, word), following, at + 1
    for literal, following in node.literals.items():
        yield _MISSING if literal else _SLASH, following, at
    if node.parameter is not None:
        yield _MISSING, node.parameter, at


def _unlikeness(words: SequenceMatcher[str], word: str) -> float:
    words.set_seq1(word.lower())
    alike = words.real_quick_ratio() >= ALIKE and words.quick_ratio() >= ALIKE and (ratio := words.ratio()) >= ALIKE
    return _SLIP + 1 - ratio if alike else _MOST


def _of_method(methods: MethodTable | None, method: str) -> Route | None:
    """Return the route of a pattern for a method, or for another one; none that only denies."""
    routes = [route for route in (methods or {}).values() if not route.deny]
    own = (methods or {}).get(method)
    return own if own in routes else next(iter(routes), None)
