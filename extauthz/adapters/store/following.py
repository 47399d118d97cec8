"""Followers of a token store's change feed: they hand on what each read brings and end with nothing but their cancellation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from extauthz.adapters.store.rows import StoreError
from extauthz.known_ids import PAGE as IDS_PAGE
from extauthz.known_ids import KnownIds
from extauthz.ports import EMPTY_AUDIT, FeedBatch, Unavailable

CHANNEL = "extauthz_changes"
"""What writers notify when they commit."""
READ_TIME = 1.0
"""Seconds that a read may take before its connection is given up."""
PAGE = 10_000
"""Changes in one query."""
UNANNOUNCED = 2
"""Readings in a row that bring changes without a notification: then there are none."""
POOLED = "a pool in transaction mode stands in between, where LISTEN does not work: write tokens.feed: poll, or connect without it"
GATHER = 0.05
"""Least seconds between two reads that notifications cause."""
IDS_PAUSE = 0.002
"""Seconds between two pages of ids of a file, for all else that goes on in the event loop."""
IDS_RETRY = 30.0
"""Seconds after a page of ids that could not be read, so that the feed goes on meanwhile."""
FIRST_PAUSE, LAST_PAUSE = 0.05, 0.5
"""Seconds between two attempts to connect: after the first failure, and after several."""

_READ = f"""
SELECT state.epoch, state.head, coalesce((SELECT min(number) FROM changes), state.head + 1), last.number, last.mac,
    later.number, later.token_id
FROM store_state AS state LEFT JOIN (SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1) AS last ON true
LEFT JOIN LATERAL (
    SELECT number, token_id FROM changes WHERE number > %s::bigint ORDER BY number LIMIT {PAGE}
) AS later ON true
WHERE state.id = 1 ORDER BY later.number
"""  # noqa: S608 - our own number
_IDS = "SELECT id FROM tokens WHERE id > %s ORDER BY id LIMIT %s"

_log = logging.getLogger(__name__)


class Lost(Exception):
    """The database did not answer: it was `overdue`, it refused with an SQLSTATE in `code`, or the connection broke."""

    def __init__(self, cause: str, *, code: str | None = None, overdue: bool = False) -> None:
        """Tell the cause in one line."""
        super().__init__(" ".join(cause.split()))
        self.code = code
        self.overdue = overdue


class FeedLink(Protocol):
    """One connection to a database server, which is lost with the first question that fails."""

    async def connect(self) -> None:
        """Connect, and let go of an earlier connection."""

    async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[tuple[Any, ...]]: ...

    async def notified(self, seconds: float) -> bool: ...

    async def close(self) -> None: ...


class FeedFile(Protocol):
    """A database in a file."""

    def version(self) -> object: ...

    def read_feed(self, after: int) -> FeedBatch: ...

    def read_ids(self, after: str, limit: int) -> Sequence[str]: ...


def feed_batch(rows: Sequence[Sequence[Any]]) -> FeedBatch:
    """Turn rows into a batch; raise ValueError for some that no release wrote.

    A row holds epoch, head, oldest, number and MAC of the audit's last row, and number and token id of a change. All but these two
    are the same in every row; they are None in the one row that tells that nothing changed, as those of an empty audit are.
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
    return FeedBatch(epoch, head, oldest, changes, EMPTY_AUDIT if last is None else (last, mac.hex()))


class Contact:
    """Whether a store is heard: `lost` and `back` may be called at every attempt, what they change is logged once."""

    def __init__(self, what: str) -> None:
        """Say of what the lines are; nothing is logged when the first attempt succeeds."""
        self._what = what
        self._mistakes: set[str] = set()
        self._pause = FIRST_PAUSE
        self.is_lost = False

    def lost(self, cause: BaseException) -> None:
        """Note an attempt that failed; a mistake that somebody has to mend is told even when the store was lost before."""
        mistake = str(cause) if isinstance(cause, StoreError) else None
        if not self.is_lost or (mistake and mistake not in self._mistakes):
            _log.warning("%s lost", self._what, extra={"cause": str(cause)})
        if mistake:
            self._mistakes.add(mistake)
        self.is_lost = True

    def broken(self, cause: Exception) -> None:
        """Note an attempt that failed in a way that nobody thought of."""
        if not self.is_lost:
            _log.error("%s failed", self._what, exc_info=cause)
        self.lost(cause)

    def back(self) -> None:
        """Note an attempt that succeeded."""
        if self.is_lost:
            _log.warning("%s back", self._what)
        self._mistakes.clear()
        self._pause = FIRST_PAUSE
        self.is_lost = False

    async def pause(self) -> None:
        """Sleep, the longer the more attempts failed."""
        seconds, self._pause = self._pause, min(2 * self._pause, LAST_PAUSE)
        await asyncio.sleep(seconds)


class PostgresFollower:
    """Reads the changes in PostgreSQL when a notification came, and every `poll_interval` seconds whatever came.

    Every completed read is handed on, also one that brought no change: it proves the contact.
    """

    def __init__(
        self,
        link: FeedLink,
        *,
        position: Callable[[], int],
        apply: Callable[[FeedBatch], None],
        ids: KnownIds | None = None,
        poll_interval: float = 2.0,
        listen: bool = True,
    ) -> None:
        """Read what lies behind `position` and `apply` it. Without `listen` any transaction pooler will do."""
        self._link = link
        self._ids = ids
        self._ids_at = float("-inf")
        self._position = position
        self._apply = apply
        self.poll_interval = poll_interval
        self._listen = listen
        self._unannounced = 0
        self._contact = Contact("change feed of the token store")

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except Lost as error:
                    self._contact.lost(error)
                except Exception as error:  # noqa: BLE001 - whatever it is, following must go on
                    self._contact.broken(error)
                await self._contact.pause()
        finally:
            await self._link.close()

    async def _follow(self) -> None:
        """Follow until something fails."""
        await self._link.connect()
        if self._listen:
            # Before the first read: what is committed after that read is told, what was committed before is read.
            await self._link.ask(f"LISTEN {CHANNEL}", seconds=READ_TIME)
        # The first reading tells what happened before.
        notified = True
        while True:
            batch = await self._read()
            self._apply(batch)
            self._contact.back()
            if await self._read_ids():
                continue
            if self._listen:
                self._hear(batch, notified=notified)
                await asyncio.sleep(GATHER)
                notified = await self._link.notified(self.poll_interval - GATHER)
            else:
                await asyncio.sleep(self.poll_interval)

    async def _read_ids(self) -> bool:
        """Read a page of ids, if one is wanted; tell whether the next one is."""
        place = self._ids.next_page if self._ids else None
        if self._ids is None or place is None or asyncio.get_running_loop().time() < self._ids_at:
            return False
        try:
            rows = await self._link.ask(_IDS, (place[1], IDS_PAGE), seconds=READ_TIME)
        except Lost:
            self._ids_at = asyncio.get_running_loop().time() + IDS_RETRY
            raise
        self._ids.take(place, [row[0] for row in rows])
        return self._ids.next_page is not None

    def _hear(self, batch: FeedBatch, *, notified: bool) -> None:
        """Tell, once, that changes come without the notifications that announce them."""
        if notified:
            self._unannounced = 0
        elif batch.changes:
            # One may have been committed between the end of the wait and the reading.
            self._unannounced += 1
            if self._unannounced == UNANNOUNCED:
                _log.warning("changes of the token store come without notifications", extra={"cause": POOLED})

    async def _read(self) -> FeedBatch:
        after = self._position()
        earlier: tuple[tuple[int, str], ...] = ()
        while True:
            try:
                batch = feed_batch(await self._link.ask(_READ, (after,), seconds=READ_TIME))
            except ValueError as error:
                raise Lost(str(error)) from error
            if batch.oldest > after + 1:
                # Gone between two pages: without the first ones the gap shows.
                earlier = ()
            earlier += batch.changes
            if len(batch.changes) < PAGE:
                return replace(batch, changes=earlier)
            after = earlier[-1][0]


class SqliteFollower:
    """Looks at a SQLite store every `look_interval` seconds; reads the changes when it moved, or every `poll_interval`."""

    def __init__(
        self,
        reader: FeedFile,
        *,
        position: Callable[[], int],
        apply: Callable[[FeedBatch], None],
        ids: KnownIds | None = None,
        poll_interval: float = 2.0,
        look_interval: float = 0.25,
    ) -> None:
        """Read what lies behind `position` and `apply` it."""
        self._reader = reader
        self._ids = ids
        self._ids_at = float("-inf")
        self._position = position
        self._apply = apply
        self.poll_interval = poll_interval
        self._look_interval = look_interval
        self._version: object = None
        self._read_at = float("-inf")
        self._contact = Contact("change feed of the token store")

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                self._look(asyncio.get_running_loop().time())
                self._contact.back()
                await self._read_ids(asyncio.get_running_loop().time() + self._look_interval)
            except Unavailable as error:
                self._contact.lost(error.__cause__ or error)
            except Exception as error:  # noqa: BLE001 - whatever it is, following must go on
                self._contact.broken(error)
            await asyncio.sleep(self._look_interval)

    async def _read_ids(self, until: float) -> None:
        """Read pages of ids while some are wanted, until the next look."""
        time = asyncio.get_running_loop().time
        while self._ids is not None and (place := self._ids.next_page) and self._ids_at <= time() < until:
            try:
                self._ids.take(place, self._reader.read_ids(place[1], IDS_PAGE))
            except Unavailable:
                self._ids_at = time() + IDS_RETRY
            await asyncio.sleep(IDS_PAUSE)

    def _look(self, now: float) -> None:
        # Asked before the rows are read: what is committed in between is read once more.
        version = self._reader.version()
        if version != self._version or now - self._read_at >= self.poll_interval:
            self._apply(self._reader.read_feed(self._position()))
            self._version, self._read_at = version, now
