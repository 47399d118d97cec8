"""How a process that leaves a TCP address lets its successor in, so that there is no moment in which nobody listens.

A port belongs to one process: nobody else can bind it. One that leaves opens it (SO_REUSEPORT, set late) and answers on an abstract
unix socket named after the address, which belongs to the same network namespace as the port. The successor asks there first, since
a port that can be bound may be that of a program of another kind; it says a second time when it serves. Both have the same user.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from extauthz.addresses import Address

PATIENCE = 1.0
"""Seconds that a successor waits for the permission of its predecessor."""
_PERMITTED, _SERVING = b"p", b"s"
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a peer (unix(7), SO_PEERCRED)."""


def ask(address: Address) -> socket.socket | None:
    """Ask the process that leaves this address for it; return the connection to it, None when no process leaves it to us."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    with suppress(OSError):
        connection.connect(_name(address))
        if _is_ours(connection) and connection.recv(1) == _PERMITTED:
            return connection
    connection.close()
    return None


def confirm(predecessor: socket.socket, address: Address) -> None:
    """Say that this process serves, and let no other bind the address; a predecessor that has ended needs no message.

    The connection stays open as long as this process listens, so that none comes after it.
    """
    with suppress(OSError):
        _share(address.port, shared=False)
        predecessor.sendall(_SERVING)


@asynccontextmanager
async def offer(address: Address) -> AsyncIterator[asyncio.Event]:
    """Let one successor bind the address, which this process listens on; the event is set when that one serves. Raises OSError."""
    event = asyncio.Event()
    successors: set[asyncio.StreamWriter] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A second one would share the port with the first.
        if not successors and _is_ours(writer.get_extra_info("socket")):
            successors.add(writer)
            with suppress(OSError):
                writer.write(_PERMITTED)
                if await reader.read(1) == _SERVING:
                    event.set()
                    await reader.read()
            successors.discard(writer)
        writer.close()

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(_name(address))
        _share(address.port, shared=True)
        server = await asyncio.start_unix_server(meet, sock=listener)
    except OSError:
        listener.close()
        raise
    try:
        yield event
    finally:
        server.close()
        for writer in list(successors):
            writer.close()


def _name(address: Address) -> str:
    return f"\0extauthz {address}"


def _is_ours(connection: socket.socket) -> bool:
    """Return whether the process at the other end has our user: others can take such a name too."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.geteuid())


def _share(port: int, *, shared: bool) -> None:
    """Let others bind a port that this process listens on, or no longer; raises OSError."""
    for listening in _listening():
        if listening.getsockname()[1] == port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))


def _listening() -> Iterator[socket.socket]:
    """Yield the TCP sockets that this process listens on: grpcio shows nobody its own."""
    for name in os.listdir("/proc/self/fd"):
        try:
            candidate = socket.socket(fileno=int(name))
        except OSError:
            # No socket, or closed by now.
            continue
        try:
            is_tcp = candidate.family in (socket.AF_INET, socket.AF_INET6) and candidate.type == socket.SOCK_STREAM
            if is_tcp and candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield candidate
        finally:
            candidate.detach()
