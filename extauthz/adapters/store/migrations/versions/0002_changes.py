"""The change feed, the audit, uses, rotation and tombstones, and triggers that hold when the code does not.

It only adds: a store of 0001 keeps its tokens.

PostgreSQL gets two roles without log-in, to be granted to the accounts that connect:

    extauthz_sidecar    for `extauthz serve`: reads everything, writes token_usage alone
    extauthz_admin      for the command line and the console: everything else that is done to tokens

They are made here if the migrating account may make roles. If it may not, somebody who may does so first:

    CREATE ROLE extauthz_sidecar NOLOGIN;
    CREATE ROLE extauthz_admin NOLOGIN;

A role that is missing when this runs gets no rights; they are then given by hand, as `_RIGHTS` says below. The account that
migrates owns the tables and could drop the triggers, so neither sidecars nor admins should connect with it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Ids are compared by their bytes, as SQLite does, and not by the rules of the database's language.
_ID = sa.String(12).with_variant(sa.String(12, collation="C"), "postgresql")

_FROZEN = ("id", "permission", "user", "scopes", "created_at", "created_by", "pepper_id", "digest", "rotated_from")
_ONCE = ("revoked_at", "revoked_by", "revoked_why", "rotated_to")
_REVOKED = ("revoked_at", "revoked_by", "revoked_why")
_APPEND_ONLY = {"audit": "number", "tombstones": "id"}

_KNOWN = "extauthz: the id is known or has a tombstone"
_CHANGED = "extauthz: a token keeps its permission, scopes, user, origin and digest"
_UNDONE = "extauthz: a revocation or rotation is not undone"
_LONGER = "extauthz: a token never expires later"
_REMOVED = "extauthz: tokens are revoked, not removed"
_APPENDED = "extauthz: rows are only appended"

_RIGHTS = {
    "extauthz_sidecar": {
        "SELECT": ("alembic_version", "audit", "changes", "peppers", "store_state", "token_usage", "tokens", "tombstones"),
        # Of the columns alone: who may change a table may also lock it, and keep commands from reading it.
        "INSERT (token_id, last_used_at, last_used_from), UPDATE (last_used_at, last_used_from)": ("token_usage",),
    },
    "extauthz_admin": {
        "SELECT": ("alembic_version", "audit", "changes", "peppers", "store_state", "token_usage", "tokens", "tombstones"),
        "INSERT": ("audit", "changes", "peppers", "token_usage", "tokens", "tombstones"),
        "UPDATE": ("store_state", "token_usage", "tokens"),
        "DELETE": ("changes",),
    },
}


def upgrade() -> None:
    """Add columns and tables, then what guards them."""
    _tables()
    if op.get_bind().dialect.name == "postgresql":
        schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
        _guard_postgresql(schema)
        _grant(schema)
    else:
        _guard_sqlite()


def _tables() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("tokens", "id", type_=_ID)
    op.add_column("tokens", sa.Column("revoked_why", sa.String(200)))
    op.add_column("tokens", sa.Column("rotated_from", _ID))
    op.add_column("tokens", sa.Column("rotated_to", _ID))
    op.create_index("tokens_by_age", "tokens", ["created_at", "id"])
    op.create_index("tokens_by_user", "tokens", ["user", "created_at", "id"])
    op.create_table(
        "changes",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("token_id", _ID, nullable=False),
        sa.Column("kind", sa.String(9), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    state = op.create_table(
        "store_state",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("head", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.bulk_insert(state, [{"id": 1, "epoch": 0, "head": 0}])
    op.create_table(
        "token_usage",
        sa.Column("token_id", _ID, primary_key=True),
        sa.Column("last_used_at", sa.BigInteger, nullable=False),
        sa.Column("last_used_from", sa.String(64), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(254), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("token_id", _ID),
        sa.Column("source", sa.String(254), nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("pepper_id", sa.String(64), nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tombstones",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("revoked_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_by", sa.String(254), nullable=False),
        sa.Column("revoked_why", sa.String(200)),
        sqlite_with_rowid=False,
    )


def _guard_sqlite() -> None:
    """REPLACE deletes without asking delete triggers, by the row id too: so a row that would replace another is refused."""
    frozen = " OR ".join(f'NEW."{name}" IS NOT OLD."{name}"' for name in ("rowid", *_FROZEN))
    undone = " OR ".join(f"(OLD.{name} IS NOT NULL AND NEW.{name} IS NOT OLD.{name})" for name in _ONCE)
    added = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in _REVOKED)
    has_token = "EXISTS (SELECT 1 FROM tokens WHERE id = NEW.id OR rowid = NEW.rowid)"
    has_tombstone = "EXISTS (SELECT 1 FROM tombstones WHERE id = NEW.id)"
    _sqlite_trigger("tokens_once", "INSERT ON tokens", f"{has_token} OR {has_tombstone}", _KNOWN)
    _sqlite_trigger("tokens_frozen", "UPDATE ON tokens", frozen, _CHANGED)
    _sqlite_trigger("tokens_undone", "UPDATE ON tokens", f"{undone} OR (OLD.revoked_at IS NOT NULL AND ({added}))", _UNDONE)
    _sqlite_trigger("tokens_longer", "UPDATE ON tokens", "NEW.expires_at > OLD.expires_at", _LONGER)
    _sqlite_trigger("tokens_removed", "DELETE ON tokens", "1", _REMOVED)
    for table, key in _APPEND_ONLY.items():
        exists = f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"  # noqa: S608 - our own names
        _sqlite_trigger(f"{table}_once", f"INSERT ON {table}", exists, _APPENDED)
        _sqlite_trigger(f"{table}_changed", f"UPDATE ON {table}", "1", _APPENDED)
        _sqlite_trigger(f"{table}_removed", f"DELETE ON {table}", "1", _APPENDED)


def _sqlite_trigger(name: str, event: str, condition: str, message: str) -> None:
    op.get_bind().exec_driver_sql(
        f"CREATE TRIGGER {name} BEFORE {event} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{message}'); END"
    )


def _guard_postgresql(schema: str) -> None:
    new, old = (", ".join(f'{row}."{name}"' for name in _FROZEN) for row in ("NEW", "OLD"))
    undone = " OR ".join(f"(OLD.{name} IS NOT NULL AND NEW.{name} IS DISTINCT FROM OLD.{name})" for name in _ONCE)
    added = " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in _REVOKED)
    _postgresql_function(
        schema,
        "extauthz_new_token",
        f"IF EXISTS (SELECT 1 FROM {schema}.tombstones WHERE id = NEW.id) THEN {_raise(_KNOWN)} END IF; RETURN NEW;",  # noqa: S608
    )
    _postgresql_function(
        schema,
        "extauthz_changed_token",
        f"IF ({new}) IS DISTINCT FROM ({old}) THEN {_raise(_CHANGED)} END IF; "
        f"IF {undone} OR (OLD.revoked_at IS NOT NULL AND ({added})) THEN {_raise(_UNDONE)} END IF; "
        f"IF NEW.expires_at > OLD.expires_at THEN {_raise(_LONGER)} END IF; "
        "RETURN NEW;",
    )
    _postgresql_function(schema, "extauthz_removed_token", _raise(_REMOVED))
    _postgresql_function(schema, "extauthz_append_only", _raise(_APPENDED))
    _postgresql_trigger(schema, "tokens", "INSERT", "ROW", "extauthz_new_token")
    _postgresql_trigger(schema, "tokens", "UPDATE", "ROW", "extauthz_changed_token")
    _postgresql_trigger(schema, "tokens", "DELETE", "ROW", "extauthz_removed_token")
    _postgresql_trigger(schema, "tokens", "TRUNCATE", "STATEMENT", "extauthz_removed_token")
    for table in _APPEND_ONLY:
        _postgresql_trigger(schema, table, "UPDATE OR DELETE", "ROW", "extauthz_append_only")
        _postgresql_trigger(schema, table, "TRUNCATE", "STATEMENT", "extauthz_append_only")


def _raise(message: str) -> str:
    # A constraint that is not met, for every driver.
    return f"RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = '{message}';"


def _postgresql_function(schema: str, name: str, body: str) -> None:
    # The path is fixed, so that nobody's own tables or operators can stand in for ours.
    op.get_bind().exec_driver_sql(
        f"CREATE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp "
        f"AS $guard$ BEGIN {body} END $guard$"
    )


def _postgresql_trigger(schema: str, table: str, event: str, each: str, function: str) -> None:
    name = f"{table}_{event.partition(' ')[0].lower()}"
    op.get_bind().exec_driver_sql(
        f"CREATE TRIGGER {name} BEFORE {event} ON {schema}.{table} FOR EACH {each} EXECUTE FUNCTION {schema}.{function}()"
    )


def _grant(schema: str) -> None:
    for role, rights in _RIGHTS.items():
        # Roles belong to the server, not to the database: another migration may make them at the same moment.
        op.get_bind().exec_driver_sql(
            f"DO $make$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') "  # noqa: S608
            f"THEN CREATE ROLE {role} NOLOGIN; END IF; "
            "EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL; END $make$"
        )
        row = op.get_bind().exec_driver_sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'").first()  # noqa: S608
        if row is None:
            continue
        op.get_bind().exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        for right, tables in rights.items():
            names = ", ".join(f"{schema}.{table}" for table in tables)
            op.get_bind().exec_driver_sql(f"GRANT {right} ON {names} TO {role}")
