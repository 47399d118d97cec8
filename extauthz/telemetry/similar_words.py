"""Words with much in common, out of few or of thousands: what is compared is counted, and ends with a budget."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from string import ascii_lowercase, digits

SIMILAR = 0.5
"""From 0 to 1, how much two words have in common at least to be taken for one with a typing error."""
FEW = 100
"""Among more words than these, those with one typing error are looked up before others are compared."""
OF_WORD = 4
"""What it costs to look at a word at all, in characters that could be compared instead."""

_LETTERS = frozenset(ascii_lowercase + digits + "-_.")


class Comparisons:
    """How many characters may still be compared."""

    __slots__ = ("left",)

    def __init__(self, characters: int) -> None:
        """Begin with all of them."""
        self.left = characters

    def spend(self, characters: int) -> bool:
        """Take so many, and return whether there were as many."""
        self.left -= characters
        return self.left >= 0


class Word:
    """A word that others are compared with; upper and lower case are one."""

    __slots__ = ("_folded", "_letters", "_places", "text")

    def __init__(self, word: str) -> None:
        """Note at which places each letter stands, as bits."""
        self.text, self._folded = word, word.lower()
        self._places: dict[str, int] = {}
        for place, letter in enumerate(self._folded):
            self._places[letter] = self._places.get(letter, 0) | 1 << place
        self._letters = frozenset(self._folded)

    def ratio(self, other: str) -> float:
        """Return twice the length of the longest common subsequence by the length of both words: 1 for the same, 0 for nothing.

        It takes a few steps for each character of `other`, however much repeats: a row of the table is the bits of one number.
        """
        other = other.lower()
        every = (1 << len(self._folded)) - 1
        row = every
        for letter in other:
            common = row & self._places.get(letter, 0)
            row = (row + common | row - common) & every
        return 2 * (len(self._folded) - row.bit_count()) / (len(self._folded) + len(other) or 1)

    def similar(self, words: Collection[str], budget: Comparisons) -> Iterator[tuple[str, float]]:
        """Yield words that are similar, and their ratios, as far as the budget goes; a word may come twice."""
        if len(words) > FEW:
            for variant in self.variants():
                if not budget.spend(1):
                    return
                if variant in words and (ratio := self.ratio(variant)) >= SIMILAR:
                    yield variant, ratio
        for word in words:
            is_possible = self._can_be_similar(word)
            if not budget.spend(OF_WORD + len(word) * is_possible):
                return
            if is_possible and (ratio := self.ratio(word)) >= SIMILAR:
                yield word, ratio

    def variants(self) -> Iterator[str]:
        """Yield what the word may be meant to be: another case, singular or plural, then all with one character other than here."""
        word = self.text
        yield from (self._folded, word.upper(), f"{word}s", f"{word}es", f"{word[:-1]}ies")
        yield from (word[:-1], word[:-2], f"{word[:-3]}y")
        for place in range(len(word)):
            before, behind = word[:place], word[place:]
            yield before + behind[1:]
            yield before + behind[1:2] + behind[:1] + behind[2:]
        letters = sorted(_LETTERS | frozenset(word))
        for place in range(len(word) + 1):
            before, behind = word[:place], word[place:]
            for letter in letters:
                yield before + letter + behind
                yield before + letter + behind[1:]

    def _can_be_similar(self, word: str) -> bool:
        """Tell whether length and letters leave it possible."""
        ours, others = len(self._folded), len(word)
        needed = SIMILAR * (ours + others) / 2
        return min(ours, others) >= needed and ours - len(self._letters.difference(word.lower())) >= needed
