"""The listener for upstreams: the public keys of internal tokens, and nothing else, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from extauthz.transport.http.ops import Application, BoundedConnection, HttpServer

PATH = "/.well-known/jwks.json"
MAX_AGE = 300
"""Seconds that a key set may be kept: a key that was published so long ago may sign."""


class BriefConnection(BoundedConnection):
    """A connection of a client that fetches the keys: any client may."""

    lifetime = 5.0
    grace = 5.0


def application(key_set: Callable[[], bytes]) -> Application:
    """Return the ASGI application; `key_set` returns the document at each request, so that a reload shows."""

    async def serve(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, kind, body, keep = 200, b"application/json", key_set(), b"public, max-age=%d" % MAX_AGE
        if scope["path"] != PATH:
            status, kind, body, keep = 404, b"text/plain", PATH.encode() + b"\n", b"no-store"
        elif scope["method"] not in ("GET", "HEAD"):
            status, kind, body, keep = 405, b"text/plain", b"GET or HEAD\n", b"no-store"
        length = str(len(body)).encode()
        headers = [(b"content-type", kind), (b"content-length", length), (b"cache-control", keep)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return serve


@contextlib.asynccontextmanager
async def serving(listener: socket.socket, key_set: Callable[[], bytes]) -> AsyncIterator[None]:
    """Serve the key set on a socket inside the block."""
    server = HttpServer(application(key_set), http=BriefConnection)
    task = asyncio.create_task(server.run_on(listener))
    try:
        yield
    finally:
        server.should_exit = True
        await task
