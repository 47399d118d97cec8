"""The ops listener: /metrics, /healthz, /readyz, /config and other pages over HTTP, for monitoring, probes and operators."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from extauthz.transport.grpc.eviction import evictable, has_unread
from extauthz.transport.http.private_pages import TOO_MANY, Page, PrivatePage, header, refusal
from extauthz.transport.sockets import BACKLOG, stop_accepting
from extauthz.transport.tls_listening import TlsListener

Application = Callable[[Any, Any, Any], Awaitable[None]]
ACCEPTED_AT_ONCE = 32
"""Connections accepted in one turn of the loop: before it ends none of them can make room, and each takes a descriptor."""
KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than scrapers pause."""


class BoundedConnection(H11Protocol):
    """A connection that must send a request within `header_timeout` seconds, and ends after `lifetime`, cut if need be.

    Of more than `most` the one is closed that sent no request, or rested longest. So nobody can keep what probes and checks need:
    places, descriptors and memory.
    """

    most = 100
    header_timeout = 5.0
    lifetime = 30.0
    grace = 10.0
    _end: asyncio.TimerHandle | None = None
    _header_due: asyncio.TimerHandle | None = None
    opened_at = used_at = 0.0

    @property
    def _has_request(self) -> bool:
        # None before the first request, whatever uvicorn says of its type.
        return bool(self.cycle)

    @property
    def silent(self) -> bool:
        """Return whether no header has come completely, and nothing that its client sent waits to be read."""
        return not self._has_request and not has_unread(self.transport)

    @property
    def resting(self) -> bool:
        """Return whether its request has come, and was answered."""
        return self._has_request and self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, and set its ends."""
        super().connection_made(transport)
        self.opened_at = self.used_at = monotonic()
        if not self._has_place():
            # Else it would make room for the next one of this turn of the loop.
            self.connections.discard(self)
            transport.abort()
            return
        self._header_due = self.loop.call_later(self.header_timeout, self._expect_header)
        self._end = self.loop.call_later(self.lifetime, self._close, transport)

    def on_response_complete(self) -> None:
        """Rest from now on."""
        self.used_at = monotonic()
        super().on_response_complete()

    def _has_place(self) -> bool:
        return len(self.connections) <= self.most or self._make_room(self.connections)

    def _make_room(self, among: Iterable[object]) -> bool:
        """End another connection without a request under way; return whether there was one."""
        others = [one for one in among if isinstance(one, BoundedConnection) and one is not self]
        connection = self._evictable(sorted(others, key=lambda one: one.opened_at))
        if connection is None:
            return False
        self.connections.discard(connection)
        connection.transport.abort()
        return True

    def _evictable(self, others: Sequence[BoundedConnection]) -> BoundedConnection | None:
        return evictable(others)

    def _expect_header(self) -> None:
        """End a connection whose first header has not come."""
        if not self._has_request:
            self.transport.abort()

    def _close(self, transport: asyncio.Transport) -> None:
        """Let a request under way be answered."""
        self._end = self.loop.call_later(self.grace, self._cut)
        self.shutdown()

    def _cut(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        for due in (self._header_due, self._end):
            if due is not None:
                due.cancel()
        super().connection_lost(exc)


class HttpServer(uvicorn.Server):
    """uvicorn in a loop of ours: signals stay with the process that owns it."""

    def __init__(
        self,
        application: Application,
        *,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float = 5.0,
        http: type[asyncio.Protocol] = H11Protocol,
    ) -> None:
        """Serve an ASGI application with HTTP/1.1, over TLS with a context, without logs of its own."""
        configuration = uvicorn.Config(
            application,
            http=http,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            # By default it believes what a client on loopback says of its address.
            proxy_headers=False,
            forwarded_allow_ips="",
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )
        super().__init__(configuration)
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._listeners: list[TlsListener] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone."""
        yield

    async def run_on(self, listener: socket.socket) -> None:
        """Serve on a socket until `should_exit` is set."""
        await self.serve(sockets=[listener])

    async def listen_again(self, listener: socket.socket) -> None:
        """Serve on another socket from now on, beside the connections that are open; raises OSError, and closes it then."""
        servers, listeners = self.servers, self._listeners
        try:
            await self.startup([listener])
        except OSError:
            listener.close()
            raise
        if self._tls is not None:
            # What accepts is a copy of it.
            listener.close()
        for server in servers:
            await stop_accepting(server)
        for previous in listeners:
            previous.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept; over TLS by ourselves, since uvicorn lets a handshake take a minute and counts none."""
        if self._tls is None or not sockets:
            await super().startup(sockets)
            for each in sockets or ():
                # asyncio takes one number for both.
                each.listen(BACKLOG)
            return
        await super().startup([])
        self._listeners = [
            TlsListener(each.dup(), self._tls, self._protocol, handshake_timeout=self._handshake_timeout) for each in sockets
        ]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no longer, and let requests under way be answered."""
        for listener in self._listeners:
            listener.abort()
        for server in self.servers:
            await stop_accepting(server)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """Make a connection as uvicorn does."""
        protocol: type[Any] = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Readiness:
    """What has to be in order, each by name, and what is worth knowing besides."""

    parts: Mapping[str, bool]
    details: tuple[Mapping[str, object], ...]

    @property
    def ready(self) -> bool:
        """Return whether every part is in order."""
        return all(self.parts.values())


@dataclass(frozen=True, slots=True)
class Pages:
    """What the ops listener shows; `metrics` takes whether the client accepts OpenMetrics, and returns type and text.

    With `trusted` every client may see the configuration and the `private` pages, by their paths: the listener is a unix socket, or
    asks for client certificates. Without `configuration` there is no such page.
    """

    metrics: Callable[[bool], Awaitable[tuple[str, bytes]]]
    readiness: Callable[[], Awaitable[Readiness]]
    configuration: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    trusted: bool = False
    private: Mapping[str, PrivatePage] = field(default_factory=dict)

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the methods that a page is asked for with."""
        return self.private[path].methods if path in self.private else ("GET", "HEAD")

    async def page(self, scope: Mapping[str, Any]) -> Page:
        """Return the page of a request."""
        match scope["path"]:
            case "/metrics":
                kind, text = await self.metrics("application/openmetrics-text" in header(scope, b"accept"))
                return 200, kind, text
            case "/healthz":
                return 200, "text/plain", b"ok\n"
            case "/readyz":
                state = await self.readiness()
                body = {"ready": state.ready, "parts": dict(state.parts), "details": list(state.details)}
                return (200 if state.ready else 503), "application/json", json.dumps(body).encode() + b"\n"
            case "/config" if self.configuration is not None:
                if refused := refusal(scope, trusted=self.trusted):
                    return refused
                return 200, "application/json", json.dumps(await self.configuration(), indent=2).encode() + b"\n"
            case path if path in self.private:
                query = scope.get("query_string", b"").decode("latin-1")
                return refusal(scope, trusted=self.trusted) or await self.private[path].answer(query)
            case _:
                return 404, "text/plain", b"/metrics, /healthz, /readyz, /config or /decisions\n"


def application(pages: Pages) -> Application:
    """Return the ASGI application."""

    async def serve(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        methods, method = pages.methods(scope["path"]), scope["method"]
        refused = 405, "text/plain", f"{' or '.join(methods)}\n".encode()
        status, kind, body = await pages.page(scope) if method in methods else refused
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        if status == TOO_MANY:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    return serve
