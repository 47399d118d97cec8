"""Sockets that listen: bound for one process alone, with the mode and group that they shall have."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from extauthz.addresses import Address
from extauthz.errors import AddressInUseError, ListenError

Handler = Callable[[bytes], bytes | Awaitable[bytes]]
"""What every transport serves: a serialised request to a serialised answer, at once where nothing has to be waited for."""
TracedHandler = Callable[[bytes, str, str], bytes | Awaitable[bytes]]
"""The same, which also gets traceparent and tracestate of the call, "" without one (W3C Trace Context 3.2, 3.3)."""
BACKLOG = 1024
"""Connections that wait to be accepted: with few of them a burst makes everybody else's connection a second late."""


class Accepting(Protocol):
    """A server of asyncio, or what accepts in its stead."""

    @property
    def sockets(self) -> Iterable[Any]: ...
    def close(self) -> None: ...


_TURNS = 3
"""Turns of the loop after which a protocol has every connection that asyncio accepted for it."""


def checked_fallback(fallback: bytes) -> bytes:
    """Return what is sent when a handler breaks; raises ValueError for what is empty, which Envoy takes for an allow."""
    if not fallback:
        raise ValueError("the fallback answer is empty, which Envoy takes for an allow: not serving")
    return fallback


def open_port(address: Address, *, shared: bool = False) -> socket.socket:
    """Return a bound and listening TCP socket, `shared` beside one that is left; raises ListenError, also for a unix socket."""
    if address.path:
        raise ListenError(f"{address} is not a TCP address")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(f"{address} is in use by another process") from error
        raise ListenError(f"{address} cannot be listened on: {error.strerror or error}") from error
    return listener


def open_listener(address: Address, *, shared: bool = False) -> socket.socket:
    """Return a bound and listening socket of either kind, a unix socket inside `claim` only; raises ListenError."""
    if not address.path:
        return open_port(address, shared=shared)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address.path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"{address} cannot be listened on: {error.strerror or error}") from error
    return listener


@contextmanager
def restricted_umask(mode: str) -> Iterator[None]:
    """Let files that are made inside have no more than this octal mode from their first moment on."""
    previous = os.umask(0o777 & ~int(mode, 8))
    try:
        yield
    finally:
        os.umask(previous)


def publish(address: Address, *, mode: str, group: str | None) -> None:
    """Set group and octal mode of a socket file that was just bound; raises ListenError."""
    try:
        if group is not None:
            os.chown(address.path, -1, grp.getgrnam(group).gr_gid)
        os.chmod(address.path, int(mode, 8))
    except (KeyError, OSError) as error:
        raise ListenError(f"{address}: group {group!r} or mode {mode} cannot be set: {error}") from error


async def stop_accepting(server: Accepting) -> None:
    """Close a server when it has handed over what it accepted: asyncio closes nothing that comes to a closed server."""
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    server.close()
