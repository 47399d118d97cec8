"""What differs between two configurations that a running process cannot change."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.addresses import Address
from extauthz.config.document import KeyPath, Mistake
from extauthz.config.loader import Configuration

_SERVER = ("listen", "socket_mode", "socket_group", "transport", "workers", "ops", "ops_tls", "drain", "tls")
_TOKENS = ("store", "feed")


def needing_restart(started: Configuration, after: Configuration) -> list[Mistake]:
    """List what a process that was started with another configuration cannot take, with its line in the new file."""
    message = "was changed, which needs a restart: until then the configuration of before goes on"
    return [after.mistake(path, message) for path in _paths(started, after)]


def _paths(before: Configuration, after: Configuration) -> Iterator[KeyPath]:
    old, new = before.settings, after.settings
    for name in _SERVER:
        if getattr(old.server, name) != getattr(new.server, name):
            yield "server", name
    if old.grpc != new.grpc:
        yield ("grpc",)
    if _jwks(before) != _jwks(after):
        yield "internal_token", "jwks"
    if old.tracing != new.tracing:
        yield ("tracing",)
    if before.store_place is None or after.store_place is None:
        # Issued tokens can be switched off at any time, but a store that is not open cannot be switched on.
        if before.store_place is None and after.store_place is not None:
            yield ("tokens",)
        return
    for name in _TOKENS:
        if getattr(old.tokens, name) != getattr(new.tokens, name):
            yield "tokens", name


def _jwks(configuration: Configuration) -> Address | None:
    return configuration.internal_token.jwks if configuration.internal_token else None
