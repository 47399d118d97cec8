"""`extauthz demo`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from extauthz.demo.links import EnvoyLink
from extauthz.errors import DemoError, ListenError


@click.command("demo")
@click.option("--check", "check_only", is_flag=True, help="Run the curl lines, compare, and exit 0 only if all agree.")
@click.option("--free-ports", is_flag=True, help="Use any free ports instead of 10000, 9001, 9002, 9003, 9090 and 8080.")
@click.option(
    "--transport", type=click.Choice(["auto", "nghttp2", "grpcio"]), default="auto", show_default=True, help="Who serves."
)
@click.option(
    "--link", type=click.Choice(list(EnvoyLink)), default=EnvoyLink.TCP, show_default=True, help="How Envoy reaches the sidecar."
)
def command(*, check_only: bool, free_ports: bool, transport: str, link: EnvoyLink) -> None:
    """Run issuer, upstream, sidecar, console and a real Envoy on this machine until Ctrl-C.

    Example: extauthz demo --check
    """
    import asyncio

    from extauthz.cli.demo_session import demonstrate
    from extauthz.demo.launcher import Ports
    from extauthz.demo.wiring import Wiring

    with tempfile.TemporaryDirectory(prefix="extauthz-demo-") as folder:
        try:
            ports = Ports.free() if free_ports else Ports()
            agreed = asyncio.run(demonstrate(ports, Path(folder), Wiring(transport, link), check_only=check_only))
        except ListenError as error:
            raise click.ClickException(f"{error}; end it, or use: extauthz demo --free-ports") from error
        except DemoError as error:
            raise click.ClickException(str(error)) from error
    if not agreed:
        sys.exit(1)
