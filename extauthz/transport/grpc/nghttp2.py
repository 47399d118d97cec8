"""The fast transport: HTTP/2 by libnghttp2 on uvloop, and the gRPC of Authorization/Check and Health on top of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Awaitable, Mapping
from time import monotonic
from typing import Any

from extauthz.addresses import Address
from extauthz.transport.grpc import bidirectional, health, messages, reflection
from extauthz.transport.grpc import libnghttp2 as http2
from extauthz.transport.grpc._session import Stream, TransportCounters
from extauthz.transport.grpc.connection import Connection
from extauthz.transport.grpc.eviction import evictable
from extauthz.transport.grpc.fields import has_its_length, trace
from extauthz.transport.grpc.messages import RequestHead, RequestRefusal
from extauthz.transport.grpc.refusals import RefusalReason, Refusals
from extauthz.transport.limits import Limits
from extauthz.transport.sockets import BACKLOG, Handler, TracedHandler, checked_fallback, open_listener, stop_accepting
from extauthz.transport.tls import Certificates, subject_alternative_names
from extauthz.transport.tls_listening import TlsListener

CHECK = f"/{health.SERVICE}/Check".encode()
NAME = "nghttp2"
SWEEP = 0.5
"""Seconds between two looks at what is late."""
NOTICE = 0.2
"""Seconds between the announcement of the end and the refusal of new streams: a peer's streams on the way still come."""

METHODS = frozenset({CHECK, health.CHECK, health.LIST, health.WATCH})

_log = logging.getLogger(__name__)


class Nghttp2Server:
    """Serves one handler of serialised messages; an empty answer, an ALLOW for Envoy, is never sent."""

    def __init__(
        self,
        handler: Handler,
        fallback: bytes,
        *,
        limits: Limits,
        certificates: Certificates | None = None,
        traced: TracedHandler | None = None,
    ) -> None:
        """Prepare the server; `fallback` is a serialised denial for what should not happen, `traced` is served if there is one.

        Raises ValueError for an empty fallback.
        """
        self._handler = handler
        self._traced = traced
        self._fallback = checked_fallback(fallback)
        self._limits = limits
        self._options = http2.options(self._limits)
        self._certificates = certificates
        self._counters = TransportCounters()
        self._refusals = Refusals(RefusalReason)
        self._open: dict[Connection, None] = {}
        self._serving = False
        self._stopping = False
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | TlsListener | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def streams(self) -> int:
        """How many calls are under way; other threads may ask while connections come and go."""
        return sum(len(connection.streams) for connection in tuple(self._open))

    @property
    def refusals(self) -> Mapping[RefusalReason, int]:
        """What was refused before a decision, by reason."""
        return self._refusals.counts

    async def start(self, address: Address, *, shared: bool = False) -> int:
        """Listen and serve, NOT_SERVING for now; return the port, 0 for a unix socket. Raises ListenError."""
        listener = open_listener(address, shared=shared)
        await self._listen(listener)
        self._sweeper = asyncio.create_task(self._sweep())
        return 0 if address.path else int(listener.getsockname()[1])

    async def listen_again(self, address: Address) -> None:
        """Listen on a unix socket that was removed; connections that are open live on. Raises ListenError and OSError."""
        listener = open_listener(address)
        try:
            await self._listen(listener)
        except OSError:
            listener.close()
            raise

    async def reload_tls(self, certificates: Certificates) -> None:
        """Use other certificates from the next connection on; those that are open live on."""
        self._certificates = certificates
        if self._socket is not None:
            await self._listen(self._socket.dup())

    async def set_serving(self, *, serving: bool) -> None:
        """Answer health checks for the server and for the service."""
        self._serving = serving
        for connection in list(self._open):
            for stream in list(connection.streams.values()):
                if stream.watches in health.NAMES:
                    connection.notify(stream, health.state(serving=serving))

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give those under way `grace` seconds."""
        self._stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if isinstance(self._listener, TlsListener):
            self._listener.abort()
        await self._close(self._listener, self._socket)
        await self.set_serving(serving=False)
        for connection in list(self._open):
            connection.leave()
        await self._wait_closed(min(NOTICE, grace))
        for connection in list(self._open):
            connection.refuse_new()
        await self._wait_closed(grace - NOTICE)
        for connection in list(self._open):
            connection.abort()
        await self._wait_closed(1.0)

    def admit(self, connection: Connection, certificate: Mapping[str, Any] | None) -> bool:
        """Take a new connection unless all places are busy, the end has come during its handshake, or its peer is another one."""
        if self._stopping:
            connection.count_refusal(RefusalReason.STOPPING)
            return False
        if self._certificates is not None and not self._certificates.permits(subject_alternative_names(certificate)):
            connection.count_refusal(RefusalReason.TLS_NAME)
            return False
        if len(self._open) >= self._limits.connections and not self._make_room():
            connection.count_refusal(RefusalReason.CONNECTION_LIMIT)
            return False
        self._open[connection] = None
        return True

    def _make_room(self) -> bool:
        """End a connection without a request under way; return whether there was one."""
        connection = evictable(self._open)
        if connection is None:
            return False
        del self._open[connection]
        connection.count_refusal(RefusalReason.EVICTED)
        connection.abort()
        return True

    def forget(self, connection: Connection) -> None:
        """Note the end of a connection, a refused one too."""
        self._open.pop(connection, None)

    def call(self, connection: Connection, stream: Stream) -> None:
        """Answer a request, now or later."""
        head = stream.head
        if isinstance(head, RequestHead) and head.path in messages.BIDIRECTIONAL:
            bidirectional.respond(connection, stream, head, reflection.answer)
            return
        body = connection.release(stream)
        if not isinstance(head, RequestHead):
            connection.refuse(stream, stream.refusal or head or messages.NO_MESSAGE)
        elif head.has_length and stream.refusal is None and not has_its_length(stream.fields, len(body)):
            connection.malformed(stream)
        else:
            message = self._message(stream, head, body)
            if isinstance(message, RequestRefusal):
                connection.refuse(stream, message)
            elif head.path == CHECK:
                self._check(connection, stream, message)
            else:
                self._health(connection, stream, message, head.path)

    def _message(self, stream: Stream, head: RequestHead, body: bytes | bytearray) -> bytes | RequestRefusal:
        """Return the message of a request for one of our methods."""
        if stream.refusal is not None:
            return stream.refusal
        if head.path not in METHODS:
            return messages.NO_METHOD
        if head.timeout is not None and monotonic() - stream.opened_at >= head.timeout:
            return messages.TOO_LATE
        return messages.read_message(body, head.encoding, self._limits.message_size)

    def _check(self, connection: Connection, stream: Stream, message: bytes) -> None:
        try:
            answer: object = self._handler(message) if self._traced is None else self._traced(message, *trace(stream.fields))
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - no exception may become a gRPC status
            _log.exception("the handler raised")
            answer = self._fallback
        self.settle(connection, stream, answer)

    def settle(self, connection: Connection, stream: Stream, answer: object) -> None:
        """Answer a check with what the handler returned, now or when it is there; with the fallback for what is no message."""
        if isinstance(answer, bytes) and answer:
            connection.answer(stream, answer)
        elif isinstance(answer, Awaitable):
            connection.wait(stream, answer, self._outcome)
        else:
            connection.answer(stream, self._fallback)

    def _outcome(self, future: asyncio.Future[bytes]) -> bytes:
        """Return what a check that had to wait has come to."""
        if future.cancelled():
            return self._fallback
        error = future.exception()
        if error is not None:
            _log.error("the handler raised", exc_info=error)
            return self._fallback
        answer: object = future.result()
        return answer if isinstance(answer, bytes) and answer else self._fallback

    def _health(self, connection: Connection, stream: Stream, message: bytes, path: bytes) -> None:
        response = health.respond(path, message, serving=self._serving)
        if isinstance(response, RequestRefusal):
            connection.refuse(stream, response)
        elif path == health.WATCH:
            connection.watch(stream, *response)
        else:
            connection.answer(stream, response[1])

    async def _listen(self, listener: socket.socket) -> None:
        """Accept on this socket with the certificates of now, and no longer on an earlier one, or with earlier ones."""
        previous, duplicate = (self._listener, self._socket), listener.dup()
        if self._certificates is not None:
            context, timeout = self._certificates.context, self._limits.half_open_timeout
            self._listener = TlsListener(
                duplicate, context, self._connection, handshake_timeout=timeout, on_refusal=self._count_handshake
            )
        else:
            loop = asyncio.get_running_loop()
            create = loop.create_unix_server if duplicate.family == socket.AF_UNIX else loop.create_server
            self._listener = await create(self._connection, sock=duplicate, backlog=BACKLOG)
        self._socket = listener
        await self._close(*previous)

    @staticmethod
    async def _close(listener: asyncio.Server | TlsListener | None, opened: socket.socket | None) -> None:
        if listener is not None:
            await stop_accepting(listener)
        if opened is not None:
            opened.close()

    def _connection(self) -> Connection:
        handler = self._handler if self._traced is None else None
        return Connection(self, self._options, self._limits, self._counters, self._refusals, check=CHECK, handler=handler)

    def _count_handshake(self, reason: RefusalReason, detail: str) -> None:
        self._refusals.count(reason, now=monotonic(), detail=detail)

    async def _sweep(self) -> None:
        """End what is late: greetings, requests, idle connections and old ones."""
        limits = self._limits
        interval = min(SWEEP, limits.half_open_timeout / 4, limits.idle_timeout / 4, limits.max_connection_age_grace / 4)
        while True:
            await asyncio.sleep(interval)
            now = monotonic()
            for connection in list(self._open):
                try:
                    self._end_late(connection, now)
                except Exception:  # noqa: BLE001 - the others are looked at all the same
                    _log.exception("a connection was not looked at")

    def _end_late(self, connection: Connection, now: float) -> None:
        limits = self._limits
        stalled = connection.stalled_since is not None and now - connection.stalled_since > limits.idle_timeout
        if stalled or (not connection.greeted and now - connection.opened_at > limits.half_open_timeout):
            if not connection.greeted:
                connection.count_refusal(RefusalReason.GREETING_TIMEOUT)
            connection.abort()
            return
        for stream in list(
            itertools.takewhile(lambda one: now - one.opened_at > limits.half_open_timeout, connection.streams.values())
        ):
            if not stream.complete:
                connection.give_up(stream)
        leaving_since = connection.leaving_since
        if leaving_since is None:
            idle = not connection.streams and now - connection.used_at > limits.idle_timeout
            if idle or (limits.max_connection_age is not None and now - connection.opened_at > limits.max_connection_age):
                connection.leave()
        elif now - leaving_since > limits.max_connection_age_grace + NOTICE:
            connection.abort()
        elif now - leaving_since > NOTICE:
            connection.refuse_new()

    async def _wait_closed(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while self._open and monotonic() < deadline:  # noqa: ASYNC110 - a handful of times, at the end
            await asyncio.sleep(0.005)
