"""What tools print of texts that anybody may have put a token into: paths above all."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from itertools import pairwise
from urllib.parse import unquote

from extauthz.admin.token_search import may_hold_secret

MASK = "[may be a secret]"

_SHORT = 20
"""A text of fewer characters is shown: no token is that short."""
_PARTS = re.compile(r"([/?&=;, ])")
_RUN = re.compile(r"[A-Za-z0-9._~+-]{24,}")
_BY_CHANCE = 0.42
"""Of the characters of base62, 0.62 are of another kind than the one before; of a name in camel case about 0.3."""


def masked(text: str, prefixes: Collection[str] = ()) -> str:
    """Return a text in which every part that may be a token, or a piece of one, is MASK; `prefixes` are those of issued tokens."""
    return text if len(text) < _SHORT else _masked(text, frozenset(prefixes))


@lru_cache(maxsize=1024)
def _masked(text: str, prefixes: frozenset[str]) -> str:
    return "".join(MASK if _is_suspect(part, prefixes) else part for part in _PARTS.split(text))


def _is_suspect(part: str, prefixes: frozenset[str]) -> bool:
    if len(part) < _SHORT:
        return False
    # Twice, for a text that was encoded once more on its way into a log.
    plain = unquote(unquote(part))
    return may_hold_secret(plain, prefixes) or plain.startswith("eyJ") or any(map(_is_random, _RUN.findall(plain)))


def _is_random(run: str) -> bool:
    """Tell whether upper case, lower case and digits alternate as they do by chance, and in no name and no UUID."""
    kinds = [letter.isupper() + 2 * letter.isdigit() for letter in run if letter.isalnum()]
    changes = sum(one != next_one for one, next_one in pairwise(kinds))
    return run not in (run.lower(), run.upper()) and changes > _BY_CHANCE * len(kinds)
