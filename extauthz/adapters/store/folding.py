"""Letters in any case: which ones count as the same in a search, on every database."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

_CASED = range(0x80, 0x20000)
"""Every letter outside of ASCII that has a case stands here."""


def fold(text: str) -> str:
    """Return a text without its case, letter by letter, so that it keeps its length."""
    return text.lower() if text.isascii() else "".join(map(_fold, text))


def others(text: str) -> dict[str, str]:
    """Return, for each letter outside of ASCII of a folded text, the letters that differ from it by their case."""
    return {} if text.isascii() else {letter: _others()[letter] for letter in dict.fromkeys(text) if letter in _others()}


def _fold(letter: str) -> str:
    if letter.isascii():
        return letter.lower()
    # A letter that becomes two, or one of ASCII, is left as it is: databases lower ASCII by rules of their own.
    return next((one for one in (letter.casefold(), letter.lower()) if len(one) == 1 and not one.isascii()), letter)


@cache
def _others() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for letter in map(chr, _CASED):
        if letter.casefold() != letter and (folded := _fold(letter)) != letter:
            found[folded] = found.get(folded, "") + letter
    return found
