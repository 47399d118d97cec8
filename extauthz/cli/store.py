"""`extauthz store …`."""

from __future__ import annotations

from pathlib import Path

import click

from extauthz.adapters.store.rows import StoreError
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.cli import configuration


@click.group("store")
def command() -> None:
    """The database of issued tokens."""


@command.command("migrate")
@configuration.option
def migrate(config_file: Path) -> None:
    """Make the token store, or bring it to the schema of this release.

    Example: extauthz store migrate --config config/extauthz.yaml
    """
    path = configuration.read(config_file).store_path
    if path is None:
        raise click.ClickException("issued tokens are switched off: set tokens.enabled in the configuration")
    try:
        store = SqlTokenStore(path, create=True)
        click.echo(f"{path}: schema {store.migrate()}")
        store.close()
    except StoreError as error:
        raise click.ClickException(str(error)) from error
