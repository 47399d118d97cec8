"""Accepting over TLS: a handshake takes a place too, and a client that never ends one keeps it for seconds only.

The servers of asyncio and uvicorn count no connection before its handshake is over.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

from extauthz.transport.grpc.refusals import RefusalReason

MAX_HANDSHAKES = 200
"""Handshakes under way at a time; with one more the oldest is given up."""
PAUSE = 1.0
"""Seconds without accepting after the system refused, for example because no descriptor is left."""

_log = logging.getLogger(__name__)


class TlsListener:
    """Accepts on a listening socket of its own, from the moment it is made until it is closed, in a running loop."""

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        *,
        handshake_timeout: float,
        on_refusal: Callable[[RefusalReason, str], None] | None = None,
    ) -> None:
        """Begin; `protocol` makes one of each connection whose handshake ended within `handshake_timeout` seconds.

        `on_refusal` is called for the others, with OpenSSL's word for the cause, if it has one.
        """
        listener.setblocking(False)
        self._listener = listener
        self._tls = tls
        self._protocol = protocol
        self._handshake_timeout = handshake_timeout
        self._on_refusal = on_refusal
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[object], None] = {}
        self._waiting: set[socket.socket] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self._watch()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What it accepts on, nothing once it is closed."""
        return () if self._closed else (self._listener,)

    def close(self) -> None:
        """Accept no longer; handshakes under way go on."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def abort(self) -> None:
        """Accept no longer, and end the handshakes under way."""
        self.close()
        for handshake in list(self._handshakes):
            handshake.cancel()

    def _watch(self) -> None:
        # Not by `sock_accept`: a task that is cancelled in the turn that accepts would lose the connection.
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take one connection; every other task that waits has a turn before the next one."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the listener outlasts it
            _log.error("no connection is accepted for a moment: %s", error)
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(PAUSE, self._watch)
            return
        connection.setblocking(False)
        if len(self._handshakes) >= MAX_HANDSHAKES:
            self._give_up_oldest()
        self._waiting.add(connection)
        handshake: asyncio.Task[object] = self._loop.create_task(self._greet(connection))
        self._handshakes[handshake] = None
        handshake.add_done_callback(partial(self._finish, connection))

    async def _greet(self, connection: socket.socket) -> object:
        self._waiting.discard(connection)
        return await self._loop.connect_accepted_socket(
            self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_timeout
        )

    def _give_up_oldest(self) -> None:
        oldest = next(iter(self._handshakes))
        del self._handshakes[oldest]
        oldest.cancel()
        if self._on_refusal is not None:
            self._on_refusal(RefusalReason.EVICTED, "")

    def _finish(self, connection: socket.socket, handshake: asyncio.Task[object]) -> None:
        self._handshakes.pop(handshake, None)
        if connection in self._waiting:
            # It was ended before it began, so no transport closes it.
            self._waiting.discard(connection)
            connection.close()
        error = None if handshake.cancelled() else handshake.exception()
        if error is None:
            return
        _log.debug("a TLS handshake failed: %s", error)
        if self._on_refusal is not None:
            match error:
                case ssl.SSLError():
                    self._on_refusal(RefusalReason.TLS_HANDSHAKE, error.reason or "")
                case TimeoutError() | ConnectionAbortedError():
                    self._on_refusal(RefusalReason.GREETING_TIMEOUT, "")
                case _:
                    # The client left, which refuses nobody.
                    pass
