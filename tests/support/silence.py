"""Strangers who connect and ask nothing: as many connections as a test says, opened anew whenever the other side ends one."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.h2_client import Target

RATE = 200
"""New connections a second, once all were open: a client of the test must get its first words out before its turn to go comes."""


class Silence:
    """Holds connections to one listener inside the block, in a thread of its own; each says `words` and then nothing more."""

    def __init__(self, target: Target, count: int, words: bytes = b"", *, reopens: bool = True) -> None:
        self._target = target
        self._count = count
        self._words = words
        self._reopens = reopens
        self._poll = select.poll()
        self._open: dict[int, socket.socket] = {}
        self._full = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="silence", daemon=True)
        self.opened = 0
        """How many connections were opened in all."""

    @property
    def held(self) -> int:
        """How many are open."""
        return len(self._open)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._full.wait(20), f"{self.opened} of {self._count} connections could be opened"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(20)
        for one in self._open.values():
            one.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ending.is_set():
            missing = len(self._open) < self._count and (self._reopens or self.opened < self._count)
            if missing:
                self._connect()
            if self.opened >= self._count:
                self._full.set()
            self._look(0 if missing else 20)
            if missing and self._full.is_set():
                self._ending.wait(1 / RATE)

    def _connect(self) -> None:
        family = socket.AF_INET if isinstance(self._target, int) else socket.AF_UNIX
        one = socket.socket(family, socket.SOCK_STREAM)
        one.settimeout(1.0)
        try:
            one.connect(("127.0.0.1", self._target) if isinstance(self._target, int) else self._target)
            one.sendall(self._words)
        except OSError:
            # The other side has no place for it at the moment, or ended it at once.
            one.close()
            self.opened += 1
            return
        one.setblocking(False)
        self.opened += 1
        self._open[one.fileno()] = one
        self._poll.register(one, select.POLLIN)

    def _look(self, milliseconds: int) -> None:
        for number, _ in self._poll.poll(milliseconds):
            received = b""
            with suppress(ConnectionError):
                received = self._open[number].recv(65536)
            if not received:
                self._poll.unregister(number)
                self._open.pop(number).close()
