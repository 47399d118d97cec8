"""What the SSO providers differ in, as data; adding one is one row.

An issuer picks the row: one provider may write several kinds of tokens, as Azure does with its versions 1.0 and 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

_GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ORIGIN = r"(?:https://[^/?#@\s]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)"


@dataclass(frozen=True, slots=True)
class Provider:
    """How one provider writes its JWT access tokens.

    `issuer` matches its issuers, with a group `tenant` where there is one; `discovery` is the address of the discovery document,
    `issuer_form` says in words what to write. `client_claim`, `user_claim` and `scope_claim` name claims; with `own_audience` a
    token for the client itself is accepted. An ID token is told by any of `id_token_claims` or by a `jti` that starts with
    `id_token_jti`; a token of an application without a user by the absence of one of `user_token_claims`, or by one of
    `app_token_marks`. `fixed_claims` must have these values, `tenant_claim` that of the issuer. `home_claim` names the issuer of a
    guest's home, and `verified_claim` says whether the address was verified.
    """

    name: str
    issuer: re.Pattern[str]
    issuer_form: str
    algorithms: frozenset[str]
    client_claim: str
    user_claim: str
    scope_claim: str
    id_token_claims: frozenset[str] = frozenset({"nonce", "at_hash", "c_hash"})
    id_token_jti: str = ""
    user_token_claims: frozenset[str] = frozenset()
    app_token_marks: Mapping[str, str] = field(default_factory=dict, hash=False)
    fixed_claims: Mapping[str, str] = field(default_factory=dict, hash=False)
    tenant_claim: str = ""
    home_claim: str = ""
    verified_claim: str = ""
    own_audience: bool = False
    discovery: str = "{issuer}/.well-known/openid-configuration"


# All tenants share the signing keys: the exact issuer, and `tid` beside it, are the boundary of the tenant.
_AZURE_2 = Provider(
    name="azure",
    issuer=re.compile(rf"https://login\.microsoftonline\.com/(?P<tenant>{_GUID})/v2\.0"),
    issuer_form="<directory_ID>/v2.0, or https://sts.windows.net/<directory_ID>/ for tokens of version 1.0",
    algorithms=frozenset({"RS256"}),
    client_claim="azp",
    user_claim="preferred_username",
    scope_claim="scp",
    app_token_marks={"idtyp": "app"},
    fixed_claims={"ver": "2.0"},
    tenant_claim="tid",
    home_claim="idp",
    verified_claim="xms_edov",
    own_audience=True,
)
_AZURE_1 = replace(
    _AZURE_2,
    issuer=re.compile(rf"https://sts\.windows\.net/(?P<tenant>{_GUID})/"),
    client_claim="appid",
    user_claim="upn",
    fixed_claims={"ver": "1.0"},
    discovery="https://login.microsoftonline.com/{tenant}/.well-known/openid-configuration",
)

PROVIDERS: Mapping[str, tuple[Provider, ...]] = MappingProxyType(
    {
        "okta": (
            # A custom authorization server. The org server, an issuer without a path, signs access tokens with a key that it
            # does not publish, so they cannot be verified in this way.
            Provider(
                name="okta",
                issuer=re.compile(rf"{_ORIGIN}/oauth2/[^/?#\s]+"),
                issuer_form="https://<org>.okta.com/oauth2/<id>",
                algorithms=frozenset({"RS256", "ES256"}),
                client_claim="cid",
                user_claim="sub",
                scope_claim="scp",
                id_token_jti="ID.",
                user_token_claims=frozenset({"uid"}),
            ),
        ),
        "azure": (_AZURE_2, _AZURE_1),
    }
)


def expanded(issuer: str) -> str:
    """Write out the short issuer of the admin form, `<directory_ID>/v2.0`; anything else is taken as it is."""
    return f"https://login.microsoftonline.com/{issuer}" if re.fullmatch(rf"{_GUID}/v2\.0", issuer) else issuer


def provider_of(name: str, issuer: str) -> Provider | None:
    """Return the row of an expanded issuer, or None when it is none of this provider's."""
    return next((row for row in PROVIDERS[name] if row.issuer.fullmatch(issuer)), None)


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """One configured provider: whose tokens are accepted, for whom. `leeway` is in seconds and never prolongs `exp`.

    `domains` None accepts every domain. `scopes` is what each of its tokens may do. `guests` lets in users of other tenants.
    `jwks_uri` is where the keys are, in place of the discovered address.
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
    guests: bool = False
    jwks_uri: str | None = None

    @property
    def tenant(self) -> str:
        """The tenant that the issuer names, "" for a provider without tenants."""
        found = self.provider.issuer.fullmatch(self.issuer)
        return found.groupdict().get("tenant", "") if found else ""

    @property
    def discovery(self) -> str:
        """Where the discovery document stands (OpenID Connect Discovery 4)."""
        return self.provider.discovery.format(issuer=self.issuer.rstrip("/"), tenant=self.tenant)
