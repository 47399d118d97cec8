"""The sections of extauthz.yaml; each model is one section, each field one key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from extauthz.addresses import Address
from extauthz.config.values import Duration, ListenAddress, PositiveDuration, Scope, Secret, Section, Size
from extauthz.core.act_as import ACT_AS_HEADERS, compile_patterns

NOT_YET = frozenset(
    {
        "server.tls",
        "oauth.providers",
        "oauth.client_secret",
        "oauth.jwks_uri",
        "oauth.tokeninfo_uri",
        "oauth.introspection_uri",
        "oauth.userinfo_uri",
        "oauth.remote_timeout",
        "oauth.max_key_age",
        "oauth.refresh",
        "oauth.proxy",
        "oauth.ca_file",
        "tokens.max_staleness",
        "tokens.poll_interval",
        "roles",
    }
)
"""Keys of the design that this release does not serve: refused, because ignoring them would promise what is not done."""

_HEADER_NAME = re.compile(r"[a-z][a-z0-9-]*").fullmatch
_TOKEN_PREFIX = r"[a-z][a-z0-9]{0,15}"
_CUSTOM_SERVER = re.compile(r"(?:https://[^/?#@]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)/oauth2/[^/?#]+").fullmatch

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Prefix = Annotated[str, StringConstraints(pattern=f"^{_TOKEN_PREFIX}$")]
MAX_LEEWAY = 60.0


def _one_or_many(value: object) -> object:
    """Let one comma-separated string stand for a list, as the admin form of the API writes client ids."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _header_names(names: list[str]) -> list[str]:
    for name in names:
        if not _HEADER_NAME(name.lower()):
            raise ValueError(f"{name!r} is not a header name: write letters, digits and '-'")
    return [name.lower() for name in names]


StringOrList = Annotated[list[Annotated[str, StringConstraints(min_length=1)]], BeforeValidator(_one_or_many), Field(min_length=1)]


class ServerSection(Section):
    """Where and how checks are answered."""

    listen: ListenAddress
    socket_mode: Annotated[str, StringConstraints(pattern=r"^0[0-7]{3}$")] = "0660"
    socket_group: str | None = None
    transport: Literal["auto", "grpcio", "nghttp2"] = "auto"
    workers: int = Field(default=1, ge=1)
    max_in_flight: int = Field(default=1000, ge=1)
    max_token_size: Size = 16 * 1024
    check_timeout: PositiveDuration = 0.15
    drain: Duration = 10.0
    ops: ListenAddress | None = Address(host="127.0.0.1", port=9090)

    @field_validator("transport")
    @classmethod
    def _served_transport(cls, name: str) -> str:
        if name == "nghttp2":
            raise ValueError("nghttp2 is not available in this release: write auto or grpcio")
        return name

    @field_validator("workers")
    @classmethod
    def _one_worker(cls, count: int) -> int:
        if count != 1:
            raise ValueError("several workers are not available in this release: write 1")
        return count


class OAuthSection(Section):
    """Access tokens of the company's SSO provider."""

    enabled: bool = True
    name: Name | None = None
    provider: Literal["okta", "azure", "gsuite", "onelogin"]
    issuer: str
    client_ids: StringOrList
    audience: StringOrList
    user_claim: Annotated[str, StringConstraints(min_length=1)] | None = None
    domains: StringOrList | None = None
    scopes: list[Scope] | None = None
    leeway: Duration = MAX_LEEWAY
    verification: Literal["jwks"] = "jwks"
    verdict_ttl: PositiveDuration = 300.0

    @model_validator(mode="before")
    @classmethod
    def _audience_is_needed(cls, data: Any) -> Any:
        if isinstance(data, dict) and "audience" not in data and data.get("provider") == "okta":
            raise ValueError(
                "audience is missing: tokens of an okta custom authorization server are only yours if their audience is; "
                "write the one that the server's settings show, like audience: api://default"
            )
        return data

    @field_validator("provider")
    @classmethod
    def _served_provider(cls, name: str) -> str:
        if name != "okta":
            raise ValueError(f"{name} is not available in this release: only okta custom authorization servers are")
        return name

    @field_validator("issuer")
    @classmethod
    def _custom_server(cls, issuer: str) -> str:
        if not _CUSTOM_SERVER(issuer):
            raise ValueError(
                f"{issuer!r} is not a custom authorization server: write https://<org>.okta.com/oauth2/<id>; "
                "the org server signs access tokens with a key that it does not publish (plain http is read from loopback only)"
            )
        return issuer

    @field_validator("leeway")
    @classmethod
    def _bounded_leeway(cls, seconds: float) -> float:
        if seconds > MAX_LEEWAY:
            raise ValueError("at most 60s")
        return seconds


class PepperSetting(Secret):
    """A key of the token digests, kept outside of the store."""

    id: Name


class TokensSection(Section):
    """Tokens that the company issues itself."""

    enabled: bool = True
    store: str
    prefix: Prefix = "glean"
    accept_prefixes: list[Prefix] = Field(default_factory=list)
    peppers: list[PepperSetting] = Field(min_length=1)
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

    @field_validator("peppers")
    @classmethod
    def _different_ids(cls, peppers: list[PepperSetting]) -> list[PepperSetting]:
        if len({pepper.id for pepper in peppers}) != len(peppers):
            raise ValueError("two peppers have the same id")
        return peppers


class ActAsSection(Section):
    """Whom GLOBAL tokens may act for; USER addresses are compared with it when a token is made."""

    headers: list[str] = Field(default_factory=lambda: list(ACT_AS_HEADERS))
    allow: list[str] = Field(default_factory=list)
    deny: list[str] = Field(default_factory=list)

    _names = field_validator("headers")(staticmethod(_header_names))

    @field_validator("allow", "deny")
    @classmethod
    def _patterns(cls, patterns: list[str]) -> list[str]:
        compile_patterns(patterns)
        return patterns


class IdentitySection(Section):
    """Which headers the upstream gets."""

    prefix: str = "x-extauthz-"
    keep: list[str] = Field(default_factory=list)

    _names = field_validator("keep")(staticmethod(_header_names))

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

    version: Literal[1]
    server: ServerSection
    oauth: OAuthSection | None = None
    tokens: TokensSection | None = None
    act_as: ActAsSection = ActAsSection()
    identity: IdentitySection = IdentitySection()
    envoy: EnvoySection = EnvoySection()
    realm: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ._:/@-]{1,64}$")] = "extauthz"
    scopes: list[Scope] = Field(min_length=1)
    routes: list[str] = Field(min_length=1)
    mode: Literal["enforce", "monitor"] = "enforce"

    @field_validator("mode")
    @classmethod
    def _enforced(cls, mode: str) -> str:
        if mode != "enforce":
            raise ValueError("monitor is not available in this release: write enforce")
        return mode
