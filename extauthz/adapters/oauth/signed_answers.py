"""Answers of introspection that the issuer signed (RFC 9701): nobody between the issuer and this process can change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from extauthz.adapters.oauth.http import TextFetcher
from extauthz.adapters.oauth.jwks import JwksSource
from extauthz.core import claims, jwt
from extauthz.core.model import Reason
from extauthz.errors import FetchError, Unavailable
from extauthz.ports import Clock

MEDIA_TYPE = "application/token-introspection+jwt"
MAX_AGE = 300.0
"""Seconds that the time of an answer may differ from ours: an old one may be about a token that was good once."""

_TYPES = frozenset({"token-introspection+jwt", MEDIA_TYPE})


class SignedAnswerFetcher(TextFetcher):
    """Asks for signed answers."""

    _form = "a signed answer"
    _accept = MEDIA_TYPE


class SignedAnswers:
    """Reads what one issuer signed for one client; what is no such answer says nothing about a token."""

    def __init__(self, client_id: str, keys: JwksSource, algorithms: Iterable[str], *, clock: Clock) -> None:
        """Take the client that asks, and keys and algorithms of the issuer."""
        self.keys = keys
        self._client_id = client_id
        self._algorithms = frozenset(algorithms)
        self._clock = clock

    async def read(self, text: object) -> Mapping[str, Any]:
        """Return the answer (RFC 9701 5); raise FetchError for one that is not signed, or not by and for the right ones."""
        token = jwt.read(text.strip()) if isinstance(text, str) and text.isascii() else Reason.TOKEN_MALFORMED
        if isinstance(token, Reason):
            raise FetchError("its answer is not signed (RFC 9701)")
        kind, algorithm = token.header.get("typ"), token.header.get("alg")
        if not isinstance(kind, str) or kind.lower() not in _TYPES or not {"crit", "b64"}.isdisjoint(token.header):
            raise FetchError("its answer is a JWT of another type than token-introspection+jwt")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise FetchError("its answer is signed with another algorithm than those of the provider")
        at, answer = claims.moment(token.claims.get("iat")), token.claims.get("token_introspection")
        if token.claims.get("iss") != self.keys.issuer or self._client_id not in claims.strings(token.claims.get("aud")):
            raise FetchError("its answer is of another issuer, or for another client")
        if at is None or abs(self._clock.now() - at) > MAX_AGE or not isinstance(answer, dict):
            raise FetchError("its answer is an old one, or says nothing about a token")
        if refusal := jwt.signature_refusal(token, await self._keys_for(jwt.key_name(token))):
            raise FetchError(f"the signature of its answer is wrong ({refusal})")
        return answer

    async def _keys_for(self, name: jwt.KeyName | None) -> jwt.KeySet:
        try:
            known = self.keys.keys() or await self.keys.load()
            pending = None if name is None or name in known else self.keys.reload_for_unknown_key()
            return known if pending is None else await pending
        except Unavailable as error:
            raise FetchError(f"the keys of its signed answers cannot be fetched ({error.reason})") from error
