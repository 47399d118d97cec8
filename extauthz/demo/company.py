"""A company's own issuer, which no preset knows: what it writes into access tokens, and how the demo accepts them."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from typing import Any

PATH = "/sso"
KEYS = f"{PATH}/protocol/openid-connect/certs"
AUDIENCE, CLIENT = "acme-api", "acme-web"

Claims = dict[str, Any]


def entry(base: str) -> Claims:
    """Return what `oauth.providers` has for the issuer at `base`."""
    return {"provider": "oidc", "issuer": base + PATH, "client_ids": [CLIENT], "audience": AUDIENCE, "scopes": "claim"}


def claims(base: str, user: str, now: int, expires_at: int) -> Claims:
    """Return the claims of a new access token."""
    name = user.partition("@")[0]
    return {
        "exp": expires_at,
        "iat": now,
        "auth_time": now,
        "jti": f"onrtac:{uuid.uuid4()}",
        "iss": base + PATH,
        "aud": [AUDIENCE, "account"],
        "sub": str(uuid.UUID(bytes=hashlib.sha256(f"{PATH} {user}".encode()).digest()[:16], version=4)),
        "typ": "Bearer",
        "azp": CLIENT,
        "sid": secrets.token_urlsafe(18),
        "acr": "1",
        "allowed-origins": ["https://app.acme.com"],
        "realm_access": {"roles": ["default-roles-acme", "offline_access"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": "openid email profile CHAT SEARCH",
        "email_verified": True,
        "name": name.title(),
        "preferred_username": name,
        "email": user,
    }


def discovery(base: str) -> Claims:
    """Return the discovery document."""
    endpoints = f"{base}{PATH}/protocol/openid-connect"
    return {
        "issuer": base + PATH,
        "authorization_endpoint": f"{endpoints}/auth",
        "token_endpoint": f"{endpoints}/token",
        "introspection_endpoint": f"{endpoints}/token/introspect",
        "userinfo_endpoint": f"{endpoints}/userinfo",
        "end_session_endpoint": f"{endpoints}/logout",
        "jwks_uri": base + KEYS,
        "id_token_signing_alg_values_supported": ["PS256", "RS256", "ES256", "HS256"],
        "code_challenge_methods_supported": ["plain", "S256"],
    }
