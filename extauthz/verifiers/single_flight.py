"""Work that several checks wait for and none of them owns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from extauthz.ports import Evidence


class Flights:
    """Verifications under way, one for each token; who stops waiting disturbs neither the work nor the others."""

    def __init__(self) -> None:
        """Start with none."""
        self._tasks: dict[str, asyncio.Task[Evidence]] = {}

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._tasks)

    def join(self, token: str) -> Awaitable[Evidence] | None:
        """Wait for the verification of this token that is under way, if there is one."""
        task = self._tasks.get(token)
        return None if task is None else _waiting(task)

    def start(
        self, token: str, work: Coroutine[None, None, Evidence], landed: Callable[[], None] | None = None
    ) -> Awaitable[Evidence]:
        """Begin a verification and wait for it; nobody has to collect its failure. `landed` is called when it is over."""
        task = self._tasks[token] = asyncio.ensure_future(work)

        def end(flight: asyncio.Task[Evidence]) -> None:
            if self._tasks.get(token) is flight:
                del self._tasks[token]
            if landed is not None:
                landed()
            _collect(flight)

        task.add_done_callback(end)
        return _waiting(task)


def _waiting(task: asyncio.Task[Evidence]) -> Awaitable[Evidence]:
    waiting = asyncio.shield(task)
    waiting.add_done_callback(_collect)
    return waiting


def _collect(flight: asyncio.Future[Evidence]) -> None:
    if not flight.cancelled():
        flight.exception()
