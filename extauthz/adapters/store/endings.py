"""How many issued tokens end soon, of those that somebody has to replace."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from extauthz.adapters.store.schema import token_usage, tokens
from extauthz.adapters.store.transactions import Transactions
from extauthz.core.model import AuthType

LIVES = 4
"""A token whose whole life is less than so many times what is looked at was made to end soon."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What tokens that end soon are counted by."""

    permission: AuthType
    is_used: bool


def token_endings(store: Transactions, at: int, within: int, *, used_since: int) -> dict[Ending, int]:
    """Count the active tokens without a successor that end within so many seconds; raises StoreError.

    Only those count whose life is LIVES times as long at least: others are renewed as they always were. A token is used when its
    last use is not before `used_since`, in seconds since the epoch as `at` is.
    """
    used = sa.case((sa.func.coalesce(token_usage.c.last_used_at, 0) >= used_since, 1), else_=0)
    rows = (
        sa.select(tokens.c.permission, used, sa.func.count())
        .select_from(tokens.outerjoin(token_usage, token_usage.c.token_id == tokens.c.id))
        .where(
            tokens.c.expires_at > at,
            tokens.c.expires_at < at + within,
            tokens.c.revoked_at.is_(None),
            tokens.c.rotated_to.is_(None),
            tokens.c.expires_at - tokens.c.created_at >= LIVES * within,
        )
        .group_by(tokens.c.permission, sa.literal_column("2"))
    )
    with store.reading() as connection:
        return {Ending(AuthType(permission), bool(used)): count for permission, used, count in connection.execute(rows)}
