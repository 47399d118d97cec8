"""ID tokens as no provider should give them, for tests of who reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import jwt

from extauthz.demo.keys import IssuerKey
from extauthz.demo.providers import Document, present

OTHER_CLIENT = "0oa1other"
HOUR = 3600


class Forgery(StrEnum):
    """What is wrong with an ID token."""

    ALG_NONE = "alg_none"
    """It is not signed at all."""
    HS256 = "hs256"
    """It is signed with the client secret, which a client shares with nobody but its provider."""
    OTHER_KEY = "other_key"
    """It is signed with a key that no set holds, and names the right one."""
    UNKNOWN_KEY = "unknown_key"
    """It is signed with a key that no set holds, and names that."""
    NO_KEY_ID = "no_key_id"
    """It does not name its key, which is a right one."""
    ACCESS_TOKEN = "access_token"
    """Its type is that of an access token."""
    CRITICAL_HEADER = "critical_header"
    """Its header asks for an extension."""
    NOT_A_TOKEN = "not_a_token"
    """It is no JWT."""
    NO_ID_TOKEN = "no_id_token"
    """There is none beside the access token."""
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    SEVERAL_AUDIENCES = "several_audiences"
    """It is for another client too, and does not say to whom it was given."""
    SEVERAL_AUDIENCES_OTHER_PARTY = "several_audiences_other_party"
    SEVERAL_AUDIENCES_RIGHT_PARTY = "several_audiences_right_party"
    """It is for another client too, and was given to the right one: this is allowed."""
    WRONG_PARTY = "wrong_party"
    """It was given to another client (azp)."""
    WRONG_NONCE = "wrong_nonce"
    NO_NONCE = "no_nonce"
    EXPIRED = "expired"
    """Ninety seconds ago, which is longer than clocks differ."""
    NO_EXPIRY = "no_expiry"
    EXPIRY_IS_TEXT = "expiry_is_text"
    FROM_THE_FUTURE = "from_the_future"
    """It says that it was issued in an hour."""
    NO_ISSUE_TIME = "no_issue_time"
    NOT_YET_VALID = "not_yet_valid"
    """It begins in an hour (nbf)."""
    ISSUED_LONG_AGO = "issued_long_ago"
    """It was issued an hour ago, for this very login; nothing but its age is wrong."""
    NO_SUBJECT = "no_subject"
    OTHER_SUBJECT = "other_subject"
    """The address is the user's, and the account is another one: an address that was given to somebody else."""
    NO_ADDRESS = "no_address"
    """Neither it nor userinfo has an address."""
    NOT_AN_ADDRESS = "not_an_address"
    UNVERIFIED_ADDRESS = "unverified_address"
    UNSAID_VERIFICATION = "unsaid_verification"
    """Neither it nor userinfo says whether the address is verified."""
    VERIFIED_IN_USERINFO = "verified_in_userinfo"
    """Only userinfo says that the address is verified: this is allowed."""
    ADDRESS_IN_USERINFO = "address_in_userinfo"
    """The address is only in userinfo: this is allowed."""
    OTHER_USERINFO = "other_userinfo"
    """The address is only in userinfo, which is about somebody else."""
    OLD_LOGIN = "old_login"
    """The user logged in an hour ago, although a new login was asked for."""
    FUTURE_LOGIN = "future_login"
    NO_LOGIN_TIME = "no_login_time"


def _for_both(claims: Document) -> Document:
    return {"aud": [claims["aud"], OTHER_CLIENT]}


_NO_EMAIL = {"email": None, "email_verified": None}
_CHANGES: Mapping[Forgery, Callable[[Document], Document]] = {
    Forgery.WRONG_ISSUER: lambda claims: {"iss": f"{claims['iss']}/"},
    Forgery.WRONG_AUDIENCE: lambda _: {"aud": OTHER_CLIENT},
    Forgery.SEVERAL_AUDIENCES: _for_both,
    Forgery.SEVERAL_AUDIENCES_OTHER_PARTY: lambda claims: _for_both(claims) | {"azp": OTHER_CLIENT},
    Forgery.SEVERAL_AUDIENCES_RIGHT_PARTY: lambda claims: _for_both(claims) | {"azp": claims["aud"]},
    Forgery.WRONG_PARTY: lambda _: {"azp": OTHER_CLIENT},
    Forgery.WRONG_NONCE: lambda claims: {"nonce": f"{claims['nonce'][:-1]}~"},
    Forgery.NO_NONCE: lambda _: {"nonce": None},
    Forgery.EXPIRED: lambda claims: {"exp": claims["iat"] - 90},
    Forgery.NO_EXPIRY: lambda _: {"exp": None},
    Forgery.EXPIRY_IS_TEXT: lambda claims: {"exp": str(claims["exp"])},
    Forgery.FROM_THE_FUTURE: lambda claims: {"iat": claims["iat"] + HOUR, "exp": claims["exp"] + HOUR},
    Forgery.NO_ISSUE_TIME: lambda _: {"iat": None},
    Forgery.NOT_YET_VALID: lambda claims: {"nbf": claims["iat"] + HOUR},
    Forgery.ISSUED_LONG_AGO: lambda claims: {"iat": claims["iat"] - HOUR},
    Forgery.NO_SUBJECT: lambda _: {"sub": None},
    Forgery.OTHER_SUBJECT: lambda _: {"sub": "another account"},
    Forgery.NO_ADDRESS: lambda _: _NO_EMAIL,
    Forgery.NOT_AN_ADDRESS: lambda _: {"email": "ana@acme.com, cto@acme.com"},
    Forgery.UNVERIFIED_ADDRESS: lambda _: {"email_verified": False},
    Forgery.UNSAID_VERIFICATION: lambda _: {"email_verified": None},
    Forgery.VERIFIED_IN_USERINFO: lambda _: {"email_verified": None},
    Forgery.ADDRESS_IN_USERINFO: lambda _: _NO_EMAIL,
    Forgery.OTHER_USERINFO: lambda _: _NO_EMAIL,
    Forgery.OLD_LOGIN: lambda claims: {"auth_time": claims["auth_time"] - HOUR},
    Forgery.FUTURE_LOGIN: lambda claims: {"auth_time": claims["auth_time"] + HOUR},
    Forgery.NO_LOGIN_TIME: lambda _: {"auth_time": None},
}
"""What is other in the claims; None removes one."""


def id_token(claims: Document, forgery: Forgery | None, key: IssuerKey, secret: str | None) -> str:
    """Sign the claims of a login as its forgery has it; `secret` is that of the client."""
    changes = _CHANGES[forgery](claims) if forgery is not None and forgery in _CHANGES else {}
    payload, named = present(claims | changes), {"kid": key.kid}
    match forgery:
        case Forgery.NOT_A_TOKEN:
            return "demo"
        case Forgery.ALG_NONE:
            return jwt.encode(payload, "", algorithm="none", headers=named)
        case Forgery.HS256:
            return jwt.encode(payload, (secret or "").ljust(32, "\0"), algorithm="HS256", headers=named)
        case Forgery.OTHER_KEY:
            return jwt.encode(payload, IssuerKey.generate().private, algorithm="RS256", headers=named)
        case Forgery.UNKNOWN_KEY:
            other = IssuerKey.generate()
            return jwt.encode(payload, other.private, algorithm="RS256", headers={"kid": other.kid})
        case Forgery.NO_KEY_ID:
            named = {}
        case Forgery.ACCESS_TOKEN:
            named |= {"typ": "at+jwt"}
        case Forgery.CRITICAL_HEADER:
            return jwt.encode(payload, key.private, algorithm="RS256", headers={**named, "crit": ["exp"]})
    return jwt.encode(payload, key.private, algorithm="RS256", headers=named)


def userinfo(claims: Document, forgery: Forgery | None) -> Document:
    """Return what userinfo says of a login."""
    match forgery:
        case Forgery.NO_ADDRESS:
            return present(claims | _NO_EMAIL)
        case Forgery.UNSAID_VERIFICATION:
            return present(claims | {"email_verified": None})
        case Forgery.OTHER_USERINFO:
            return claims | {"sub": f"{claims['sub']}0"}
    return claims
