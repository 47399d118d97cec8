"""What of a request may be shown: no token and nothing that could be one, whatever somebody pasted, and wherever.

One rule for every tool. Hidden is what is known to be a credential, what has the form of a token, and in texts that somebody else
wrote any run of more than LONGEST characters that is neither of words, numbers and names nor a name of the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from extauthz.admin.route_map import routes_of
from extauthz.core.credentials import AUTHORIZATION
from extauthz.core.policy import Policy
from extauthz.telemetry.plain_words import LONGEST, is_plain

HIDDEN = "[hidden]"
PLACEHOLDER = "described"
"""Stands for the token of a described caller: it is never verified, and nothing to be hidden."""
LEAST, LEAST_ELSEWHERE = 8, 16
"""Characters of a part of a credential that is hidden wherever it occurs, and of one of a query or a cookie: words are shorter."""

_CREDENTIALS = (AUTHORIZATION, "proxy-authorization")
_ISSUED = r"[a-z][a-z0-9]{0,15}_[0-9A-Za-z]{12}_[0-9A-Za-z]*"
_JWT = r"eyJ[0-9A-Za-z_-]{4,}(?:\.[0-9A-Za-z_-]*)*"
_TOKENS = re.compile(rf"(?:{_ISSUED}|{_JWT})")
# Names of words alone have this form too, but for the digits and capitals.
_NO_NAME = re.compile(r"[^\W0-9A-Z]*+[0-9A-Z]").match
_BEHIND = 80
"""Characters behind what has the form of a token in which a digit or a capital counts too: a token that begins in it ends there."""
_RUN = re.compile(rf"[0-9A-Za-z_~+=%.-]{{{LONGEST + 1},}}")
_SEPARATORS = re.compile(r"[\s,;&=:\"']+")


@dataclass(frozen=True, slots=True)
class Mask:
    """Hides secrets in texts; `names` are long ones of a configuration, which may be shown."""

    secrets: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Mask({len(self.secrets)})"

    def tokens(self, text: str) -> str:
        """Hide what is known to be a secret, and what has the form of a token, in a text of ours."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return _TOKENS.sub(_hidden_token, text)

    def __call__(self, text: str) -> str:
        """Hide all of it in a text that somebody else wrote."""
        return _RUN.sub(self._run, self.tokens(text))

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

    def of(self, policy: Policy) -> Mask:
        """Return one that shows what the routes of a policy are called."""
        routes = (route for table in (policy.routes, *policy.hosts.values()) for route in routes_of(table))
        names = (name for route in routes for text in (route.name, route.match.text) for name in _RUN.findall(text))
        return replace(self, names=self.names.union(names))

    def _run(self, match: re.Match[str]) -> str:
        run = match[0]
        return run if run in self.names or is_plain(run) else HIDDEN


def shown_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of the decision log as it may be shown: a client chose its method, its path, and whom it acts for."""
    mask, chosen = Mask(), ("method", "path", "user")
    return {name: mask(value) if name in chosen and isinstance(value, str) else value for name, value in record.items()}


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


def _hidden_token(match: re.Match[str]) -> str:
    return HIDDEN if _NO_NAME(match.string, match.start(), match.end() + _BEHIND) else match[0]
