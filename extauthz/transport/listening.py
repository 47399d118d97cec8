"""Sockets that are ours alone: a second bind is an error at start, never a silent one.

grpcio and asyncio both take over a live unix socket without a word, and whoever stops first removes the other's file. A lock file
beside the socket is held for the life of the process, and a socket that still answers is refused.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import grp
import logging
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


LOOK = 1.0
"""Seconds between two looks whether a socket file is still there."""
BACKLOG = 1024
"""Connections that wait to be accepted: with few of them a burst makes everybody else's connection a second late."""

_log = logging.getLogger(__name__)


class ListenError(Exception):
    """An address cannot be listened on; the text names it and the cause."""


def checked_fallback(fallback: bytes) -> bytes:
    """Return what is sent when a handler breaks; raises ValueError for what is empty, which Envoy takes for an allow."""
    if not fallback:
        raise ValueError("the fallback answer is empty, which Envoy takes for an allow: not serving")
    return fallback


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


class Claim:
    """A socket path that is ours: the lock beside it, and which file it is that we made."""

    def __init__(self, address: Address) -> None:
        """Take the lock; raises ListenError."""
        self.address = address
        self._path = Path(address.path)
        self._lock = _locked(address)
        self._mode = "0600"
        self._group: str | None = None
        self._made: tuple[int, int] | None = None

    @property
    def is_lost(self) -> bool:
        """Tell whether the file that was published is there no more, or another one is."""
        return _identity(self._path) != self._made

    def make_room(self) -> None:
        """Make the path free to bind, with the lock held beside it; raises ListenError."""
        if _identity(Path(f"{self._path}.lock")) != _identity(self._lock.fileno()):
            # It went with its folder, say: a second process could lock the next one.
            previous, self._lock = self._lock, _locked(self.address)
            previous.close()
        _make_room(self._path, self.address)

    def publish(self, *, mode: str, group: str | None) -> None:
        """Set group and octal mode of the socket file that was just bound, which counts as ours; raises ListenError."""
        self._mode, self._group = mode, group
        self._made = _identity(self._path)
        publish(self.address, mode=mode, group=group)

    async def bind_again(self, listen_again: Callable[[Address], Awaitable[None]]) -> None:
        """Bind anew and publish as before; raises ListenError and OSError."""
        # A socket that is there is tried, which takes time.
        await asyncio.to_thread(self.make_room)
        with restricted_umask(self._mode):
            await listen_again(self.address)
        self.publish(mode=self._mode, group=self._group)

    def release(self) -> None:
        """Let go of the lock."""
        self._lock.close()

    def remove(self) -> None:
        """Remove the socket file, unless it is somebody else's by now."""
        if self._made is None or not self.is_lost:
            with suppress(FileNotFoundError):
                self._path.unlink()


@contextmanager
def claim(address: Address) -> Iterator[Claim]:
    """Hold the lock beside a socket path, which is free to bind inside; raises ListenError.

    The socket file is removed at the end. The lock file stays: removing it would let two processes hold two locks.
    """
    claimed = Claim(address)
    try:
        claimed.make_room()
        try:
            yield claimed
        finally:
            claimed.remove()
    finally:
        claimed.release()


async def keep(
    claimed: Claim,
    listen_again: Callable[[Address], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look after a published socket file, and bind it again when it was removed or replaced; whoever is connected stays so."""
    is_told = False
    while True:
        await sleep(LOOK)
        if not claimed.is_lost:
            is_told = False
            continue
        try:
            await claimed.bind_again(listen_again)
        except Exception as error:  # noqa: BLE001 - the next look may find the way free
            if not is_told:
                known = isinstance(error, ListenError | OSError)
                extra = {"listen": str(claimed.address), "cause": str(error)}
                _log.error("the socket is gone and cannot be made again", extra=extra, exc_info=None if known else error)
            is_told = True
        else:
            is_told = False
            _log.warning("the socket was removed and is made again", extra={"listen": str(claimed.address)})


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


def _locked(address: Address) -> IO[str]:
    """Return the lock file, which holds the lock until it is closed; raises ListenError."""
    folder = Path(address.path).parent
    if not folder.is_dir():
        raise ListenError(f"{address}: the folder {folder} does not exist")
    lock = _lock_file(address)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ListenError(f"{address} is in use by another extauthz (it holds {address.path}.lock)") from error
    return lock


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Return what tells a file from every other one, None when there is none."""
    try:
        found = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
