"""What differs between two configurations that a running process cannot change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from extauthz.config.console import ConsoleSection
from extauthz.config.document import KeyPath
from extauthz.config.loader import Configuration
from extauthz.errors import Problem


class Effect(StrEnum):
    """When a changed key counts: with the reload that finds it, or with the next start of the process."""

    LIVE = "live"
    RESTART = "restart"


LIVE, RESTART = Effect.LIVE, Effect.RESTART

EFFECTS: Mapping[str, Effect] = {
    "version": LIVE,
    "reload": LIVE,
    "server.listen": RESTART,
    "server.socket_mode": RESTART,
    "server.socket_group": RESTART,
    "server.transport": RESTART,
    "server.tls": RESTART,
    "server.workers": RESTART,
    "server.max_in_flight": LIVE,
    "server.max_token_size": LIVE,
    "server.check_timeout": LIVE,
    "server.drain": RESTART,
    "server.orphan_time": LIVE,
    "server.ops": RESTART,
    "server.ops_tls": RESTART,
    "server.recent_decisions": LIVE,
    "server.recording": LIVE,
    "oauth": LIVE,
    "tokens.enabled": LIVE,
    "tokens.store": RESTART,
    "tokens.prefix": LIVE,
    "tokens.accept_prefixes": LIVE,
    "tokens.peppers": LIVE,
    "tokens.store_password": LIVE,
    "tokens.feed": RESTART,
    "tokens.poll_interval": LIVE,
    "tokens.verdict_ttl": LIVE,
    "tokens.max_staleness": LIVE,
    "tokens.max_lifetime": LIVE,
    "act_as": LIVE,
    "auth_type": LIVE,
    "identity": LIVE,
    "internal_token.enabled": LIVE,
    "internal_token.issuer": LIVE,
    "internal_token.audience": LIVE,
    "internal_token.lifetime": LIVE,
    "internal_token.keys": LIVE,
    "internal_token.jwks": RESTART,
    "envoy": LIVE,
    "answers": LIVE,
    "grpc": RESTART,
    "limits": LIVE,
    "decision_log": LIVE,
    "tracing": RESTART,
    "realm": LIVE,
    "scopes": LIVE,
    "routes": LIVE,
    "mode": LIVE,
    "roles": LIVE,
    "console": LIVE,
}
"""By key; that of a section stands for each key in it."""

CONSOLE_EFFECTS: Mapping[str, Effect] = {
    "tokens.store": RESTART,
    "tokens.store_password": RESTART,
    "console.listen": RESTART,
    "console.ops": RESTART,
    "console.public_url": RESTART,
    "console.tls": RESTART,
    "console.trusted_proxies": RESTART,
    "console.oidc": RESTART,
    "console.issuer_networks": LIVE,
    "console.local_accounts": LIVE,
    "console.session_idle": LIVE,
    "console.session_lifetime": LIVE,
    "console.sidecars": LIVE,
    "console.sidecar_tls": LIVE,
    "console.prometheus": LIVE,
}
"""The same for the process of the console, which takes every other key with the next click."""


def needing_restart(started: Configuration, after: Configuration) -> list[Problem]:
    """List what a process that was started with another configuration cannot take, with its line in the new file."""
    message = "was changed, which needs a restart: until then the configuration of before goes on"
    return [after.problem(path, message) for path in _paths(started, after)]


def console_needing_restart(started: Configuration, after: Configuration) -> list[Problem]:
    """List what a console that was started with another configuration goes on with, with its line in the new file."""
    paths = [
        tuple(key.split("."))
        for key, effect in CONSOLE_EFFECTS.items()
        if effect is RESTART and _of_console(started, key) != _of_console(after, key)
    ]
    return [after.problem(path, "was changed, and counts when the console starts anew") for path in paths]


def _of_console(configuration: Configuration, key: str) -> object:
    """Return what stands at a key, with the defaults of a section that is left out."""
    section, name = key.split(".")
    settings = configuration.settings
    return getattr(settings.tokens if section == "tokens" else settings.console or ConsoleSection(), name, None)


def _paths(before: Configuration, after: Configuration) -> Iterator[KeyPath]:
    if (before.saved is None) != (after.saved is None):
        # The store is followed for the settings in it from the start on, or never.
        yield ("oauth", "managed_by")
    if before.store_place is None and after.store_place is not None:
        # Issued tokens can be switched off at any time, but a store that is not open cannot be switched on.
        yield ("tokens",)
    places = (before.store_place, after.store_place), (before.settings_place, after.settings_place)
    store_is_kept = any(None not in pair for pair in places)
    for key, effect in EFFECTS.items():
        path = tuple(key.split("."))
        if effect is LIVE or (path[0] == "tokens" and not store_is_kept):
            continue
        if _value(before, path) != _value(after, path):
            yield path


def _value(configuration: Configuration, path: tuple[str, ...]) -> object:
    """Return what stands at a path, None where its section is left out; the keys of internal tokens count while these are on."""
    value: object = configuration.settings
    for name in path:
        value = None if value is None else getattr(value, name)
        if name == "internal_token":
            value = configuration.internal_token
    return value
