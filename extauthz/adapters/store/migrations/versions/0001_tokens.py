"""Tokens, and the fingerprints of the peppers that they were made with."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("permission", sa.String(9), nullable=False),
        sa.Column("user", sa.String(254)),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String(254), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("pepper_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("revoked_by", sa.String(254)),
    )
    op.create_table(
        "peppers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(16), nullable=False),
    )
