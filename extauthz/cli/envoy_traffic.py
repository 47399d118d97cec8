"""The flags of `extauthz envoy-config` that say what comes through besides plain requests, and from where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from extauthz.addresses import MAX_HOPS
from extauthz.envoy_config.bootstrap import Part
from extauthz.envoy_config.cors import EVERY_ORIGIN, Cors
from extauthz.envoy_config.traffic import Traffic

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration

MAX_DENIALS = 1_000_000

_OPTIONS = (
    click.option("--websocket", is_flag=True, help="Let WebSockets through, over HTTP/1.1 and HTTP/2."),
    click.option("--grpc-web", is_flag=True, help="Turn gRPC-Web into gRPC; the upstream is spoken to over HTTP/2."),
    click.option(
        "--trusted-hops",
        type=click.IntRange(1, MAX_HOPS),
        metavar="N",
        help="As many proxies before Envoy write x-forwarded-for; by default those of envoy.client_address.",
    ),
    click.option("--proxy-protocol", is_flag=True, help="The load balancer before Envoy speaks the PROXY protocol."),
    click.option(
        "--limit-denials",
        type=click.IntRange(1, MAX_DENIALS),
        metavar="N",
        help="After as many denials within a minute a client address gets 429 for the rest of it.",
    ),
    click.option("--cors", "origins", multiple=True, metavar="ORIGIN", help="Whose scripts may call, like https://app.acme.com."),
)
_PARTS = {
    "--websocket": (Part.MANAGER,),
    "--grpc-web": (Part.FILTER,),
    "--trusted-hops": (Part.MANAGER,),
    "--proxy-protocol": (Part.LISTENER,),
    "--limit-denials": (Part.FILTER,),
    "--cors": (Part.FILTER, Part.VIRTUAL_HOST),
}
"""Where each of them is printed, besides in the whole."""


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these flags."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_flags(flags: dict[str, Any], loaded: Configuration) -> Traffic:
    """Return what the flags ask for; where those with a number are left out they are None."""
    values = {name: value for name, value in flags.items() if value is not None}
    return Traffic(**{"trusted_hops": _configured_hops(loaded) or 0} | values)


def _configured_hops(loaded: Configuration) -> int | None:
    client = loaded.settings.envoy.client_address
    return client.trusted_hops if client else None


def warnings(traffic: Traffic, cors: Cors, part: Part, loaded: Configuration) -> Iterator[str]:
    """Say which flags do nothing for this part, and what is worth a thought."""
    hops, client = _configured_hops(loaded), loaded.settings.envoy.client_address
    is_printed = part in (Part.ALL, *_PARTS["--trusted-hops"])
    if is_printed and traffic.trusted_hops and (client is None or hops not in (None, traffic.trusted_hops)):
        other = "is peer, so that the decision log names the last proxy" if client is None else f"trusts {hops}"
        advice = f"write envoy: {{client_address: {{trusted_hops: {traffic.trusted_hops}}}}}"
        yield f"--trusted-hops {traffic.trusted_hops}, and envoy.client_address {other}: {advice} in extauthz.yaml"
    flags = {
        "--websocket": traffic.websocket,
        "--grpc-web": traffic.grpc_web and not (part is Part.VIRTUAL_HOST and cors.origins),
        "--trusted-hops": traffic.trusted_hops not in (0, hops),
        "--proxy-protocol": traffic.proxy_protocol,
        "--limit-denials": traffic.limit_denials,
        "--cors": cors.origins,
    }
    for flag, parts in _PARTS.items():
        if flags[flag] and part not in (Part.ALL, *parts):
            yield f"{flag} changes nothing here: print --part {' and --part '.join(parts)} with it"
    if EVERY_ORIGIN in cors.origins:
        yield "--cors '*': a script of any site may call, and read the answers, with a token that it has: name the origins"
