"""Flags of the commands that read API descriptions, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.cli import configuration

if TYPE_CHECKING:
    from extauthz.config.openapi_map import OpenapiMap
    from extauthz.tools.openapi import DescribedOperation

specs: Callable[[Any], Any] = click.argument(
    "specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path)
)
map_option: Callable[[Any], Any] = click.option(
    "--map",
    "map_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The mapping file: which operation needs which scope.",
)


def _base(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from extauthz.tools.openapi_servers import base_of

    try:
        return None if value is None else base_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


prefix_option: Callable[[Any], Any] = click.option(
    "--prefix",
    metavar="PATH",
    callback=_base,
    help="Where the paths of the descriptions begin, in place of what their servers say.",
)


def operations_of(files: Sequence[Path], prefix: str | None) -> list[DescribedOperation]:
    """Read descriptions, or list their problems and exit."""
    from extauthz.tools.openapi import read

    with configuration.explained():
        return read(files, prefix)


def rules_of(file: Path | None, vocabulary: Sequence[str]) -> OpenapiMap:
    """Read the mapping file, or list its problems and exit; without a file there are no rules."""
    from extauthz.config import openapi_map

    with configuration.explained():
        return openapi_map.OpenapiMap() if file is None else openapi_map.read(file, vocabulary)
