"""What Envoy has to know, read from a loaded configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from extauthz.addresses import Address
from extauthz.core.policy import canonical_host
from extauthz.core.routes import compile_routes
from extauthz.envoy_config.bootstrap import DOMAINS, Sidecar, Tls

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration


def is_everywhere(address: Address) -> bool:
    """Tell whether an address means every interface, so that nobody can connect to it as it is written."""
    return not address.path and address.host != "localhost" and ipaddress.ip_address(address.host).is_unspecified


def sidecar_of(configuration: Configuration, *, reached_at: Sequence[str] = (), tls: Tls | None = None) -> Sidecar:
    """Describe the sidecar to Envoy, which reaches it at these hosts, if any, in place of the one that it listens on.

    Raises ValueError for an address that nobody can connect to.
    """
    settings, policy = configuration.settings, configuration.policy
    listening = settings.server.addresses
    if is_everywhere(listening[0]) and not reached_at:
        raise ValueError(
            f"server.listen is {settings.server.listen}, every address of the machine: say with --sidecar where it is reached"
        )
    if listening[0].path and reached_at:
        raise ValueError(f"server.listen is {settings.server.listen}: a unix socket is not reached at a host")
    hosts = [host.strip("[]") for host in reached_at] or [listening[0].host]
    addresses = tuple(reachable(replace(address, host=host)) for host in hosts for address in listening)
    return Sidecar(
        identity=policy.identity,
        addresses=addresses,
        check_timeout=settings.server.check_timeout,
        max_in_flight=settings.server.max_in_flight * len(addresses),
        tls=tls,
        answers=settings.answers.answers,
        encoded_slashes=any(table.encoded_slashes for table in (policy.routes, *policy.hosts.values())),
    )


def reachable(address: Address) -> Address:
    """Write localhost as what it is listened on, which is no IPv6 address."""
    return replace(address, host="127.0.0.1") if address.host == "localhost" else address


def serves_other_hosts(configuration: Configuration) -> bool:
    """Tell whether there are routes for hosts that no route file names."""
    return configuration.policy.routes != compile_routes(())


def domains_of(configuration: Configuration, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the hosts that Envoy lets in: those of the route files and those named here, or else those of an example.

    Raises ValueError for one that is no host, or that no route serves.
    """
    hosts = sorted(configuration.policy.hosts)
    for name in names:
        if canonical_host(name) != name or "*" in name:
            raise ValueError(f"--domain: {name!r} is not one host: write it in lower case, without port, final dot and '*'")
        if name not in hosts and not serves_other_hosts(configuration):
            raise ValueError(f"--domain: no route serves {name!r}: every route file names its `hosts`, and this is none of them")
    return tuple(dict.fromkeys((*hosts, *names))) or DOMAINS
