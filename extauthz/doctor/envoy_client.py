"""Whether a running Envoy writes the address of the client where the configuration reads it."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.config.wording import counted
from extauthz.doctor.envoy_dump import Manager, at
from extauthz.doctor.findings import Finding, problem, warning
from extauthz.telemetry.client_address import ForwardedClient

NAME = "envoy.client_address"


def look(manager: Manager, client: ForwardedClient | None) -> Iterator[Finding]:
    """Yield why the address would be that of the TCP peer after all, or that of another proxy."""
    if client is None:
        return
    where, config = manager.where, manager.config
    if at(config, "use_remote_address") is not True:
        text = "clients can write the headers that envoy.client_address reads: Envoy does not add its peer to x-forwarded-for"
        yield problem(
            NAME, text, "write use_remote_address: true here, or envoy.client_address: peer in extauthz.yaml", where=where
        )
    elif at(config, "skip_xff_append") is True:
        text = "every client is taken for the TCP peer, because skip_xff_append keeps the peer out of x-forwarded-for"
        yield warning(NAME, text, "remove skip_xff_append, or write envoy.client_address: peer in extauthz.yaml", where=where)
    hops = int(at(config, "xff_num_trusted_hops") or 0)
    if client.trusted_hops is not None and hops != client.trusted_hops:
        text = f"Envoy trusts {counted(hops, 'proxy', 'proxies')}, and envoy.client_address {client.trusted_hops}"
        yield warning(NAME, text, f"write xff_num_trusted_hops: {client.trusted_hops}, or correct trusted_hops", where=where)
