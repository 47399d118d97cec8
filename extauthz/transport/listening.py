"""Sockets that are ours alone: a second bind is an error at start, never a silent one.

grpcio and asyncio both take over a live unix socket without a word, and whoever stops first removes the other's file. A lock file
beside the socket is held for the life of the process, and a socket that still answers is refused.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from extauthz.addresses import Address

Handler = Callable[[bytes], bytes | Awaitable[bytes]]
"""What every transport serves: a serialised request to a serialised answer, at once where nothing has to be waited for."""
TracedHandler = Callable[[bytes, str, str], bytes | Awaitable[bytes]]
"""The same, which also gets traceparent and tracestate of the call, "" without one (W3C Trace Context 3.2, 3.3)."""


BACKLOG = 1024
"""Connections that wait to be accepted: with few of them a burst makes everybody else's connection a second late."""


class ListenError(Exception):
    """An address cannot be listened on; the text names it and the cause."""


def open_port(address: Address) -> socket.socket:
    """Return a bound and listening TCP socket; raises ListenError, also for the address of a unix socket."""
    if address.path:
        raise ListenError(f"{address} is not a TCP address")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address.host, address.port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"{address} is in use by another process") from error
        raise ListenError(f"{address} cannot be listened on: {error.strerror or error}") from error
    return opened


def open_listener(address: Address) -> socket.socket:
    """Return a bound and listening socket of either kind, a unix socket inside `claim` only; raises ListenError."""
    if not address.path:
        return open_port(address)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.bind(address.path)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise ListenError(f"{address} cannot be listened on: {error.strerror or error}") from error
    return opened


@contextmanager
def claim(address: Address) -> Iterator[None]:
    """Hold the lock beside a socket path, which is free to bind inside; raises ListenError.

    The socket file is removed at the end. The lock file stays: removing it would let two processes hold two locks.
    """
    path = Path(address.path)
    if not path.parent.is_dir():
        raise ListenError(f"{address}: the folder {path.parent} does not exist")
    with _lock_file(address) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ListenError(f"{address} is in use by another extauthz (it holds {path}.lock)") from error
        _make_room(path, address)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


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


def _lock_file(address: Address) -> IO[str]:
    try:
        # Not through a link: the folder may be one that others can write to.
        return open(
            os.open(f"{address.path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+", encoding="ascii"
        )
    except OSError as error:
        raise ListenError(f"{address}: its lock file {address.path}.lock cannot be made: {error.strerror or error}") from error


def _make_room(path: Path, address: Address) -> None:
    if not path.exists():
        return
    if not path.is_socket():
        raise ListenError(f"{address} is a file that is no socket: remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise ListenError(f"{address} exists and cannot be tried: {error}") from error
    raise ListenError(f"{address} is in use by another process")
