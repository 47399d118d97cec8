"""PostgreSQL as `serve` reads it: plain psycopg connections in the event loop, one for look-ups and one for the change feed.

To cancel a query on a paused server takes psycopg ten seconds. So every question is a task of its own: an overdue one is cancelled
without being awaited, and its connection goes with it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from extauthz.adapters.store.following import Contact, Lost
from extauthz.adapters.store.rows import COLUMNS, StoreError, check_peppers, check_revision, record
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenRecord
from extauthz.ports import Unavailable

LOOK_UP_TIME = 0.5
"""Seconds that a look-up may take, and once more as many when its connection turns out to be cut."""
CONNECT_TIME = 5.0
"""Seconds for all addresses of the database together; each has two."""
BATCH = 256
"""Ids in one query."""

_NAMES = '"' + '", "'.join(COLUMNS) + '"'
_FIND = f"SELECT {_NAMES} FROM tokens WHERE id = any(%s)"  # noqa: S608 - our own names
_ID = COLUMNS.index("id")
_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 10_000}
_PREFERRED = {"fallback_application_name": "extauthz serve", **_KEEPALIVES}
# A standby may lag behind what the change feed has told: what is read there must not be remembered as current.
_OBLIGATORY = {"connect_timeout": 2, "client_encoding": "UTF8", "target_session_attrs": "primary"}
_NO_SUCH_TABLE, _NOT_PERMITTED = "42P01", "42501"

_T = TypeVar("_T")
_Row = tuple[Any, ...]
_Waiting = dict[str, list[asyncio.Future[TokenRecord | None]]]


class Link:
    """One connection that is lost with the first question that fails; whoever waits for an answer can be cancelled at once."""

    def __init__(self, address: str, password: str | None, *, prepare: bool) -> None:
        """Take a `postgresql://` URL without password; raises StoreError. With `prepare` the server keeps plans of the queries."""
        try:
            given = {name: value for name, value in conninfo_to_dict(address).items() if value is not None}
        except psycopg.Error:
            # Not chained: libpq quotes the part that it does not understand, which may be a password.
            raise StoreError("the address of the token store is no postgresql:// URL") from None
        if "password" in given:
            raise StoreError("the address of the token store holds a password: give it by `env` or `file`")
        self._parameters: dict[str, Any] = {**_PREFERRED, **given, **_OBLIGATORY, "prepare_threshold": 0 if prepare else None}
        if password is not None:
            self._parameters["password"] = password
        self._connection: psycopg.AsyncConnection[_Row] | None = None
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def connect(self) -> None:
        """Connect anew; raises Lost."""
        self.drop()
        try:
            await self._bounded(self._open(), CONNECT_TIME)
        except (psycopg.Error, OSError, ValueError) as error:
            raise Lost(str(error)) from None

    async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[_Row]:
        """Return the rows of a query that may take so many seconds; raises Lost, and the connection is then given up."""
        connection = self._connected()
        try:
            return await self._bounded(_rows(connection, query, parameters), seconds)
        except (psycopg.Error, OSError, ValueError) as error:
            self.drop()
            raise Lost(str(error), code=getattr(error, "sqlstate", None)) from error

    async def notified(self, seconds: float) -> None:
        """Wait at most so many seconds for a notification, also one that came during a question; raises Lost when cut."""
        connection = self._connected()
        try:
            async for _ in connection.notifies(timeout=seconds, stop_after=1):
                pass
        except (psycopg.Error, OSError) as error:
            self.drop()
            raise Lost(str(error)) from error

    def drop(self) -> None:
        """Close the connection, if there is one; nothing is under way on it."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None

    async def close(self) -> None:
        """Close the connection, and those that were given up."""
        self.drop()
        while self._abandoned:
            # psycopg still tries to cancel the query on the server; cancelled again, it closes the connection.
            for task in self._abandoned:
                task.cancel()
            await asyncio.wait(self._abandoned, timeout=0.05)

    def _connected(self) -> psycopg.AsyncConnection[_Row]:
        if self._connection is None:
            raise Lost("not connected")
        return self._connection

    async def _open(self) -> None:
        try:
            self._connection = await psycopg.AsyncConnection.connect(autocommit=True, **self._parameters)
        except BaseException as error:
            # psycopg leaves the socket of an attempt that came to nothing to the garbage collector, and the server a process.
            failed: BaseException | None = error
            while failed is not None:
                traceback.clear_frames(failed.__traceback__)
                failed = failed.__context__
            raise

    async def _bounded(self, work: Coroutine[Any, Any, _T], seconds: float) -> _T:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_collect)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                self._abandon(task)
        if not task.done():
            raise Lost(f"no answer within {seconds:g} s", overdue=True)
        return task.result()

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        connection, self._connection = self._connection, None
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        if connection is not None:
            task.add_done_callback(lambda _: connection.pgconn.finish())
        task.cancel()


class PostgresReader:
    """Looks up tokens in PostgreSQL: one task asks for everybody who waits, one query at a time.

    What fails is answered with Unavailable, and so is everything until the connection is back.
    """

    def __init__(self, address: str, *, password: str | None = None, peppers: Mapping[str, bytes], prepare: bool = True) -> None:
        """Take a `postgresql://` URL without password; raises StoreError. Without `prepare` any transaction pooler will do."""
        self._link = Link(address, password, prepare=prepare)
        self._peppers = peppers
        self._contact = Contact("token store")
        self._first = self._down = True
        self._wake = asyncio.Event()
        self._waiting: _Waiting = {}
        self._asked: _Waiting = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def reachable(self) -> bool:
        """Tell whether look-ups are sent to the database."""
        return not self._down

    async def open(self) -> None:
        """Connect, check schema and peppers, and begin to answer; raises StoreError for a store that this process cannot serve.

        A database that cannot be reached is no reason to stop: it is looked for in the background, and checked when it is there.
        """
        try:
            await self._connect()
        except Lost as error:
            self._lose(error)
        except StoreError:
            await self._link.close()
            raise
        self._task = asyncio.create_task(self._run())

    def find(self, token_id: str) -> asyncio.Future[TokenRecord | None]:
        """Return the record of an id in a future that is the caller's own; raises Unavailable at once, or the future does.

        Who asks for an id gets what the database says from now on: a query that is under way already answers nobody else.
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

    async def close(self) -> None:
        """Stop; everybody who waits gets Unavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._refuse_all()
        await self._link.close()

    async def _run(self) -> None:
        while True:
            try:
                if self._down:
                    await self._connect()
                await self._answer()
            except (Lost, StoreError) as error:
                self._lose(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, look-ups must be possible again
                self._contact.broken(error)
                self._lose(error)
            await self._contact.pause()

    async def _connect(self) -> None:
        await self._link.connect()
        try:
            revisions = await self._link.ask("SELECT version_num FROM alembic_version", seconds=LOOK_UP_TIME)
            check_revision(revisions[0][0] if revisions else None)
            known: dict[str, str] = dict(await self._link.ask("SELECT id, fingerprint FROM peppers", seconds=LOOK_UP_TIME))
            await self._link.ask(_FIND, ([],), seconds=LOOK_UP_TIME)
        except Lost as error:
            if error.code == _NO_SUCH_TABLE:
                check_revision(None)
            if error.code == _NOT_PERMITTED:
                raise StoreError(f"the token store may not be read ({error}): grant it, see 'extauthz store migrate'") from error
            raise
        # A pepper that is added while this process serves concerns the tokens that are made with it, and no others.
        check_peppers(known if self._first else {name: known[name] for name in known if name in self._peppers}, self._peppers)
        self._first = self._down = False
        self._contact.back()

    async def _answer(self) -> None:
        """Answer look-ups until a query fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._asked = {token_id: self._waiting.pop(token_id) for token_id in list(islice(self._waiting, BATCH))}
                found = {row[_ID]: row for row in await self._ask(list(self._asked))}
                for token_id, futures in self._asked.items():
                    _settle(futures, found.get(token_id))
                self._asked = {}

    async def _ask(self, ids: list[str]) -> list[_Row]:
        try:
            return await self._link.ask(_FIND, (ids,), seconds=LOOK_UP_TIME)
        except Lost as error:
            if error.overdue:
                raise
        # Most likely cut while nobody asked anything: those who wait need not know of it.
        try:
            async with asyncio.timeout(LOOK_UP_TIME):
                await self._connect()
                return await self._link.ask(_FIND, (ids,), seconds=LOOK_UP_TIME)
        except TimeoutError:
            raise Lost(f"no new connection within {LOOK_UP_TIME:g} s") from None

    def _lose(self, error: Exception) -> None:
        self._refuse_all()
        self._contact.lost(error)

    def _refuse_all(self) -> None:
        self._down = True
        for future in chain(*self._asked.values(), *self._waiting.values()):
            _refuse(future)
        self._asked, self._waiting = {}, {}


def _settle(futures: list[asyncio.Future[TokenRecord | None]], row: _Row | None) -> None:
    try:
        found = None if row is None else record(row)
    except ValueError:
        for future in futures:
            _refuse(future)
    else:
        for future in futures:
            if not future.done():
                future.set_result(found)


def _refuse(future: asyncio.Future[TokenRecord | None]) -> None:
    if not future.done():
        future.set_exception(Unavailable(Reason.STORE_UNAVAILABLE))
        _collect(future)


def _collect(done: asyncio.Future[Any]) -> None:
    """Look at a failure, so that asyncio does not complain of one that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


async def _rows(connection: psycopg.AsyncConnection[_Row], query: str, parameters: Sequence[Any]) -> list[_Row]:
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall() if cursor.description else []
