"""What well-known providers by OpenID Connect write into access tokens, for the local issuer, and how the demo accepts them."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

WEB_CLIENT, API = "web", "https://api.acme.com"
REALM = "/realms/acme"
KEYCLOAK_KEYS = f"{REALM}/protocol/openid-connect/certs"
AUTH0_KEYS = "/.well-known/jwks.json"
POOL = "eu-west-1_Zb1example"
COGNITO_ISSUER = f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL}"
COGNITO_KEYS = f"/{POOL}/.well-known/jwks.json"
EMAIL_OF_AUTH0 = "https://acme.com/email"
_NAMESPACE = uuid.UUID("88888888-8888-8888-8888-888888888888")


def keycloak_entry(base: str) -> dict[str, Any]:
    """Return the entry that accepts tokens of the realm at `base`."""
    return {
        "provider": "keycloak",
        "issuer": base + REALM,
        "client_ids": [WEB_CLIENT],
        "audience": API,
        "scopes": ["CHAT", "SEARCH"],
        "scope_claim": "realm_access.roles",
        "scope_map": {"editor": ["CHAT", "SEARCH"]},
    }


def auth0_entry(base: str) -> dict[str, Any]:
    """Return the entry that accepts tokens of the tenant at `base`, with the address that an Action adds."""
    return {
        "provider": "auth0",
        "issuer": f"{base}/",
        "client_ids": [WEB_CLIENT],
        "audience": API,
        "user_claim": EMAIL_OF_AUTH0,
        "scopes": ["CHAT", "SEARCH"],
        "scope_claim": "permissions",
        "scope_map": {"write:chat": ["CHAT"], "read:search": ["SEARCH"]},
        "jwks_uri": base + AUTH0_KEYS,
    }


def cognito_entry(base: str) -> dict[str, Any]:
    """Return the entry that accepts tokens of a user pool whose keys are at `base`, and whose user names are addresses."""
    return {
        "provider": "cognito",
        "issuer": COGNITO_ISSUER,
        "client_ids": [WEB_CLIENT],
        "user_claim": "username",
        "scopes": ["CHAT", "SEARCH"],
        "scope_map": {f"{API}/chat": ["CHAT"], f"{API}/search": ["SEARCH"]},
        "jwks_uri": base + COGNITO_KEYS,
    }


def keycloak_claims(base: str, user: str, now: int, expires_at: int) -> dict[str, Any]:
    """Return the claims of an access token of Keycloak with the client scopes email and profile, and an audience mapper."""
    return {
        "exp": expires_at,
        "iat": now,
        "jti": f"onrtac:{uuid.uuid4()}",
        "iss": base + REALM,
        "aud": [API, "account"],
        "sub": str(uuid.uuid5(_NAMESPACE, user)),
        "typ": "Bearer",
        "azp": WEB_CLIENT,
        "sid": str(uuid.uuid4()),
        "acr": "1",
        "realm_access": {"roles": ["default-roles-acme", "editor", "offline_access"]},
        "scope": "openid email profile",
        "email_verified": True,
        "preferred_username": user.partition("@")[0],
        "email": user,
    }


def auth0_claims(base: str, user: str, now: int, expires_at: int) -> dict[str, Any]:
    """Return the claims of an access token of Auth0 for an API and userinfo."""
    return {
        EMAIL_OF_AUTH0: user,
        "iss": f"{base}/",
        "sub": f"auth0|{hashlib.sha256(user.encode()).hexdigest()[:24]}",
        "aud": [API, f"{base}/userinfo"],
        "iat": now,
        "exp": expires_at,
        "azp": WEB_CLIENT,
        "scope": "openid profile email",
        "permissions": ["write:chat"],
    }


def cognito_claims(user: str, now: int, expires_at: int) -> dict[str, Any]:
    """Return the claims of an access token of a Cognito user pool, which names no audience."""
    subject = str(uuid.uuid5(_NAMESPACE, user))
    return {
        "sub": subject,
        "iss": COGNITO_ISSUER,
        "version": 2,
        "client_id": WEB_CLIENT,
        "origin_jti": str(uuid.uuid4()),
        "event_id": str(uuid.uuid4()),
        "token_use": "access",
        "scope": f"openid profile email {API}/chat",
        "auth_time": now,
        "exp": expires_at,
        "iat": now,
        "jti": str(uuid.uuid4()),
        "username": user,
    }
