"""Providers by OpenID Connect beyond the table of the core, as data: any issuer, and how well-known ones write their tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import Provider, Verification

_ORIGIN = r"(?:https://[^/?#@{}\s]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)"
_PATH = r"(?:/(?!\.well-known/)[^/?#{}\s]+)*"
_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Preset:
    """What an entry begins with, whose keys may say otherwise; and what to ask of the entry.

    The first of `user_claims` that a token has is its user; without any the entry has to say who it is. `audience` is an example,
    "" where tokens name none. An audience like `common_audience` tells nothing, because many tokens have it. Everybody can get
    tokens from an issuer that `is_public`. With `keys_elsewhere` the issuer is no address where keys could be looked for.
    """

    provider: Provider
    user_claims: tuple[str, ...] = ()
    audience: str = "https://api.acme.com"
    common_audience: re.Pattern[str] = _NOTHING
    is_public: bool = False
    keys_elsewhere: bool = False


_OIDC = Provider(
    name="oidc",
    title="OpenID Connect",
    issuer=re.compile(rf"{_ORIGIN}{_PATH}/?"),
    issuer_form="https://sso.acme.com, exactly as it stands in the tokens, with or without a slash at the end",
    short_issuer=("(?!)", ""),
    algorithms=frozenset({"RS256", "ES256"}),
    verifications=(Verification.JWKS, Verification.INTROSPECTION),
    client_claims=("azp", "client_id", "cid"),
    user_claims=("email",),
    scope_claim="scope",
    has_scopes=False,
    id_token_claims=frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"}),
    foreign_marks={
        "typ": frozenset({"ID", "Refresh", "Offline", "Logout"}),
        "token_use": frozenset({"id", "refresh"}),
        "gty": frozenset({"client-credentials"}),
    },
    verified_claim="email_verified",
)
_KEYCLOAK = replace(
    _OIDC,
    name="keycloak",
    title="Keycloak",
    issuer=re.compile(rf"{_ORIGIN}{_PATH}/realms/[^/?#{{}}\s]+"),
    issuer_form="https://sso.acme.com/realms/<realm>",
    client_claims=("azp",),
    kind_claims={"typ": "Bearer"},
    # The user of a client without a person, which has a name and perhaps an address like others.
    user_claims=("email", "preferred_username"),
    app_users=re.compile(r"service-account-.*", re.IGNORECASE | re.DOTALL),
)
_AUTH0 = replace(
    _OIDC,
    name="auth0",
    title="Auth0",
    issuer=re.compile(rf"{_ORIGIN}/"),
    issuer_form="https://<tenant>.auth0.com/, with the slash at the end",
    client_claims=("azp", "client_id"),
    app_users=re.compile(r".*@clients", re.DOTALL),
)
_COGNITO = replace(
    _OIDC,
    name="cognito",
    title="Amazon Cognito",
    issuer=re.compile(r"https://cognito-idp\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P=region)_[A-Za-z0-9]+"),
    issuer_form="https://cognito-idp.<region>.amazonaws.com/<pool_ID>",
    algorithms=frozenset({"RS256"}),
    verifications=(Verification.JWKS,),
    client_claims=("client_id",),
    kind_claims={"token_use": "access"},
    has_scopes=True,
)
_PING = replace(
    _OIDC,
    name="ping",
    title="Ping Identity",
    issuer_form="https://auth.pingone.com/<environment_ID>/as for PingOne, or the base URL of PingFederate",
    client_claims=("client_id",),
)
_ZITADEL = replace(
    _OIDC,
    name="zitadel",
    title="ZITADEL",
    issuer=re.compile(_ORIGIN),
    issuer_form="https://<instance>.zitadel.cloud, without a slash at the end",
    client_claims=("azp", "client_id"),
    # Its ID tokens are for the same audiences as its access tokens.
    id_token_claims=_OIDC.id_token_claims | {"amr", "auth_time"},
)
_WORKLOADS = replace(_OIDC, verifications=(Verification.JWKS,), of_workloads=True, foreign_marks={}, verified_claim="")
_GOOGLE = replace(
    _WORKLOADS,
    name="google",
    title="Google Cloud workloads",
    issuer=re.compile(r"https://accounts\.google\.com"),
    issuer_form="https://accounts.google.com",
    algorithms=frozenset({"RS256"}),
    client_claims=("azp",),
    # Tokens of people have one of these.
    id_token_claims=_OIDC.id_token_claims | {"hd"},
    verified_claim="email_verified",
    must_verify=True,
)
_GITLAB = replace(
    _WORKLOADS,
    name="gitlab",
    title="GitLab CI",
    issuer=re.compile(rf"{_ORIGIN}{_PATH}"),
    issuer_form="https://gitlab.com, or the address of your GitLab",
    algorithms=frozenset({"RS256"}),
    client_claims=("project_path",),
)
_GITHUB = replace(
    _WORKLOADS,
    name="github",
    title="GitHub Actions",
    issuer=re.compile(rf"https://token\.actions\.githubusercontent\.com(?:/[A-Za-z0-9_-]+)?|{_ORIGIN}/_services/token"),
    issuer_form="https://token.actions.githubusercontent.com, or https://<host>/_services/token for GitHub Enterprise Server",
    algorithms=frozenset({"RS256"}),
    client_claims=("repository",),
)
# A JWT-SVID needs no `iss`: the trust domain of its subject says whose keys it is signed with.
_SPIFFE = replace(
    _WORKLOADS,
    name="spiffe",
    title="SPIFFE",
    issuer=re.compile(r"spiffe://[a-z0-9._-]{1,255}"),
    issuer_form="spiffe://<trust_domain>",
    client_claims=("sub",),
    header_types=frozenset({"jwt", "jose"}),
    key_uses=("sig", "jwt-svid"),
)

PUBLIC_ISSUERS = re.compile(rf"{_GOOGLE.issuer.pattern}|{_GITHUB.issuer.pattern}|https://gitlab\.com")
"""Issuers that give tokens to everybody, whatever provider an entry names them by."""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "oidc": Preset(_OIDC, ("email",)),
        "keycloak": Preset(_KEYCLOAK, ("email",), common_audience=re.compile("account|realm-management|broker")),
        "auth0": Preset(_AUTH0, common_audience=re.compile(r"https://[^/]+/(?:userinfo|api/v2/)")),
        "cognito": Preset(_COGNITO, audience=""),
        "ping": Preset(_PING, common_audience=re.compile(r"https://api\.pingone\.[a-z.]+")),
        "zitadel": Preset(_ZITADEL, audience="'<project_ID>'"),
        "google": Preset(_GOOGLE, ("email",), is_public=True),
        "gitlab": Preset(_GITLAB, is_public=True),
        "github": Preset(_GITHUB, common_audience=re.compile(r"https://github\.com/[^/]+"), is_public=True),
        "spiffe": Preset(_SPIFFE, audience="spiffe://acme.org/api", keys_elsewhere=True),
    }
)
ALL_PROVIDERS: Mapping[str, tuple[Provider, ...]] = MappingProxyType(
    {**PROVIDERS, **{name: (preset.provider,) for name, preset in PRESETS.items()}}
)
"""The rows of every provider that an entry may name; the console manages those of the core alone."""
