"""Whom a token may act for under two sets of act-as rules: one address for each pair of answers that some address gets.

Exact for the patterns that a configuration can hold: all addresses are walked at once, letter by letter, as the sets of places that
each pattern has reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, digits

from extauthz.core.act_as import ActAs, address

MAX_PLACES = 2_000_000
"""Places in patterns that are looked at, some seconds; sets of them can be exponentially many where patterns have many `*`."""

Answers = tuple[bool, bool]
"""Whether the old rules permit an address, and whether the new ones do."""

_ALNUM = ascii_lowercase + digits
_SIGNS = "!#$&'*/=?^_{}~-"
_START, _ATOM, _LABEL, _IN_LABEL, _HYPHEN = range(5)


@dataclass(frozen=True, slots=True)
class Patterns:
    """Address patterns of one configuration, as they are written."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses by the answers that they get; not `complete` where the patterns are too many to be compared exactly."""

    examples: Mapping[Answers, str]
    complete: bool


@dataclass(frozen=True, slots=True)
class _State:
    """How far an address is: places in all patterns, those of the address without its +tag, and its own grammar."""

    places: frozenset[tuple[int, int]]
    untagged: frozenset[tuple[int, int]]
    grammar: int = _START
    in_domain: bool = False
    has_dot: bool = False
    in_tag: bool = False

    @property
    def is_address(self) -> bool:
        return self.in_domain and self.has_dot and self.grammar == _IN_LABEL


def addresses(old: Patterns, new: Patterns, rules: tuple[ActAs, ActAs], *, places: int = MAX_PLACES) -> Addresses:
    """Return an address for each pair of answers; `rules` are those that decide, and confirm each of them.

    At most so many `places` are looked at.
    """
    texts = sorted({pattern.lower() for each in (old, new) for pattern in (*each.allow, *each.deny)})
    numbers = {text: number for number, text in enumerate(texts)}
    sides = [(_numbered(each.allow, numbers), _numbered(each.deny, numbers)) for each in (old, new)]
    wanted = 2 if sides[0] == sides[1] else 4
    first = _closed(texts, ((number, 0) for number in range(len(texts))))
    start = _State(first, first)
    examples: dict[Answers, str] = {}
    seen: set[Hashable] = {start}
    waiting: deque[tuple[_State, str]] = deque([(start, "")])
    while waiting and len(examples) < wanted:
        state, text = waiting.popleft()
        if state.is_address:
            answers = _answers(state, texts, sides)
            if answers not in examples:
                if address(text) != text or answers != (rules[0].permits(text), rules[1].permits(text)):
                    return Addresses(examples, complete=False)
                examples[answers] = text
        letters = _letters(state, texts)
        places -= len(letters) * (1 + len(state.places) + len(state.untagged))
        if places < 0:
            return Addresses(examples, complete=False)
        for letter in letters:
            after = _step(state, letter, texts)
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append((after, text + letter))
    return Addresses(examples, complete=True)


def _numbered(patterns: Sequence[str], numbers: Mapping[str, int]) -> frozenset[int]:
    return frozenset(numbers[pattern.lower()] for pattern in patterns)


def _answers(state: _State, texts: Sequence[str], sides: Sequence[tuple[frozenset[int], frozenset[int]]]) -> Answers:
    whole = {number for number, place in state.places if place == len(texts[number])}
    untagged = {number for number, place in state.untagged if place == len(texts[number])}
    old, new = (not allow.isdisjoint(whole) and deny.isdisjoint(whole | untagged) for allow, deny in sides)
    return old, new


def _closed(texts: Sequence[str], places: Iterator[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Add the places that are reached by a `*` that stands for nothing."""
    closed = set()
    for number, place in places:
        closed.add((number, place))
        while texts[number][place : place + 1] == "*":
            place += 1
            closed.add((number, place))
    return frozenset(closed)


def _moved(places: frozenset[tuple[int, int]], letter: str, texts: Sequence[str]) -> frozenset[tuple[int, int]]:
    def moves() -> Iterator[tuple[int, int]]:
        for number, place in places:
            here = texts[number][place : place + 1]
            if here == "*":
                if letter != "@":
                    yield number, place
            elif here == letter:
                yield number, place + 1

    return _closed(texts, moves())


def _letters(state: _State, texts: Sequence[str]) -> list[str]:
    """Return the letters that can matter next: one that no pattern waits for, those that some do, and those of the grammar."""
    wanted = {texts[number][place : place + 1] for number, place in state.places | state.untagged} - {"", "*"}
    usual = _ALNUM if state.in_domain else _ALNUM + _SIGNS
    fresh = next((letter for letter in usual if letter not in wanted), "")
    return [letter for letter in (fresh, *sorted(wanted - {"@", ".", "+"}), "@", ".", "+") if letter]


def _step(state: _State, letter: str, texts: Sequence[str]) -> _State | None:
    grammar = _grammar(state, letter)
    if grammar is None:
        return None
    in_domain = state.in_domain or letter == "@"
    in_tag = not in_domain and (state.in_tag or letter == "+")
    untagged = state.untagged if in_tag else _moved(state.untagged, letter, texts)
    has_dot = state.has_dot or (state.in_domain and letter == ".")
    return _State(_moved(state.places, letter, texts), untagged, grammar, in_domain, has_dot, in_tag)


def _grammar(state: _State, letter: str) -> int | None:
    """Return where in an address one is behind this letter, None where it cannot stand."""
    if not state.in_domain:
        if letter == "@":
            return _LABEL if state.grammar == _ATOM else None
        if letter == ".":
            return _START if state.grammar == _ATOM else None
        return _ATOM if letter in _ALNUM or letter in _SIGNS or letter == "+" else None
    if letter == ".":
        return _LABEL if state.grammar == _IN_LABEL else None
    if letter == "-":
        return _HYPHEN if state.grammar in (_IN_LABEL, _HYPHEN) else None
    return _IN_LABEL if letter in _ALNUM else None
