"""Who holds an issued token: memory first, then the store, and what the store's change feed says in any case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from extauthz.core import tokens
from extauthz.core.model import Identity, Reason
from extauthz.core.tokens import TokenRecord, TokenText
from extauthz.errors import Unavailable
from extauthz.ports import Clock, Evidence, TokenStore, Verdict, Verdicts
from extauthz.verifiers.change_feed import Feed, Mark
from extauthz.verifiers.single_flight import Flights
from extauthz.verifiers.throttling import Budget

ATTEMPTS = 3
"""Reads of one record, when each time the feed tells of a change of it meanwhile."""


@dataclass(frozen=True, slots=True)
class Reading:
    """When a record was read, on the monotonic clock, and at which mark of the feed."""

    at: float
    mark: Mark


class IssuedVerifier:
    """Verifies issued tokens against the store.

    A verdict counts for `fresh` seconds; then the record is read again. While it cannot be read, the verdict counts as long as the
    last completed read of the feed is younger than `max_staleness` seconds. A token that the feed names is read again at once, and
    so is each when the feed has been reading a long row of changes for more than a second: it may be in those that are to come.

    While the feed's set of ids is complete, an id that is not in it is looked up out of a small budget, `strangers`: a token that
    was made a moment ago is found, and made-up ones take few look-ups from those that exist. Beyond it such an id is unknown as
    long as the last completed read of the feed is younger than `contact` seconds; after that nobody can tell.
    """

    def __init__(
        self,
        store: TokenStore,
        verdicts: Verdicts,
        feed: Feed,
        *,
        peppers: Mapping[str, bytes],
        prefixes: frozenset[str],
        clock: Clock,
        budget: Budget,
        strangers: Budget | None = None,
        fresh: float,
        max_staleness: float,
        contact: float,
        written: Callable[[frozenset[str]], frozenset[str]] = frozenset,
    ) -> None:
        """Take the store and what is remembered of it; `budget` bounds the look-ups of tokens that are not in memory.

        `written` returns scopes that were kept as the vocabulary writes them.
        """
        self._written = written
        self._store = store
        self._verdicts = verdicts
        self._feed = feed
        self._peppers = peppers
        self._prefixes = prefixes
        self._clock = clock
        self._budget = budget
        self._strangers = strangers
        self._fresh = fresh
        self._max_staleness = max_staleness
        self._contact = contact
        self._flights = Flights()
        self.queries: Counter[str] = Counter(ok=0, failed=0)
        self.unknown = 0
        """Checks of ids that no token has, answered without the store."""
        self._shed = 0
        self._mark = feed.mark

    @property
    def shed(self) -> int:
        """How many look-ups were refused because of the budget."""
        return self._budget.refused + self._shed

    def verify(self, token: str, now: float) -> Evidence | Awaitable[Evidence]:
        """Answer from memory or from the store; raises Unavailable."""
        feed = self._feed
        if feed.rewound:
            raise Unavailable(Reason.STORE_REWOUND)
        if self._mark != feed.mark:
            self._notice_changes()
        verdict = self._verdicts.recall(token)
        if isinstance(verdict, Reason):
            return verdict
        if verdict is not None and self._may_answer(verdict):
            return verdict.identity
        return self._read_record(token, verdict, now)

    def _may_answer(self, verdict: Verdict) -> bool:
        """Tell whether a verdict needs no look at the store."""
        reading = verdict.basis
        if not isinstance(reading, Reading) or self._is_changed(verdict):
            return False
        if self._feed.backlog is not None and self._feed.is_late(reading.mark):
            return False
        return self._clock.monotonic() - reading.at < self._fresh and self._feed.age < self._max_staleness

    def _is_changed(self, verdict: Verdict) -> bool:
        reading, token_id = verdict.basis, verdict.identity.token_id
        return token_id is None or not isinstance(reading, Reading) or self._feed.changed_since(token_id, reading.mark)

    def _read_record(self, token: str, verdict: Verdict | None, now: float) -> Evidence | Awaitable[Evidence]:
        flight = self._flights.join(token)
        if flight is not None:
            return flight
        text = tokens.parse(token, self._prefixes)
        if isinstance(text, Reason):
            return text
        budgets = self._take(text) if verdict is None else ()
        if budgets is None:
            self.unknown += 1
            return tokens.verify(text, None, self._peppers, now)
        mark, waits = self._feed.mark, False
        try:
            reply = self._store.find(text.id)
            waits = isinstance(reply, Awaitable)
        except Unavailable as unavailable:
            return self._without_store(verdict, unavailable)
        finally:
            if not waits:
                _give_back(budgets)
        if isinstance(reply, Awaitable):
            return self._flights.start(token, self._awaited(text, reply, mark, verdict), lambda: _give_back(budgets))
        return self._judged(text, reply, mark, now)

    def _take(self, text: TokenText) -> tuple[Budget, ...] | None:
        """Take from the budgets that a look-up needs; return them, or None for an id that no token has; raises Unavailable."""
        ids, strangers = self._feed.ids, self._strangers
        if strangers is None or not ids.complete or text.id in ids:
            self._budget.take()
            return (self._budget,)
        try:
            strangers.take()
        except Unavailable:
            if self._feed.age < self._contact and self._feed.backlog is None:
                return None
            self._shed += 1
            raise
        try:
            self._budget.take()
        except Unavailable:
            strangers.give_back()
            raise
        return self._budget, strangers

    async def _awaited(self, text: TokenText, work: Awaitable[TokenRecord | None], mark: Mark, verdict: Verdict | None) -> Evidence:
        try:
            for _ in range(ATTEMPTS):
                record = await work
                if not self._feed.changed_since(text.id, mark):
                    return self._judged(text, record, mark, self._clock.now())
                mark = self._feed.mark
                again = self._store.find(text.id)
                if not isinstance(again, Awaitable):
                    return self._judged(text, again, mark, self._clock.now())
                work = again
        except Unavailable as unavailable:
            return self._without_store(verdict, unavailable)
        raise Unavailable(Reason.STORE_UNAVAILABLE)

    def _judged(self, text: TokenText, record: TokenRecord | None, mark: Mark, now: float) -> Evidence:
        self.queries["ok"] += 1
        if self._feed.rewound:
            raise Unavailable(Reason.STORE_REWOUND)
        evidence = tokens.verify(text, record, self._peppers, now)
        if isinstance(evidence, Identity):
            evidence = replace(evidence, scopes=self._written(evidence.scopes))
        self._verdicts.put(text.text, evidence, basis=Reading(self._clock.monotonic(), mark))
        return evidence

    def _without_store(self, verdict: Verdict | None, unavailable: Unavailable) -> Evidence:
        self.queries["failed"] += 1
        if verdict is None or self._is_changed(verdict):
            raise unavailable
        if self._feed.rewound or self._feed.age >= self._max_staleness:
            raise Unavailable(Reason.STORE_STALE)
        return verdict.identity

    def _notice_changes(self) -> None:
        if self._mark[0] != self._feed.generation:
            self._verdicts.clear()
        self._verdicts.forget_refusals()
        self._mark = self._feed.mark


def _give_back(budgets: tuple[Budget, ...]) -> None:
    for budget in budgets:
        budget.give_back()
