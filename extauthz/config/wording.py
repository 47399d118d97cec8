"""Numbers in sentences, and words with a slip of the pen."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

MAX_COMPARED = 2_000_000
"""Pairs of letters that are compared for all hints of one configuration: half a second, a second at worst."""
MAX_WORD = 200
"""Letters of a word that gets a hint; no name is nearly as long."""

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


def counted(number: int, name: str, plural: str | None = None) -> str:
    """Write a number and what it counts, in the singular or the plural."""
    return f"{number:,} {name if number == 1 else plural or f'{name}s'}"


@contextlib.contextmanager
def bounded_hints() -> Iterator[None]:
    """Let all hints inside the outermost block share MAX_COMPARED: the first errors get them, however many there are."""
    token = _left.set(_left.get() or [MAX_COMPARED])
    try:
        yield
    finally:
        _left.reset(token)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the nearest known word, or nothing, also where too much had to be compared."""
    names = _comparable(word, words, _left.get() or [MAX_COMPARED])
    matches = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    # Of a short word too little is alike after one typing error.
    matches = matches or [name for name in names if _is_one_error(word.lower(), name)]
    return f", did you mean {names[matches[0]]!r}?" if matches else ""


def _comparable(word: str, words: Iterable[str], left: list[int]) -> dict[str, str]:
    """Return the words by their spelling in lower case, none once the pairs of letters that are `left` are used up."""
    names: dict[str, str] = {}
    for name in words if left[0] > 0 and len(word) <= MAX_WORD else ():
        names[name.lower()] = name
        left[0] -= max(1, len(word) * len(name))
        if left[0] <= 0:
            return {}
    return names


def _alike(one: str, other: str) -> int:
    """Return how many letters two words begin with alike."""
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _is_one_error(word: str, name: str) -> bool:
    """Tell whether a word is a name of two letters or more with one letter too many, too few, wrong, or swapped with the next."""
    start = _alike(word, name)
    end = _alike(word[start:][::-1], name[start:][::-1])
    one, other = word[start : len(word) - end], name[start : len(name) - end]
    return len(name) > 1 and len(word) > 1 and (max(len(one), len(other)) <= 1 or (len(one) == 2 and one == other[::-1]))
