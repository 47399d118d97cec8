"""The sections of extauthz.yaml; each model is one section, each field one key."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator, model_validator

from extauthz.addresses import MAX_HOPS, Address
from extauthz.config import database_address
from extauthz.config.answers import AnswersSection
from extauthz.config.completeness import ReloadSection
from extauthz.config.console import ConsoleSection
from extauthz.config.credential_headers import ActAsSection, AuthTypeSection, AuthTypeSetting, HeaderName
from extauthz.config.decision_log import DecisionLogSection
from extauthz.config.internal_token import InternalTokenSection
from extauthz.config.monitor import Mode
from extauthz.config.oauth import OAuth
from extauthz.config.recent_decisions import RecentDecisionsSection
from extauthz.config.scope_names import ScopeName
from extauthz.config.tracing import TracingSection
from extauthz.config.values import (
    NAME,
    NAME_RULE,
    Duration,
    ListenAddress,
    NonEmpty,
    PositiveDuration,
    PositiveSize,
    Prefix,
    Secret,
    Section,
    WrittenAs,
    exact,
    text,
)
from extauthz.core.act_as import address
from extauthz.ports import USUAL_PREFIX
from extauthz.responses.denials import REALM
from extauthz.telemetry.client_address import EXTERNAL_ADDRESS, ForwardedClient

MIN_POLL, MAX_POLL = 0.25, 60.0
MAX_WORKERS = 256


def _one_address(text: str) -> str:
    email = address(text)
    if email is None:
        raise ValueError(f"{text!r} is not one e-mail address")
    return email


AdminAddress = Annotated[str, AfterValidator(_one_address)]


class CertificateSection(Section):
    """TLS for connections; with `client_ca` only clients with a certificate of it are answered."""

    certificate: NonEmpty = Field(examples=["certificate: tls.crt"])
    key: NonEmpty = Field(examples=["key: tls.key"])
    client_ca: NonEmpty | None = None


class TlsSection(CertificateSection):
    """TLS for Envoy; with `allowed_names` only clients whose certificate has one of these subject alternative names."""

    allowed_names: list[NonEmpty] | None = Field(default=None, min_length=1, examples=["allowed_names: [spiffe://acme.com/envoy]"])

    @model_validator(mode="after")
    def _names_of_somebody(self) -> TlsSection:
        if self.allowed_names is not None and self.client_ca is None:
            raise ValueError("allowed_names needs client_ca: without it nobody is asked for a certificate")
        return self


class GrpcSection(Section):
    """What a connection of Envoy's may ask; sizes in bytes, times in seconds. The keys are those of the transport's limits."""

    message_size: PositiveSize = 4 * 1024 * 1024
    requests_size: PositiveSize = 64 * 1024 * 1024
    header_list_size: PositiveSize = 16 * 1024
    concurrent_streams: int = Field(default=2_000, ge=1, le=2**31 - 1)
    connections: int = Field(default=1_000, ge=1)
    half_open_timeout: PositiveDuration = 5.0
    max_connection_age: PositiveDuration | None = None
    max_connection_age_grace: PositiveDuration = 10.0
    idle_timeout: PositiveDuration = 600.0
    resets: int = Field(default=20_000, ge=1)
    resets_per_second: int = Field(default=5_000, ge=1)
    settings_entries: int = Field(default=32, ge=1)
    continuations: int = Field(default=8, ge=1)
    outbound_acknowledgements: int = Field(default=1_000, ge=1)
    empty_frames: int = Field(default=10_000, ge=1)
    empty_frames_per_second: int = Field(default=330, ge=1)
    output_buffer: PositiveSize = 256 * 1024


class ServerSection(Section):
    """Where and how checks are answered."""

    listen: ListenAddress = Field(examples=["listen: 127.0.0.1:9001"])
    socket_mode: Annotated[str, text(r"0[0-7]{3}", 'write four octal digits that begin with 0, like "0660"')] = "0660"
    socket_group: NonEmpty | None = None
    transport: Literal["auto", "nghttp2", "grpcio"] = "auto"
    tls: TlsSection | None = None
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    max_in_flight: int = Field(default=1000, ge=1)
    max_token_size: PositiveSize = 16 * 1024
    check_timeout: PositiveDuration = 0.15
    drain: Duration = 10.0
    orphan_time: Duration = 300.0
    ops: ListenAddress | None = Address(host="127.0.0.1", port=9090)
    ops_tls: CertificateSection | None = None
    recent_decisions: RecentDecisionsSection = RecentDecisionsSection()
    recording: bool = False

    @field_validator("workers")
    @classmethod
    def _addresses_for_all(cls, count: int, info: ValidationInfo) -> int:
        listen = info.data.get("listen")
        if listen is not None:
            listen.of_workers(count)
        return count

    @field_validator("ops")
    @classmethod
    def _own_address(cls, ops: Address | None, info: ValidationInfo) -> Address | None:
        listen = info.data.get("listen")
        if ops is not None and listen is not None and (ops.port or ops.path):
            if ops == listen:
                raise ValueError(f"{ops} is also the address of listen: write another one")
            if ops in listen.of_workers(info.data.get("workers", 1)):
                raise ValueError(f"{ops} is also the address of a worker: write one beside those of all workers")
        return ops

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where each worker listens."""
        return self.listen.of_workers(self.workers)


class PepperSetting(Secret):
    """A key of the token digests, kept outside of the store."""

    id: Annotated[str, text(NAME, NAME_RULE, shown=False)] = Field(examples=["id: p1"])


class TokensSection(Section):
    """Tokens that the company issues itself."""

    enabled: bool = True
    # What `repr` leaves out is in no problem either: here a password or a pepper may stand that belongs elsewhere.
    store: str = Field(repr=False, examples=["store: sqlite:///../data/tokens.db"])
    prefix: Prefix = USUAL_PREFIX
    accept_prefixes: list[Prefix] = Field(default_factory=list)
    peppers: list[PepperSetting] = Field(min_length=1, repr=False, examples=["peppers: [{id: p1, file: ../data/pepper-p1}]"])
    store_password: Secret | None = Field(default=None, repr=False, examples=["store_password: {file: /run/secrets/store}"])
    feed: Literal["notify", "poll"] = "notify"
    poll_interval: PositiveDuration = 2.0
    verdict_ttl: PositiveDuration = 60.0
    max_staleness: Duration = 600.0
    max_lifetime: PositiveDuration = 365 * 86400.0

    @field_validator("store")
    @classmethod
    def _store_address(cls, store: str) -> str:
        if store.startswith("sqlite:///") and store != "sqlite:///":
            return store
        if not store.startswith(("postgresql:", "postgres:")):
            raise ValueError("write sqlite:///path/tokens.db, relative to this file, or postgresql://user@host/database")
        database_address.read(store)
        return store

    @field_validator("poll_interval")
    @classmethod
    def _bounded_poll(cls, seconds: float) -> float:
        if not MIN_POLL <= seconds <= MAX_POLL:
            raise ValueError(f"{seconds:g} seconds: write 250ms to 60s")
        return seconds


class RolesSection(Section):
    """Who may see tokens and manage them: viewers only see, admins manage all but GLOBAL ones, super admins every one.

    Addresses, compared in lower case.
    """

    viewers: list[AdminAddress] = Field(default_factory=list)
    admins: list[AdminAddress] = Field(default_factory=list)
    super_admins: list[AdminAddress] = Field(default_factory=list)


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


class LimitsSection(Section):
    """How much work strangers can cause, and how much is remembered; per process."""

    verdicts: int = Field(default=100_000, ge=1_000)
    store_in_flight: int = Field(default=64, ge=1)
    store_per_second: int = Field(default=500, ge=1)
    known_ids: int = Field(default=2_000_000, ge=0, le=20_000_000)
    signatures_per_second: int = Field(default=2_000, ge=1)
    remote_in_flight: int = Field(default=16, ge=1)
    remote_per_second: int = Field(default=20, ge=1)
    internal_tokens: int = Field(default=10_000, ge=100)


CLIENT_ADDRESS = {
    "anyOf": [
        {"enum": ["peer", EXTERNAL_ADDRESS, None]},
        {
            "type": "object",
            "properties": {
                "trusted_hops": {
                    "description": "Proxies in front of Envoy.",
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_HOPS,
                }
            },
            "required": ["trusted_hops"],
            "additionalProperties": False,
        },
    ]
}


def _client_address(value: object) -> object:
    match value:
        case None | ForwardedClient():
            return value
        case "peer":
            return None
        case "x-envoy-external-address":
            return ForwardedClient()
        case {"trusted_hops": int(hops), **more} if not more and hops is not True and 1 <= hops <= MAX_HOPS:
            return ForwardedClient(hops)
    raise ValueError(f"write peer, x-envoy-external-address, or {{trusted_hops: 1}} with a number from 1 to {MAX_HOPS}")


def _written_client_address(client: ForwardedClient | None) -> object:
    if client is None:
        return "peer"
    return EXTERNAL_ADDRESS if client.trusted_hops is None else {"trusted_hops": client.trusted_hops}


class EnvoySection(Section):
    """What Envoy tells of clients, and how it is answered."""

    error_response: bool = False
    client_address: Annotated[
        ForwardedClient | None,
        BeforeValidator(_client_address),
        PlainSerializer(_written_client_address),
        WrittenAs(CLIENT_ADDRESS, only=True),
    ] = None


class Settings(Section):
    """The whole of extauthz.yaml."""

    version: Annotated[Literal[1], exact(1)] = Field(examples=["version: 1"])
    reload: ReloadSection = ReloadSection()
    server: ServerSection = Field(examples=["server: {listen: 127.0.0.1:9001}"])
    oauth: OAuth | None = None
    tokens: TokensSection | None = None
    act_as: ActAsSection = ActAsSection()
    auth_type: AuthTypeSetting = AuthTypeSection()
    identity: IdentitySection = IdentitySection()
    internal_token: InternalTokenSection | None = None
    envoy: EnvoySection = EnvoySection()
    answers: AnswersSection = AnswersSection()
    grpc: GrpcSection = GrpcSection()
    limits: LimitsSection = LimitsSection()
    decision_log: DecisionLogSection = DecisionLogSection()
    tracing: TracingSection = TracingSection()
    realm: Annotated[str, text(r"[A-Za-z0-9 ._:/@-]{1,64}", "write 1 to 64 letters, digits, spaces and . _ : / @ -")] = REALM
    scopes: list[ScopeName] = Field(min_length=1, examples=["scopes: [SEARCH, CHAT]"])
    routes: list[NonEmpty] = Field(min_length=1, examples=["routes: [routes/glean-client-api.yaml]"])
    mode: Mode = "enforce"
    roles: RolesSection = RolesSection()
    console: ConsoleSection | None = None

    @property
    def header_names(self) -> tuple[str, ...]:
        """The headers that clients send with a token, as the file spells them."""
        return *self.act_as.headers, self.auth_type.header
