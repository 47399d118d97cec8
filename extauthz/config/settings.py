"""The sections of extauthz.yaml; each model is one section, each field one key."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag, ValidationInfo, field_validator

from extauthz.addresses import Address
from extauthz.config.values import Duration, ListenAddress, PositiveDuration, PositiveSize, Scope, Secret, Section, text
from extauthz.core.act_as import ACT_AS_HEADERS, compile_patterns
from extauthz.core.providers import PROVIDERS, expanded, provider_of

NOT_YET = frozenset(
    {
        "server.tls",
        "oauth.client_secret",
        "oauth.tokeninfo_uri",
        "oauth.introspection_uri",
        "oauth.userinfo_uri",
        "oauth.remote_timeout",
        "tokens.max_staleness",
        "tokens.poll_interval",
        "roles",
    }
)
"""Keys of the design that this release does not serve: refused, because ignoring them would promise what is not done."""

_HEADER_NAME = re.compile(r"[a-z][a-z0-9-]*").fullmatch
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NAME_RULE = "write 1 to 64 letters, digits, '.', '_' and '-'; the first is a letter or a digit"

Name = Annotated[str, text(_NAME, _NAME_RULE)]
Prefix = Annotated[str, text(r"[a-z][a-z0-9]{0,15}", "write 1 to 16 lower-case letters and digits; the first is a letter")]
Domain = Annotated[str, text(rf"\*|{_LABEL}(?:\.{_LABEL})+", 'write a domain, like acme.com, or "*" for every domain')]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
MAX_LEEWAY = 60.0
ONE, SEVERAL = "(one provider)", "(several providers)"
"""The forms of the oauth section; pydantic puts them into the paths of its errors."""
MIN_REFRESH, MAX_REFRESH = 60.0, 3600.0


def _one_or_many(value: object) -> object:
    """Let one comma-separated string stand for a list, as the admin form of the API writes client ids."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _header_name(name: str) -> str:
    if not _HEADER_NAME(name.lower()):
        raise ValueError(f"{name!r} is not a header name: write letters, digits and '-'")
    return name.lower()


def _address_pattern(pattern: str) -> str:
    compile_patterns([pattern])
    return pattern


StringOrList = Annotated[list[NonEmpty], BeforeValidator(_one_or_many), Field(min_length=1)]
Proxy = Annotated[str, text(r"https?://[^/?#@\s]+", "write the address of a proxy, like http://proxy.acme.com:3128")]
OutboundAddress = Annotated[
    str,
    text(
        r"(?:https://[^/?#@\s]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)(?:/[^#\s]*)?",
        "write an https address (plain http is read from loopback only)",
    ),
]
Domains = Annotated[list[Domain], BeforeValidator(_one_or_many), Field(min_length=1)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
AddressPattern = Annotated[str, AfterValidator(_address_pattern)]


class ServerSection(Section):
    """Where and how checks are answered."""

    listen: ListenAddress = Field(examples=["listen: 127.0.0.1:9001"])
    socket_mode: Annotated[str, text(r"0[0-7]{3}", 'write four octal digits that begin with 0, like "0660"')] = "0660"
    socket_group: NonEmpty | None = None
    transport: Literal["auto", "grpcio"] = "auto"
    workers: int = Field(default=1, ge=1)
    max_in_flight: int = Field(default=1000, ge=1)
    max_token_size: PositiveSize = 16 * 1024
    check_timeout: PositiveDuration = 0.15
    drain: Duration = 10.0
    ops: ListenAddress | None = Address(host="127.0.0.1", port=9090)

    @field_validator("transport", mode="before")
    @classmethod
    def _served_transport(cls, name: object) -> object:
        if name == "nghttp2":
            raise ValueError("nghttp2 is not available in this release: write auto or grpcio")
        return name

    @field_validator("workers")
    @classmethod
    def _one_worker(cls, count: int) -> int:
        if count != 1:
            raise ValueError("several workers are not available in this release: write 1")
        return count

    @field_validator("ops")
    @classmethod
    def _own_address(cls, ops: Address | None, info: ValidationInfo) -> Address | None:
        if ops is not None and ops.path:
            raise ValueError(
                "a unix socket is not available here in this release: write an address and a port, like 127.0.0.1:9090"
            )
        if ops is not None and ops == info.data.get("listen") and ops.port:
            raise ValueError(f"{ops} is also the address of listen: write another one")
        return ops


class ProviderEntry(Section):
    """One provider: whose access tokens are accepted, for whom."""

    name: Name | None = None
    provider: Literal["okta", "azure"] = Field(examples=["provider: okta"])
    issuer: str = Field(examples=["issuer: https://acme.okta.com/oauth2/default"])
    client_ids: StringOrList = Field(
        examples=["client_ids: [0oa1example]"], description="tokens of all other applications are refused"
    )
    audience: StringOrList | None = None
    user_claim: NonEmpty | None = None
    domains: Domains | None = None
    scopes: list[Scope] | None = Field(default=None, min_length=1)
    guests: bool = False
    leeway: Duration = MAX_LEEWAY
    verification: Literal["jwks"] = "jwks"
    jwks_uri: OutboundAddress | None = None

    @field_validator("provider", mode="before")
    @classmethod
    def _served_provider(cls, name: object) -> object:
        if name in ("gsuite", "onelogin"):
            raise ValueError(f"{name} is not available in this release: okta custom authorization servers and azure are")
        return name

    @field_validator("verification", mode="before")
    @classmethod
    def _served_verification(cls, name: object) -> object:
        if name in ("introspection", "userinfo"):
            raise ValueError(f"{name} is not available in this release: write jwks")
        return name

    @field_validator("issuer")
    @classmethod
    def _written_out(cls, issuer: str, info: ValidationInfo) -> str:
        name, written = info.data.get("provider"), expanded(issuer)
        if name is None or provider_of(name, written):
            return written
        if name == "okta":
            raise ValueError(
                f"{issuer!r} is not a custom authorization server: write {PROVIDERS[name][0].issuer_form}; "
                "the org server signs access tokens with a key that it does not publish (plain http is read from loopback only)"
            )
        raise ValueError(f"{issuer!r} is not an issuer of {name}: write {PROVIDERS[name][0].issuer_form}")

    @field_validator("leeway")
    @classmethod
    def _bounded_leeway(cls, seconds: float) -> float:
        if seconds > MAX_LEEWAY:
            raise ValueError("is too long: write at most 60s")
        return seconds


class OAuthCommon(Section):
    """What counts for the tokens of every provider."""

    enabled: bool = True
    verdict_ttl: PositiveDuration = 300.0
    refresh: PositiveDuration = 600.0
    max_key_age: PositiveDuration = 86400.0
    proxy: Proxy | None = None
    ca_file: NonEmpty | None = None

    @field_validator("refresh")
    @classmethod
    def _bounded_refresh(cls, seconds: float) -> float:
        if not MIN_REFRESH <= seconds <= MAX_REFRESH:
            raise ValueError(f"{seconds:g} seconds: write 1m to 1h")
        return seconds


class OAuthSection(ProviderEntry, OAuthCommon):
    """Access tokens of the company's one SSO provider."""

    @property
    def entries(self) -> list[ProviderEntry]:
        """The provider."""
        return [self]


class OAuthListSection(OAuthCommon):
    """Access tokens of several SSO providers; the issuer of a token picks one."""

    providers: list[ProviderEntry] = Field(min_length=1)

    @property
    def entries(self) -> list[ProviderEntry]:
        """The providers."""
        return self.providers


def _form_of_oauth(section: object) -> str:
    several = isinstance(section, OAuthListSection) or (isinstance(section, dict) and "providers" in section)
    return SEVERAL if several else ONE


OAuth = Annotated[Annotated[OAuthSection, Tag(ONE)] | Annotated[OAuthListSection, Tag(SEVERAL)], Discriminator(_form_of_oauth)]


class PepperSetting(Secret):
    """A key of the token digests, kept outside of the store."""

    id: Annotated[str, text(_NAME, _NAME_RULE, shown=False)] = Field(examples=["id: p1"])


class TokensSection(Section):
    """Tokens that the company issues itself."""

    enabled: bool = True
    # What `repr` leaves out is in no mistake either: here a password or a pepper may stand that belongs elsewhere.
    store: str = Field(repr=False, examples=["store: sqlite:///../data/tokens.db"])
    prefix: Prefix = "glean"
    accept_prefixes: list[Prefix] = Field(default_factory=list)
    peppers: list[PepperSetting] = Field(min_length=1, repr=False, examples=["peppers: [{id: p1, file: ../data/pepper-p1}]"])
    verdict_ttl: PositiveDuration = 60.0
    max_lifetime: PositiveDuration = 365 * 86400.0

    @field_validator("store")
    @classmethod
    def _sqlite(cls, store: str) -> str:
        if store.startswith("postgresql"):
            raise ValueError("PostgreSQL is not available in this release: write sqlite:///path/tokens.db")
        if not store.startswith("sqlite:///") or store == "sqlite:///":
            raise ValueError("write sqlite:///path/tokens.db, relative to this file")
        return store


class ActAsSection(Section):
    """Whom GLOBAL tokens may act for; USER addresses are compared with it when a token is made."""

    headers: list[HeaderName] = Field(default_factory=lambda: list(ACT_AS_HEADERS))
    allow: list[AddressPattern] = Field(default_factory=list, examples=['allow: ["*@acme.com"]'])
    deny: list[AddressPattern] = Field(default_factory=list, examples=['deny: ["ceo@acme.com"]'])


class IdentitySection(Section):
    """Which headers the upstream gets."""

    prefix: str = "x-extauthz-"
    keep: list[HeaderName] = Field(default_factory=list)

    @field_validator("prefix")
    @classmethod
    def _usable_prefix(cls, prefix: str) -> str:
        if not re.fullmatch(r"x-(?:[a-z0-9]+-)+", prefix) or prefix.startswith(("x-envoy-", "x-forwarded-", "x-glean-", "x-scio-")):
            raise ValueError(f"{prefix!r}: write a prefix of your own in lower case that ends with '-', like x-acme-")
        return prefix


class EnvoySection(Section):
    """How answers are told to Envoy."""

    error_response: bool = False


class Settings(Section):
    """The whole of extauthz.yaml."""

    version: Literal[1] = Field(examples=["version: 1"])
    server: ServerSection = Field(examples=["server: {listen: 127.0.0.1:9001}"])
    oauth: OAuth | None = None
    tokens: TokensSection | None = None
    act_as: ActAsSection = ActAsSection()
    identity: IdentitySection = IdentitySection()
    envoy: EnvoySection = EnvoySection()
    realm: Annotated[str, text(r"[A-Za-z0-9 ._:/@-]{1,64}", "write 1 to 64 letters, digits, spaces and . _ : / @ -")] = "extauthz"
    scopes: list[Scope] = Field(min_length=1, examples=["scopes: [SEARCH, CHAT]"])
    routes: list[NonEmpty] = Field(min_length=1, examples=["routes: [routes/glean-client-api.yaml]"])
    mode: Literal["enforce"] = "enforce"

    @field_validator("mode", mode="before")
    @classmethod
    def _enforced(cls, mode: object) -> object:
        if mode == "monitor":
            raise ValueError("monitor is not available in this release: write enforce")
        return mode
