"""The ops listener: /metrics, /healthz and /readyz over HTTP, for monitoring and probes."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import uvicorn

Application = Callable[[Any, Any, Any], Awaitable[None]]
Page = tuple[int, str, bytes]


class HttpServer(uvicorn.Server):
    """uvicorn in a loop of ours: signals stay with the process that owns it."""

    def __init__(self, application: Application) -> None:
        """Serve an ASGI application with HTTP/1.1, without logs of its own."""
        super().__init__(
            uvicorn.Config(
                application, http="h11", ws="none", lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone."""
        yield

    async def run_on(self, opened: socket.socket) -> None:
        """Serve on a socket until `should_exit` is set."""
        await self.serve(sockets=[opened])


def application(
    metrics: Callable[[], bytes],
    metrics_type: str,
    readiness: Callable[[], Mapping[str, bool]],
    details: Callable[[], Mapping[str, bool]],
) -> Application:
    """Return the ASGI application; it is ready when every part of `readiness` is, whatever the `details` say."""

    def page(path: str) -> Page:
        match path:
            case "/metrics":
                return 200, metrics_type, metrics()
            case "/healthz":
                return 200, "text/plain", b"ok\n"
            case "/readyz":
                parts = dict(readiness())
                ready = all(parts.values())
                body = json.dumps({"ready": ready, "parts": parts, "details": dict(details())}).encode() + b"\n"
                return (200 if ready else 503), "application/json", body
            case _:
                return 404, "text/plain", b"/metrics, /healthz or /readyz\n"

    async def serve(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        allowed = scope["method"] in ("GET", "HEAD")
        status, kind, body = page(scope["path"]) if allowed else (405, "text/plain", b"GET or HEAD\n")
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})

    return serve
