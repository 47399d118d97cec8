"""The ids of all issued tokens, in memory: an id that no token has is recognised without the store."""

from __future__ import annotations

import logging
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b

PAGE = 500
"""Ids that are read and taken at once: about a millisecond of the event loop."""
MAX_IDS = 2_000_000

_SHARD_BITS = 12
_SHIFT = 64 - _SHARD_BITS

Place = tuple[int, str]
"""Which reading of all ids this is, and the id behind which the next page begins."""

_log = logging.getLogger(__name__)


class KnownIds:
    """A bounded set of ids, nine bytes each: read page by page in the order of the ids, and kept up to date by the change feed.

    What is kept of an id is a hash of 64 bits under a key of this process, so that nobody outside can look for ids that collide;
    where two do, an unknown id counts as known, and the store is asked. Ids are never removed, as tokens never are.

    The set is `complete` as of the position of the feed: a page holds each token that was there when the reading began, and the
    feed names the later ones. With more than `limit` ids the set is `full` and holds none; 0 switches it off.
    """

    def __init__(self, limit: int = MAX_IDS) -> None:
        """Start with no ids; nothing is read before `begin`."""
        self._limit = limit
        self._key = os.urandom(16)
        self._shards: list[array[int]] = []
        self.count = 0
        self._reading = 0
        self._last = ""
        self.complete = False
        self.full = False

    def __contains__(self, token_id: str) -> bool:
        """Tell whether an id is kept, or another one with the same hash."""
        if not self._shards:
            return False
        number = self._hash(token_id)
        shard = self._shards[number >> _SHIFT]
        place = bisect_left(shard, number)
        return place < len(shard) and shard[place] == number

    @property
    def next_page(self) -> Place | None:
        """Where the next page begins, None when there is nothing to read."""
        return None if self.complete or not self._shards else (self._reading, self._last)

    def begin(self) -> None:
        """Forget all ids and read them again, behind the position that the feed has now."""
        self._drop()
        self.full = False
        if self._limit > 0:
            self._shards = [array("Q") for _ in range(1 << _SHARD_BITS)]

    def resize(self, limit: int) -> None:
        """Keep at most so many ids; another limit than before begins anew what had begun."""
        if limit == self._limit:
            return
        self._limit = limit
        if self._reading:
            self.begin()

    def take(self, place: Place, page: Sequence[str]) -> None:
        """Take the page that begins at a place: PAGE ids in their order, fewer at the end; one that nobody waits for is dropped."""
        if place != self.next_page:
            return
        self.add(page)
        if page and self._shards:
            self._last = page[-1]
        self.complete = bool(self._shards) and len(page) < PAGE

    def add(self, ids: Iterable[str]) -> None:
        """Add ids that the feed or a page names."""
        if not self._shards:
            return
        for token_id in ids:
            number = self._hash(token_id)
            shard = self._shards[number >> _SHIFT]
            place = bisect_left(shard, number)
            if place == len(shard) or shard[place] != number:
                shard.insert(place, number)
                self.count += 1
        if self.count > self._limit:
            self._drop()
            self.full = True
            _log.warning("more tokens than limits.known_ids: unknown ids are looked up in the store", extra={"limit": self._limit})

    def _drop(self) -> None:
        self._shards = []
        self.count = 0
        self._reading += 1
        self._last = ""
        self.complete = False

    def _hash(self, token_id: str) -> int:
        return int.from_bytes(blake2b(token_id.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest())
