"""The flags that say which running sidecar is asked, and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.cli import configuration
from extauthz.errors import LiveError

if TYPE_CHECKING:
    from extauthz.tools.live import OpsListener

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def ops_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config, --ops, --ca, --cert and --key."""
    for option in (
        click.option("--key", type=_FILE, help="The private key of --cert."),
        click.option("--cert", type=_FILE, help="A client certificate for server.ops_tls.client_ca."),
        click.option("--ca", type=_FILE, help="Authorities of the ops listener's certificate, in place of the system's."),
        click.option(
            "--ops", metavar="ADDRESS", help="The ops listener, in place of that of --config: 127.0.0.1:9090, unix:///path."
        ),
        configuration.option,
    ):
        command = option(command)
    return command


def listener(config_file: Path, ops: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> OpsListener:
    """Return which sidecar is asked; raises UsageError, and exits with the problems of a configuration."""
    from extauthz.tools.live import ops_listener, ops_listener_of

    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together: give both")
    certificate = (cert, key) if cert is not None and key is not None else None
    try:
        if ops is not None:
            return ops_listener(ops, ca=ca, certificate=certificate)
        return ops_listener_of(configuration.read(config_file), ca=ca, certificate=certificate)
    except LiveError as error:
        raise click.UsageError(str(error)) from error
