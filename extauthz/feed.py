"""What the token store says about its changes: the memory of revocations, and how long ago the store was last heard."""

from __future__ import annotations

from extauthz.known_ids import KnownIds
from extauthz.ports import Clock, FeedBatch

UNKNOWN = 2**62
"""The position before the first batch: beyond every number, so that the first read brings no rows."""

Mark = tuple[int, int]
"""A generation of the feed and a position in it."""


class Feed:
    """Keeps which tokens changed lately, and at which number; belongs to the process, not to a configuration.

    `generation` grows when changes were missed: what was read before counts no more. `rewound` is set when the store is an older
    one than it was, until the restore is accepted, which `epoch` shows. `audit` is number and MAC of the last row of the audit, for
    those who watch that; None before the first read. `ids` are those of all tokens; each change is added.
    """

    def __init__(self, *, clock: Clock, memory: float, ids: KnownIds | None = None) -> None:
        """Remember a change for `memory` seconds, at least as long as a verdict can be used."""
        self.ids = KnownIds(0) if ids is None else ids
        self._clock = clock
        self._memory = memory
        self._changed: dict[str, tuple[int, float]] = {}
        self._epoch = -1
        self._completed_at = float("-inf")
        self.position = UNKNOWN
        self.generation = 0
        self.rewound = False
        self.audit: tuple[int, str] | None = None

    def remember(self, seconds: float) -> None:
        """Remember changes for another time from now on; what is forgotten already was of no use to verdicts of before."""
        self._memory = seconds

    @property
    def mark(self) -> Mark:
        """What to remember with a record that is read from now on."""
        return self.generation, self.position

    @property
    def age(self) -> float:
        """Seconds since the last completed read, infinite before the first."""
        return self._clock.monotonic() - self._completed_at

    def changed_since(self, token_id: str, mark: Mark) -> bool:
        """Tell whether a record that was read at a mark, not longer ago than the memory, may be another by now."""
        change = self._changed.get(token_id)
        return mark[0] != self.generation or (change is not None and change[0] > mark[1])

    def apply(self, batch: FeedBatch) -> None:
        """Take what a completed read brought."""
        self.audit = batch.audit
        if batch.epoch > self._epoch:
            self._start_over(batch)
        elif batch.epoch < self._epoch or batch.head < self.position:
            self.rewound = True
        elif not self.rewound:
            self._follow(batch)
        if not self.rewound:
            self._completed_at = self._clock.monotonic()

    def _start_over(self, batch: FeedBatch) -> None:
        self._changed.clear()
        self._epoch, self.position = batch.epoch, batch.head
        self.generation += 1
        self.rewound = False
        self.ids.begin()

    def _follow(self, batch: FeedBatch) -> None:
        now = self._clock.monotonic()
        later = [change for change in batch.changes if change[0] > self.position]
        whole = len(later) == batch.head - self.position
        if not whole or any(number != expected for expected, (number, _) in enumerate(later, self.position + 1)):
            # Rows are gone that nobody here has read.
            self._start_over(batch)
            return
        for number, token_id in later:
            self._changed.pop(token_id, None)
            self._changed[token_id] = number, now
        self.ids.add(token_id for _, token_id in later)
        self.position = batch.head
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._changed:
            token_id, (_, seen_at) = next(iter(self._changed.items()))
            if now - seen_at <= self._memory:
                return
            del self._changed[token_id]
