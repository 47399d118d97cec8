"""What the token store says about its changes: the memory of revocations, and how long ago the store was last heard."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from extauthz.ports import Clock, FeedBatch
from extauthz.verifiers.known_ids import KnownIds

UNKNOWN = 2**62
"""The position before the first batch: beyond every number, so that the first read brings no rows."""
SLICE = 500
"""Changes that are read and taken at once: less than 5 ms of the event loop, with all that is done for each."""
LATE = 1.0
"""Seconds after which a change that the store has is honoured, whether it was read by then or not."""

Mark = tuple[int, int]
"""A generation of the feed and a position in it."""

_LAST_SHARD = 63
"""Changes are in as many dictionaries, and one: one alone would grow in steps of which the last ones take longer than a slice."""
_Changed = tuple[dict[str, int], ...]
_Arrival = tuple[float, _Changed, tuple[tuple[int, str], ...]]
"""When changes came, where they are remembered, and which they are."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Changes that are not read yet: up to `head`, as the store was first seen to be at `since`; the position was then `behind`."""

    head: int
    since: float
    behind: int


class Feed:
    """Keeps which tokens changed lately, and at which number; belongs to the process, not to a configuration.

    Changes come in batches of SLICE, and what one batch costs does not grow with their number. While some are left to be read there
    is a `backlog`: the feed counts as read when the backlog was first seen, until all of it is read.

    `generation` grows when changes were missed: what was read before counts no more. `rewound` is set when the store is an older
    one than it was, until the restore is accepted, which `epoch` shows. `audit` is number and MAC of the last row of the audit, for
    those who watch that; None before the first read. `ids` are those of all tokens; each change is added.
    """

    def __init__(self, *, clock: Clock, memory: float, ids: KnownIds | None = None) -> None:
        """Remember a change for `memory` seconds, at least as long as a verdict can be used."""
        self.ids = KnownIds(0) if ids is None else ids
        self._clock = clock
        self._memory = memory
        self._changed = _nothing_changed()
        self._arrivals: deque[_Arrival] = deque()
        self._epoch = -1
        self._head = UNKNOWN
        self._completed_at = float("-inf")
        self.position = UNKNOWN
        self.generation = 0
        self.rewound = False
        self.backlog: Backlog | None = None
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
        return mark[0] != self.generation or self._changed[hash(token_id) & _LAST_SHARD].get(token_id, -1) > mark[1]

    def is_late(self, mark: Mark) -> bool:
        """Tell whether a record that was read at a mark may have changed more than LATE seconds ago, in a change not read yet."""
        backlog = self.backlog
        return backlog is not None and mark[1] <= backlog.behind and self._clock.monotonic() - backlog.since > LATE

    def apply(self, batch: FeedBatch) -> None:
        """Take what a completed read brought."""
        self.audit = batch.audit
        if batch.epoch > self._epoch:
            self._start_over(batch)
        elif batch.epoch < self._epoch or batch.head < self._head:
            self.rewound = True
        elif not self.rewound:
            self._follow(batch)

    def _start_over(self, batch: FeedBatch) -> None:
        # What was remembered goes with its time, in slices: to let go of all at once takes as long as to take it did.
        self._changed = _nothing_changed()
        self._epoch, self.position = batch.epoch, batch.head
        self.generation += 1
        self.rewound = False
        self.ids.begin()
        self._complete(batch, self._clock.monotonic())

    def _follow(self, batch: FeedBatch) -> None:
        now = self._clock.monotonic()
        later = tuple(change for change in batch.changes if change[0] > self.position)
        end = self.position + len(later)
        is_whole = end < batch.head if batch.more else end == batch.head
        if not is_whole or any(number != expected for expected, (number, _) in enumerate(later, self.position + 1)):
            # Rows are gone that nobody here has read.
            self._start_over(batch)
            return
        if later:
            for number, token_id in later:
                self._changed[hash(token_id) & _LAST_SHARD][token_id] = number
            self._arrivals.append((now, self._changed, later))
            self.ids.add(token_id for _, token_id in later)
        self._note_backlog(batch, end, now)
        self._forget(now)

    def _note_backlog(self, batch: FeedBatch, end: int, now: float) -> None:
        """Move to the end of a batch; contact is what was read up to the head that a read has returned."""
        behind, self.position = self.position, end
        if end == batch.head:
            self._complete(batch, now)
            return
        self._head = batch.head
        if self.backlog is None:
            self.backlog = Backlog(batch.head, now, behind)
        elif end >= self.backlog.head:
            self._completed_at = self.backlog.since
            self.backlog = Backlog(batch.head, now, behind)

    def _complete(self, batch: FeedBatch, now: float) -> None:
        self._head = batch.head
        self._completed_at = now
        self.backlog = None

    def _forget(self, now: float) -> None:
        """Forget what is too old, about twice as many changes as one batch brings at most."""
        forgotten = 0
        while self._arrivals and now - self._arrivals[0][0] > self._memory and forgotten < SLICE:
            _, changed, changes = self._arrivals.popleft()
            for number, token_id in changes:
                shard = changed[hash(token_id) & _LAST_SHARD]
                if shard.get(token_id) == number:
                    del shard[token_id]
            forgotten += len(changes)


def _nothing_changed() -> _Changed:
    return tuple({} for _ in range(_LAST_SHARD + 1))
