"""What the SSO providers differ in, as data; adding one is one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Provider:
    """How one provider writes its JWT access tokens.

    `client_claim`, `user_claim` and `scope_claim` name claims. An ID token is told by any of `id_token_claims` or by a `jti` that
    starts with `id_token_jti`; a token of an application without a user by the absence of one of `user_token_claims`.
    """

    name: str
    algorithms: frozenset[str]
    client_claim: str
    user_claim: str
    scope_claim: str
    id_token_claims: frozenset[str]
    id_token_jti: str
    user_token_claims: frozenset[str]


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        row.name: row
        for row in (
            # A custom authorization server, https://<org>.okta.com/oauth2/<id>. The org server signs access tokens with a key
            # that it does not publish, so they cannot be verified in this way.
            Provider(
                name="okta",
                algorithms=frozenset({"RS256", "ES256"}),
                client_claim="cid",
                user_claim="sub",
                scope_claim="scp",
                id_token_claims=frozenset({"nonce", "at_hash", "c_hash"}),
                id_token_jti="ID.",
                user_token_claims=frozenset({"uid"}),
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """One configured provider: whose tokens are accepted, for whom. `leeway` is in seconds and never prolongs `exp`.

    `domains` None accepts every domain. `scopes` is what each of its tokens may do.
    """

    name: str
    provider: Provider
    issuer: str
    client_ids: frozenset[str]
    audience: frozenset[str]
    scopes: frozenset[str]
    user_claim: str
    domains: frozenset[str] | None = None
    leeway: float = 60.0
