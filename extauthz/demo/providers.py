"""What Okta, Azure, Google and OneLogin publish, write into access tokens and answer about them, for the local issuer."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

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
DISCOVERY = "/.well-known/openid-configuration"
OKTA, ONELOGIN = "/oauth2/default", "/oidc/2"
INTROSPECTION, TOKENINFO = "/oauth2/v1/introspect", "/tokeninfo"

_GOOGLE_SCOPES = "https://www.googleapis.com/auth/userinfo."
_SECONDS_LEFT = "<seconds left>"


class IssuerRole(StrEnum):
    """Whose part the issuer plays."""

    OKTA = "okta"
    OKTA_ORG = "okta_org"
    AZURE = "azure"
    AZURE_V1 = "azure_v1"
    GSUITE = "gsuite"
    ONELOGIN = "onelogin"


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


KEY_SETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        f"{OKTA}/v1/keys": {"alg": "RS256"},
        "/oauth2/v1/keys": {"alg": "RS256"},
        f"/{TENANT}/discovery/v2.0/keys": {"x5t": "", "issuer": AZURE_ISSUER},
        f"/{TENANT}/discovery/keys": {"x5t": ""},
        f"{ONELOGIN}/certs": {},
    }
)
"""What the keys at a path have beside kty, use, kid, n and e; an empty x5t stands for the kid."""

USERINFO: Mapping[str, IssuerRole] = MappingProxyType(
    {"/oauth2/v1/userinfo": IssuerRole.OKTA_ORG, "/v1/userinfo": IssuerRole.GSUITE, f"{ONELOGIN}/me": IssuerRole.ONELOGIN}
)
"""Whose tokens each userinfo endpoint takes."""


def discovery_documents(base: str) -> dict[str, Document]:
    """Return the discovery document of every issuer by its path."""
    return {
        OKTA + DISCOVERY: {"issuer": base + OKTA, "jwks_uri": f"{base}{OKTA}/v1/keys"},
        DISCOVERY: _okta_org(base),
        f"/{TENANT}/v2.0{DISCOVERY}": _azure(AZURE_ISSUER, f"{base}/{TENANT}", "/v2.0"),
        f"/{TENANT}{DISCOVERY}": _azure(AZURE_V1_ISSUER, f"{base}/{TENANT}", ""),
        ONELOGIN + DISCOVERY: _onelogin(base + ONELOGIN),
    }


def _okta_org(base: str) -> Document:
    return {
        "issuer": base,
        "authorization_endpoint": f"{base}/oauth2/v1/authorize",
        "token_endpoint": f"{base}/oauth2/v1/token",
        "userinfo_endpoint": f"{base}/oauth2/v1/userinfo",
        "jwks_uri": f"{base}/oauth2/v1/keys",
        "id_token_signing_alg_values_supported": ["RS256"],
        "introspection_endpoint": base + INTROSPECTION,
        "introspection_endpoint_auth_methods_supported": _words(
            "client_secret_basic client_secret_post client_secret_jwt private_key_jwt none"
        ),
        "request_object_signing_alg_values_supported": _words("HS256 HS384 HS512 RS256 RS384 RS512 ES256 ES384 ES512"),
    }


def _azure(issuer: str, tenant: str, version: str) -> Document:
    return {
        "token_endpoint": f"{tenant}/oauth2{version}/token",
        "token_endpoint_auth_methods_supported": _words("client_secret_post private_key_jwt client_secret_basic"),
        "jwks_uri": f"{tenant}/discovery{version}/keys",
        "response_modes_supported": _words("query fragment form_post"),
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": _words("openid profile email offline_access"),
        "issuer": issuer,
        "request_uri_parameter_supported": False,
        "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
        "authorization_endpoint": f"{tenant}/oauth2{version}/authorize",
        "claims_supported": _words(
            "sub iss cloud_instance_name cloud_instance_host_name cloud_graph_host_name msgraph_host aud exp iat auth_time acr "
            "nonce preferred_username name tid ver at_hash c_hash email"
        ),
        "tenant_region_scope": "WW",
    }


def _onelogin(issuer: str) -> Document:
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/certs",
        "userinfo_endpoint": f"{issuer}/me",
        "introspection_endpoint": f"{issuer}/token/introspection",
        "introspection_endpoint_auth_methods_supported": _words("client_secret_basic client_secret_post none"),
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/token/revocation",
        "id_token_signing_alg_values_supported": _words("HS256 RS256 PS256"),
        "userinfo_signing_alg_values_supported": _words("HS256 RS256 PS256"),
        "claims_supported": _words(
            "sub email preferred_username name updated_at given_name family_name locale groups email_verified params phone_number "
            "acr sid auth_time iss"
        ),
        "scopes_supported": _words("openid name profile groups email params phone"),
        "grant_types_supported": _words("authorization_code implicit refresh_token client_credentials password"),
    }


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
        case IssuerRole.OKTA | IssuerRole.OKTA_ORG:
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


def _words(text: str) -> list[str]:
    return text.split()
