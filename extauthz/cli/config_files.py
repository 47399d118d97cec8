"""`extauthz config schema` and `extauthz config fmt`: what editors and reviewers of the files use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from extauthz.cli import configuration
from extauthz.cli.terminal import echo, printable
from extauthz.cli.written_files import write_file

DIFFERS = 1


@click.command("schema")
@click.option(
    "--of",
    "name",
    type=click.Choice(["settings", "routes"]),
    default="settings",
    show_default=True,
    help="settings for extauthz.yaml, routes for a route file.",
)
def schema(name: str) -> None:
    """Print the JSON Schema of extauthz.yaml or of route files, for editors.

    An editor with the YAML language server reads it where the first line of a file names it:
    "# yaml-language-server: $schema=schema/settings.schema.json".

    Example: extauthz config schema --of routes > config/schema/routes.schema.json
    """
    from extauthz.initial.files import schema_text

    echo(schema_text(f"{name}.schema.json"), nl=False)


@click.command("fmt")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@configuration.option
@click.option("--check", "only_look", is_flag=True, help="Write nothing, and exit 1 if a file is not laid out like that.")
def fmt(files: tuple[Path, ...], config_file: Path, *, only_look: bool) -> None:
    """Lay out YAML files; comments, quotes and what the files mean stay.

    Without FILE, the configuration and its route files. Each is replaced in one step; one that cannot be proved to mean the same
    afterwards is refused and stays as it is.

    Exit codes: 0 done; 1 a file differs, with --check; 2 wrong flags; 3 a file is refused.

    Example: extauthz config fmt --check
    """
    from extauthz.tools.yaml_format import LayoutRefused, formatted

    refused, different = False, False
    for file in files or _of(config_file):
        shown = printable(str(file), lines=False)
        try:
            data = file.read_bytes()
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        text = formatted(data)
        if isinstance(text, LayoutRefused):
            refused = True
            echo(f"{shown}: left as it is: {text.why}", err=True)
        elif text != data:
            different = True
            if not only_look:
                write_file(file, text.decode())
            echo(f"{shown}: {'is not laid out: run extauthz config fmt' if only_look else 'laid out'}")
    if refused:
        raise click.exceptions.Exit(configuration.CONFIGURATION_EXIT)
    if different and only_look:
        raise click.exceptions.Exit(DIFFERS)


def _of(config_file: Path) -> Iterator[Path]:
    """Yield the configuration and the route files that it names."""
    from extauthz.config import document

    yield config_file
    yield from (config_file.parent / name for _, name in document.strings(document.read(config_file), "routes"))
