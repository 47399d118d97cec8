"""Which credential a request carries: a Credential, None for nobody, or the reason why it is refused.

A bad credential never becomes "none" and never falls through to the other kind (RFC 6750 2.1, 3.1; RFC 9110 11.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from extauthz.core.model import Reason, Request

AUTHORIZATION = "authorization"
AUTH_TYPE = "x-glean-auth-type"

_SCHEME = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?=[ ,]|\Z)").match
_TOKEN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)").fullmatch


def _plain_or_encoded(character: str) -> str:
    code = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{ord(character):02x}")
    return f"(?:{character}|%{code})"


# One pass over the query: a client may send 14,000 parts.
_IN_QUERY = re.compile(r"(?:\A|&)" + "".join(map(_plain_or_encoded, "access_token")) + r"(?=[=&]|\Z)").search


def _names_token(query: str) -> bool:
    if "token" not in query and not ("%" in query and ("%6" in query or "%7" in query or "%5" in query)):
        return False  # no character of the name is encoded: the first digit of each is one of these
    return _IN_QUERY(query) is not None


class Kind(StrEnum):
    """Which of the two families a token belongs to."""

    __hash__ = str.__hash__
    OAUTH = "oauth"
    ISSUED = "issued"


@dataclass(frozen=True, slots=True)
class AuthTypes:
    """How the kind of a token is told: by a `header`, absent for issued tokens, or else `oauth`, which is in lower case.

    With `header` "" the token itself tells it: all that begins with one of `issued` is an issued token, whatever is wrong with it.
    """

    header: str = AUTH_TYPE
    oauth: str = "oauth"
    issued: tuple[str, ...] = ()


@dataclass(slots=True)
class Credential:
    """A well-formed Bearer token that nobody has verified yet."""

    kind: Final[Kind]
    token: Final[str]

    def __repr__(self) -> str:
        """Show the kind alone: the token is a secret."""
        return f"Credential({self.kind})"


def read_credential(request: Request, query: str, types: AuthTypes, *, max_token_size: int) -> Credential | Reason | None:
    """Read Authorization and which kind of token it holds; `max_token_size` is in bytes."""
    if query and _names_token(query):
        return Reason.TOKEN_IN_QUERY
    authorization = request.header(AUTHORIZATION)
    if not authorization:
        return None
    token = authorization.removeprefix("Bearer ")
    # As most clients write it, without a second space or "=": a third of what the expression takes.
    if len(token) == len(authorization) or token.encode("latin-1", "replace").translate(None, _TOKEN):
        bearer = _BEARER(authorization)
        if bearer is None:
            scheme = _SCHEME(authorization)
            is_other = scheme and scheme[1].lower() != "bearer"
            return Reason.SCHEME_UNSUPPORTED if is_other else Reason.AUTHORIZATION_MALFORMED
        token = bearer[1]
    if len(token) > max_token_size:
        return Reason.AUTHORIZATION_MALFORMED
    if not types.header:
        return Credential(Kind.ISSUED if token.startswith(types.issued) else Kind.OAUTH, token)
    auth_type = request.headers.get(types.header)
    if not auth_type or not (auth_type := auth_type.strip(" \t")):
        return Credential(Kind.ISSUED, token)
    return Credential(Kind.OAUTH, token) if auth_type.lower() == types.oauth else Reason.AUTH_TYPE_UNKNOWN
