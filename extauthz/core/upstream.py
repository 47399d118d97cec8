"""What an upstream reads more loosely than it is written: letter case, a last slash, a method in the query.

Servers agree on the case of ASCII letters and on nothing beyond: a long s, the Kelvin sign, a dotless i or an accented letter is a
plain one for some of them. So there are two folds. `fold` changes what all of them change; `widest` removes whatever one of them
might, and where only the widest fold makes two words equal, a path has more than one reading.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_DROPPED = frozenset({"Mn", "Cf"})

# A parser may read other characters in front as "_", drop them, or take "[" and NUL for the end of the name.
_ODD = r"(?:[^A-Za-z0-9&;=%]|%(?:[0-2][0-9a-f]|3[a-f]|40|5[b-f]|60|7[b-f]|[89a-f][0-9a-f]))"
_WORD = "".join(f"(?:{letter}|%{ord(letter):02x}|%{ord(letter.upper()):02x})" for letter in "method")
_END = r"(?![A-Za-z0-9_.-]|%(?:3[0-9]|4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a]|2d|2e|5f))"
_METHOD = re.compile(rf"(?:\A|[&;]){_ODD}+{_WORD}{_END}", re.ASCII | re.IGNORECASE).search


@dataclass(frozen=True, slots=True)
class Upstream:
    """How an upstream reads what it gets; the defaults are those of one that reads paths to the letter.

    `overrides_method`: it may take the method from `_method` in the query, which is assumed until the opposite is known.
    """

    ignores_case: bool = False
    ignores_slash: bool = False
    overrides_method: bool = True
    trusts_forwarded_host: bool = False

    @property
    def is_loose(self) -> bool:
        """Tell whether it reads several paths as one."""
        return self.ignores_case or self.ignores_slash

    def one_spelling(self, text: str) -> str:
        """Return a path's decoded text as every path is written that this upstream reads alike."""
        if self.ignores_slash and len(text) > 1 and text[-1] == "/":
            text = text[:-1]
        return fold(text) if self.ignores_case else text


STRICT = Upstream()


def fold(text: str) -> str:
    """Write ASCII letters small, and leave all others as they are."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def widest(text: str) -> str:
    """Return what is left of a word when case, accents, compatibility forms and invisible characters do not count."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).upper().casefold())
    return "".join(one for one in folded if unicodedata.category(one) not in _DROPPED)


def names_method(query: str) -> bool:
    """Tell whether a parser of queries may find `_method` in this one, in one pass: a client may send 14,000 parts."""
    if "method" not in query.lower() and not ("%" in query and ("%6" in query or "%4" in query or "%7" in query or "%5" in query)):
        return False  # no letter of the word is encoded: the first digit of each is one of these
    return _METHOD(query) is not None
