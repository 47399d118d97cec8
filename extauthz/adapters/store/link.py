"""A connection to PostgreSQL in the event loop, and what is done to it when the server is slow, cut or paused.

To cancel a query on a paused server takes psycopg ten seconds. So every question is a task of its own: an overdue one is cancelled
without being awaited, and its connection goes with it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import psycopg

from extauthz.adapters.store.connecting import parameters, read_address
from extauthz.adapters.store.contact import POOLED, FeedLost

CONNECT_TIME = 5.0
"""Seconds for all addresses of the database together; each has two."""

_OTHER_SESSION = frozenset({"26000", "42P05"})
"""A prepared statement that is not there, or is there already: the server is not in the session that prepared it."""

_T = TypeVar("_T")
Row = tuple[Any, ...]


class DatabaseLink:
    """One connection that is lost with the first question that fails; a task that waits for an answer can be cancelled at once."""

    def __init__(self, address: str, password: str | None, *, prepare: bool) -> None:
        """Take a `postgresql://` URL without password; raises StoreError. With `prepare` the server keeps plans of the queries."""
        self._parameters = parameters(read_address(address), "extauthz serve") | {"prepare_threshold": 0 if prepare else None}
        self.use_password(password)
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._abandoned: set[asyncio.Task[Any]] = set()

    def use_password(self, password: str | None) -> None:
        """Take another password, or none, for the next time that a connection is made."""
        self._parameters.pop("password", None)
        if password is not None:
            self._parameters["password"] = password

    async def connect(self) -> None:
        """Connect anew; raises FeedLost."""
        self.drop()
        try:
            await self._bounded(self._open(), CONNECT_TIME)
        except (psycopg.Error, OSError, ValueError) as error:
            raise FeedLost(str(error)) from None

    async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[Row]:
        """Return the rows of a query that may take so many seconds; raises FeedLost, and the connection is then given up."""
        connection = self._connected()
        try:
            return await self._bounded(_rows(connection, query, parameters), seconds)
        except (psycopg.Error, OSError, ValueError) as error:
            self.drop()
            code = getattr(error, "sqlstate", None)
            raise FeedLost(f"{error}: {POOLED}" if code in _OTHER_SESSION else str(error), code=code) from error

    async def notified(self, seconds: float) -> bool:
        """Wait at most so many seconds for a notification and return whether one came, also during a question; raises FeedLost."""
        connection = self._connected()
        came = False
        try:
            async for _ in connection.notifies(timeout=seconds, stop_after=1):
                came = True
        except (psycopg.Error, OSError) as error:
            self.drop()
            raise FeedLost(str(error)) from error
        return came

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

    def _connected(self) -> psycopg.AsyncConnection[Row]:
        if self._connection is None:
            raise FeedLost("not connected")
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
        task.add_done_callback(collect)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                self._abandon(task)
        if not task.done():
            raise FeedLost(f"no answer within {seconds:g} s", overdue=True)
        return task.result()

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        connection, self._connection = self._connection, None
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        if connection is not None:
            task.add_done_callback(lambda _: connection.pgconn.finish())
        task.cancel()


def collect(future: asyncio.Future[Any]) -> None:
    """Look at a failure, so that asyncio does not complain of one that nobody waits for any more."""
    if not future.cancelled():
        future.exception()


async def _rows(connection: psycopg.AsyncConnection[Row], query: str, parameters: Sequence[Any]) -> list[Row]:
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall() if cursor.description else []
