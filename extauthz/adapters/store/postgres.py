"""PostgreSQL for `serve`: look-ups in the event loop over one connection, and the writing of uses over another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import chain, islice

from extauthz.adapters.store.contact import Contact, FeedLost
from extauthz.adapters.store.link import CONNECT_TIME, DatabaseLink, Row, collect
from extauthz.adapters.store.rows import COLUMNS, NEEDING, check_peppers, check_revision, record
from extauthz.adapters.store.usage import IF_LATER, use_rows
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenRecord
from extauthz.errors import StoreError, Unavailable
from extauthz.ports import Clock, Use

LOOK_UP_TIME = 0.5
"""Seconds that a look-up may take, and once more as many when its connection turns out to be cut."""
WRITE_TIME = 2.0
"""Seconds that a batch of uses may take."""
BATCH = 256
"""Ids in one query."""

_NAMES = '"' + '", "'.join(COLUMNS) + '"'
# One row at least, with the schema of what was found.
_FIND = f"SELECT {_NAMES}, version_num FROM alembic_version LEFT JOIN tokens ON id = any(%s)"  # noqa: S608 - our own names
_ID = COLUMNS.index("id")
_NEEDING = NEEDING.format("%s", "%s")
# In one order everywhere: two sidecars that write the same rows would otherwise wait for each other.
_USE = f"""
INSERT INTO token_usage (token_id, last_used_at, last_used_from)
SELECT tokens.id, used.at, used.place
FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS used (id, at, place) JOIN tokens ON tokens.id = used.id
ORDER BY tokens.id
{IF_LATER} RETURNING 1
"""  # noqa: S608 - our own text
_NO_SUCH_TABLE, _NOT_PERMITTED = "42P01", "42501"

_Waiting = dict[str, list[asyncio.Future[TokenRecord | None]]]


class PostgresReader:
    """Looks up tokens in PostgreSQL: one task asks for everybody who waits, one query at a time.

    What fails is answered with Unavailable, and so is everything until the connection is back.
    """

    def __init__(
        self, address: str, *, password: str | None = None, peppers: Mapping[str, bytes], clock: Clock, prepare: bool = True
    ) -> None:
        """Take a `postgresql://` URL without password; raises StoreError. Without `prepare` any transaction pooler will do."""
        self.link = DatabaseLink(address, password, prepare=prepare)
        self.peppers = peppers
        self._clock = clock
        self._contact = Contact("token store")
        self._first = self._down = True
        self._wake = asyncio.Event()
        self._waiting: _Waiting = {}
        self._in_query: _Waiting = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def reachable(self) -> bool:
        """Return whether look-ups are sent to the database."""
        return not self._down

    async def open(self) -> None:
        """Connect, check schema and peppers, and begin to answer; raises StoreError for a store that this process cannot serve.

        A database that cannot be reached is no reason to stop: it is looked for in the background, and checked when it is there.
        """
        try:
            await self._connect()
        except FeedLost as error:
            self._lose(error)
        except StoreError:
            await self.link.close()
            raise
        self._task = asyncio.create_task(self._run())

    def find(self, token_id: str) -> asyncio.Future[TokenRecord | None]:
        """Return the record of an id in a future that is the caller's own; raises Unavailable at once, or the future does.

        A caller that looks up an id gets what the database says from now on: a query that is under way already answers nobody else.
        """
        if self._down:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        future: asyncio.Future[TokenRecord | None] = asyncio.get_running_loop().create_future()
        if token_id.isprintable():
            self._waiting.setdefault(token_id, []).append(future)
            self._wake.set()
        else:
            # PostgreSQL has no text with NUL or half a surrogate pair: one such id would fail the query of all.
            future.set_result(None)
        return future

    async def check_peppers(self, peppers: Mapping[str, bytes], now: int) -> None:
        """Raise StoreError when a pepper is missing that tokens need, or is another one, or when that cannot be read."""
        try:
            await self._check_peppers(peppers, now, all_needed=True)
        except FeedLost as error:
            raise StoreError(f"the token store does not tell which peppers its tokens need ({error})") from error

    async def close(self) -> None:
        """Stop; everybody who waits gets Unavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._refuse_all()
        await self.link.close()

    async def _run(self) -> None:
        while True:
            try:
                if self._down:
                    await self._connect()
                await self._answer()
            except (FeedLost, StoreError) as error:
                self._lose(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, look-ups must be possible again
                self._contact.mark_failed(error)
                self._lose(error)
            await self._contact.pause()

    async def _connect(self) -> None:
        await self.link.connect()
        try:
            await _check_schema(self.link, LOOK_UP_TIME)
            await self._look_up([])
            # A pepper that is added while this process serves concerns the tokens that are made with it, and no others.
            await self._check_peppers(self.peppers, int(self._clock.now()), all_needed=self._first)
        except FeedLost as error:
            if error.code == _NO_SUCH_TABLE:
                check_revision(None)
            if error.code == _NOT_PERMITTED:
                raise StoreError(f"the token store may not be read ({error}): grant it, see 'extauthz store migrate'") from error
            raise
        self._first = self._down = False
        self._contact.mark_restored()

    async def _check_peppers(self, peppers: Mapping[str, bytes], now: int, *, all_needed: bool) -> None:
        fingerprints: dict[str, str] = dict(await self.link.ask("SELECT id, fingerprint FROM peppers", seconds=LOOK_UP_TIME))
        missing = fingerprints.keys() - peppers.keys() if all_needed else ()
        needing = {name: await self.link.ask(_NEEDING, (name, now), seconds=CONNECT_TIME) for name in missing}
        check_peppers(fingerprints, peppers, needing)

    async def _answer(self) -> None:
        """Answer look-ups until a query fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._in_query = {token_id: self._waiting.pop(token_id) for token_id in list(islice(self._waiting, BATCH))}
                records = {row[_ID]: row[:-1] for row in await self._ask(list(self._in_query))}
                for token_id, futures in self._in_query.items():
                    _settle(futures, records.get(token_id))
                self._in_query = {}

    async def _ask(self, ids: list[str]) -> list[Row]:
        try:
            return await self._look_up(ids)
        except FeedLost as error:
            if error.overdue:
                raise
        # Most likely cut while no query was under way: the callers that wait need not know of it.
        try:
            async with asyncio.timeout(LOOK_UP_TIME):
                await self._connect()
                return await self._look_up(ids)
        except TimeoutError:
            raise FeedLost(f"no new connection within {LOOK_UP_TIME:g} s") from None

    async def _look_up(self, ids: list[str]) -> list[Row]:
        """Return rows of _FIND; raises FeedLost, and StoreError when the store was migrated beyond what this release serves."""
        rows = await self.link.ask(_FIND, (ids,), seconds=LOOK_UP_TIME)
        check_revision(rows[0][-1] if rows else None)
        return rows

    def _lose(self, error: Exception) -> None:
        self._refuse_all()
        self._contact.mark_lost(error)

    def _refuse_all(self) -> None:
        self._down = True
        for future in chain(*self._in_query.values(), *self._waiting.values()):
            _refuse(future)
        self._in_query, self._waiting = {}, {}


class PostgresUsage:
    """Writes uses over a connection of its own, which lives no longer than one batch."""

    def __init__(self, address: str, *, password: str | None = None) -> None:
        """Take a `postgresql://` URL without password; raises StoreError."""
        self.link = DatabaseLink(address, password, prepare=False)

    async def record_usage(self, uses: Mapping[str, Use]) -> int:
        """Keep what is later than what is stored, in one statement; return how many rows were written; raises Unavailable."""
        rows = use_rows(uses)
        columns = [[row[index] for row in rows] for index in range(3)]
        try:
            await self.link.connect()
            await _check_schema(self.link, WRITE_TIME)
            return len(await self.link.ask(_USE, columns, seconds=WRITE_TIME))
        except (FeedLost, StoreError) as error:
            raise Unavailable(Reason.STORE_UNAVAILABLE) from error
        finally:
            self.link.drop()

    async def close(self) -> None:
        """Close what is left of connections that were given up."""
        await self.link.close()


async def _check_schema(link: DatabaseLink, seconds: float) -> None:
    rows = await link.ask("SELECT version_num FROM alembic_version", seconds=seconds)
    check_revision(rows[0][0] if rows else None)


def _settle(futures: list[asyncio.Future[TokenRecord | None]], row: Row | None) -> None:
    try:
        token = None if row is None else record(row)
    except ValueError:
        for future in futures:
            _refuse(future)
    else:
        for future in futures:
            if not future.done():
                future.set_result(token)


def _refuse(future: asyncio.Future[TokenRecord | None]) -> None:
    if not future.done():
        future.set_exception(Unavailable(Reason.STORE_UNAVAILABLE))
        collect(future)
