"""What the providers publish, for the local issuer: discovery documents, and what their keys look like."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extauthz.demo import company
from extauthz.demo.openid_providers import AUTH0_KEYS, COGNITO_KEYS, KEYCLOAK_KEYS, REALM
from extauthz.demo.providers import AZURE_ISSUER, AZURE_V1_ISSUER, INTROSPECTION, OKTA, ONELOGIN, TENANT, Document

DISCOVERY = "/.well-known/openid-configuration"

KEY_SETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        f"{OKTA}/v1/keys": {"alg": "RS256"},
        "/oauth2/v1/keys": {"alg": "RS256"},
        f"/{TENANT}/discovery/v2.0/keys": {"x5t": "", "issuer": AZURE_ISSUER},
        f"/{TENANT}/discovery/keys": {"x5t": ""},
        f"{ONELOGIN}/certs": {},
        company.KEYS: {"alg": "RS256"},
        **{path: {"alg": "RS256"} for path in (KEYCLOAK_KEYS, AUTH0_KEYS, COGNITO_KEYS)},
    }
)
"""What the keys at a path have beside kty, use, kid, n and e; an empty x5t stands for the kid."""


def discovery_documents(base: str) -> dict[str, Document]:
    """Return the discovery document of every issuer by its path."""
    return {
        OKTA + DISCOVERY: {"issuer": base + OKTA, "jwks_uri": f"{base}{OKTA}/v1/keys"},
        DISCOVERY: _okta_org(base),
        f"/{TENANT}/v2.0{DISCOVERY}": _azure(AZURE_ISSUER, f"{base}/{TENANT}", "/v2.0"),
        f"/{TENANT}{DISCOVERY}": _azure(AZURE_V1_ISSUER, f"{base}/{TENANT}", ""),
        ONELOGIN + DISCOVERY: _onelogin(base + ONELOGIN),
        company.PATH + DISCOVERY: company.discovery(base),
        REALM + DISCOVERY: {"issuer": base + REALM, "jwks_uri": base + KEYCLOAK_KEYS},
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


def _words(text: str) -> list[str]:
    return text.split()
