"""What all sidecars refused lately, asked of their ops listeners when a page wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from extauthz.config.console import ConsoleSection
from extauthz.config.loader import Configuration
from extauthz.console.collecting import AT_A_TIME, MAX_SIDECARS
from extauthz.core.model import Allow
from extauthz.errors import LiveError
from extauthz.tools.live import LiveSidecar, ops_listener
from extauthz.tools.log_lines import LogLine, read_record

TIMEOUT = 3.0
"""Seconds for the whole answer of one sidecar, which waits two for a worker that is silent."""
FRESH = 2.0
"""Seconds in which nobody is asked again, whoever looks."""
LIMIT = 400
"""Decisions that one sidecar is asked for: allows are among them, 200 of each worker by default."""


@dataclass(frozen=True, slots=True)
class ListedDenials:
    """Decisions as the decision log has them, newest first; `errors` say which sidecars do not tell, and why."""

    lines: tuple[LogLine, ...]
    errors: tuple[str, ...]
    sidecars: int


@dataclass(frozen=True, slots=True)
class FoundDecision:
    """One decision, None where no sidecar remembers it; `errors` as of ListedDenials."""

    line: LogLine | None
    errors: tuple[str, ...]


class RecentDenials:
    """Asks the sidecars of `console.sidecars`; nothing here raises because of one of them."""

    def __init__(self, configuration: Callable[[], Configuration], clock: Callable[[], float]) -> None:
        """Begin with nothing known; `clock` returns seconds since the epoch."""
        self._configuration = configuration
        self._clock = clock
        self._asking = asyncio.Lock()
        self._remembered: tuple[float, ConsoleSection, ListedDenials] | None = None

    async def newest(self) -> ListedDenials:
        """Return what was refused, or only let through by monitor mode; what is known for less than FRESH seconds is enough."""
        section = self._configuration().settings.console or ConsoleSection()
        async with self._asking:
            now = self._clock()
            if self._remembered is not None:
                at, asked, denials = self._remembered
                if asked == section and 0 <= now - at < FRESH:
                    return denials
            lines, errors = await self._ask(section, {"limit": str(LIMIT)})
            refused = [line for line in lines if line.outcome != Allow.outcome]
            denials = ListedDenials(tuple(refused), errors, len(section.sidecars))
            self._remembered = now, section, denials
            return denials

    async def find(self, decision_id: str) -> FoundDecision:
        """Return one decision."""
        section = self._configuration().settings.console or ConsoleSection()
        lines, errors = await self._ask(section, {"id": decision_id, "limit": "1"})
        found = (line for line in lines if line.decision_id == decision_id)
        return FoundDecision(next(found, None), errors)

    async def _ask(self, section: ConsoleSection, query: Mapping[str, str]) -> tuple[list[LogLine], tuple[str, ...]]:
        limit = asyncio.Semaphore(AT_A_TIME)
        answers = await asyncio.gather(*(self._of(name, section, query, limit) for name in section.sidecars[:MAX_SIDECARS]))
        lines = [line for answer in answers if not isinstance(answer, str) for line in answer]
        return sorted(lines, key=moment, reverse=True), tuple(answer for answer in answers if isinstance(answer, str))

    async def _of(
        self, name: str, section: ConsoleSection, query: Mapping[str, str], limit: asyncio.Semaphore
    ) -> list[LogLine] | str:
        """Return the decisions of one sidecar, or why there are none."""
        folder, tls = self._configuration().file.parent, section.sidecar_tls
        shown = (folder / tls.certificate, folder / tls.key) if tls is not None and tls.certificate and tls.key else None
        async with limit:
            try:
                listener = ops_listener(name, ca=folder / tls.ca_file if tls and tls.ca_file else None, certificate=shown)
                sidecar = LiveSidecar(listener, timeout=TIMEOUT)
                try:
                    return list(map(read_record, (await sidecar.decisions(query)).decisions))
                finally:
                    await sidecar.close()
            except LiveError as error:
                return str(error)


def moment(line: LogLine) -> float:
    """Return the time of a decision, 0 where it has none."""
    return line.time or 0.0
