"""A company's own issuer, which writes tokens as Keycloak does, and tokens of its that no API should take."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extauthz.demo.keys import IssuerKey

REALM = "/realms/acme"
KEYS = f"{REALM}/protocol/openid-connect/certs"
AUDIENCE, CLIENT = "acme-api", "acme-web"

Claims = dict[str, Any]


class WrongToken(StrEnum):
    """What is wrong with a token of the company's issuer; the value is a part of the demo's shell variable for it."""

    ID_TOKEN = "id_token"
    OTHER_AUDIENCE = "other_audience"
    """It is for whatever the realm has, as every token without a mapper for an audience."""
    OTHER_CLIENT = "other_client"
    OTHER_ISSUER = "other_issuer"
    """Its issuer ends in a slash."""
    UNVERIFIED = "unverified"
    """Nobody has verified the user's address."""
    OTHER_TYPE = "other_type"
    """Its header says that it tells of a security event."""
    NOT_SIGNED = "not_signed"
    PUBLIC_KEY = "public_key"
    """It is signed with HS256 and the public key, as if that were a secret."""

    @property
    def variable(self) -> str:
        """The shell variable that holds it in the demo."""
        return f"OIDC_{self.value.upper()}"


def entry(base: str) -> Claims:
    """Return what `oauth.providers` has for the issuer at `base`."""
    return {"provider": "oidc", "issuer": base + REALM, "client_ids": [CLIENT], "audience": AUDIENCE}


def claims(base: str, user: str, now: int, expires_at: int) -> Claims:
    """Return the claims of a new access token."""
    name = user.partition("@")[0]
    return {
        "exp": expires_at,
        "iat": now,
        "auth_time": now,
        "jti": f"onrtac:{uuid.uuid4()}",
        "iss": base + REALM,
        "aud": [AUDIENCE, "account"],
        "sub": str(uuid.UUID(bytes=hashlib.sha256(f"{REALM} {user}".encode()).digest()[:16], version=4)),
        "typ": "Bearer",
        "azp": CLIENT,
        "sid": secrets.token_urlsafe(18),
        "acr": "1",
        "allowed-origins": ["https://app.acme.com"],
        "realm_access": {"roles": ["default-roles-acme", "offline_access"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": "openid email profile",
        "email_verified": True,
        "name": name.title(),
        "preferred_username": name,
        "email": user,
    }


def discovery(base: str) -> Claims:
    """Return the discovery document."""
    endpoints = f"{base}{REALM}/protocol/openid-connect"
    return {
        "issuer": base + REALM,
        "authorization_endpoint": f"{endpoints}/auth",
        "token_endpoint": f"{endpoints}/token",
        "introspection_endpoint": f"{endpoints}/token/introspect",
        "userinfo_endpoint": f"{endpoints}/userinfo",
        "end_session_endpoint": f"{endpoints}/logout",
        "jwks_uri": base + KEYS,
        "id_token_signing_alg_values_supported": ["PS256", "RS256", "ES256", "HS256"],
        "code_challenge_methods_supported": ["plain", "S256"],
    }


_CHANGES: Mapping[WrongToken, Callable[[Claims], Claims]] = {
    WrongToken.ID_TOKEN: lambda _: {"aud": CLIENT, "typ": "ID", "at_hash": "y2Cr7o5Ys9kQdQdU9m8jAA", "nonce": "n-0S6_WzA2Mj"},
    WrongToken.OTHER_AUDIENCE: lambda _: {"aud": "account"},
    WrongToken.OTHER_CLIENT: lambda _: {"azp": "acme-admin"},
    WrongToken.OTHER_ISSUER: lambda genuine: {"iss": f"{genuine['iss']}/"},
    WrongToken.UNVERIFIED: lambda _: {"email_verified": False},
}
"""What is other in the claims."""


def wrong_token(genuine: Claims, wrong: WrongToken, key: IssuerKey) -> str:
    """Sign claims with what is wrong in them, or sign them in a wrong way."""
    payload = genuine | (_CHANGES[wrong](genuine) if wrong in _CHANGES else {})
    header = {"kid": key.kid, "typ": "JWT"}
    match wrong:
        case WrongToken.NOT_SIGNED:
            return jwt.encode(payload, "", algorithm="none", headers=header)
        case WrongToken.PUBLIC_KEY:
            public = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            return signed_with_secret(payload, public, header)
        case WrongToken.OTHER_TYPE:
            header["typ"] = "secevent+jwt"
    return jwt.encode(payload, key.private, algorithm="RS256", headers=header)


def signed_with_secret(payload: Mapping[str, Any], secret: bytes, header: Mapping[str, str]) -> str:
    """Sign with HS256 and any secret: PyJWT knows a public key and would not do it."""
    parts = (jwt.utils.base64url_encode(json.dumps(part).encode()) for part in ({**header, "alg": "HS256"}, payload))
    signed = b".".join(parts)
    return b".".join((signed, jwt.utils.base64url_encode(hmac.digest(secret, signed, "sha256")))).decode()
