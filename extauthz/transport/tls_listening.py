"""Accepting over TLS: a handshake takes a place too, and a client that never ends one keeps it for seconds only.

The servers of asyncio and uvicorn count no connection before its handshake is over.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

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
        self._accepting = self._loop.create_task(self._accept())
        self._accepting.add_done_callback(lambda _: listener.close())

    def close(self) -> None:
        """Accept no longer; handshakes under way go on."""
        self._accepting.cancel()

    def abort(self) -> None:
        """Accept no longer, and end the handshakes under way."""
        self.close()
        for handshake in list(self._handshakes):
            handshake.cancel()

    async def _accept(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except Exception as error:  # noqa: BLE001 - whatever it is, the listener outlasts it
                _log.error("no connection is accepted for a moment: %s", error)
                await asyncio.sleep(PAUSE)
                continue
            if len(self._handshakes) >= MAX_HANDSHAKES:
                self._give_up_oldest()
            handshake: asyncio.Task[object] = self._loop.create_task(self._greet(connection))
            self._handshakes[handshake] = None
            handshake.add_done_callback(self._count_failure)
            # It begins, and every other task that waits has a turn.
            await asyncio.sleep(0)

    async def _greet(self, connection: socket.socket) -> object:
        return await self._loop.connect_accepted_socket(
            self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_timeout
        )

    def _give_up_oldest(self) -> None:
        oldest = next(iter(self._handshakes))
        del self._handshakes[oldest]
        oldest.cancel()
        if self._on_refusal is not None:
            self._on_refusal(RefusalReason.EVICTED, "")

    def _count_failure(self, handshake: asyncio.Task[object]) -> None:
        self._handshakes.pop(handshake, None)
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
