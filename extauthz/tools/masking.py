"""What of a request may be shown: no token and nothing that could be one, whatever somebody pasted, and wherever."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from extauthz.admin.token_search import may_hold_secret
from extauthz.core.credentials import AUTHORIZATION
from extauthz.tools.calls import PLACEHOLDER

HIDDEN = "[hidden]"
LEAST, LEAST_ELSEWHERE = 8, 16
"""Characters of a part of a credential that is hidden wherever it occurs, and of one of a query or a cookie: words are shorter."""
LONGEST = 20
"""Characters of a run that may be shown although it has letters and digits: a token has more."""

_CREDENTIALS = (AUTHORIZATION, "proxy-authorization")
# Names of words alone have this form too, but for the digits and capitals. These are looked for as far as a token is long, and
# behind its form alone: a text of a megabyte may be one run.
_FORM = r"[a-z][a-z0-9]{0,15}_[0-9A-Za-z]{12}_"
_ISSUED = rf"(?={_FORM})(?=[^\W0-9A-Z]{{0,80}}+[0-9A-Z]){_FORM}[0-9A-Za-z]*"
_JWT = r"eyJ[0-9A-Za-z_-]{4,}(?:\.[0-9A-Za-z_-]*)*"
_TOKENS = re.compile(rf"(?:{_ISSUED}|{_JWT})")
_RUN = re.compile(rf"[0-9A-Za-z_~+=%.-]{{{LONGEST + 1},}}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_SEPARATORS = re.compile(r"[\s,;&=:\"']+")


@dataclass(frozen=True, slots=True)
class Mask:
    """Hides secrets in texts: those that are known, what has the form of a token, and other long runs of letters and digits."""

    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Mask({len(self.secrets)})"

    def tokens(self, text: str) -> str:
        """Hide what is known to be a secret, and what has the form of a token, in a text of ours."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return _TOKENS.sub(HIDDEN, text)

    def __call__(self, text: str) -> str:
        """Hide all of it in a text that somebody else wrote: any long run with letters and digits, a UUID excepted."""
        return _RUN.sub(_hidden_run, self.tokens(text))

    def document(self, value: Any) -> Any:
        """Hide secrets in every text of plain data."""
        match value:
            case str():
                return self.tokens(value)
            case Mapping():
                return {self.tokens(name): self.document(item) for name, item in value.items()}
            case list() | tuple():
                return [self.document(item) for item in value]
        return value


def mask_of(headers: Mapping[str, str], path: str = "", more: Iterable[str] = ()) -> Mask:
    """Return what hides the credentials of a request: those in its headers, in the query of its path, and some `more` texts."""
    credentials = [*(headers[name] for name in _CREDENTIALS if name in headers), *more]
    found = {part for text in credentials for part in _parts(text) if len(part) >= LEAST and part != PLACEHOLDER}
    found |= {
        part
        for text in (path.partition("?")[2], headers.get("cookie", ""))
        for part in _parts(text)
        if len(part) >= LEAST_ELSEWHERE
    }
    # The longest first, so that no end of one is left over.
    return Mask(tuple(sorted(found, key=len, reverse=True)))


def _parts(text: str) -> Iterator[str]:
    for part in (text, *_SEPARATORS.split(text)):
        yield from (part, unquote(part))


def _hidden_run(match: re.Match[str]) -> str:
    run = match[0]
    is_random = any(map(str.isdigit, run)) and any(map(str.isalpha, run))
    return HIDDEN if is_random and not _UUID(run) else run


MASK = "[may be a secret]"

_SHORT = 20
"""A text of fewer characters is shown: no token is that short."""
_PATH_PARTS = re.compile(r"([/?&=;, ])")
_LONG_RUN = re.compile(r"[A-Za-z0-9._~+-]{24,}")
_BY_CHANCE = 0.42
"""Of the characters of base62, 0.62 are of another kind than the one before; of a name in camel case about 0.3."""


def masked(text: str, prefixes: Collection[str] = ()) -> str:
    """Return a text in which every part that may be a token, or a piece of one, is MASK; `prefixes` are those of issued tokens."""
    return text if len(text) < _SHORT else _masked(text, frozenset(prefixes))


@lru_cache(maxsize=1024)
def _masked(text: str, prefixes: frozenset[str]) -> str:
    return "".join(MASK if _is_suspect(part, prefixes) else part for part in _PATH_PARTS.split(text))


def _is_suspect(part: str, prefixes: frozenset[str]) -> bool:
    if len(part) < _SHORT:
        return False
    # Twice, for a text that was encoded once more on its way into a log.
    plain = unquote(unquote(part))
    return may_hold_secret(plain, prefixes) or plain.startswith("eyJ") or any(map(_is_random, _LONG_RUN.findall(plain)))


def _is_random(run: str) -> bool:
    """Tell whether upper case, lower case and digits alternate as they do by chance, and in no name and no UUID."""
    kinds = [letter.isupper() + 2 * letter.isdigit() for letter in run if letter.isalnum()]
    changes = sum(one != next_one for one, next_one in pairwise(kinds))
    return run not in (run.lower(), run.upper()) and changes > _BY_CHANCE * len(kinds)
