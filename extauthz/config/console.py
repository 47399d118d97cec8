"""The section console: where the admin console listens, who logs in, and which sidecars it looks at."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from extauthz.addresses import Address
from extauthz.config.values import ListenAddress, NonEmpty, OutboundAddress, PositiveDuration, Secret, Section, Yes, text

LISTEN = Address(host="127.0.0.1", port=9003)
MIN_IDLE, MAX_LIFETIME = 60.0, 7 * 86400.0

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
    ca_file: NonEmpty | None = None


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
    public_url: Origin | None = Field(default=None, examples=["public_url: https://console.acme.com"])
    tls: ConsoleTlsSection | None = None
    trusted_proxies: list[Network] = Field(default_factory=list, examples=["trusted_proxies: [10.0.0.0/8]"])
    oidc: LoginSection | None = None
    local_accounts: Yes | None = None
    session_idle: PositiveDuration = 30 * 60.0
    session_lifetime: PositiveDuration = 12 * 3600.0
    sidecars: list[SidecarAddress] = Field(default_factory=list, examples=["sidecars: [http://127.0.0.1:9090]"])
    sidecar_tls: SidecarTlsSection | None = None
    prometheus: PrometheusAddress | None = Field(default=None, examples=["prometheus: http://prometheus:9090"])

    @field_validator("listen")
    @classmethod
    def _tcp(cls, listen: Address) -> Address:
        if listen.path:
            raise ValueError("browsers come over HTTP: write an address and a port, like 127.0.0.1:9003")
        return listen

    @model_validator(mode="after")
    def _reachable_safely(self) -> ConsoleSection:
        if self.tls is not None and self.public_url is not None and not self.public_url.startswith("https://"):
            raise ValueError("public_url begins with https:// where tls is set")
        if self.public_url is not None and self.public_url.startswith("http://") and not is_loopback_origin(self.public_url):
            raise ValueError("public_url: write an https address; without TLS the console is for a loopback address only")
        if self.tls is None and self.public_url is None and not self.listen.is_local:
            raise ValueError("listen: without TLS the console is for a loopback address only: set tls, or public_url of a proxy")
        if self.trusted_proxies and self.public_url is None:
            raise ValueError("trusted_proxies needs public_url: the origin that browsers reach the proxy at")
        if not MIN_IDLE <= self.session_idle <= self.session_lifetime <= MAX_LIFETIME:
            raise ValueError("write a session_idle of at least 1m, and a session_lifetime that is not shorter, up to 7d")
        return self

    @property
    def has_local_accounts(self) -> bool:
        """Whether accounts of `extauthz console add-user` may log in: without a provider, or where the YAML keeps them."""
        return self.oidc is None or bool(self.local_accounts)


def is_loopback_origin(origin: str) -> bool:
    """Tell whether an origin is one of this machine."""
    return re.fullmatch(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?", origin) is not None
