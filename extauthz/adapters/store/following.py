"""Followers of a token store's change feed: they hand on what each read brings and end with nothing but their cancellation."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from extauthz.adapters.store.contact import POOLED, Contact, FeedLost
from extauthz.adapters.store.feed_rows import FEED, feed_slice
from extauthz.errors import StoreError, Unavailable
from extauthz.ports import FeedBatch
from extauthz.verifiers.change_feed import SLICE
from extauthz.verifiers.known_ids import PAGE as IDS_PAGE
from extauthz.verifiers.known_ids import KnownIds

CHANNEL = "extauthz_changes"
"""What writers notify when they commit."""
READ_TIME = 1.0
"""Seconds that a read may take before its connection is given up."""
UNANNOUNCED = 2
"""Readings in a row that bring changes without a notification: then there are none."""
GATHER = 0.05
"""Least seconds between two reads that notifications cause."""
IDS_PAUSE = 0.002
"""Seconds between two pages of ids of a file, for all else that goes on in the event loop."""
IDS_RETRY = 30.0
"""Seconds after a page of ids that could not be read, so that the feed goes on meanwhile."""

_SUBJECT = "change feed of the token store"
_READ = FEED.format("%s::bigint", SLICE)
_IDS = "SELECT id FROM tokens WHERE id > %s ORDER BY id LIMIT %s"

_log = logging.getLogger(__name__)


class FeedLink(Protocol):
    """One connection to a database server, which is lost with the first question that fails."""

    async def connect(self) -> None:
        """Connect, and let go of an earlier connection."""

    async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[tuple[Any, ...]]: ...

    async def notified(self, seconds: float) -> bool: ...

    async def close(self) -> None: ...


class VersionedFile(Protocol):
    """A database in a file, which tells when it has moved."""

    def version(self) -> object: ...


class FeedFile(VersionedFile, Protocol):
    """A token store in a file."""

    def read_feed(self, after: int) -> FeedBatch: ...

    def read_ids(self, after: str, limit: int) -> Sequence[str]: ...


class PostgresFollowing(ABC):
    """Reads what is in PostgreSQL when a notification came, and every `poll_interval` seconds whatever came."""

    def __init__(self, link: FeedLink, subject: str, *, poll_interval: float, listen: bool) -> None:
        """Take what the log lines are about. Without `listen` any transaction pooler will do."""
        self._link = link
        self.poll_interval = poll_interval
        self._listen = listen
        self._unannounced = 0
        self._contact = Contact(subject)

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except (FeedLost, StoreError) as error:
                    self._contact.mark_lost(error)
                except Exception as error:  # noqa: BLE001 - whatever it is, following must go on
                    self._contact.mark_failed(error)
                await self._contact.pause()
        finally:
            await self._link.close()

    @abstractmethod
    async def _catch_up(self) -> bool:
        """Read and hand on; return whether anything changed."""

    async def _read_ids(self) -> bool:
        """Read a page of what is read only once, if one is needed; return whether the next one is."""
        return False

    async def _follow(self) -> None:
        """Follow until something fails."""
        await self._link.connect()
        if self._listen:
            # Before the first read: what is committed after that read is notified, what was committed before is read.
            await self._link.ask(f"LISTEN {CHANNEL}", seconds=READ_TIME)
        # The first reading brings what happened before.
        notified = True
        while True:
            is_changed = await self._catch_up()
            self._contact.mark_restored()
            if await self._read_ids():
                continue
            if self._listen:
                self._watch_notifications(is_changed=is_changed, notified=notified)
                await asyncio.sleep(GATHER)
                notified = await self._link.notified(self.poll_interval - GATHER)
            else:
                await asyncio.sleep(self.poll_interval)

    def _watch_notifications(self, *, is_changed: bool, notified: bool) -> None:
        """Log, once, that changes come without the notifications that announce them."""
        if notified:
            self._unannounced = 0
        elif is_changed:
            # One may have been committed between the end of the wait and the reading.
            self._unannounced += 1
            if self._unannounced == UNANNOUNCED:
                _log.warning("changes of the token store come without notifications", extra={"cause": POOLED})


class PostgresFollower(PostgresFollowing):
    """Reads the change feed; every completed read is handed on, also one that brought no change: it proves the contact."""

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
        """Read what lies behind `position` and `apply` it."""
        super().__init__(link, _SUBJECT, poll_interval=poll_interval, listen=listen)
        self._ids = ids
        self._ids_at = float("-inf")
        self._position = position
        self._apply = apply

    async def _read_ids(self) -> bool:
        """Read a page of ids, if one is needed; return whether the next one is."""
        place = self._ids.next_page if self._ids else None
        if self._ids is None or place is None or asyncio.get_running_loop().time() < self._ids_at:
            return False
        try:
            rows = await self._link.ask(_IDS, (place[1], IDS_PAGE), seconds=READ_TIME)
        except FeedLost:
            self._ids_at = asyncio.get_running_loop().time() + IDS_RETRY
            raise
        self._ids.take(place, [row[0] for row in rows])
        return self._ids.next_page is not None

    async def _catch_up(self) -> bool:
        """Read and apply slices while there are more; return whether anything changed. Each question lets the event loop go on."""
        is_changed = False
        while True:
            before = self._position()
            rows = await self._link.ask(_READ, (before,), seconds=READ_TIME)
            try:
                batch = feed_slice(rows)
            except ValueError as error:
                raise FeedLost(str(error)) from error
            self._apply(batch)
            is_changed = is_changed or bool(batch.changes)
            if not batch.more or self._position() == before:
                # A rewound store is not followed, however many changes it has.
                return is_changed


class SqliteFollowing(ABC):
    """Looks at a SQLite store every `look_interval` seconds; a read is due when it moved, or every `poll_interval`."""

    def __init__(self, reader: VersionedFile, subject: str, *, poll_interval: float, look_interval: float = 0.25) -> None:
        """Take what the log lines are about."""
        self._reader = reader
        self.poll_interval = poll_interval
        self._look_interval = look_interval
        self._version: object = None
        self._read_at = float("-inf")
        self._contact = Contact(subject)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._visit()
            except Unavailable as error:
                self._contact.mark_lost(error.__cause__ or error)
            except Exception as error:  # noqa: BLE001 - whatever it is, following must go on
                self._contact.mark_failed(error)
            await asyncio.sleep(self._look_interval)

    async def _visit(self) -> None:
        """Look at the store once."""
        await self._catch_up()
        self._contact.mark_restored()

    async def _catch_up(self) -> None:
        """Read and apply slices until nothing is left, without a pause: revocations may be among what is left."""
        time = asyncio.get_running_loop().time
        more = self._look(time())
        while more:
            # All else that is ready has its turn before the next one.
            await asyncio.sleep(0)
            more = self._look(time())

    def _look(self, now: float) -> bool:
        """Read and hand on if there may be something; return whether more is there."""
        # Read before the rows are: what is committed in between is read once more.
        version = self._reader.version()
        if version == self._version and now - self._read_at < self.poll_interval:
            return False
        has_more = self._read()
        if not has_more:
            self._version, self._read_at = version, now
        return has_more

    @abstractmethod
    def _read(self) -> bool:
        """Read and hand on; return whether more is there."""


class SqliteFollower(SqliteFollowing):
    """Reads the change feed of a SQLite store."""

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
        super().__init__(reader, _SUBJECT, poll_interval=poll_interval, look_interval=look_interval)
        self._feed = reader
        self._ids = ids
        self._ids_at = float("-inf")
        self._position = position
        self._apply = apply

    async def _visit(self) -> None:
        await super()._visit()
        await self._read_ids(asyncio.get_running_loop().time() + self._look_interval)

    async def _read_ids(self, until: float) -> None:
        """Read pages of ids while some are wanted, until the next look."""
        time = asyncio.get_running_loop().time
        while self._ids is not None and (place := self._ids.next_page) and self._ids_at <= time() < until:
            try:
                self._ids.take(place, self._feed.read_ids(place[1], IDS_PAGE))
            except Unavailable:
                self._ids_at = time() + IDS_RETRY
            await asyncio.sleep(IDS_PAUSE)

    def _read(self) -> bool:
        before = self._position()
        batch = self._feed.read_feed(before)
        self._apply(batch)
        # A rewound store is not followed, however many changes it has.
        return batch.more and self._position() != before
