"""Connections to PostgreSQL: what each of them asks libpq for, and those of commands, which wait for nothing without an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, TypeVar

import psycopg

from extauthz.config import database_address
from extauthz.config.database_address import DatabaseAddress
from extauthz.errors import StoreError

_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 10_000}
# A standby may lag behind what the change feed has brought: what is read there must not be remembered as current.
_OBLIGATORY = {"connect_timeout": 2, "client_encoding": "UTF8", "target_session_attrs": "primary"}

_ADVICE = "is the server there, and is a pool that stands in between not full?"

_T = TypeVar("_T")


class StatementOverdue(psycopg.OperationalError):
    """The database did not answer in time."""


def read_address(text: str) -> DatabaseAddress:
    """Read a `postgresql://` URL without password; raises StoreError, which does not repeat it."""
    try:
        return database_address.read(text)
    except ValueError as error:
        raise StoreError(f"the address of the token store: {error}") from None


def parameters(address: DatabaseAddress, application: str) -> dict[str, Any]:
    """Return the parameters for libpq, the password aside; the name of the application is only a proposal."""
    return {"fallback_application_name": application, **_KEEPALIVES, **address.parameters, **_OBLIGATORY}


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection that is closed when it has not got an answer by `deadline`, or within `patience` seconds of a question."""

    deadline: float | None = None
    patience: float | None = None

    def wait(self, gen: Generator[Any, Any, _T], *arguments: Any, **keywords: Any) -> _T:
        """Wait for an answer; raises StatementOverdue."""
        ends = [self.deadline] if self.deadline is not None else []
        if self.patience is not None:
            ends.append(time.monotonic() + self.patience)
        return super().wait(self._until(gen, min(ends)) if ends else gen, *arguments, **keywords)

    def _until(self, gen: Generator[Any, Any, _T], end: float) -> Generator[Any, Any, _T]:
        # psycopg comes by every tenth of a second, also when nothing can be read.
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and time.monotonic() >= end:
                    # To end the query on a server that does not answer takes as long again.
                    self.pgconn.finish()
                    raise StatementOverdue(f"no answer in time: {_ADVICE}")
                state = gen.send(ready)
        except StopIteration as stop:
            answer: _T = stop.value
            return answer


def connect(deadline: float, **arguments: Any) -> DeadlineConnection:
    """Connect by a time of the monotonic clock, the looking up of names and all addresses included; raises StatementOverdue.

    The connection keeps the deadline, until somebody takes it away.
    """
    future: Future[DeadlineConnection] = Future()

    def work() -> None:
        try:
            future.set_result(DeadlineConnection.connect(**arguments))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            future.set_exception(error)

    # One that is overdue stays behind: the process may end before it does.
    threading.Thread(target=work, name="connect", daemon=True).start()
    try:
        connection = future.result(timeout=max(deadline - time.monotonic(), 0.0))
    except TimeoutError:
        future.add_done_callback(_close_late)
        raise StatementOverdue(f"no connection in time: {_ADVICE}") from None
    connection.deadline = deadline
    return connection


def _close_late(future: Future[DeadlineConnection]) -> None:
    if future.exception() is None:
        future.result().pgconn.finish()
