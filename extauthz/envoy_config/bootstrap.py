"""A whole Envoy bootstrap, or a part of it, from templates: what Envoy needs to know of a sidecar, written where it belongs."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from textwrap import indent
from typing import Any

from extauthz.addresses import Address
from extauthz.core.identity import IdentityHeaders
from extauthz.envoy_config import cors, mutations, traffic, unanswered
from extauthz.envoy_config.cors import Cors
from extauthz.envoy_config.templates import filled, scalar, seconds
from extauthz.envoy_config.traffic import NOTHING_ELSE, Traffic
from extauthz.responses.denials import Answers

LISTENER = Address(host="127.0.0.1", port=10_000)
UPSTREAM = Address(host="127.0.0.1", port=8080)
ADMIN = Address(path="/tmp/extauthz-envoy-admin.sock")  # noqa: S108 - the folder of an example
DOMAINS = ("localhost", "127.0.0.1", "api.example.com")
TURN_AWAY = 2.0
"""Seconds that two failed health checks take: a sidecar that stops should go on for longer."""


class Part(StrEnum):
    """What can be printed."""

    ALL = "all"
    FILTER = "filter"
    CLUSTER = "cluster"
    MUTATION = "mutation"
    MANAGER = "manager"
    VIRTUAL_HOST = "virtual-host"
    LISTENER = "listener"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How Envoy trusts the sidecar, and shows who it is: files as Envoy sees them, `name` as the certificate has it."""

    name: str
    authority: str
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What Envoy has to know of a sidecar: one address per process; `max_in_flight` is that of all of them together.

    `check_timeout` is in seconds. `encoded_slashes`: some route takes them. `answers`: how its denials are told.
    """

    identity: IdentityHeaders
    addresses: tuple[Address, ...]
    check_timeout: float
    max_in_flight: int
    tls: Tls | None = None
    encoded_slashes: bool = False
    answers: Answers = field(default_factory=Answers)

    @property
    def escaped_slashes_action(self) -> str:
        """What the connection manager does with %2F: extauthz refuses what no route takes."""
        return "KEEP_UNCHANGED" if self.encoded_slashes else "REJECT_REQUEST"

    @property
    def timeout(self) -> float:
        """Seconds that Envoy waits for a check: long enough for the sidecar's own answer to a time-out to come first."""
        return round(self.check_timeout + (0.05 if self.check_timeout < 0.5 else 0.1), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The rest of a bootstrap."""

    listener: Address = LISTENER
    upstream: Address = UPSTREAM
    admin: Address = ADMIN
    domains: tuple[str, ...] = DOMAINS
    traffic: Traffic = NOTHING_ELSE
    cors: Cors | None = None


def text(sidecar: Sidecar, edge: Edge, part: Part = Part.ALL) -> str:
    """Return YAML with comments; raises ValueError when the names do not fit into Envoy's limit for an expression."""
    match part:
        case Part.MUTATION:
            return _mutation(sidecar)
        case Part.FILTER:
            return _filters(sidecar, edge)
        case Part.CLUSTER:
            return _cluster(sidecar)
        case Part.MANAGER:
            return _manager(sidecar, edge)
        case Part.VIRTUAL_HOST:
            return _virtual_host(edge)
        case Part.LISTENER:
            return traffic.listener(edge.traffic)
        case Part.ALL:
            return filled(
                "bootstrap",
                {
                    "admin": _address(edge.admin, mode=True),
                    "listener": _address(edge.listener),
                    "settings": traffic.listener(edge.traffic),
                    "manager": _manager(sidecar, edge),
                    "filters": _filters(sidecar, edge),
                    "virtual_host": _virtual_host(edge),
                    "cluster": _cluster(sidecar),
                    "upstream_discovery": _discovery((edge.upstream,)),
                    "upstream_protocol": traffic.upstream_protocol(edge.traffic),
                    "upstream": _address(edge.upstream),
                },
            )


def mutation_rules(sidecar: Sidecar) -> Any:
    """Return `decoder_header_mutation_rules` as data; raises ValueError like `text`."""
    import yaml

    return yaml.safe_load(_mutation(sidecar))["decoder_header_mutation_rules"]


def as_json(printed: str) -> str:
    """Return printed YAML as JSON."""
    import yaml

    return json.dumps(yaml.safe_load(printed), indent=2)


def _filters(sidecar: Sidecar, edge: Edge) -> str:
    identity, timeout = sidecar.identity, sidecar.timeout
    return filled(
        "filters",
        {
            "grpc_web": traffic.first_filter(edge.traffic),
            "cors": cors.filter_text(edge.cors) if edge.cors else "",
            "limit_denials": traffic.denial_limit(edge.traffic),
            "header_removals": _removals(identity.prefix, mutations.header_removals(identity)),
            "trailer_removals": _removals(identity.prefix, mutations.trailer_removals(identity)),
            "timeout": seconds(timeout),
            "max_interval": seconds(max(2.0, 2 * timeout)),
            "mutation": _mutation(sidecar),
        },
    )


def _manager(sidecar: Sidecar, edge: Edge) -> str:
    local_reply = unanswered.local_reply(sidecar.answers, sidecar.identity.names["decision-id"])
    return traffic.manager(edge.traffic, sidecar.identity, sidecar.escaped_slashes_action, local_reply)


def _virtual_host(edge: Edge) -> str:
    domains = f"[{', '.join(map(scalar, edge.domains))}]"
    return filled("virtual_host", {"domains": domains, "cors": cors.policy_text(edge.cors) if edge.cors else ""})


def _mutation(sidecar: Sidecar) -> str:
    return filled("mutation", {"names": json.dumps(mutations.allow_expression(sidecar.identity))})


def _cluster(sidecar: Sidecar) -> str:
    count = len(sidecar.addresses)
    requests = (sidecar.max_in_flight // 1024 + 1) * 1024
    return filled(
        "cluster",
        {
            "discovery": _discovery(sidecar.addresses),
            "transport_socket": _tls(sidecar.tls) if sidecar.tls else "",
            "max_connections": str(64 * count),
            "max_pending_requests": str(requests // 4),
            "max_requests": str(requests),
            "max_retries": str(requests // 4),
            "endpoints": "".join(
                f"- endpoint:\n    address:\n{indent(_address(address), '      ')}" for address in sidecar.addresses
            ),
        },
    )


def _tls(tls: Tls) -> str:
    certificate = ""
    if tls.certificate and tls.key:
        certificate = (
            "tls_certificates:\n"
            f"- certificate_chain: {{filename: {scalar(tls.certificate)}}}\n"
            f"  private_key: {{filename: {scalar(tls.key)}}}\n"
        )
    name, is_ip = scalar(tls.name), _is_ip(tls.name)
    return filled(
        "tls",
        {
            # An address is never sent as SNI (RFC 6066 3).
            "server_name": "" if is_ip else f"sni: {name}\n",
            "client_certificate": certificate,
            "authority": scalar(tls.authority),
            "name_type": "IP_ADDRESS" if is_ip else "DNS",
            "name": name,
        },
    )


def _removals(prefix: str, names: Iterable[str]) -> str:
    rest = "".join(f"- remove: {name}\n" for name in names)
    return f"- remove_on_match: {{key_matcher: {{prefix: {prefix}, ignore_case: true}}}}\n{rest}"


def _address(address: Address, *, mode: bool = False) -> str:
    if address.path:
        more = "  mode: 384  # 0600 in octal\n" if mode else ""
        return f"pipe:\n  path: {scalar(address.path)}\n{more}"
    return f"socket_address:\n  address: {scalar(address.host)}\n  port_value: {address.port}\n"


def _discovery(addresses: Iterable[Address]) -> str:
    """Tell how Envoy finds the addresses: names are looked up again and again, and each address behind a name is used."""
    return "STATIC" if all(address.path or _is_ip(address.host) for address in addresses) else "STRICT_DNS"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
