"""The command line; one file per command group, imported when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from extauthz import __version__
from extauthz.cli import terminal

COMMANDS = (
    "init",
    "serve",
    "token",
    "pepper",
    "store",
    "audit",
    "config",
    "routes",
    "test",
    "explain",
    "diff",
    "replay",
    "decisions",
    "record",
    "report",
    "console",
    "internal-token",
    "envoy-config",
    "doctor",
    "demo",
    "completion",
)
HIDDEN = ("worker",)
"""What `serve` starts, and nobody else."""
COMPLETING = "_EXTAUTHZ_COMPLETE"
"""Set by the script of a shell, which asks what a word can become."""
DEPRECATED = ("monitor-report",)
"""Names of before, which say what to write instead."""


class LazyGroup(click.Group):
    """Imports the module of a command when it is used, so that `serve` does not carry what only others need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; its module has the name of the command, with "_" for "-"."""
        if cmd_name not in (*COMMANDS, *HIDDEN, *DEPRECATED):
            return None
        command = importlib.import_module(f"extauthz.cli.{cmd_name.replace('-', '_')}").command
        return command if isinstance(command, click.Command) else None

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command; the message of its end goes the one way to the terminal."""
        terminal.prepare()
        if COMPLETING in os.environ:
            importlib.import_module("extauthz.cli.completion").prepare()
        run: Callable[..., Any] = super().main
        if not options.pop("standalone_mode", True):
            return run(*args, standalone_mode=False, **options)
        try:
            code = run(*args, standalone_mode=False, **options)
            terminal.finish()
        except click.ClickException as error:
            terminal.show(error)
            sys.exit(error.exit_code)
        except click.Abort:
            terminal.echo("Aborted!", err=True)
            sys.exit(1)
        except terminal.Unwritable as error:
            terminal.give_up(error)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="extauthz")
def main() -> None:
    """Envoy external-authorization sidecar.

    Exit codes: 0 done; 1 refused, not found, or the world does not play along; 2 wrong flags; 3 problems in the configuration.

    Example: extauthz serve --config config/extauthz.yaml
    """
