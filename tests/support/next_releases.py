"""The schemas of releases to come: one that only adds, as the rule is, and one more behind it."""

from __future__ import annotations

import shutil
from pathlib import Path

from alembic import command
from alembic.config import Config

from extauthz.adapters.store import schema
from tests.support.postgresql import Place

NEXT, SECOND_NEXT = "0004", "0005"

_NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

def upgrade():
    op.add_column("tokens", sa.Column("label", sa.String(64)))
    op.create_table("labels", sa.Column("name", sa.String(64), primary_key=True))
    op.create_index("tokens_by_label", "tokens", ["label"])
"""
_SECOND_NEXT = """
from alembic import op

revision = "0005"
down_revision = "0004"

def upgrade():
    op.drop_table("labels")
"""


def migrate(place: Place, revision: str, folder: Path) -> None:
    """Do to a store what `store migrate` of a later release does, whose migrations are put into a folder."""
    scripts = folder / "migrations"
    if not scripts.exists():
        shutil.copytree(Path(schema.__file__).parent / "migrations", scripts)
        (scripts / "versions" / "0004_labels.py").write_text(_NEXT)
        (scripts / "versions" / "0005_no_labels.py").write_text(_SECOND_NEXT)
    config = Config()
    config.set_main_option("script_location", str(scripts))
    with place.opened() as store, store._database.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
