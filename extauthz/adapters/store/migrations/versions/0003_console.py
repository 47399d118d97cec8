"""What the console needs: sessions, accounts and admin keys, settings, and indexes for lists of tokens and of the audit.

It only adds: what an earlier release writes is good and means the same. On PostgreSQL the role of admins may use the new tables,
and the role of sidecars may read the settings; see 0002 for both roles.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# Ids are compared by their bytes, as SQLite does, and not by the rules of the database's language.
_ID = sa.String(12).with_variant(sa.String(12, collation="C"), "postgresql")

_APPENDED = "extauthz: rows are only appended"
_REVIVED = "extauthz: an admin key is neither removed nor revived"

_RIGHTS: dict[str, dict[str, tuple[str, ...]]] = {
    "extauthz_sidecar": {"SELECT": ("settings",)},
    "extauthz_admin": {
        "SELECT": ("admin_keys", "console_accounts", "console_sessions", "idempotency_keys", "settings"),
        "INSERT": ("admin_keys", "console_accounts", "console_sessions", "idempotency_keys", "settings"),
        "UPDATE": ("console_accounts", "console_sessions"),
        "UPDATE (revoked_at, revoked_by, last_used_at)": ("admin_keys",),
        "DELETE": ("console_accounts", "console_sessions", "idempotency_keys"),
    },
}


def upgrade() -> None:
    """Add indexes, a column and tables; settings are only appended, and a revoked admin key stays revoked."""
    op.create_index("tokens_by_expiry", "tokens", ["expires_at", "id"])
    op.create_index("token_usage_by_time", "token_usage", ["last_used_at", "token_id"])
    op.create_index("audit_by_action", "audit", ["action", "actor", "at", "token_id", "number"])
    op.create_index("audit_by_token", "audit", ["token_id", "number"])
    op.add_column("store_state", sa.Column("settings_version", sa.BigInteger))
    _who_gets_in()
    _requests_and_settings()
    if op.get_bind().dialect.name == "postgresql":
        schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
        _guard_postgresql(schema)
        _grant(schema)
    else:
        _guard_sqlite()


def _who_gets_in() -> None:
    op.create_table(
        "console_sessions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("method", sa.String(8), nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("authenticated_at", sa.BigInteger, nullable=False),
        sa.Column("pepper_id", sa.String(64), nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("console_sessions_by_digest", "console_sessions", ["digest"], unique=True)
    op.create_index("console_sessions_by_age", "console_sessions", ["created_at", "id"])
    op.create_table(
        "console_accounts",
        sa.Column("email", sa.String(254), primary_key=True),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String(254), nullable=False),
        sa.Column("pepper_id", sa.String(64), nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "admin_keys",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("role", sa.String(11), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String(254), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("pepper_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("revoked_by", sa.String(254)),
        sa.Column("last_used_at", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    op.create_index("admin_keys_by_age", "admin_keys", ["created_at", "id"])


def _requests_and_settings() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("request", sa.LargeBinary(32), nullable=False),
        sa.Column("token_id", _ID, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["at"])
    op.create_table(
        "settings",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("section", sa.String(16), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(254), nullable=False),
        sa.Column("source", sa.String(254), nullable=False),
        sa.Column("pepper_id", sa.String(64), nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sqlite_with_rowid=False,
    )


def _guard_sqlite() -> None:
    """REPLACE deletes without asking delete triggers: so a row that would replace another is refused."""
    changed = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in ("revoked_at", "revoked_by"))
    revived = f"NEW.id <> OLD.id OR (OLD.revoked_at IS NOT NULL AND ({changed}))"
    for table, key, condition, message in (("settings", "version", "1", _APPENDED), ("admin_keys", "id", revived, _REVIVED)):
        exists = f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"  # noqa: S608 - our own names
        for name, event, when in (("once", "INSERT", exists), ("changed", "UPDATE", condition), ("removed", "DELETE", "1")):
            op.get_bind().exec_driver_sql(
                f"CREATE TRIGGER {table}_{name} BEFORE {event} ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, '{message}'); END"
            )


def _guard_postgresql(schema: str) -> None:
    # Only an update has both rows: so the event is asked first.
    op.get_bind().exec_driver_sql(
        f"CREATE FUNCTION {schema}.extauthz_kept_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp "
        "AS $guard$ BEGIN IF TG_OP = 'UPDATE' THEN "
        "IF NEW.id = OLD.id AND (OLD.revoked_at IS NULL OR "
        "(NEW.revoked_at, NEW.revoked_by) IS NOT DISTINCT FROM (OLD.revoked_at, OLD.revoked_by)) THEN RETURN NEW; END IF; END IF; "
        f"RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = '{_REVIVED}'; END $guard$"
    )
    for table, function in (("settings", "extauthz_append_only"), ("admin_keys", "extauthz_kept_key")):
        for name, event, each in (("update", "UPDATE OR DELETE", "ROW"), ("truncate", "TRUNCATE", "STATEMENT")):
            op.get_bind().exec_driver_sql(
                f"CREATE TRIGGER {table}_{name} BEFORE {event} ON {schema}.{table} FOR EACH {each} "
                f"EXECUTE FUNCTION {schema}.{function}()"
            )


def _grant(schema: str) -> None:
    for role, rights in _RIGHTS.items():
        row = op.get_bind().exec_driver_sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'").first()  # noqa: S608
        if row is None:
            continue
        for right, tables in rights.items():
            names = ", ".join(f"{schema}.{table}" for table in tables)
            op.get_bind().exec_driver_sql(f"GRANT {right} ON {names} TO {role}")
