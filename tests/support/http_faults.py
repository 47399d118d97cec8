"""A small HTTP server that answers badly on demand, on a free port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from extauthz.transport.sockets import stop_accepting

DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class Page:
    """One answer. `raw` replaces all of it; `missing` is how many bytes of the promised body never come; `wait` is in seconds."""

    body: bytes = b"{}"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    raw: bytes | None = None
    missing: int = 0
    wait: float = 0.0
    slowly: float = 0.0

    def head(self) -> bytes:
        """Return the status line and the headers."""
        lines = [f"HTTP/1.1 {self.status} Status", f"content-length: {len(self.body) + self.missing}", "connection: close"]
        return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in self.headers), "", ""]).encode("latin-1")


def document(data: Any, **more: Any) -> Page:
    """Return a page with a JSON document."""
    return Page(json.dumps(data).encode(), **more)


@dataclass
class FaultyServer:
    """Answers each path with its page, else with 404; counts connections and requests; `seen` is set by each request."""

    port: int = 0
    pages: dict[str, Page] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def origin(self) -> str:
        """The address of the server, without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection with one request."""
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode("latin-1")
            self.heads.append(head)
            self.requests[path] += 1
            self.seen.set()
            page = self.pages.get(path, Page(b"{}", 404))
            if page.wait:
                await asyncio.sleep(page.wait)  # why: this server is as slow as a test says
            data = page.raw if page.raw is not None else page.head() + page.body
            if page.slowly:
                for start in range(0, len(data), 64):
                    writer.write(data[start : start + 64])
                    await writer.drain()
                    await asyncio.sleep(page.slowly)  # why: this server is as slow as a test says
            else:
                writer.write(data)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            # The client had enough.
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def listening(answer: Connected, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on a free port of 127.0.0.1 until the end of the block, and leave neither socket nor task behind."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(reader, writer)
        except asyncio.CancelledError:
            # The end of the block: asyncio would log a task of its own that is cancelled.
            return
        finally:
            tasks.discard(task)

    opened = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield opened.sockets[0].getsockname()[1]
    finally:
        await stop_accepting(opened)
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks), timeout=5)
        await opened.wait_closed()
        assert not tasks, "a connection is left behind"


@asynccontextmanager
async def faulty_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[FaultyServer]:
    """Serve until the end of the block."""
    served = FaultyServer()
    async with listening(served.answer, tls) as served.port:
        yield served
