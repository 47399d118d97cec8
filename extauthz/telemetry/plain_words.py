"""Which texts of a client may be shown: words and numbers, and nothing that could be a credential."""

from __future__ import annotations

import re

LONGEST = 20
"""Characters of what may be shown whatever it is: a token has more, and so has the secret part of one."""
LONGEST_NAME = 40
"""Characters of a name like documentPermissionsOfUser: the secret part of an issued token has more, where it is letters alone."""

_HUMP = 4
"""Letters of a word in such a name, on average: in letters by chance it is half of that."""
_is_word = re.compile(rf"[A-Za-z]?[a-z]{{0,{LONGEST - 1}}}|[A-Z]{{1,{LONGEST}}}|[0-9]{{1,{LONGEST}}}").fullmatch
_is_name = re.compile(r"[A-Za-z]?[a-z]{2,}(?:[A-Z][a-z]+)*").fullmatch
_SEPARATORS = re.compile(r"[_~+=.-]")


def is_words(text: str) -> bool:
    """Tell whether a text is of words in small letters or capitals and of numbers, each of LONGEST characters at most."""
    return all(map(_is_word, _SEPARATORS.split(text)))


def is_plain(text: str) -> bool:
    """Tell whether a text is of words, numbers and names like documentPermissionsOfUser, as no random text is."""
    return all(_is_word(piece) or _is_long_name(piece) for piece in _SEPARATORS.split(text))


def _is_long_name(piece: str) -> bool:
    humps = 1 + sum(map(str.isupper, piece[1:]))
    return humps * _HUMP <= len(piece) <= LONGEST_NAME and _is_name(piece) is not None
