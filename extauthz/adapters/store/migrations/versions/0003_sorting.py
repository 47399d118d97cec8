"""Indexes for lists of tokens by expiry and by last use.

They only add: what an earlier release writes is good and means the same.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make both indexes."""
    op.create_index("tokens_by_expiry", "tokens", ["expires_at", "id"])
    op.create_index("token_usage_by_time", "token_usage", ["last_used_at", "token_id"])
