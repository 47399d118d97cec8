"""What stands beside a unix socket and at its path: the lock of the process that listens, and sockets that were left behind."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from extauthz.addresses import Address
from extauthz.errors import AddressInUseError, ListenError

Identity = tuple[int, int]
"""Device and number of a file."""


def acquire_lock(address: Address) -> IO[str]:
    """Return the lock file, which holds the lock until it is closed; raises ListenError."""
    folder = Path(address.path).parent
    if not folder.is_dir():
        raise ListenError(f"{address}: the folder {folder} does not exist")
    lock = _lock_file(address)
    if not try_lock(lock):
        lock.close()
        raise AddressInUseError(f"{address} is in use by another extauthz (it holds {address.path}.lock)")
    return lock


def is_released(lock: IO[str], file: Identity | None) -> bool:
    """Return whether the process that held the lock before leaves this socket file to the next holder of the lock."""
    lock.seek(0)
    return file is not None and lock.read() == _mark(file)


def release(lock: IO[str], file: Identity | None) -> None:
    """Leave a socket file to the next holder of the lock; raises OSError."""
    forget(lock)
    if file is not None:
        lock.write(_mark(file))
        lock.flush()
    fcntl.flock(lock, fcntl.LOCK_UN)


def forget(lock: IO[str]) -> None:
    """Remove the mark of a socket file that was left; raises OSError."""
    lock.seek(0)
    lock.truncate()


def try_lock(lock: IO[str]) -> bool:
    """Take the lock of a lock file; return False when another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def identity(file: Path | int) -> Identity | None:
    """Return what identifies a file, None when there is none."""
    try:
        status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def make_room(path: Path, address: Address) -> None:
    """Remove a socket that nobody listens on; raises ListenError for everything else that stands in the way."""
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
    raise AddressInUseError(f"{address} is in use by another process")


def _mark(file: Identity) -> str:
    return f"left: {file}\n"


def _lock_file(address: Address) -> IO[str]:
    try:
        # Not through a link: the folder may be one that others can write to.
        descriptor = os.open(f"{address.path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        return open(descriptor, "r+", encoding="ascii", errors="replace")
    except OSError as error:
        raise ListenError(f"{address}: its lock file {address.path}.lock cannot be made: {error.strerror or error}") from error
