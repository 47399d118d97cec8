"""Whether the store answers, and what it counts: asked for probes and scrapes alike, whoever sends them, and seldom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from extauthz.adapters.store.endings import Ending, token_endings
from extauthz.admin import sessions
from extauthz.console.context import Context
from extauthz.console.visits import session_limits
from extauthz.errors import ConfigurationError, StoreError

PATIENCE = 2.0
"""Seconds that somebody waits for the store."""
LASTS = 1.0
"""Seconds that an answer of the store counts, a bad one too."""
ENDINGS_LAST = 10.0
"""The same for tokens that end soon, which nobody waits for."""
ENDING_WITHIN = {"1d": 86_400, "7d": 7 * 86_400}
"""How soon tokens end that are counted, in seconds, by what the metric calls it."""
USED_WITHIN = 7 * 86_400
"""Seconds since a use, after which a token counts as one that is not used."""

T = TypeVar("T")
Endings = Mapping[str, Mapping[Ending, int]]
"""How many tokens end within each of these times."""

_log = logging.getLogger(__name__)


class StoreLook:
    """Asks the store one question of a kind at a time, none while the last answer counts; one that hangs keeps nobody for long."""

    def __init__(self, context: Context, monotonic: Callable[[], float]) -> None:
        """Begin with no answer."""
        self._context = context
        self._sessions = _Question(context, self._count_sessions, monotonic, lasts=LASTS)
        self._endings = _Question(context, self._count_endings, monotonic, lasts=ENDINGS_LAST)

    async def sessions(self) -> int | None:
        """Count the sessions that last; None when the store does not answer, or not in time."""
        return await self._sessions.answer()

    async def endings(self) -> Endings | None:
        """Count the tokens that end soon; None when the store does not answer, or not in time."""
        return await self._endings.answer()

    def _count_sessions(self) -> int:
        context = self._context
        return sessions.count(context.administration(), context.now(), limits=session_limits(context))

    def _count_endings(self) -> Endings:
        store, now = self._context.administration().store, self._context.now()
        return {name: token_endings(store, now, within, used_since=now - USED_WITHIN) for name, within in ENDING_WITHIN.items()}


class _Question(Generic[T]):
    """One question, which blocks, and its last answer."""

    def __init__(self, context: Context, ask: Callable[[], T], monotonic: Callable[[], float], *, lasts: float) -> None:
        self._context = context
        self._question = ask
        self._monotonic = monotonic
        self._lasts = lasts
        self._asking: asyncio.Task[None] | None = None
        self._answer: tuple[float, T | None] | None = None

    async def answer(self) -> T | None:
        if (answer := self._answer) is not None and 0 <= self._monotonic() - answer[0] < self._lasts:
            return answer[1]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait((self._asking,), timeout=PATIENCE)
        return self._answer[1] if done and self._answer is not None else None

    async def _ask(self) -> None:
        answer: T | None = None
        try:
            answer = await self._context.run(self._question)
        except StoreError:
            pass
        except ConfigurationError as error:
            # Without the peppers nobody has a session.
            _log.error("the sessions could not be counted", extra={"error": str(error)})
        except Exception:  # noqa: BLE001 - not ready, whatever it is
            _log.exception("the store could not be looked at")
        self._answer = self._monotonic(), answer
