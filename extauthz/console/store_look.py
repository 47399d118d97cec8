"""Whether the store answers: asked for probes and scrapes alike, whoever sends them, and seldom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from extauthz.admin import sessions
from extauthz.console.context import Context
from extauthz.console.visits import session_limits
from extauthz.errors import ConfigurationError, StoreError

PATIENCE = 2.0
"""Seconds that somebody waits for the store."""
LASTS = 1.0
"""Seconds that an answer of the store counts, a bad one too."""

_log = logging.getLogger(__name__)


class StoreLook:
    """Asks the store one question at a time, and none while the last answer counts; one that hangs keeps nobody for long."""

    def __init__(self, context: Context, monotonic: Callable[[], float]) -> None:
        """Begin with no answer."""
        self._context = context
        self._monotonic = monotonic
        self._asking: asyncio.Task[None] | None = None
        self._answer: tuple[float, int | None] | None = None

    async def sessions(self) -> int | None:
        """Count the sessions that last; None when the store does not answer, or not in time."""
        if (answer := self._answer) is not None and 0 <= self._monotonic() - answer[0] < LASTS:
            return answer[1]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait((self._asking,), timeout=PATIENCE)
        return self._answer[1] if done and self._answer is not None else None

    async def _ask(self) -> None:
        count: int | None = None
        try:
            count = await self._context.run(self._count)
        except StoreError:
            pass
        except ConfigurationError as error:
            # Without the peppers nobody has a session.
            _log.error("the sessions could not be counted", extra={"error": str(error)})
        except Exception:  # noqa: BLE001 - not ready, whatever it is
            _log.exception("the store could not be looked at")
        self._answer = self._monotonic(), count

    def _count(self) -> int:
        context = self._context
        return sessions.count(context.administration(), context.now(), limits=session_limits(context))
