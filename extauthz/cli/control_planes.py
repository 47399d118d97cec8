"""The part of `extauthz envoy-config` that prints manifests for a control plane."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from extauthz.addresses import Address
from extauthz.envoy_config import control_planes
from extauthz.envoy_config.bootstrap import DOMAINS, Tls
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.envoy_config.placement import Placement, Service
from extauthz.envoy_config.reading import domains_of, sidecar_of

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration

# Options that mean something with --for only, and those that mean nothing with it.
WITH = ("namespace", "gateway", "gateway_listener", "service")
WITHOUT = (
    *("part", "listener", "admin", "sidecar", "tls_ca", "tls_certificate", "tls_key"),
    *("websocket", "grpc_web", "proxy_protocol", "limit_denials", "origins"),
)

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?").fullmatch


class LabelType(click.ParamType[str]):
    """A name of Kubernetes (RFC 1123 label), or with `pair` two of them, NAMESPACE/NAME."""

    name = "NAME"

    def __init__(self, *, pair: bool = False) -> None:
        """Take one name, or two."""
        self._pair = pair

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what Kubernetes would."""
        parts = str(value).split("/")
        if len(parts) != (2 if self._pair else 1) or not all(map(_LABEL, parts)):
            shape = "NAMESPACE/NAME, like extauthz/extauthz" if self._pair else "lower-case letters, digits and '-'"
            self.fail(f"{value!r}: write {shape}", param, ctx)
        return str(value)


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options."""
    added = (
        click.option(
            "--for",
            "plane",
            type=click.Choice([plane.value for plane in ControlPlane]),
            help="Print manifests for a control plane.",
        ),
        click.option(
            "--namespace", type=LabelType(), default="default", show_default=True, help="With --for: the gateway's namespace."
        ),
        click.option(
            "--gateway", type=LabelType(), default="gateway", show_default=True, help="With --for: the name of the Gateway."
        ),
        click.option(
            "--gateway-listener",
            type=LabelType(),
            default="http",
            show_default=True,
            help="With --for envoy-gateway: its listener.",
        ),
        click.option(
            "--service",
            type=LabelType(pair=True),
            metavar="NAMESPACE/NAME",
            default="extauthz/extauthz",
            show_default=True,
            help="With --for: the sidecar's Service, where it listens for other pods.",
        ),
    )
    for option in reversed(added):
        command = option(command)
    return command


def extract(flags: dict[str, Any]) -> dict[str, str]:
    """Remove what is for control planes only from all flags, and return it."""
    return {name: flags.pop(name) for name in WITH}


def check_usage(context: click.Context, plane: str | None) -> None:
    """Refuse options that would do nothing, with a usage error."""
    for param in context.command.params:
        is_given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if is_given and param.name in (WITH if plane is None else WITHOUT):
            more = "needs --for" if plane is None else f"does nothing with --for {plane}"
            raise click.UsageError(f"{param.opts[0]} {more}", context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the flags say of where everything is."""

    namespace: str
    gateway: str
    gateway_listener: str
    service: str
    upstream: Address
    domains: tuple[str, ...]
    trusted_hops: int
    tls_name: str | None


def manifests(loaded: Configuration, plane: ControlPlane, where: Installation) -> str:
    """Return the manifests; raises ValueError for what the control plane cannot take."""
    checks = Service(namespace=where.service.partition("/")[0], name=where.service.partition("/")[2])
    listen = loaded.settings.server.listen
    files = loaded.tls_files(loaded.settings.server.tls)
    tls = None
    if files is not None:
        # The files are the business of Kubernetes' secrets; what counts is whether Envoy has to show a certificate.
        certificate = "tls" if files[2] is not None else None
        name = where.tls_name or ("localhost" if listen.is_local else checks.host)
        tls = Tls(name=name, authority="", certificate=certificate, key=certificate)
    sidecar = sidecar_of(loaded, reached_at=() if listen.is_local else (checks.host,), tls=tls)
    hosts = domains_of(loaded, where.domains)
    placement = Placement(
        namespace=where.namespace,
        gateway=where.gateway,
        listener=where.gateway_listener,
        service=checks,
        upstream=where.upstream,
        domains=hosts if hosts != DOMAINS else DOMAINS[-1:],
        trusted_hops=where.trusted_hops,
    )
    return control_planes.text(plane, sidecar, placement)


def warnings(loaded: Configuration, plane: ControlPlane) -> Iterator[str]:
    """Yield what this control plane does not do with this configuration."""
    server = loaded.settings.server
    if plane is ControlPlane.ISTIO and server.workers > 1 and not server.listen.is_local:
        yield f"server.workers is {server.workers}, and Istio asks the first one only: write 1, and run more pods"
