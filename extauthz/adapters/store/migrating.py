"""The schema of the token store, brought to this release's revision."""

from __future__ import annotations

from pathlib import Path

from extauthz.adapters.store.database import Database, revision_of
from extauthz.adapters.store.rows import SERVED, check_revision
from extauthz.errors import StoreError


def migrate(database: Database) -> str:
    """Bring the schema to this release's revision, in one transaction, and return it; a later one that is served stays."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    try:
        with database.migrating() as connection:
            if revision_of(connection) not in SERVED:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"{database.name}: {error}: the store was made by a newer release, use that one") from error
    revision = database.revision()
    check_revision(revision)
    return str(revision)
