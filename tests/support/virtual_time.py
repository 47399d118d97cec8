"""An event loop whose time is made up: who sleeps is woken at once, and how long that was is exact, however busy the machine is."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.support.world import NOW

T = TypeVar("T")
_Ready = list[tuple[selectors.SelectorKey, int]]


class _JumpingSelector(selectors.DefaultSelector):
    """Passes over each wait for which nothing is ready."""

    seconds = 0.0

    def select(self, timeout: float | None = None) -> _Ready:
        """Return what is ready now; when that is nothing, the time of the wait has passed."""
        ready = super().select(0)
        if ready or timeout is None or timeout <= 0:
            return ready or super().select(timeout)
        self.seconds += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Turns as any loop does, without waiting; not for code that waits for other threads or processes."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.seconds

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - its signature
        """Wait for threads without a limit, which made-up time would pass at once."""
        await super().shutdown_default_executor()


class LoopClock:
    """The two clocks of the product, as the loop has the time."""

    def now(self) -> float:
        return NOW + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())


async def elapse(seconds: float) -> None:
    """Let so much of the made-up time pass."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)
    await asyncio.sleep(seconds)  # why: nobody waits for it


def now() -> float:
    """Seconds of the loop, without what adding up floats leaves behind."""
    return round(asyncio.get_running_loop().time(), 6)
