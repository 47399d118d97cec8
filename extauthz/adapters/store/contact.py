"""Whether a token store can be reached, and what is said and waited when it cannot."""

from __future__ import annotations

import asyncio
import logging

from extauthz.errors import StoreError

FIRST_PAUSE, LAST_PAUSE = 0.05, 0.5
"""Seconds between two attempts to connect: after the first failure, and after several."""
POOLED = "a pool in transaction mode stands in between, where LISTEN does not work: write tokens.feed: poll, or connect without it"

_log = logging.getLogger(__name__)


class FeedLost(Exception):
    """The database did not answer: it was `overdue`, it refused with an SQLSTATE in `code`, or the connection broke."""

    def __init__(self, cause: str, *, code: str | None = None, overdue: bool = False) -> None:
        """Take the cause, as one line."""
        super().__init__(" ".join(cause.split()))
        self.code = code
        self.overdue = overdue


class Contact:
    """Whether a store can be reached: each attempt is marked, only changes are logged."""

    def __init__(self, subject: str) -> None:
        """Take what the log lines are about; nothing is logged when the first attempt succeeds."""
        self._subject = subject
        self._logged_problems: set[str] = set()
        self._pause = FIRST_PAUSE
        self.is_lost = False

    def mark_lost(self, cause: BaseException) -> None:
        """Note an attempt that failed; a problem that an operator has to mend is logged even when the store was lost before."""
        problem = str(cause) if isinstance(cause, StoreError) else None
        if not self.is_lost or (problem and problem not in self._logged_problems):
            _log.warning("%s lost", self._subject, extra={"cause": str(cause)})
        if problem:
            self._logged_problems.add(problem)
        self.is_lost = True

    def mark_failed(self, cause: Exception) -> None:
        """Note an attempt that failed in an unexpected way."""
        if not self.is_lost:
            _log.error("%s failed", self._subject, exc_info=cause)
        self.mark_lost(cause)

    def mark_restored(self) -> None:
        """Note an attempt that succeeded."""
        if self.is_lost:
            _log.warning("%s back", self._subject)
        self._logged_problems.clear()
        self._pause = FIRST_PAUSE
        self.is_lost = False

    async def pause(self) -> None:
        """Sleep, the longer the more attempts failed."""
        seconds, self._pause = self._pause, min(2 * self._pause, LAST_PAUSE)
        await asyncio.sleep(seconds)
