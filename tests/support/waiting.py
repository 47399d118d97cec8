"""How tests wait: until something holds, and never by the clock alone."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from time import monotonic, sleep


def eventually(
    holds: Callable[[], object], *, seconds: float = 20.0, pause: float = 0.001, what: Callable[[], object] = lambda: ""
) -> None:
    """Wait until something holds, but not for ever; `pause` seconds pass between two looks."""
    deadline = monotonic() + seconds
    while not holds():
        if monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what()}")
        sleep(pause)


async def until(
    holds: Callable[[], object | Awaitable[object]], *, seconds: float = 20.0, what: Callable[[], object] = lambda: ""
) -> None:
    """Wait in the loop until something holds, or what it awaits does, but not for ever."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = holds()
                if await found if inspect.isawaitable(found) else found:
                    return
                await asyncio.sleep(0.002)
    except TimeoutError as error:
        raise AssertionError(f"not within {seconds} s: {what()}") from error


async def settled() -> None:
    """Let everything in the loop run that waits for nothing outside of it."""
    for _ in range(20):
        await asyncio.sleep(0)
