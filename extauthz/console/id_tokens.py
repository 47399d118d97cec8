"""ID tokens (OpenID Connect Core 2, 3.1.3.7): what one must hold before anybody is logged in by it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from extauthz.core.act_as import address
from extauthz.core.claims import moment, strings
from extauthz.core.jwt import Key, KeySet, Unverified

ALGORITHMS = ("RS256", "ES256")
"""Ours, never those of a discovery document: that may name `none`, or a secret that a client shares."""
LEEWAY = 60.0
"""Seconds that the clocks of provider and console may differ."""
EMAIL, VERIFIED = "email", "email_verified"


class LoginRefusal(StrEnum):
    """Why somebody is not logged in, in words for whoever tried."""

    NOT_BEGUN = "This login was not begun in this browser, or it has ended before. Log in again."
    TOO_LATE = "This login took longer than ten minutes. Log in again."
    STATE = "This answer belongs to another login. Log in again."
    ANSWER_MALFORMED = "This answer is not that of an OpenID provider. Log in again."
    ANSWER_ISSUER = "This answer is of another provider than that of console.oidc.issuer, or does not name it. Log in again."
    DENIED = "The provider did not let you in, or you went back there. Log in again, or ask who manages your account."
    PROVIDER_ERROR = "The provider ended this login with an error. Its log, or the settings of the client there, say more."
    CODE = (
        "The provider refused to finish this login: its code was used before or came too late, or the client is set up otherwise "
        "there. Log in again."
    )
    CLIENT = "The provider does not take this console for its client: compare console.oidc with the settings of the client there."
    NO_ID_TOKEN = "The provider sent no ID token: allow the scope openid for the client there."
    MALFORMED = "The ID token cannot be read."
    ALGORITHM = "The ID token is signed otherwise than by RS256 or ES256: choose one of them in the settings of the client."
    HEADER = "The ID token is one of another kind."
    KEY = "The ID token names no key that the provider publishes. Log in again in a few minutes."
    SIGNATURE = "The signature of the ID token is wrong."
    ISSUER = "The ID token is of another issuer than console.oidc.issuer."
    AUDIENCE = "The ID token is for another client than console.oidc.client_id."
    EXPIRED = "The ID token has expired: compare the clocks of the provider and of this machine."
    NOT_YET_VALID = "The ID token begins in the future: compare the clocks of the provider and of this machine."
    NONCE = "The ID token belongs to another login. Log in again."
    CLAIMS = "The ID token lacks a subject, an expiry or a time of issue."
    NOT_AGAIN = "The provider did not ask you to log in again, so this proves nothing new."
    OTHER_USER = "The ID token and userinfo are about different users."
    NO_ADDRESS = (
        "The provider names no address of yours: allow the scope email for the client there, or see console.oidc.email_claim."
    )
    UNVERIFIED_ADDRESS = (
        "The provider does not say that it verified your e-mail address: verify it there. "
        "Where users cannot choose theirs, console.oidc.unverified_addresses lets it count."
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """Whose ID token, for whom and for which login; no authentication before `since` counts, if that is set."""

    issuer: str
    client_id: str
    nonce: str
    since: float | None = None


def refusal(token: Unverified, expected: Expected, now: float) -> LoginRefusal | None:
    """Refuse by header and claims, whoever signed; `now` in seconds since the epoch."""
    if token.header.get("alg") not in ALGORITHMS:
        return LoginRefusal.ALGORITHM
    kind = token.header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() != "JWT" or not {"crit", "b64"}.isdisjoint(token.header):
        return LoginRefusal.HEADER
    claims = token.claims
    if claims.get("iss") != expected.issuer:
        return LoginRefusal.ISSUER
    audience = strings(claims.get("aud"))
    party = claims.get("azp", expected.client_id if len(audience) == 1 else None)
    if expected.client_id not in audience or party != expected.client_id:
        return LoginRefusal.AUDIENCE
    nonce, subject = claims.get("nonce"), claims.get("sub")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(errors="replace"), expected.nonce.encode()):
        return LoginRefusal.NONCE
    if not isinstance(subject, str) or not subject:
        return LoginRefusal.CLAIMS
    return _time_refusal(claims, expected, now)


def _time_refusal(claims: Mapping[str, Any], expected: Expected, now: float) -> LoginRefusal | None:
    expires_at, issued_at = moment(claims.get("exp")), moment(claims.get("iat"))
    begins_at = moment(claims.get("nbf", issued_at))
    if expires_at is None or issued_at is None or begins_at is None:
        return LoginRefusal.CLAIMS
    if now >= expires_at + LEEWAY:
        return LoginRefusal.EXPIRED
    if max(issued_at, begins_at) > now + LEEWAY:
        return LoginRefusal.NOT_YET_VALID
    authenticated_at = moment(claims.get("auth_time"))
    if authenticated_at is not None and authenticated_at > now + LEEWAY:
        return LoginRefusal.NOT_YET_VALID
    if expected.since is not None and (authenticated_at is None or authenticated_at < expected.since - LEEWAY):
        return LoginRefusal.NOT_AGAIN
    return None


def key_of(token: Unverified, keys: KeySet) -> Key | None:
    """Return the key of the `kid` and `alg`; without a `kid` the only key of that algorithm, if there is one alone."""
    algorithm = token.header.get("alg")
    if "kid" in token.header:
        return next((key for key in keys.values() if key.name == (token.header["kid"], algorithm)), None)
    fitting = [key for key in keys.values() if key.algorithm == algorithm]
    return fitting[0] if len(fitting) == 1 else None


def address_of(claims: Mapping[str, Any], claim: str, *, unverified: bool) -> str | LoginRefusal:
    """Return the address in a claim, in lower case; unless `unverified` will do, the provider must say that it verified it.

    `email_verified` is said of `email`: of another claim it says something only where that holds the same address.
    """
    text, email = claims.get(claim), claims.get(EMAIL)
    found = address(text) if isinstance(text, str) else None
    if found is None:
        return LoginRefusal.NO_ADDRESS
    is_said_of_it = isinstance(email, str) and address(email) == found
    # Some providers write true as text.
    is_verified = claims.get(VERIFIED) is True or claims.get(VERIFIED) == "true"
    return found if unverified or (is_said_of_it and is_verified) else LoginRefusal.UNVERIFIED_ADDRESS
