"""The section console: where the admin console listens, who logs in, and which sidecars it looks at."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from extauthz.addresses import Address, parse_address
from extauthz.config import listeners
from extauthz.config.document import Document, KeyPath, mapping
from extauthz.config.lints import Lint
from extauthz.config.oauth import PERSONAL_TENANT
from extauthz.config.values import ListenAddress, NonEmpty, OutboundAddress, PositiveDuration, Secret, Section, Yes, text
from extauthz.errors import Problem

LISTEN, OPS = Address(host="127.0.0.1", port=9003), Address(host="127.0.0.1", port=9091)
PACKAGES = ("starlette", "jinja2", "argon2")
"""What the console imports and nobody else: the extra `console` brings it."""
CALLBACK = "/login/callback"
"""Where the provider sends browsers back to, behind the origin of the console."""
MIN_IDLE, MAX_LIFETIME = 60.0, 7 * 86400.0
_USUAL_PORTS = {"https": ":443", "http": ":80"}

_ORIGIN = r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
_ORIGIN_RULE = "write the origin that browsers show, in lower case and without a path, like https://console.acme.com"
_SIDECAR = r"https?://(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?|unix:///[!-~]+"
_PROMETHEUS = r"https?://[^/?#@\s]+(?:/[^?#\s]*)?"
_PROMETHEUS_RULE = "write the address of a Prometheus, without a user, like http://prometheus:9090"
_SIDECAR_RULE = "write the address of an ops listener, like http://127.0.0.1:9090 or unix:///run/extauthz/ops.sock"


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not a network: write one like 10.0.0.0/8") from error


Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, text(_ORIGIN, _ORIGIN_RULE)]
PrometheusAddress = Annotated[str, text(_PROMETHEUS, _PROMETHEUS_RULE)]
SidecarAddress = Annotated[str, text(_SIDECAR, _SIDECAR_RULE)]


class LoginSection(Section):
    """The OpenID provider that admins log in with; its client is the console's own, and none of oauth.client_ids."""

    issuer: OutboundAddress = Field(examples=["issuer: https://acme.okta.com"])
    client_id: NonEmpty = Field(examples=["client_id: 0oa1extauthzconsole"])
    client_secret: Secret | None = Field(default=None, repr=False, examples=["client_secret: {file: /run/secrets/console}"])
    email_claim: NonEmpty = "email"
    unverified_addresses: bool = False
    reauthentication: Literal["auth_time", "confirmation"] = "auth_time"
    ca_file: NonEmpty | None = None

    @field_validator("issuer")
    @classmethod
    def _one_tenant(cls, issuer: str) -> str:
        if "?" in issuer:
            raise ValueError("an issuer has no query: write it as its discovery document has it")
        if PERSONAL_TENANT in issuer:
            raise ValueError("this is the tenant of all personal Microsoft accounts: write the directory ID of your own")
        return issuer


class ConsoleTlsSection(Section):
    """The certificate that browsers see."""

    certificate: NonEmpty = Field(examples=["certificate: tls.crt"])
    key: NonEmpty = Field(examples=["key: tls.key"])


class SidecarTlsSection(Section):
    """How the console shows itself to ops listeners, and whose certificates it believes."""

    ca_file: NonEmpty | None = None
    certificate: NonEmpty | None = None
    key: NonEmpty | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> SidecarTlsSection:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: write both, or none of them")
        return self


class ConsoleSection(Section):
    """The admin console, which `extauthz console` runs; sidecars do not read this section."""

    listen: ListenAddress = LISTEN
    ops: ListenAddress | None = OPS
    public_url: Origin | None = Field(default=None, examples=["public_url: https://console.acme.com"])
    tls: ConsoleTlsSection | None = None
    trusted_proxies: list[Network] = Field(default_factory=list, examples=["trusted_proxies: [10.0.0.0/8]"])
    oidc: LoginSection | None = None
    local_accounts: Yes | None = None
    session_idle: PositiveDuration = 30 * 60.0
    session_lifetime: PositiveDuration = 12 * 3600.0
    sidecars: list[SidecarAddress] = Field(default_factory=list, examples=["sidecars: [http://127.0.0.1:9090]"])
    sidecar_tls: SidecarTlsSection | None = None
    issuer_networks: list[Network] = Field(default_factory=list, examples=["issuer_networks: [10.20.0.0/16]"])
    prometheus: PrometheusAddress | None = Field(default=None, examples=["prometheus: http://prometheus:9090"])

    @field_validator("listen")
    @classmethod
    def _tcp(cls, listen: Address) -> Address:
        if listen.path:
            raise ValueError("browsers come over HTTP: write an address and a port, like 127.0.0.1:9003")
        return listen

    @field_validator("ops")
    @classmethod
    def _own_port(cls, ops: Address | None, info: ValidationInfo) -> Address | None:
        if ops is not None and ops.path:
            raise ValueError("metrics and probes come over HTTP: write an address and a port, like 127.0.0.1:9091")
        listen = info.data.get("listen")
        if ops is not None and listen is not None and listeners.collide(ops, listen):
            raise ValueError(f"{ops} is also the address of listen: write another port")
        return ops

    @field_validator("public_url")
    @classmethod
    def _as_browsers_show_it(cls, origin: str | None) -> str | None:
        if origin is not None and origin.endswith(_USUAL_PORTS[origin.partition(":")[0]]):
            raise ValueError("browsers leave this port out: leave it out here too")
        if origin is not None and origin.startswith("http://") and not is_loopback_origin(origin):
            raise ValueError("write an https address: without TLS the console is for a loopback address only")
        return origin

    @field_validator("session_idle")
    @classmethod
    def _not_too_short(cls, seconds: float) -> float:
        if seconds < MIN_IDLE:
            raise ValueError("is too short: write at least 1m")
        return seconds

    @field_validator("session_lifetime")
    @classmethod
    def _bounded_lifetime(cls, seconds: float, info: ValidationInfo) -> float:
        if seconds > MAX_LIFETIME:
            raise ValueError("is too long: write at most 7d")
        if seconds < info.data.get("session_idle", MIN_IDLE):
            raise ValueError("is shorter than session_idle: write a longer time")
        return seconds

    @property
    def has_local_accounts(self) -> bool:
        """Whether accounts of `extauthz console add-user` may log in: without a provider, or where the YAML keeps them."""
        return self.oidc is None or bool(self.local_accounts)

    def origins(self, port: int) -> tuple[str, ...]:
        """Return the origins that browsers may show for the port that is listened on, the one to tell people first."""
        if self.public_url is not None:
            return (self.public_url,)
        scheme = "http" if self.tls is None else "https"
        host = f"[{self.listen.host}]" if ":" in self.listen.host else self.listen.host
        names = dict.fromkeys((host, "localhost") if self.listen.is_local else (host,))
        return tuple(f"{scheme}://{name}:{port}" for name in names)


def is_loopback_origin(origin: str) -> bool:
    """Tell whether an origin is one of this machine."""
    return re.fullmatch(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?", origin) is not None


def problems(source: Document, clients: Iterable[tuple[KeyPath, str]]) -> Iterator[Problem]:
    """Find an address that strangers reach in clear or that is taken, and a client that is also one of access tokens.

    `clients` are the client ids and audiences that access tokens may name, with the paths of their keys.
    """
    section = source.data.get("console")
    if not isinstance(section, dict):
        return
    yield from _unsafe(source, section)
    for key, default in (("listen", LISTEN), ("ops", OPS)):
        listener = listeners.taken(source, ("console", key), section.get(key, str(default)))
        if listener:
            yield source.problem(("console", key), f"{listener} is listened on by the sidecar itself: write another port")
    own = mapping(section.get("oidc")).get("client_id")
    for path in (path for path, client in clients if client == own):
        message = (
            "names the client of console.oidc too, and a login could pass as an access token: give the console a client of its own"
        )
        yield source.problem(path, message)


def risks(section: ConsoleSection, source: Document) -> Iterator[Problem]:
    """Find what is allowed but worth a look."""
    if (section.public_url or "").startswith("https://") and section.tls is None and not section.trusted_proxies:
        message = (
            "ends at a proxy, of whose visitors the addresses are not known: write its networks into console.trusted_proxies, "
            "else all visitors share its address and its limits"
        )
        yield source.problem(("console", "public_url"), message, Lint.VISITORS_SHARE_AN_ADDRESS)


def _unsafe(source: Document, section: dict[str, object]) -> Iterator[Problem]:
    has_tls, public_url = section.get("tls") is not None, section.get("public_url")
    is_encrypted = has_tls or str(public_url).startswith("https://")
    if has_tls and str(public_url).startswith("http://"):
        yield source.problem(("console", "public_url"), "begins with http:// although tls is set: write https://")
    if section.get("trusted_proxies") and public_url is None:
        message = "needs public_url: without a proxy in front of the console nobody else is believed"
        yield source.problem(("console", "trusted_proxies"), message)
    with contextlib.suppress(ValueError):
        listen = parse_address(str(section.get("listen", LISTEN)))
        if not listen.is_local and not is_encrypted:
            message = "without TLS the console is for a loopback address only: write tls, or the https public_url of a proxy"
            yield source.problem(("console", "listen"), message)
        elif listeners.is_everywhere(listen) and public_url is None:
            message = "stands for every address of this machine: write public_url too, the origin that browsers show"
            yield source.problem(("console", "listen"), message)
