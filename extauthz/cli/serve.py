"""`extauthz serve`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from extauthz.cli import configuration
from extauthz.cli.output import now
from extauthz.config.units import duration
from extauthz.errors import ListenError, StoreError
from extauthz.process import standard_streams


class Duration(click.ParamType[float]):
    """A duration as the configuration has them, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read "60s"; fails for what is none."""
        try:
            return duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("serve")
@configuration.option
@click.option(
    "--wait",
    type=Duration(),
    default="0s",
    metavar="DURATION",
    help="Wait so long for an instance that has the addresses to be told to stop, and take them over; 0s, or a time like 60s.",
)
@click.option("--decision-log/--no-decision-log", default=True, show_default=True, help="One JSON line per decision.")
def command(config_file: Path, *, wait: float, decision_log: bool) -> None:
    """Answer Envoy's checks until SIGTERM, then drain.

    SIGHUP reads the configuration again, which also happens by itself when a file changes; SIGUSR2 replaces the workers one by one.
    One that is told to stop goes on until its successor serves, for the time of server.drain at most.

    Example: extauthz serve --config config/extauthz.yaml
    """
    from extauthz.adapters import process_log
    from extauthz.serve import main
    from extauthz.serve.certificate_warnings import certificate_warnings

    process_log.configure()
    if standard_streams.closed_at_start:
        extra = {"streams": standard_streams.closed_at_start}
        logging.getLogger(__name__).warning(
            "closed at the start: /dev/null stands in, and what is written there is lost", extra=extra
        )
    with configuration.explained():
        loaded = configuration.read(config_file)
        for warning in (*loaded.warnings, *certificate_warnings(loaded, now())):
            logging.getLogger(__name__).warning("configuration: %s", warning)
        try:
            main.run(loaded, log_decisions=decision_log, wait=wait)
        except (StoreError, ListenError) as error:
            raise click.ClickException(str(error)) from error
