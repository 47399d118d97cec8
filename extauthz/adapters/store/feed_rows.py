"""The rows of the change feed as both databases return them, and the batch that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extauthz.adapters.store.rows import check_revision
from extauthz.ports import EMPTY_AUDIT, FeedBatch
from extauthz.verifiers.change_feed import SLICE

FEED = """
SELECT state.epoch, state.head, coalesce((SELECT min(number) FROM changes), state.head + 1), last.number, last.mac,
    later.number, later.token_id, (SELECT version_num FROM alembic_version)
FROM store_state AS state LEFT JOIN (SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1) AS last ON true
LEFT JOIN (SELECT number, token_id FROM changes WHERE number > {} ORDER BY number LIMIT {}) AS later ON true
WHERE state.id = 1 ORDER BY later.number
"""
"""The changes after a position; the placeholders are for that and for the most that are wanted."""


def feed_slice(rows: Sequence[Sequence[Any]]) -> FeedBatch:
    """Turn rows of FEED, at most SLICE, into a batch; raise ValueError as below, StoreError for a schema that is not served."""
    if rows:
        check_revision(rows[0][7])
    return feed_batch(rows, SLICE)


def feed_batch(rows: Sequence[Sequence[Any]], limit: int | None = None) -> FeedBatch:
    """Turn rows, at most `limit`, into a batch; raise ValueError for some that no release wrote.

    A row holds epoch, head, oldest, number and MAC of the audit's last row, and number and token id of a change. All but these two
    are the same in every row; they are None in the one row that says that nothing changed, as those of an empty audit are.
    """
    if not rows:
        raise ValueError("the store has no state: restore it from a backup")
    epoch, head, oldest, last, mac = rows[0][:5]
    changes = tuple((row[5], row[6]) for row in rows if row[5] is not None)
    numbers = (epoch, head, oldest, last or 0, *(number for number, _ in changes))
    if not all(type(number) is int for number in numbers) or not all(isinstance(token_id, str) for _, token_id in changes):
        raise ValueError("changes that no release wrote")
    if last is not None and not isinstance(mac, bytes):
        raise ValueError("an audit that no release wrote")
    more = len(changes) == limit and changes[-1][0] < head
    return FeedBatch(epoch, head, oldest, changes, EMPTY_AUDIT if last is None else (last, mac.hex()), more)
