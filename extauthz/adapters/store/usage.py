"""When and from where tokens were last used: written late, in batches, and told to nobody."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from extauthz.adapters.store.database import Kind, batches
from extauthz.adapters.store.rules import MAX_USED_FROM, possible
from extauthz.adapters.store.schema import token_usage, tokens


def record_usage(connection: sa.Connection, kind: Kind, uses: Mapping[str, tuple[int, str]]) -> None:
    """Keep the newest use of each token; ids that are unknown are left out."""
    insert = postgresql.insert(token_usage) if kind == "postgresql" else sqlite.insert(token_usage)
    newer = {name: insert.excluded[name] for name in ("last_used_at", "last_used_from")}
    is_newer = insert.excluded.last_used_at > token_usage.c.last_used_at
    upsert = insert.on_conflict_do_update(index_elements=["token_id"], set_=newer, where=is_newer)
    # In one order everywhere: two sidecars that write the same rows would otherwise wait for each other.
    for asked in batches(sorted(filter(possible, uses))):
        known = connection.scalars(sa.select(tokens.c.id).where(tokens.c.id.in_(asked))).all()
        rows = [
            {"token_id": token_id, "last_used_at": uses[token_id][0], "last_used_from": uses[token_id][1][:MAX_USED_FROM]}
            for token_id in sorted(known)
        ]
        if rows:
            connection.execute(upsert, rows)
