"""`extauthz worker`: what `extauthz serve` starts several of."""

from __future__ import annotations

import click

from extauthz.adapters import process_log
from extauthz.errors import ListenError
from extauthz.serve.worker_process import main
from extauthz.transport.select import Name


@click.command("worker", hidden=True)
@click.argument("descriptor", type=int)
@click.argument("transport", type=click.Choice(["auto", "nghttp2", "grpcio"]))
def command(descriptor: int, transport: Name) -> None:
    """Answer checks as one of several workers; started by `extauthz serve`, which talks to it over DESCRIPTOR."""
    process_log.configure()
    try:
        main(descriptor, transport)
    except ListenError as error:
        raise click.ClickException(str(error)) from error
