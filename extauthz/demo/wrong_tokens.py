"""Tokens of providers by OpenID Connect that no API should take, for the demo."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extauthz.demo.keys import IssuerKey
from extauthz.demo.providers import Document, IssuerRole, present


class WrongToken(StrEnum):
    """What is wrong with a token, behind the name of the role that issues it."""

    OIDC_ID_TOKEN = "oidc_id_token"
    OIDC_OTHER_AUDIENCE = "oidc_other_audience"
    OIDC_OTHER_CLIENT = "oidc_other_client"
    OIDC_OTHER_ISSUER = "oidc_other_issuer"
    """Its issuer ends in a slash."""
    OIDC_UNVERIFIED = "oidc_unverified"
    """Nobody has verified the user's address."""
    OIDC_OTHER_TYPE = "oidc_other_type"
    """Its header says that it tells of a security event."""
    OIDC_NOT_SIGNED = "oidc_not_signed"
    OIDC_PUBLIC_KEY = "oidc_public_key"
    """It is signed with HS256 and the public key, as if that were a secret."""
    OIDC_NO_SCOPE = "oidc_no_scope"
    """It is good, and may do nothing here."""
    KEYCLOAK_ID_TOKEN = "keycloak_id_token"
    KEYCLOAK_NO_MAPPER = "keycloak_no_mapper"
    """Its audience is that of every token of the realm, because no mapper adds another."""
    KEYCLOAK_SERVICE_ACCOUNT = "keycloak_service_account"
    AUTH0_ID_TOKEN = "auth0_id_token"
    AUTH0_FOR_USERINFO = "auth0_for_userinfo"
    """It was asked for without the audience of an API."""
    AUTH0_MACHINE = "auth0_machine"
    COGNITO_ID_TOKEN = "cognito_id_token"
    COGNITO_OTHER_CLIENT = "cognito_other_client"

    @property
    def role(self) -> IssuerRole:
        """Who issues it."""
        return IssuerRole(self.value.partition("_")[0])

    @property
    def variable(self) -> str:
        """The shell variable that holds it in the demo."""
        return self.value.upper()


_ID_TOKEN = {"at_hash": "y2Cr7o5Ys9kQdQdU9m8jAA", "nonce": "n-0S6_WzA2Mj"}
_CHANGES: Mapping[WrongToken, Callable[[Document], Document]] = {
    WrongToken.OIDC_ID_TOKEN: lambda genuine: {**_ID_TOKEN, "aud": genuine["azp"], "typ": "ID", "scope": None},
    WrongToken.OIDC_OTHER_AUDIENCE: lambda _: {"aud": ["acme-billing", "account"]},
    WrongToken.OIDC_OTHER_CLIENT: lambda _: {"azp": "acme-admin"},
    WrongToken.OIDC_OTHER_ISSUER: lambda genuine: {"iss": f"{genuine['iss']}/"},
    WrongToken.OIDC_UNVERIFIED: lambda _: {"email_verified": False},
    WrongToken.OIDC_NO_SCOPE: lambda _: {"scope": "openid email"},
    WrongToken.KEYCLOAK_ID_TOKEN: lambda genuine: {**_ID_TOKEN, "aud": genuine["azp"], "typ": "ID", "scope": None},
    WrongToken.KEYCLOAK_NO_MAPPER: lambda _: {"aud": "account"},
    WrongToken.KEYCLOAK_SERVICE_ACCOUNT: lambda genuine: {
        "preferred_username": f"service-account-{genuine['azp']}",
        "client_id": genuine["azp"],
        "sid": None,
    },
    WrongToken.AUTH0_ID_TOKEN: lambda genuine: {"aud": genuine["azp"], "nonce": _ID_TOKEN["nonce"], "scope": None},
    WrongToken.AUTH0_FOR_USERINFO: lambda genuine: {"aud": f"{genuine['iss']}userinfo"},
    WrongToken.AUTH0_MACHINE: lambda genuine: {"sub": f"{genuine['azp']}@clients", "gty": "client-credentials"},
    WrongToken.COGNITO_ID_TOKEN: lambda genuine: {
        "token_use": "id",
        "aud": genuine["client_id"],
        "at_hash": _ID_TOKEN["at_hash"],
        "cognito:username": genuine["username"],
        **dict.fromkeys(("client_id", "scope", "username", "version")),
    },
    WrongToken.COGNITO_OTHER_CLIENT: lambda _: {"client_id": "of-somebody-else"},
}
"""What is other in the claims; None removes one."""


def wrong_token(genuine: Document, wrong: WrongToken, key: IssuerKey) -> str:
    """Sign claims with what is wrong in them, or sign them in a wrong way."""
    payload = present(genuine | (_CHANGES[wrong](genuine) if wrong in _CHANGES else {}))
    header = {"kid": key.kid, "typ": "JWT"}
    match wrong:
        case WrongToken.OIDC_NOT_SIGNED:
            return jwt.encode(payload, "", algorithm="none", headers=header)
        case WrongToken.OIDC_PUBLIC_KEY:
            public = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            return signed_with_secret(payload, public, header)
        case WrongToken.OIDC_OTHER_TYPE:
            header["typ"] = "secevent+jwt"
    return jwt.encode(payload, key.private, algorithm="RS256", headers=header)


def signed_with_secret(payload: Mapping[str, Any], secret: bytes, header: Mapping[str, str]) -> str:
    """Sign with HS256 and any secret: PyJWT knows a public key and would not do it."""
    parts = (jwt.utils.base64url_encode(json.dumps(part).encode()) for part in ({**header, "alg": "HS256"}, payload))
    signed = b".".join(parts)
    return b".".join((signed, jwt.utils.base64url_encode(hmac.digest(secret, signed, "sha256")))).decode()
