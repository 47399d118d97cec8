"""`extauthz envoy-config`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.addresses import MAX_PORT, Address, parse_address
from extauthz.cli import configuration, control_planes, envoy_traffic
from extauthz.cli.terminal import echo
from extauthz.cli.written_files import write_file
from extauthz.core.policy import canonical_host
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config import control_planes as manifests
from extauthz.envoy_config.bootstrap import ADMIN, LISTENER, TURN_AWAY, UPSTREAM, Edge, Part, Tls
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.envoy_config.cors import cors_of
from extauthz.envoy_config.reading import domains_of, reachable, serves_other_hosts, sidecar_of

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration

AUTHORITY, CERTIFICATE, KEY = "/etc/envoy/tls/ca.crt", "/etc/envoy/tls/tls.crt", "/etc/envoy/tls/tls.key"


class AddressType(click.ParamType[Address]):
    """An address, or with `named` also a host name and a port."""

    name = "ADDRESS"

    def __init__(self, *, named: bool = False) -> None:
        """Take names only where something is connected to."""
        self._named = named

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Read 127.0.0.1:8080, [::1]:8080, unix:///path or api.internal:8080."""
        if isinstance(value, Address):
            return value
        host, _, port = value.rpartition(":")
        if self._named and canonical_host(host) == host and host[-1:].isalpha() and port.isdigit() and 0 < int(port) <= MAX_PORT:
            return reachable(Address(host=host, port=int(port)))
        try:
            return reachable(parse_address(value))
        except ValueError as error:
            hint = f"{value!r}: write a host and a port, like api.internal:8080"
            self.fail(hint if self._named else str(error), param, ctx)


@click.command("envoy-config")
@configuration.option
@click.option(
    "--part",
    type=click.Choice([part.value for part in Part]),
    default=Part.ALL.value,
    show_default=True,
    help="A whole bootstrap, or what to copy.",
)
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="YAML has comments.")
@click.option("--listener", type=AddressType(), default=LISTENER, show_default=True, help="Where Envoy's clients connect.")
@click.option("--upstream", type=AddressType(named=True), default=UPSTREAM, show_default=True, help="The API behind Envoy.")
@click.option("--admin", type=AddressType(), default=ADMIN, show_default=True, help="Envoy's admin interface.")
@click.option("--domain", "domains", multiple=True, metavar="HOST", help="A host to let in, besides the `hosts` of route files.")
@click.option("--sidecar", multiple=True, metavar="HOST", help="Where Envoy reaches the sidecar; by default where it listens.")
@click.option("--tls-name", metavar="NAME", help="With server.tls: whom its certificate is for; by default it is looked up.")
@click.option("--tls-ca", default=AUTHORITY, show_default=True, metavar="FILE", help="With server.tls: who signed it.")
@click.option("--tls-certificate", default=CERTIFICATE, show_default=True, metavar="FILE", help="With client_ca: Envoy's own.")
@click.option("--tls-key", default=KEY, show_default=True, metavar="FILE", help="With client_ca: its key.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write, in one step: after an error it is what it was before.",
)
@envoy_traffic.options
@control_planes.options
def command(
    config_file: Path,
    *,
    output: Path | None,
    plane: str | None,
    part: Part,
    form: str,
    listener: Address,
    upstream: Address,
    admin: Address,
    domains: tuple[str, ...],
    sidecar: tuple[str, ...],
    tls_name: str | None,
    tls_ca: str,
    tls_certificate: str,
    tls_key: str,
    origins: tuple[str, ...],
    **flags: Any,
) -> None:
    """Print the Envoy configuration that fits the loaded configuration.

    Parts: all, a whole bootstrap; filter, header_mutation and ext_authz for `http_filters`; cluster, the sidecar's processes for
    `clusters`; mutation, only decoder_header_mutation_rules; manager, virtual-host and listener, the settings of each of them.
    Files are named as Envoy sees them. What comes through besides plain requests is asked for by flags.

    With --for: the manifests of a control plane that configures Envoy, with what it cannot express in comments.

    \b
    Example: extauthz envoy-config --config config/extauthz.yaml --output envoy.yaml
             extauthz envoy-config --listener 0.0.0.0:8080 --upstream api.internal:8080 --domain api.acme.com
             extauthz envoy-config --part filter
             extauthz envoy-config --websocket --cors https://app.acme.com
             extauthz envoy-config --part cluster --sidecar checks.internal --tls-name checks.internal
             extauthz envoy-config --for envoy-gateway --namespace gateways --gateway public | kubectl apply -f -
    """
    control_planes.check_usage(click.get_current_context(), plane)
    names = control_planes.extract(flags)
    loaded = configuration.read(config_file)
    traffic = envoy_traffic.read_flags(flags, loaded)
    if plane is not None:
        where = control_planes.Installation(
            upstream=upstream, domains=domains, trusted_hops=traffic.trusted_hops, tls_name=tls_name, **names
        )
        _manifests(loaded, ControlPlane(plane), form, where, output)
        return
    tls = _tls(loaded, tls_name or next(iter(sidecar), None), tls_ca, tls_certificate, tls_key)
    try:
        target = sidecar_of(loaded, reached_at=sidecar, tls=tls)
        cors = cors_of(loaded, origins, grpc_web=traffic.grpc_web)
        edge = Edge(
            listener=listener,
            upstream=upstream,
            admin=admin,
            domains=domains_of(loaded, domains),
            traffic=traffic,
            cors=cors,
        )
        printed = bootstrap.text(target, edge, Part(part))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    for warning in (*_warnings(loaded, domains), *envoy_traffic.warnings(traffic, cors, Part(part), loaded)):
        echo(f"warning: {warning}", err=True)
    _print(f"{bootstrap.as_json(printed)}\n" if form == "json" else printed, output)


def _manifests(
    loaded: Configuration, plane: ControlPlane, form: str, where: control_planes.Installation, output: Path | None
) -> None:
    try:
        printed = control_planes.manifests(loaded, plane, where)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    for warning in (*_warnings(loaded, where.domains), *control_planes.warnings(loaded, plane)):
        echo(f"warning: {warning}", err=True)
    _print(f"{manifests.as_json(printed)}\n" if form == "json" else printed, output)


def _print(text: str, output: Path | None) -> None:
    if output is None:
        echo(text, nl=False)
    else:
        write_file(output, text)


def _tls(loaded: Configuration, name: str | None, authority: str, certificate: str, key: str) -> Tls | None:
    """Say how Envoy connects; without a name the one that the sidecar's certificate has, if it can be read here."""
    files = loaded.tls_files(loaded.settings.server.tls)
    if files is None:
        return None
    if name is None:
        from extauthz.transport.certificate_dates import read_chain

        try:
            name = next(iter(read_chain(files[0])[0].names), "localhost")
        except ValueError:
            name = "localhost"
    if files[2] is None:
        return Tls(name=name, authority=authority)
    return Tls(name=name, authority=authority, certificate=certificate, key=key)


def _warnings(loaded: Configuration, domains: tuple[str, ...]) -> Iterator[str]:
    drain = loaded.settings.server.drain
    if drain <= TURN_AWAY:
        yield f"server.drain is {drain:g} s, and Envoy needs {TURN_AWAY:g} s to turn away from a process that stops: make it longer"
    if loaded.policy.hosts and serves_other_hosts(loaded) and not domains:
        yield "route files without `hosts` serve other hosts too: name those with --domain"
