"""An HTTP/1.1 server that keeps connections open, and breaks them where a test says so; and a proxy for CONNECT before it."""

from __future__ import annotations

import asyncio
import base64
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum


class Ending(StrEnum):
    """What becomes of a connection instead of an answer."""

    CLOSED = "closed"
    RESET = "reset"
    GARBAGE = "garbage"
    CUT = "the body is cut"
    SILENT = "silent"


Reaction = Callable[[int, int], Ending | None]
"""What the n-th request of the n-th connection gets, both counted from 1; None is a good answer."""


@dataclass
class KeepingServer:
    """Answers every request with its document; `requests` are (connection, request) in their order."""

    react: Reaction = lambda *_: None
    document: bytes = b'{"active": true}'
    port: int = 0
    pause: float = 0.0
    requests: list[tuple[int, int]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _connections: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until a reaction ends it, or the client does."""
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        connection, request = self._connections, 0
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.bodies.append(await reader.readexactly(int(length[0].partition(b":")[2])) if length else b"")
            request += 1
            self.heads.append(head)
            self.requests.append((connection, request))
            match self.react(connection, request):
                case None:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(self.document), self.document))
                    await writer.drain()
                    continue
                case Ending.SILENT:
                    await asyncio.Event().wait()
                case Ending.GARBAGE:
                    writer.write(b"garbage\r\n\r\n")
                case Ending.CUT:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{")
                    await writer.drain()
                case Ending.RESET:
                    await asyncio.sleep(self.pause)  # why: this server ends a connection when a test says
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                case Ending.CLOSED:
                    await asyncio.sleep(self.pause)  # why: this server ends a connection when a test says
            return


@dataclass
class ConnectProxy:
    """Leads every CONNECT to one port of this machine; with `credentials` only who sends them (RFC 9110 11.7.2)."""

    target: int
    credentials: tuple[str, str] | None = None
    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._lead(reader, writer)
        finally:
            writer.close()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.credentials is not None:
            expected = b"proxy-authorization: basic " + base64.b64encode(":".join(self.credentials).encode()).lower()
            if expected not in head.lower().split(b"\r\n"):
                writer.write(b'HTTP/1.1 407 Who are you\r\nproxy-authenticate: Basic realm="p"\r\ncontent-length: 0\r\n\r\n')
                await writer.drain()
                return
        there, to_there = await asyncio.open_connection("127.0.0.1", self.target)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        try:
            await asyncio.gather(_copy(reader, to_there), _copy(there, writer))
        finally:
            to_there.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()
