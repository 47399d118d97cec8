"""Work on thousands of lines in a thread beside the loop that answers checks: it rests again and again.

Python runs one thread at a time. A thread that is always ready for its turn gets half of them, and what it holds when the system
takes its processor away is held for milliseconds; one that rests leaves the loop alone for most of the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from time import monotonic, sleep
from typing import TypeVar

from extauthz.process.memory import without_full_collections

T = TypeVar("T")

RUN, REST = 0.0005, 0.001
"""Seconds of work, and of the rest behind it."""

_is_resting: ContextVar[bool] = ContextVar("is_resting", default=False)


@contextlib.contextmanager
def beside_the_loop() -> Iterator[None]:
    """Let `paced` rest in this thread, inside the block."""
    token = _is_resting.set(True)
    try:
        with without_full_collections():
            yield
    finally:
        _is_resting.reset(token)


def paced(items: Iterable[T]) -> Iterable[T]:
    """Return the items, with rests between them if they are worked on beside the loop."""
    return _with_rests(items) if _is_resting.get() else items


def _with_rests(items: Iterable[T]) -> Iterator[T]:
    until = monotonic() + RUN
    for item in items:
        yield item
        if monotonic() >= until:
            sleep(REST)
            until = monotonic() + RUN
