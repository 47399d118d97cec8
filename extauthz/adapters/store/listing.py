"""What is read of tokens and of the feed."""

from __future__ import annotations

import sqlalchemy as sa

from extauthz.adapters.store.database import Kind
from extauthz.adapters.store.feed_rows import feed_batch
from extauthz.adapters.store.ledger import audit_head
from extauthz.adapters.store.records import StoredToken, StoreState, TokenCounts
from extauthz.adapters.store.rows import NEEDING
from extauthz.adapters.store.rules import possible
from extauthz.adapters.store.schema import (
    audit,
    changes,
    peppers,
    read_state,
    store_state,
    stored,
    stored_tokens,
    token_usage,
    tokens,
)
from extauthz.core.model import AuthType
from extauthz.ports import FeedBatch


def get(connection: sa.Connection, token_id: str) -> StoredToken | None:
    """Return one token."""
    row = connection.execute(stored_tokens().where(tokens.c.id == token_id)).first() if possible(token_id) else None
    return None if row is None else stored(row)


def status(connection: sa.Connection, kind: Kind, revision: str, now: int) -> StoreState:
    """Count the tokens; return that with the heads of feed and audit."""
    is_revoked = tokens.c.revoked_at.is_not(None)
    is_active = sa.and_(tokens.c.revoked_at.is_(None), tokens.c.expires_at > now)
    counts = sa.select(tokens.c.pepper_id, sa.func.count(), _count(is_revoked), _count(is_active)).group_by(tokens.c.pepper_id)
    by_pepper = {pepper_id: numbers for pepper_id, *numbers in connection.execute(counts)}
    tokens_in_all, revoked, active = (sum(numbers[index] for numbers in by_pepper.values()) for index in range(3))
    state = read_state(connection)
    number, mac = audit_head(connection)
    return StoreState(
        revision=revision,
        kind=kind,
        active=active,
        expired=tokens_in_all - revoked - active,
        revoked=revoked,
        epoch=state.epoch,
        head=state.head,
        audit=(number, mac.hex()),
        peppers={
            name: by_pepper[name][2] if name in by_pepper else 0
            for name in connection.scalars(sa.select(peppers.c.id).order_by(peppers.c.id))
        },
    )


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


def token_counts(connection: sa.Connection, now: int, soon: int) -> tuple[TokenCounts, ...]:
    """Count the tokens of each permission; active ones that expire before `soon` expire soon."""
    is_revoked = tokens.c.revoked_at.is_not(None)
    is_active = sa.and_(tokens.c.revoked_at.is_(None), tokens.c.expires_at > now)
    expires_soon = sa.and_(is_active, tokens.c.expires_at < soon)
    # To count those with a use is quicker than to look for the use of each.
    with_use = token_usage.join(tokens, tokens.c.id == token_usage.c.token_id)
    used = sa.select(tokens.c.permission, sa.func.count()).select_from(with_use).where(is_active).group_by(tokens.c.permission)
    used_by_permission = {row[0]: row[1] for row in connection.execute(used)}
    numbers = (sa.func.count(), *map(_count, (is_revoked, is_active, expires_soon)))
    query = sa.select(tokens.c.permission, *numbers).group_by(tokens.c.permission).order_by(tokens.c.permission)
    return tuple(
        TokenCounts(
            permission=AuthType(permission),
            active=active,
            expired=total - revoked - active,
            revoked=revoked,
            expiring=expiring,
            never_used=active - used_by_permission.get(permission, 0),
        )
        for permission, total, revoked, active, expiring in connection.execute(query)
    )


def read_feed(connection: sa.Connection, after: int) -> FeedBatch:
    """Return what changed after a position."""
    oldest = sa.func.coalesce(sa.select(sa.func.min(changes.c.number)).scalar_subquery(), store_state.c.head + 1)
    last = sa.select(audit.c.number, audit.c.mac).order_by(audit.c.number.desc()).limit(1).subquery()
    rows = (
        sa.select(store_state.c.epoch, store_state.c.head, oldest, last.c.number, last.c.mac, changes.c.number, changes.c.token_id)
        .select_from(store_state.outerjoin(last, sa.true()).outerjoin(changes, changes.c.number > after))
        .where(store_state.c.id == 1)
        .order_by(changes.c.number)
    )
    return feed_batch(connection.execute(rows).all())


def pepper_fingerprints(connection: sa.Connection) -> dict[str, str]:
    """Return the fingerprint of each pepper that a token was made with."""
    return {row.id: row.fingerprint for row in connection.execute(sa.select(peppers))}


def needing(connection: sa.Connection, pepper_id: str, now: int) -> list[tuple[str, int]]:
    """Return the rows of NEEDING."""
    rows = connection.execute(sa.text(NEEDING.format(":pepper_id", ":now")), {"pepper_id": pepper_id, "now": now})
    return [(token_id, count) for token_id, count in rows]
