"""Tokens that somebody has: what is right with them. The secret is read, and never repeated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from extauthz.adapters.store.records import StoredToken
from extauthz.admin.administration import Administration
from extauthz.core import tokens
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenText, parse

WELL_FORMED, ACTIVE = "well-formed", "active"

_VERDICTS = {
    Reason.TOKEN_MALFORMED: "malformed",
    Reason.TOKEN_CHECKSUM: "wrong checksum",
    Reason.TOKEN_UNKNOWN: "unknown",
    Reason.TOKEN_SECRET_WRONG: "wrong secret",
    Reason.TOKEN_REVOKED: "revoked",
    Reason.TOKEN_EXPIRED: "expired",
}


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """A verdict in words, the public id of a well-formed token, and what the store knows of one whose secret is right."""

    verdict: str
    id: str | None = None
    token: StoredToken | None = None

    @property
    def is_good(self) -> bool:
        """Tell whether nothing is wrong as far as was looked."""
        return self.verdict in (WELL_FORMED, ACTIVE)


def check_form(text: str, prefixes: frozenset[str]) -> TokenText | VerificationResult:
    """Look at form, prefix and checksum alone."""
    token = parse(text, prefixes)
    if isinstance(token, TokenText):
        return token
    # The prefix is named only where the rest shows that it is one, and not a piece of a secret.
    prefix = text.partition("_")[0]
    is_whole = isinstance(parse(text, frozenset({prefix})), TokenText)
    return VerificationResult(f"unknown prefix {prefix!r}" if is_whole else _VERDICTS[token])


def verify(administration: Administration, token: TokenText, at: int) -> VerificationResult:
    """Look whether the store knows a well-formed token, and whether it is active. Whoever has a token may ask about it."""
    record = administration.store.get(token.id)
    peppers = administration.unlocked(at) if record is not None else {}
    evidence = tokens.verify(token, record, peppers, at)
    verdict = _VERDICTS[evidence] if isinstance(evidence, Reason) else ACTIVE
    is_secret_right = record is not None and evidence is not Reason.TOKEN_SECRET_WRONG
    return VerificationResult(verdict, token.id, record if is_secret_right else None)


def tokens_in(text: str, prefixes: frozenset[str]) -> list[str]:
    """Return everything in a text that has the form of a token, each once."""
    names = "|".join(map(re.escape, sorted(prefixes)))
    pattern = rf"(?<![0-9A-Za-z])(?:{names})_[0-9A-Za-z]{{12}}_[0-9A-Za-z]{{49}}(?![0-9A-Za-z])"
    return list(dict.fromkeys(re.findall(pattern, text)))
