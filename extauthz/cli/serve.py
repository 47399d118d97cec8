"""`extauthz serve`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from extauthz import app, standard_streams
from extauthz.adapters import logs
from extauthz.adapters.store.rows import StoreError
from extauthz.cli import configuration
from extauthz.transport.listening import ListenError


@click.command("serve")
@configuration.option
@click.option("--decision-log/--no-decision-log", default=True, show_default=True, help="One JSON line per decision.")
def command(config_file: Path, *, decision_log: bool) -> None:
    """Answer Envoy's checks until SIGTERM, then drain.

    SIGHUP reads the configuration again, which also happens by itself when a file changes; SIGUSR2 replaces the workers one by one.

    Example: extauthz serve --config config/extauthz.yaml
    """
    logs.configure()
    if standard_streams.closed_at_start:
        extra = {"streams": standard_streams.closed_at_start}
        logging.getLogger(__name__).warning(
            "closed at the start: /dev/null stands in, and what is written there is lost", extra=extra
        )
    with configuration.explained():
        loaded = configuration.read(config_file)
        for warning in loaded.warnings:
            logging.getLogger(__name__).warning("configuration: %s", warning)
        try:
            app.run(loaded, log_decisions=decision_log)
        except (StoreError, ListenError) as error:
            raise click.ClickException(str(error)) from error
