"""The tokens in a few numbers, each with the list that it counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from extauthz.adapters.store.records import TokenCounts
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import PERMISSIONS, Actor, Operation, forbidden
from extauthz.admin.token_search import TokenSearch, TokenStatus
from extauthz.core.model import AuthType

SOON = 30 * 86_400
"""Seconds before their end in which active tokens expire soon."""
KEPT = 10
"""Seconds that numbers are kept: to count 100,000 tokens takes a tenth of one."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How many tokens a search lists."""

    count: int
    search: TokenSearch


@dataclass(frozen=True, slots=True)
class TokenOverview:
    """The tokens at a moment, in seconds since the epoch: by permission and status, and what of the active ones needs a look."""

    at: int
    by_status: dict[AuthType, dict[TokenStatus, TokenCount]]
    expiring: TokenCount
    never_used: TokenCount

    @property
    def total(self) -> int:
        """All tokens."""
        return sum(each.count for statuses in self.by_status.values() for each in statuses.values())


class Overviews:
    """Counts tokens, and keeps the numbers for some seconds; safe for threads, of which one counts and others wait for it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._kept: TokenOverview | None = None

    def current(self, administration: Administration, actor: Actor, at: int) -> TokenOverview | Refused:
        """Return the numbers of now, or of some seconds ago."""
        if refused := forbidden(actor, Operation.READ):
            return refused
        with self._lock:
            if self._kept is None or not 0 <= at - self._kept.at < KEPT:
                self._kept = overview(administration.store.token_counts(at, at + SOON), at)
            return self._kept


def overview(counts: tuple[TokenCounts, ...], at: int) -> TokenOverview:
    """Put numbers beside the searches that list what they count."""
    by_permission = {each.permission: each for each in counts}

    def of(permission: AuthType, status: TokenStatus) -> TokenCount:
        found = by_permission.get(permission)
        count = 0 if found is None else int(getattr(found, status.value))
        return TokenCount(count, TokenSearch(permission=permission, status=status))

    def among(part: Callable[[TokenCounts], int], search: TokenSearch) -> TokenCount:
        return TokenCount(sum(map(part, counts)), search)

    return TokenOverview(
        at=at,
        by_status={permission: {status: of(permission, status) for status in TokenStatus} for permission in PERMISSIONS},
        expiring=among(lambda each: each.expiring, TokenSearch(status=TokenStatus.ACTIVE, expiring_within=SOON)),
        never_used=among(lambda each: each.never_used, TokenSearch(status=TokenStatus.ACTIVE, never_used=True)),
    )
