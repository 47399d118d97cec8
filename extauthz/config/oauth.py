"""The oauth section of extauthz.yaml, in its two forms: one provider, or several."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from extauthz.config.issuers import TENANT, issuers_of, names_of, not_an_issuer, provider_of, usual_verification
from extauthz.config.proxy import Proxy
from extauthz.config.scope_grants import CLAIM, ScopeGrant, ScopesOfValue
from extauthz.config.values import (
    TEXT,
    Duration,
    Name,
    NonEmpty,
    OutboundAddress,
    PositiveDuration,
    Secret,
    Section,
    WrittenAs,
    one_or_many,
    text,
)
from extauthz.core.act_as import address
from extauthz.core.providers import Provider, Verification

MAX_LEEWAY = 60.0
MIN_REFRESH, MAX_REFRESH = 60.0, 3600.0
MAX_REMOTE_TIMEOUT = 10.0
MAX_VERDICT_TTL = 3600.0
PERSONAL_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"
"""The Azure tenant of all personal Microsoft accounts, which anybody can make."""
MAX_TENANTS = 100
"""Each of them is asked for its keys."""
EVERY_CLIENT = "any"
"""The one client id that lets in every client of an issuer; the providers of the core have none."""
ADDRESSES = ("jwks_uri", "tokeninfo_uri", "introspection_uri", "userinfo_uri")
"""Keys with an address that is asked; with `tenants` each tenant has its own."""
ONE, SEVERAL = "(one provider)", "(several providers)"
"""The forms of the oauth section; pydantic puts them into the paths of its errors."""

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})+"

StringOrList = Annotated[list[NonEmpty], BeforeValidator(one_or_many), Field(min_length=1), WrittenAs(TEXT)]
Domain = Annotated[str, text(rf"\*|{_DOMAIN}", 'write a domain, like acme.com, or "*" for every domain')]
Domains = Annotated[list[Domain], BeforeValidator(one_or_many), Field(min_length=1), WrittenAs(TEXT)]
HostedDomain = Annotated[str, text(_DOMAIN, "write a domain, like acme.com")]
HostedDomains = Annotated[list[HostedDomain], BeforeValidator(one_or_many), Field(min_length=1), WrittenAs(TEXT)]


ProviderName = Literal[
    "azure",
    "gsuite",
    "okta",
    "onelogin",
    "oidc",
    "auth0",
    "cognito",
    "github",
    "gitlab",
    "google",
    "keycloak",
    "ping",
    "spiffe",
    "zitadel",
]
Tenant = Annotated[str, text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "write a tenant as it stands in the issuer, like a directory ID")]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
ClaimValue = str | bool | int


def _one_address(user: str) -> str:
    if address(user) is None or "*" in user:
        raise ValueError(f"{user!r} is not one e-mail address: write one, like ana@acme.com")
    return user


User = Annotated[str, AfterValidator(_one_address)]


def _or_empty(issuer: object) -> object:
    return "" if issuer is None else issuer


class ProviderEntry(Section):
    """One provider: whose access tokens are accepted, for whom."""

    name: Name | None = None
    provider: ProviderName = Field(examples=["provider: okta"])
    tenants: list[Tenant] | None = Field(default=None, min_length=1, max_length=MAX_TENANTS)
    issuer: Annotated[str, BeforeValidator(_or_empty), WrittenAs({"type": "null"})] = Field(default="", validate_default=True)
    client_ids: StringOrList = Field(
        examples=["client_ids: [0oa1example]"], description="tokens of all other applications are refused"
    )
    client_secret: Secret | None = Field(default=None, repr=False, examples=["client_secret: {env: OKTA_CLIENT_SECRET}"])
    audience: StringOrList | None = None
    user_claim: StringOrList | None = None
    users: dict[str, User] | None = Field(default=None, min_length=1, examples=['users: {"1234": ana@acme.com}'])
    domains: Domains | None = None
    hosted_domains: HostedDomains | None = None
    algorithms: list[Algorithm] | None = Field(default=None, min_length=1)
    client_claim: StringOrList | None = None
    introspection_client: NonEmpty | None = None
    jwt_type: Literal["at+jwt"] | None = None
    required_claims: dict[NonEmpty, ClaimValue | list[ClaimValue]] | None = Field(default=None, min_length=1)
    userinfo: bool = False
    opaque_tokens: bool = False
    signed_introspection: bool = False
    scopes: ScopeGrant | None = None
    scope_claim: StringOrList | None = None
    scope_map: dict[NonEmpty, ScopesOfValue] | None = Field(default=None, min_length=1, examples=["scope_map: {readers: [SEARCH]}"])
    guests: bool = False
    leeway: Duration = MAX_LEEWAY
    verification: Literal["jwks", "introspection", "userinfo", "tokeninfo"] | None = Field(default=None, validate_default=True)
    jwks_uri: OutboundAddress | None = None
    tokeninfo_uri: OutboundAddress | None = None
    introspection_uri: OutboundAddress | None = None
    userinfo_uri: OutboundAddress | None = None

    @property
    def row(self) -> Provider:
        """What is known about this provider."""
        row = provider_of(self.provider, issuers_of(self.provider, self.issuer, self.tenants)[0])
        if row is None:
            raise LookupError(f"{self.issuer} is no issuer of {self.provider}")
        return row

    @property
    def asks_userinfo(self) -> bool:
        """Tell whether userinfo is asked about the user of a token that is verified otherwise."""
        return (self.row.userinfo_user and self.users is None) or self.hosted_domains is not None or self.userinfo

    @property
    def reads_scopes(self) -> bool:
        """Tell whether a token holds what its claims say, and not all that it may hold at most."""
        return self.scopes == CLAIM or self.scope_claim is not None or self.scope_map is not None

    @property
    def method(self) -> Verification:
        """How tokens are verified."""
        return Verification(self.verification or self.row.verifications[0])

    @property
    def of_each_tenant(self) -> list[ProviderEntry]:
        """The entry, or one for each of its tenants."""
        if self.tenants is None:
            return [self]
        issuers = issuers_of(self.provider, self.issuer, self.tenants)
        names = names_of(self.name or self.provider, self.tenants)
        return [
            self.model_copy(update={"issuer": issuer, "name": name, "tenants": None, **self._addresses_of(tenant)})
            for issuer, name, tenant in zip(issuers, names, self.tenants, strict=True)
        ]

    def _addresses_of(self, tenant: str) -> dict[str, str]:
        addresses = {key: getattr(self, key) for key in ADDRESSES}
        return {key: address.replace(TENANT, tenant) for key, address in addresses.items() if address is not None}

    @field_validator("issuer")
    @classmethod
    def _full_issuer(cls, issuer: str, info: ValidationInfo) -> str:
        name, tenants = info.data.get("provider"), info.data.get("tenants")
        if name is None or "tenants" not in info.data:
            return issuer
        if tenants is None and TENANT in issuer:
            raise ValueError("{tenant} stands for each of `tenants`: list them, or write one tenant here")
        issuers = issuers_of(name, issuer, tenants)
        for full in issuers:
            if provider_of(name, full) is None:
                raise ValueError(not_an_issuer(name, issuer if tenants is None else full))
            if PERSONAL_TENANT in full:
                raise ValueError("this is the tenant of all personal Microsoft accounts: write the directory ID of your own")
        return issuer if TENANT in issuer else issuers[0]

    @field_validator("verification")
    @classmethod
    def _that_works(cls, verification: str | None, info: ValidationInfo) -> str | None:
        name, issuer = info.data.get("provider"), info.data.get("issuer")
        row = provider_of(name, issuer) if name and issuer else None
        if row is None:
            return verification
        if verification is None:
            return usual_verification(row, with_secret=info.data.get("client_secret") is not None).value
        if verification in row.verifications:
            return verification
        if verification == Verification.JWKS and name == "okta":
            raise ValueError(
                "jwks cannot verify tokens of Okta's org server, an issuer without a path: it signs them with a key that it does "
                "not publish. Write userinfo, or introspection with client_secret, or the issuer of a custom authorization server"
            )
        ways = " or ".join(row.verifications)
        raise ValueError(f"{verification} does not verify {name} tokens of this issuer: write {ways}, or leave the key out")

    @field_validator("leeway")
    @classmethod
    def _bounded_leeway(cls, seconds: float) -> float:
        if seconds > MAX_LEEWAY:
            raise ValueError("is too long: write at most 60s")
        return seconds


class OAuthCommon(Section):
    """What counts for the tokens of every provider."""

    managed_by: Literal["yaml", "console"] = "yaml"
    enabled: bool = True
    verdict_ttl: PositiveDuration = 300.0
    remote_verdict_ttl: PositiveDuration = 60.0
    remote_timeout: PositiveDuration = 2.0
    refresh: PositiveDuration = 600.0
    max_key_age: PositiveDuration = 86400.0
    proxy: Proxy | None = None
    ca_file: NonEmpty | None = None

    @field_validator("verdict_ttl", "remote_verdict_ttl")
    @classmethod
    def _bounded_verdicts(cls, seconds: float) -> float:
        if seconds > MAX_VERDICT_TTL:
            raise ValueError("is too long: write at most 1h")
        return seconds

    @field_validator("refresh")
    @classmethod
    def _bounded_refresh(cls, seconds: float) -> float:
        if not MIN_REFRESH <= seconds <= MAX_REFRESH:
            raise ValueError(f"{seconds:g} seconds: write 1m to 1h")
        return seconds

    @field_validator("remote_timeout")
    @classmethod
    def _bounded_remote_timeout(cls, seconds: float) -> float:
        if seconds > MAX_REMOTE_TIMEOUT:
            raise ValueError("is too long: write at most 10s")
        return seconds


class OAuthSection(ProviderEntry, OAuthCommon):
    """Access tokens of the company's one SSO provider."""

    @property
    def entries(self) -> list[ProviderEntry]:
        """The provider."""
        return [self]


class OAuthListSection(OAuthCommon):
    """Access tokens of several SSO providers; the issuer of a token picks one."""

    providers: list[ProviderEntry] = Field(
        min_length=1, examples=["providers: [{provider: azure, issuer: <directory_ID>/v2.0, client_ids: […]}]"]
    )

    @property
    def entries(self) -> list[ProviderEntry]:
        """The providers."""
        return self.providers

    @property
    def of_each_tenant(self) -> list[ProviderEntry]:
        """The providers, one for each of their tenants."""
        return [one for entry in self.providers for one in entry.of_each_tenant]


def _form_of_oauth(section: object) -> str:
    several = isinstance(section, OAuthListSection) or (isinstance(section, dict) and "providers" in section)
    return SEVERAL if several else ONE


OAuth = Annotated[Annotated[OAuthSection, Tag(ONE)] | Annotated[OAuthListSection, Tag(SEVERAL)], Discriminator(_form_of_oauth)]
