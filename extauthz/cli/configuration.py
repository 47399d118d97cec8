"""The flag --config, and what every command does with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from extauthz.cli.terminal import echo, printable
from extauthz.config.wording import counted
from extauthz.errors import ConfigurationError

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration

CONFIGURATION_EXIT = 3
VARIABLE = "EXTAUTHZ_CONFIG"
"""Names the file where no flag does."""
FILE = Path("config/extauthz.yaml")
"""What is read where nothing names one."""

option: Callable[[Any], Any] = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=VARIABLE,
    default=FILE,
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)


def mask_for(source: str) -> Callable[[str], str]:
    """Return what hides secrets in errors about a source of the command line: one that is no file may be a token."""
    from extauthz.tools.masking import Mask

    # Long names of files look like tokens, and are needed to find the error. Path.exists raises for names too long for a file.
    return Mask().tokens if os.path.exists(source) else Mask()


@contextmanager
def explained() -> Iterator[None]:
    """Turn a ConfigurationError into its list of problems and exit code 3."""
    try:
        yield
    except ConfigurationError as error:
        stop(error)


def read(file: Path, *, shown: Callable[[str], str] = str) -> Configuration:
    """Load the configuration, or list its problems as `shown` gives them and exit."""
    from extauthz.config.loader import load

    try:
        return load(file)
    except ConfigurationError as error:
        stop(error, shown=shown)


def stop(error: ConfigurationError, *, shown: Callable[[str], str] = str) -> NoReturn:
    """List the problems on standard error, as `shown` gives them, and exit."""
    for problem in error.problems:
        echo(printable(shown(str(problem)), lines=False), err=True)
    echo(f"{counted(len(error.problems), 'error')}: nothing was done.", err=True)
    sys.exit(CONFIGURATION_EXIT)
