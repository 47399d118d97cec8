"""What an Envoy lets through besides plain requests, and how it knows where they come from, as parts of its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.core.identity import IdentityHeaders
from extauthz.envoy_config.mutations import spellings_of_user
from extauthz.envoy_config.templates import filled


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is switched on; nothing is, unless it is asked for.

    `trusted_hops` is how many proxies before Envoy append to x-forwarded-for. `limit_denials` is how many denials within a minute
    a client address may have, 0 for any number.
    """

    websocket: bool = False
    grpc_web: bool = False
    trusted_hops: int = 0
    proxy_protocol: bool = False
    limit_denials: int = 0


NOTHING_ELSE = Traffic()
"""Plain requests only, from clients that connect to Envoy themselves."""


def manager(traffic: Traffic, identity: IdentityHeaders, escaped_slashes: str, local_reply: str) -> str:
    """Return the settings of the HTTP connection manager, besides its filters and routes; it treats %2F in paths as is said."""
    return filled(
        "manager",
        {
            "escaped_slashes": escaped_slashes,
            "local_reply": local_reply,
            **spellings_of_user(identity),
            "trusted_hops": filled("trusted_hops", {"hops": str(traffic.trusted_hops)}) if traffic.trusted_hops else "",
            "allow_connect": filled("allow_connect", {}) if traffic.websocket else "",
            "upgrades": filled("upgrades", {}) if traffic.websocket else "",
        },
    )


def listener(traffic: Traffic) -> str:
    """Return the settings of the listener, besides its address and filter chains."""
    return filled("listener", {"listener_filters": filled("proxy_protocol", {}) if traffic.proxy_protocol else ""})


def first_filter(traffic: Traffic) -> str:
    """Return the HTTP filter that stands before all others, if any, with an empty line after it."""
    return filled("grpc_web", {}) + "\n" if traffic.grpc_web else ""


def denial_limit(traffic: Traffic) -> str:
    """Return the HTTP filter that stands before the check and counts denials, if any, with an empty line after it."""
    return filled("limit_denials", {"limit": str(traffic.limit_denials)}) + "\n" if traffic.limit_denials else ""


def upstream_protocol(traffic: Traffic) -> str:
    """Return how the upstream is spoken to, nothing for HTTP/1.1."""
    return filled("upstream_http2", {}) if traffic.grpc_web else ""
