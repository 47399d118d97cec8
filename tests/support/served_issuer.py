"""The local issuer over HTTP, in a thread of its own: one server for the tests of a module, each with an issuer of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from extauthz.addresses import Address
from extauthz.demo.issuer import DemoIssuer
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port


@dataclass
class IssuerServer:
    """A running server on a free port; it serves whichever issuer a test puts in, and knows how many requests it answers."""

    base: str
    issuer: DemoIssuer | None = None
    running: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.issuer is not None
        self.running += 1
        try:
            await self.issuer(scope, receive, send)
        finally:
            self.running -= 1


@contextlib.contextmanager
def issuer_server() -> Iterator[IssuerServer]:
    """Serve until the block ends."""
    opened = open_port(Address(host="127.0.0.1", port=0))
    made = IssuerServer(f"http://127.0.0.1:{opened.getsockname()[1]}")
    http = HttpServer(made)
    thread = threading.Thread(target=asyncio.run, args=[http.run_on(opened)])
    thread.start()
    try:
        yield made
    finally:
        http.should_exit = True
        thread.join(timeout=20)
    assert not thread.is_alive()
