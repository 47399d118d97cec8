"""Numbers in sentences, and words with a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def counted(number: int, name: str, plural: str | None = None) -> str:
    """Write a number and what it counts, in the singular or the plural."""
    return f"{number:,} {name if number == 1 else plural or f'{name}s'}"


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the nearest known word, or nothing."""
    names = {name.lower(): name for name in words}
    matches = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f", did you mean {names[matches[0]]!r}?" if matches else ""
