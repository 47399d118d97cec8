"""Signals that come before the event loop listens: they are noted, and the loop asks for them when it runs.

It is called before everything else is imported, so it imports nothing that takes time.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)
NUMBERS = (*STOPPING, signal.SIGHUP, signal.SIGUSR2)

_noted: list[int] = []


def note() -> None:
    """Note every signal from now on instead of dying of it; of a second one to stop the process does die."""
    for number in NUMBERS:
        signal.signal(number, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)


def note_for_worker() -> None:
    """Note SIGTERM alone: what the others ask for is the parent's affair, also when they are sent to the whole process group."""
    for number in NUMBERS:
        signal.signal(number, _note if number == signal.SIGTERM else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)


def take_signals() -> list[int]:
    """Return what has come, in its order, once: asked for when others listen already."""
    signals = _noted[:]
    del _noted[: len(signals)]
    return signals


@contextmanager
def held_for_child() -> Iterator[None]:
    """Let a process that is started inside be born with these signals held back, until it listens to them itself.

    They reach this process a moment later. A handler is not inherited, so that a child would die of them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        yield
    finally:
        # Not the mask of before: several children may be started at once.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)


def _note(number: int, _: FrameType | None) -> None:
    _noted.append(number)
    if number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
