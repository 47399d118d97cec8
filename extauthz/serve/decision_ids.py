"""The ids of decisions: 128 random bits each, drawn from the system in blocks, which costs a quarter of a draw for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

BLOCK = 4096
"""Bytes of a draw."""


class DecisionIds:
    """Hands out each id once; a process that is forked draws its own."""

    def __init__(self) -> None:
        """Draw when the first one is asked for."""
        self._ids: Iterator[str] = iter(())
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> str:
        """Return 32 hex digits."""
        for decision_id in self._ids:
            return decision_id
        block = os.urandom(BLOCK).hex()
        self._ids = iter([block[start : start + 32] for start in range(0, len(block), 32)])
        return next(self._ids)

    def _forget(self) -> None:
        self._ids = iter(())


decision_id = DecisionIds()
