"""The secrets that a configuration names, as they were read: once for each start and each reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """Everything secret that serving needs.

    `peppers` are by id, the newest first; `client_secrets` by the name of the provider; `proxy_auth` is user and password;
    `internal_token_keys` are private keys in PEM by id, the one that signs first; `tracing_headers` go to the collector.
    """

    peppers: Mapping[str, bytes] = field(default_factory=dict)
    client_secrets: Mapping[str, bytes] = field(default_factory=dict)
    proxy_auth: tuple[str, str] | None = None
    store_password: str | None = None
    internal_token_keys: Mapping[str, bytes] = field(default_factory=dict)
    tracing_headers: Mapping[str, str] = field(default_factory=dict)
