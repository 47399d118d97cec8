"""Paths, one of each class: two route tables decide alike about all paths of a class.

Both tries are walked side by side. What a path has reached so far is a list of live nodes in each table, in order of specificity;
two paths with the same lists have the same future. At each level the words that can matter are the literals of the live nodes, one
word that none of them knows, and the empty last segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from extauthz.core.paths import MAX_BYTES, MAX_SEGMENTS, SLASH, Path
from extauthz.core.routes import LooseRouteTable, MethodTable, Node, Route, RouteTable
from extauthz.core.upstream import fold, widest

MAX_STEPS = 2_000_000
"""Steps of all walks together, some 10 seconds: whether patterns cover each other can take exponential time."""

_MOST_WRITTEN = 12
"""Bytes of one character in a path, at most: four of UTF-8, each as %XX."""
_ACCENT = "\N{COMBINING ACUTE ACCENT}"


class TooManyPaths(Exception):
    """The maps have more classes of paths than can be compared."""


@dataclass(slots=True)
class WalkBudget:
    """Steps that are left."""

    steps: int = MAX_STEPS

    def spend(self) -> None:
        """Take one step; raises TooManyPaths."""
        self.steps -= 1
        if self.steps < 0:
            raise TooManyPaths


@dataclass(frozen=True, slots=True)
class PathClass:
    """One path that stands for its class. `has_slash`: one of its segments holds an encoded slash."""

    path: Path
    has_slash: bool = False

    @property
    def segments(self) -> tuple[str, ...]:
        """The decoded segments."""
        return self.path.segments


@dataclass(frozen=True, slots=True)
class _Rest:
    """A final `**` that was passed: whatever follows, it matches. It is `blocked` by an encoded slash in its part."""

    methods: MethodTable
    blocked: bool


Live = tuple[Node | _Rest, ...]
Side = Live | None
"""The live nodes of a table, or None where no path that begins so has one reading, or where there is no table."""


class Signatures:
    """Numbers for subtries: the same number means the same patterns with the same rules, whatever the routes are called."""

    def __init__(self, rule: Callable[[Route], Hashable]) -> None:
        """Compare routes by their rules."""
        self._rule = rule
        self._numbers: dict[Hashable, int] = {}
        self._known: dict[int, int] = {}
        self._next = count()

    def of(self, live: Live) -> tuple[Hashable, ...]:
        """Return what live nodes have in common with those of another table."""
        return tuple((self._table(one.methods), one.blocked) if isinstance(one, _Rest) else self._node(one) for one in live)

    def _node(self, node: Node) -> int:
        number = self._known.get(id(node))
        if number is None:
            literals = frozenset((word, self._node(child)) for word, child in node.literals.items())
            parameter = None if node.parameter is None else self._node(node.parameter)
            number = self._number((literals, parameter, self._table(node.methods), self._table(node.rest)))
            self._known[id(node)] = number
        return number

    def _table(self, methods: MethodTable | None) -> int | None:
        if methods is None:
            return None
        number = self._known.get(id(methods))
        if number is None:
            number = self._number(frozenset((method, self._rule(route)) for method, route in methods.items()))
            self._known[id(methods)] = number
        return number

    def _number(self, content: Hashable) -> int:
        if content not in self._numbers:
            self._numbers[content] = next(self._next)
        return self._numbers[content]


@dataclass(frozen=True, slots=True)
class _Table:
    """One of the two tables, and what its reader makes of a word."""

    table: RouteTable | None
    ignores_case: bool = field(init=False)
    words: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        upstream = self.table.upstream if self.table is not None else None
        object.__setattr__(self, "ignores_case", upstream is not None and upstream.ignores_case)
        object.__setattr__(self, "words", self.table.words if isinstance(self.table, LooseRouteTable) else {})

    def start(self) -> Side:
        return None if self.table is None else (self.table.root,)

    def step(self, side: Side, word: str) -> Side:
        if side is None or self.table is None:
            return None
        has_slash = SLASH in word
        if self.ignores_case:
            word = fold(word)
            if self.words.get(widest(word), word) != word:
                return None
        if has_slash and not self.table.encoded_slashes:
            return None
        return _step(side, word, has_slash=has_slash)


def path_classes(
    old: RouteTable | None, new: RouteTable | None, budget: WalkBudget, signatures: Signatures | None = None
) -> Iterator[PathClass]:
    """Yield one path of each class, short ones first; raises TooManyPaths.

    Classes about which the tables agree by `signatures` are left out; these may only be given if whatever else decides is the same.
    """
    tables = _Table(old), _Table(new)
    same_reader = old is not None and new is not None and _reader(old) == _reader(new)
    compared = signatures if same_reader else None
    slashes = any(table is not None and table.encoded_slashes for table in (old, new))
    fresh = _fresh_word(tables)
    ambiguous = _ambiguous_words(tables)
    start = tables[0].start(), tables[1].start()
    seen = {_key(start, has_slash=False)}
    waiting: deque[tuple[tuple[Side, Side], str, bool]] = deque([(start, "", False)])
    while waiting:
        sides, text, has_slash = waiting.popleft()
        if compared and sides[0] is not None and sides[1] is not None and compared.of(sides[0]) == compared.of(sides[1]):
            continue
        if text:
            yield from _class_of(text, has_slash=has_slash)
        yield from _class_of(text + "/", has_slash=has_slash)
        if text.count("/") == MAX_SEGMENTS:
            continue
        words = [*_words(tables, sides), fresh, *ambiguous, *([fresh + SLASH + fresh] if slashes and not has_slash else ())]
        for word in words:
            budget.spend()
            after = tables[0].step(sides[0], word), tables[1].step(sides[1], word)
            slashed = has_slash or SLASH in word
            key = _key(after, has_slash=slashed)
            if key not in seen:
                seen.add(key)
                waiting.append((after, f"{text}/{word}", slashed))


def _class_of(text: str, *, has_slash: bool) -> Iterator[PathClass]:
    path = Path(text)
    is_short = _MOST_WRITTEN * len(text) <= MAX_BYTES or len(path.canonical) <= MAX_BYTES
    if is_short and text.count("/") <= MAX_SEGMENTS:
        yield PathClass(path, has_slash)


def _step(live: Live, word: str, *, has_slash: bool) -> Live:
    after: list[Node | _Rest] = []
    for one in live:
        if isinstance(one, _Rest):
            after.append(_Rest(one.methods, one.blocked or has_slash))
            break  # it matches whatever comes, so nothing less specific ever does
        child = one.literals.get(word)
        if child is not None:
            after.append(child)
        if one.parameter is not None:
            after.append(one.parameter)
        if one.rest is not None:
            after.append(_Rest(one.rest, has_slash))
            break
    return tuple(after)


def _words(tables: tuple[_Table, _Table], sides: tuple[Side, Side]) -> dict[str, None]:
    """Return the literals of all live nodes, and those that only one reader takes for its literal."""
    literals: list[dict[str, None]] = []
    for side in sides:
        nodes = [one for one in side or () if isinstance(one, Node)]
        literals.append({word: None for node in nodes for word in node.literals if word})
    words = literals[0] | literals[1]
    if tables[0].ignores_case != tables[1].ignores_case:
        loose, strict = literals if tables[0].ignores_case else literals[::-1]
        words |= {other: None for word in loose if (other := _other_case(word, strict)) is not None}
    return words


def _other_case(word: str, literals: Mapping[str, None]) -> str | None:
    """Return a spelling of a folded word that is none of these literals, None if there is none."""
    spellings = {word: None}
    for index, letter in enumerate(word):
        if fold(letter.upper()) == letter and letter.isascii() and letter.isalpha():
            for spelling in list(spellings):
                other = spelling[:index] + letter.upper() + spelling[index + 1 :]
                if other not in literals:
                    return other
                spellings[other] = None
    return next((spelling for spelling in spellings if spelling not in literals), None)


def _fresh_word(tables: tuple[_Table, _Table]) -> str:
    """Return a word that is like no literal of either table."""
    known = {fold(word) for table in tables if table.table is not None for word in _literals(table.table.root)}
    known |= {word for table in tables for word in table.words}
    return next(word for number in count() if (word := f"x{number or ''}") not in known and widest(word) not in known)


def _literals(root: Node) -> Iterator[str]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield from node.literals
        waiting += node.literals.values()
        waiting += [node.parameter] if node.parameter is not None else []


def _ambiguous_words(tables: tuple[_Table, _Table]) -> list[str]:
    """Return words that readers who ignore case may take for a literal: of the first table, of the second, of both."""
    old, new = (table.words for table in tables)
    words_of = dict(old) | dict(new)
    literals = {fold(word) for table in tables if table.table is not None for word in _literals(table.table.root)}
    groups = (old.keys() & new.keys(), old.keys() - new.keys(), new.keys() - old.keys())
    words = []
    for group in groups:
        if group:
            word = words_of[min(group)]
            words.append(next(other for number in count(1) if (other := word + _ACCENT * number) not in literals))
    return words


def _reader(table: RouteTable) -> Hashable:
    words = frozenset(table.words.items()) if isinstance(table, LooseRouteTable) else frozenset()
    return table.upstream, table.encoded_slashes, words


def _key(sides: tuple[Side, Side], *, has_slash: bool) -> Hashable:
    return has_slash, *(None if side is None else tuple(map(_identity, side)) for side in sides)


def _identity(one: Node | _Rest) -> Hashable:
    return (id(one.methods), one.blocked) if isinstance(one, _Rest) else id(one)
