"""Standard streams that hold nobody up: closed ones lead to /dev/null, and nothing waits for whoever reads standard error.

It is called before everything else is imported, so it imports little.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import stat
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

CAPACITY = 1_000
"""Lines of the process log that may wait."""
MAX_UNFINISHED = 64 * 1024
"""Characters that wait for the end of their line."""
FINISH_TIME = 1.0
"""Seconds that the end of the process waits for what is not written yet."""
NAMES = ("standard input", "standard output", "standard error")

closed_at_start: list[str] = []
"""The streams that were not open when the process began."""


class QueuedStream(io.TextIOBase):
    """A stream of text whose `write` never waits: a thread writes to the descriptor.

    Beyond `capacity` the oldest texts, each a line or more, are dropped, and their lines are counted.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int, *, capacity: int = CAPACITY) -> None:
        """Start the thread; the descriptor stays the caller's."""
        self._descriptor = descriptor
        self._capacity = capacity
        self._waiting: SimpleQueue[bytes] = SimpleQueue()
        self._lock = threading.RLock()
        self._unfinished = ""
        self._displaced = self._lost = self._reported = 0
        self._finishing = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._thread = threading.Thread(target=self._run, name="standard-error", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were never written."""
        return self._displaced + self._lost

    def write(self, text: str) -> int:
        """Take a text; it is written when its line is complete."""
        if not isinstance(text, str):
            raise TypeError(f"a text is written here, not {type(text).__name__}")
        with self._lock:
            lines, end, rest = (self._unfinished + text).rpartition("\n")
            self._unfinished = rest
            if len(rest) > MAX_UNFINISHED:
                lines, self._unfinished = f"{lines}{end}{rest}", ""
            if lines or end:
                self._put(f"{lines}{end}".encode(self.encoding, self.errors))
        return len(text)

    def flush(self) -> None:
        """Do nothing: whoever calls this must not wait either."""

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that the thread writes to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether somebody sits in front of it."""
        return os.isatty(self._descriptor)

    def finish(self, timeout: float = FINISH_TIME) -> None:
        """Write what is left, for `timeout` seconds at most; what comes later is dropped and counted."""
        with self._lock:
            if self._unfinished:
                self._put(self._unfinished.encode(self.encoding, self.errors))
                self._unfinished = ""
        self._finishing = True
        self._waiting.put(b"")
        self._thread.join(timeout)

    def _put(self, data: bytes) -> None:
        if self._finishing and threading.current_thread() is not self._thread:
            self._displaced += _lines(data)
            return
        if self._waiting.qsize() >= self._capacity:
            # The writing thread may have been quicker.
            with suppress(Empty):
                self._displaced += _lines(self._waiting.get_nowait())
        self._waiting.put(data)

    def _run(self) -> None:
        while True:
            self._write(self._waiting.get())
            if not self._waiting.empty():
                continue
            if self.dropped > self._reported:
                self._reported = self.dropped
                self._tell()
            if self._finishing and self._waiting.empty():
                return

    def _tell(self) -> None:
        """Say what is missing, now that all that waited is written."""
        # Here, because this module is loaded before the signals are safe; by now others have loaded it long ago.
        import logging

        with suppress(Exception):
            logging.getLogger(__name__).warning("process log written again", extra={"dropped": self._reported})

    def _write(self, data: bytes) -> None:
        lines = _lines(data)
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                self._poll.poll()
            except OSError:
                self._lost += lines
                return


def open_closed() -> None:
    """Open /dev/null in place of every standard stream that is closed, before any other file or socket gets its number."""
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            closed_at_start.append(name)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)


def queue_errors() -> None:
    """Let nothing that is written to standard error wait for whoever reads it; what is left is written when the process ends."""
    _stop_waiting(2)
    stream = QueuedStream(2)
    sys.stderr = stream
    atexit.register(stream.finish)


def dropped_lines() -> int:
    """Return how many lines of standard error were never written."""
    return sys.stderr.dropped if isinstance(sys.stderr, QueuedStream) else 0


def _stop_waiting(descriptor: int) -> None:
    """Open a pipe anew and without waiting, for libraries that write to the descriptor themselves.

    Anew, because whoever shares what is open now would get that as well. Other kinds are left as they are.
    """
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        with suppress(OSError):
            opened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.dup2(opened, descriptor)
            os.close(opened)


def _lines(data: bytes) -> int:
    return data.count(b"\n") or bool(data)
