"""Everything that changes the token store: the CLI, the console and migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from extauthz.adapters.store import schema
from extauthz.adapters.store.rows import COLUMNS, StoreError, check_revision, record
from extauthz.core.tokens import TokenRecord


class SqlTokenStore:
    """A token store on SQLite, for one process at a time to change; raises StoreError."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the database; with `create` make it and its folder. The schema is made by `migrate`."""
        self._path = path
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise StoreError(f"{path}: no token store; make one with 'extauthz store migrate' or 'extauthz token create'")
        self._engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": 5.0})
        # pysqlite would commit before DDL: with its own transactions off, a failed migration leaves nothing behind.
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    def migrate(self) -> str:
        """Bring the schema to this release's revision, in one transaction, and return it."""
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        try:
            with self._transaction() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(f"{self._path}: {error}: the store was made by a newer release, use that one") from error
        revision = self.revision()
        check_revision(revision)
        return str(revision)

    def revision(self) -> str | None:
        """Return the schema revision, None for an empty database."""
        with self._transaction() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            row = connection.execute(sa.text("SELECT version_num FROM alembic_version")).first()
            return None if row is None else str(row[0])

    def add(self, new: TokenRecord, pepper_fingerprint: str) -> None:
        """Insert a token; refuse a pepper that is not the one the store knows by this id."""
        with self._transaction() as connection:
            known = connection.scalar(sa.select(schema.peppers.c.fingerprint).where(schema.peppers.c.id == new.pepper_id))
            if known is None:
                connection.execute(schema.peppers.insert().values(id=new.pepper_id, fingerprint=pepper_fingerprint))
            elif known != pepper_fingerprint:
                raise StoreError(f"pepper {new.pepper_id!r} is not the one that the tokens in {self._path} were made with")
            connection.execute(schema.tokens.insert().values(schema.values(new)))

    def get(self, token_id: str) -> TokenRecord | None:
        """Return one token."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(*schema.columns()).where(schema.tokens.c.id == token_id)).first()
            return None if row is None else record(row)

    def list_tokens(self) -> list[TokenRecord]:
        """Return all tokens, the newest first."""
        order = (schema.tokens.c.created_at.desc(), schema.tokens.c.id)
        with self._transaction() as connection:
            return [record(row) for row in connection.execute(sa.select(*schema.columns()).order_by(*order))]

    def revoke(self, token_id: str, *, at: int, by: str) -> bool:
        """Revoke a token; False when it is unknown or was revoked before, which keeps the first revocation."""
        active = (schema.tokens.c.id == token_id) & schema.tokens.c.revoked_at.is_(None)
        with self._transaction() as connection:
            return connection.execute(schema.tokens.update().where(active).values(revoked_at=at, revoked_by=by)).rowcount == 1

    def pepper_fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each pepper that a token was made with."""
        with self._transaction() as connection:
            return {row.id: row.fingerprint for row in connection.execute(sa.select(schema.peppers))}

    def close(self) -> None:
        """Empty the write-ahead log, so that the file alone is the store, and close the pool."""
        with suppress(SQLAlchemyError), self._engine.connect() as connection:
            connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise StoreError(f"{self._path}: refused by the store ({error.orig})") from error
        except ValueError as error:
            raise StoreError(f"{self._path}: {error}: restore the store from a backup") from error
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or type(error).__name__
            raise StoreError(f"{self._path}: the token store cannot be used ({cause})") from error


def _configure(connection: Any, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


assert tuple(COLUMNS) == tuple(schema.tokens.columns.keys()), "the table and COLUMNS differ"  # noqa: S101
