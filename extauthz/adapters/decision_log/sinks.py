"""Where the lines go: standard output, a file or a unix socket. All of it is called by the writing thread alone."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Protocol

from extauthz.adapters.decision_log.lines import MAX_LINE
from extauthz.process.compiled import load

PATIENCE = 0.25
"""Seconds to wait for a reader."""
MAX_WRITE = 64 * 1024
FILE_MODE = 0o640
MAX_SOCKET_PATH = 107


class SinkClosed(Exception):
    """Nobody reads any more, and nobody will."""


class Sink(Protocol):
    """Takes lines; `name` is how the process log calls it."""

    name: str

    def write(self, lines: Sequence[bytes]) -> int:
        """Write lines from the front; return how many were taken whole. Raises OSError when none could be, and SinkClosed."""

    def reopen(self) -> None:
        """Open the place again, which may be another one by now; raises OSError, and then the old one goes on."""

    def close(self) -> None:
        """Let go of it."""


class StandardOutput:
    """A descriptor that others opened; a pipe or a terminal, or a file."""

    name = "stdout"

    def __init__(self, descriptor: int) -> None:
        """Keep a copy of the descriptor; raises OSError."""
        self._output = _Descriptor(os.dup(descriptor))

    def write(self, lines: Sequence[bytes]) -> int:
        """Write lines, each write small enough for a pipe that several processes share."""
        try:
            return self._output.write(lines)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EBADF):
                raise SinkClosed from error
            raise

    def reopen(self) -> None:
        """Leave it as it is: it was given to us."""

    def close(self) -> None:
        """Close the copy."""
        self._output.close()


class File:
    """A file that lines are appended to, by several processes if need be; made with mode 0640."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises OSError."""
        self.name = str(path)
        self._path = path
        self._output: _Descriptor | None = None
        self.reopen()

    def write(self, lines: Sequence[bytes]) -> int:
        """Append lines; a file that was removed is made again."""
        if self._output is None or self._output.is_removed:
            self.reopen()
        try:
            return self._output.write(lines) if self._output else 0
        except BrokenPipeError:
            # A named pipe whose reader went; another may come.
            self.close()
            raise

    def reopen(self) -> None:
        """Open the path again, as after a rotation."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
        self.close()
        self._output = _Descriptor(descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._output:
            self._output.close()
            self._output = None


class UnixSocket:
    """A stream socket on which somebody reads lines; connected at the first write, and again when the reader comes back."""

    def __init__(self, path: Path) -> None:
        """Take the path of the socket; raises OSError for one that no socket can have."""
        if len(os.fsencode(path)) > MAX_SOCKET_PATH or "\0" in str(path):
            raise OSError(errno.ENAMETOOLONG, f"not a path of at most {MAX_SOCKET_PATH} bytes")
        self.name = str(path)
        self._path = str(path)
        self._socket: socket.socket | None = None
        self._bytes_sent = 0

    def write(self, lines: Sequence[bytes]) -> int:
        """Send lines; one that a connection took only in part is sent whole on the next one."""
        connection = self._socket or self._connect()
        count = 0
        for chunk in chunks(lines, MAX_WRITE):
            try:
                bytes_sent = self._bytes_sent + connection.send(b"".join(chunk)[self._bytes_sent :])
            except OSError as error:
                if not isinstance(error, TimeoutError):
                    self.close()
                if count:
                    break
                raise
            whole = whole_lines(chunk, bytes_sent)
            self._bytes_sent = bytes_sent - sum(map(len, chunk[:whole]))
            count += whole
            if whole < len(chunk):
                break
        return count

    def reopen(self) -> None:
        """Connect anew at the next write."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._socket:
            self._socket.close()
        self._socket, self._bytes_sent = None, 0

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        self._socket = connection
        return connection


class _Descriptor:
    """Appends whole lines to an open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._most = MAX_WRITE if regular else MAX_LINE
        self._is_torn = False
        compiled = load("extauthz.adapters.decision_log._runs")
        self._write_runs = compiled.write_runs if compiled else write_runs

    @property
    def is_removed(self) -> bool:
        return os.fstat(self._descriptor).st_nlink == 0

    def write(self, lines: Sequence[bytes]) -> int:
        runs = [b"".join(chunk) for chunk in chunks(lines, self._most)]
        begun = int(self._is_torn)
        if runs and begun:
            # What was torn off by a full disk stays alone on its line, and its own line is written whole.
            runs[0] = b"\n" + runs[0]
        size, error = self._write_runs(self._descriptor, runs, int(PATIENCE * 1000))
        whole = whole_lines(lines, size - begun)
        if size:
            self._is_torn = size - begun > sum(map(len, lines[:whole]))
        if error and not whole:
            raise OSError(error, "nobody reads" if error == errno.ETIMEDOUT else os.strerror(error))
        return whole

    def close(self) -> None:
        os.close(self._descriptor)


def write_runs(descriptor: int, runs: Sequence[bytes], milliseconds: int) -> tuple[int, int]:
    """Write runs one after the other; return how many bytes went out, and the error or 0.

    Room is waited for, altogether for so long. It ends at the first that is not written whole, or that has no room by then.
    The compiled one does not take the interpreter's lock back in between.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    deadline = monotonic() + milliseconds / 1000
    total = 0
    for run in runs:
        try:
            if not poll.poll(0) and not poll.poll(max(0.0, (deadline - monotonic()) * 1000)):
                return total, 0 if total else errno.ETIMEDOUT
            size = os.write(descriptor, run)
        except OSError as error:
            return total, error.errno or errno.EIO
        total += size
        if size < len(run):
            break
    return total, 0


def chunks(lines: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    """Cut lines into runs of at most `most` bytes each, or of one line."""
    start = size = 0
    for index, line in enumerate(lines):
        if size and size + len(line) > most:
            yield lines[start:index]
            start, size = index, 0
        size += len(line)
    if size:
        yield lines[start:]


def whole_lines(lines: Sequence[bytes], size: int) -> int:
    """Return how many lines are complete in the first `size` bytes of all of them."""
    count = 0
    for line in lines:
        size -= len(line)
        if size < 0:
            break
        count += 1
    return count
