"""What the providers write into access tokens and answer about them, for the local issuer, and how the demo accepts them."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from extauthz.demo import company, openid_providers

Document = dict[str, Any]

CLIENT_ID = "0oa1demo"
CLIENT_SECRET = "demo-client-secret"
AUDIENCE = "api://default"
TENANT = "88888888-8888-8888-8888-888888888888"
AZURE_CLIENT = "33333333-3333-3333-3333-333333333333"
GOOGLE_CLIENT = "123456789012-demo.apps.googleusercontent.com"
ONELOGIN_CLIENT = "ed6dd790-0000-0136-df57-0a163e67b84c140139"

AZURE_ISSUER = f"https://login.microsoftonline.com/{TENANT}/v2.0"
AZURE_V1_ISSUER = f"https://sts.windows.net/{TENANT}/"
OKTA, ONELOGIN = "/oauth2/default", "/oidc/2"
INTROSPECTION, TOKENINFO = "/oauth2/v1/introspect", "/tokeninfo"

_GOOGLE_SCOPES = "https://www.googleapis.com/auth/userinfo."
_SECONDS_LEFT = "<seconds left>"


class IssuerRole(StrEnum):
    """Whose part the issuer plays; its value is the name of the demo's entry for it, and begins with that of the provider."""

    OKTA = "okta"
    OKTA_ORG = "okta-org"
    AZURE = "azure"
    AZURE_V1 = "azure-1"
    GSUITE = "gsuite"
    ONELOGIN = "onelogin"
    OIDC = "oidc"
    KEYCLOAK = "keycloak"
    AUTH0 = "auth0"
    COGNITO = "cognito"

    @property
    def variable(self) -> str:
        """The shell variable that holds a token of this role in the demo."""
        return "OAUTH" if self is IssuerRole.OKTA else self.value.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token that was issued: to whom, with which claims, and when it ends. For Google the claims are tokeninfo's."""

    role: IssuerRole
    user: str
    claims: Mapping[str, Any]
    expires_at: float

    @property
    def scopes(self) -> list[str]:
        """The granted scopes, by the short names of OpenID Connect."""
        granted = self.claims.get("scp", self.claims.get("scope")) or []
        names = granted.split() if isinstance(granted, str) else granted
        return [name.removeprefix(_GOOGLE_SCOPES) for name in names]


USERINFO: Mapping[str, IssuerRole] = MappingProxyType(
    {"/oauth2/v1/userinfo": IssuerRole.OKTA_ORG, "/v1/userinfo": IssuerRole.GSUITE, f"{ONELOGIN}/me": IssuerRole.ONELOGIN}
)
"""Whose tokens each userinfo endpoint takes."""


def entry_of(role: IssuerRole, base: str) -> Document:
    """Return the entry of `oauth.providers` that accepts the tokens of the issuer at `base`; its secret is in client-secret."""
    entry: Document
    match role:
        case IssuerRole.OKTA:
            entry = {"provider": "okta", "issuer": base + OKTA, "client_ids": [CLIENT_ID], "audience": AUDIENCE}
        case IssuerRole.OKTA_ORG:
            entry = {"provider": "okta", "issuer": base, "client_ids": [CLIENT_ID], "client_secret": {"file": "client-secret"}}
        case IssuerRole.AZURE:
            keys = f"{base}/{TENANT}/discovery/v2.0/keys"
            entry = {"provider": "azure", "issuer": f"{TENANT}/v2.0", "client_ids": [AZURE_CLIENT], "jwks_uri": keys}
        case IssuerRole.AZURE_V1:
            keys = f"{base}/{TENANT}/discovery/keys"
            entry = {"provider": "azure", "issuer": AZURE_V1_ISSUER, "client_ids": [AZURE_CLIENT], "jwks_uri": keys}
        case IssuerRole.GSUITE:
            entry = {
                "provider": "gsuite",
                "client_ids": [GOOGLE_CLIENT],
                "domains": ["acme.com"],
                "hosted_domains": ["acme.com"],
                "tokeninfo_uri": base + TOKENINFO,
                "userinfo_uri": f"{base}/v1/userinfo",
            }
        case IssuerRole.ONELOGIN:
            entry = {"provider": "onelogin", "issuer": base + ONELOGIN, "client_ids": [ONELOGIN_CLIENT]}
        case IssuerRole.OIDC:
            entry = company.entry(base)
        case IssuerRole.KEYCLOAK:
            entry = openid_providers.keycloak_entry(base)
        case IssuerRole.AUTH0:
            entry = openid_providers.auth0_entry(base)
        case IssuerRole.COGNITO:
            entry = openid_providers.cognito_entry(base)
    return {"name": role.value, **entry}


def claims_of(role: IssuerRole, base: str, user: str, now: int, expires_at: int) -> Document:
    """Return the claims of a new access token; of an opaque one, what tokeninfo says of it."""
    number = str(int.from_bytes(hashlib.sha256(user.encode()).digest()[:16]))
    match role:
        case IssuerRole.OKTA | IssuerRole.OKTA_ORG:
            custom = role is IssuerRole.OKTA
            return {
                "ver": 1,
                "jti": f"AT.{secrets.token_urlsafe(16)}",
                "iss": base + OKTA if custom else base,
                "aud": AUDIENCE if custom else base,
                "sub": user,
                "iat": now,
                "exp": expires_at,
                "cid": CLIENT_ID,
                "uid": "00u1demo" if custom else f"00u{number[:17]}",
                "scp": ["openid", "email"],
            }
        case IssuerRole.AZURE | IssuerRole.AZURE_V1:
            times = {"iat": now, "nbf": now, "exp": expires_at}
            return times | (_azure_claims(user) if role is IssuerRole.AZURE else _azure_v1_claims(user))
        case IssuerRole.GSUITE:
            return {
                "azp": GOOGLE_CLIENT,
                "aud": GOOGLE_CLIENT,
                "sub": number[:21],
                "scope": f"openid {_GOOGLE_SCOPES}email {_GOOGLE_SCOPES}profile",
                "exp": str(expires_at),
                "expires_in": _SECONDS_LEFT,
                "email": user,
                "email_verified": "true",
                "access_type": "offline",
            }
        case IssuerRole.ONELOGIN:
            return {
                "jti": secrets.token_urlsafe(16)[:21],
                "sub": number[:8],
                "iss": base + ONELOGIN,
                "iat": now,
                "exp": expires_at,
                "scope": "openid profile email",
                "aud": ONELOGIN_CLIENT,
            }
        case IssuerRole.OIDC:
            return company.claims(base, user, now, expires_at)
        case IssuerRole.KEYCLOAK:
            return openid_providers.keycloak_claims(base, user, now, expires_at)
        case IssuerRole.AUTH0:
            return openid_providers.auth0_claims(base, user, now, expires_at)
        case IssuerRole.COGNITO:
            return openid_providers.cognito_claims(user, now, expires_at)


def _azure_claims(user: str) -> Document:
    return {
        "iss": AZURE_ISSUER,
        "aud": AZURE_CLIENT,
        "azp": AZURE_CLIENT,
        "azpacr": "0",
        "preferred_username": user,
        "scp": "access_as_user",
        **_azure_user(user, AZURE_ISSUER),
        "ver": "2.0",
    }


def _azure_v1_claims(user: str) -> Document:
    return {
        "iss": AZURE_V1_ISSUER,
        "aud": AZURE_CLIENT,
        "appid": AZURE_CLIENT,
        "appidacr": "0",
        "email": user,
        "idp": AZURE_V1_ISSUER,
        "unique_name": user,
        "upn": user,
        "scp": "user_impersonation",
        **_azure_user(user, AZURE_V1_ISSUER),
        "ver": "1.0",
    }


def _azure_user(user: str, issuer: str) -> Document:
    return {
        "oid": str(uuid.uuid5(uuid.UUID(TENANT), user)),
        "sub": hashlib.sha256(f"{issuer} {user}".encode()).hexdigest()[:43],
        "tid": TENANT,
    }


def headers_of(role: IssuerRole, kid: str) -> Document:
    """Return what the header of an access token has beside `alg`; `typ` None leaves out the usual "JWT"."""
    match role:
        case IssuerRole.OKTA | IssuerRole.OKTA_ORG | IssuerRole.COGNITO:
            return {"kid": kid, "typ": None}
        case IssuerRole.AZURE_V1:
            return {"kid": kid, "x5t": kid}
        case _:
            return {"kid": kid}


def introspection(token: Issued) -> Document:
    """Return what Okta says of an active token (RFC 7662 2.2)."""
    claims = token.claims
    answer = {
        "active": True,
        "scope": " ".join(token.scopes),
        "username": token.user if "uid" in claims else None,
        **{name: claims.get(name) for name in ("exp", "iat", "sub", "aud", "iss", "jti")},
        "token_type": "Bearer",
        "client_id": claims.get("cid"),
        "uid": claims.get("uid"),
    }
    return present(answer)


def tokeninfo(token: Issued, now: float) -> Document:
    """Return what Google says of a token: strings all of them."""
    seconds = str(int(token.expires_at - now))
    return {name: seconds if value == _SECONDS_LEFT else value for name, value in token.claims.items()}


def userinfo(token: Issued) -> Document:
    """Return what the scopes of a token disclose about its user (OpenID Connect Core 5.3.2)."""
    claims, user = token.claims, token.user
    name, _, domain = user.partition("@")
    parts: dict[str, Document] = {"profile": {"name": name.title()}}
    match token.role:
        case IssuerRole.GSUITE:
            parts["openid"] = {"sub": claims.get("sub"), "hd": None if domain == "gmail.com" else domain}
            parts["email"] = {"email": claims.get("email"), "email_verified": claims.get("email_verified") == "true"}
        case IssuerRole.ONELOGIN:
            parts["openid"], parts["email"] = {"sub": claims.get("sub")}, {"email": user}
            parts["profile"]["preferred_username"] = name
        case _:
            parts["openid"], parts["email"] = {"sub": claims.get("uid")}, {"email": user, "email_verified": True}
            parts["profile"]["preferred_username"] = user
    scopes = token.scopes
    return present({member: value for scope, part in parts.items() if scope in scopes for member, value in part.items()})


def present(members: Mapping[str, Any]) -> Document:
    """Leave out the members that are None."""
    return {name: value for name, value in members.items() if value is not None}
