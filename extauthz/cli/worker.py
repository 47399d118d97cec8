"""`extauthz worker`: what `extauthz serve` starts several of."""

from __future__ import annotations

import click

from extauthz.adapters import logs
from extauthz.transport.choice import Name
from extauthz.transport.listening import ListenError
from extauthz.worker_process import main


@click.command("worker", hidden=True)
@click.argument("descriptor", type=int)
@click.argument("transport", type=click.Choice(["auto", "nghttp2", "grpcio"]))
def command(descriptor: int, transport: Name) -> None:
    """Answer checks as one of several workers; started by `extauthz serve`, which talks to it over DESCRIPTOR."""
    logs.configure()
    try:
        main(descriptor, transport)
    except ListenError as error:
        raise click.ClickException(str(error)) from error
