"""The latest decisions of a process, in memory: the lines that the decision log makes of them anyway."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted
from time import time  # noqa: TID251 - the time of a line is its own
from typing import Any

from extauthz.adapters.decision_log.hints import LineOfUnknownRoute
from extauthz.adapters.decision_log.lines import Lines
from extauthz.core.model import Allow, Decision, Request
from extauthz.telemetry.decision_record import RecordField

LISTED_AT_ONCE = 32
"""Lines that are read before others get their turn: a fifth of a millisecond."""
DENIAL_PAUSE, ALLOW_PAUSE = 0.001, 0.01
"""Seconds between two decisions that a line is made of for this alone: it takes two microseconds."""

_ALWAYS = frozenset({RecordField.TIME, RecordField.DECISION_ID})
_MORE = 100
"""Bytes of time and decision id, where a line has neither."""
_Entry = tuple[float, str, bytes]


@dataclass(frozen=True, slots=True)
class FoundDecisions:
    """Records by the names of the fields, newest first; with `is_cut` there are older ones, for which there was no room."""

    records: list[dict[str, Any]]
    is_cut: bool = False


class DecisionRing:
    """So many denials and so many allows, the newest of each; what monitor mode lets through counts as a denial.

    An entry holds the time, the decision id and the line, and where that has a hint, what was asked for: nothing else of a request
    lives as long. Which `fields` are shown is
    settled when they are asked for; time and decision id always are.
    """

    def __init__(self, denials: int, allows: int, fields: Collection[str], *, clock: Callable[[], float] = time) -> None:
        """Begin with none; `clock` returns seconds since the epoch."""
        self.clock = clock
        self._denials: deque[_Entry] = deque(maxlen=denials)
        self._allows: deque[_Entry] = deque(maxlen=allows)
        self._fields = frozenset(fields)
        self._lines: Lines | None = None
        self._made_at = {True: 0.0, False: 0.0}
        self._searching = asyncio.Lock()

    @property
    def keeps_any(self) -> bool:
        """Return whether it keeps anything at all."""
        return bool(self._denials.maxlen or self._allows.maxlen)

    def use(self, denials: int, allows: int, fields: Collection[str]) -> None:
        """Keep so many from now on, and show these fields, of earlier ones too."""
        self._denials = deque(self._denials, maxlen=denials)
        self._allows = deque(self._allows, maxlen=allows)
        if self._fields != fields:
            self._fields, self._lines = frozenset(fields), None

    def keep(self, moment: float, decision_id: str, line: bytes, decision: Decision) -> None:
        """Keep a line that the log made; it runs in every check."""
        (self._allows if type(decision) is Allow else self._denials).append((moment, decision_id, line))

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Keep a decision that the log makes no line of, unless another one was kept just now."""
        is_allow = type(decision) is Allow
        moment = self.clock()
        if 0 <= moment - self._made_at[is_allow] < (ALLOW_PAUSE if is_allow else DENIAL_PAUSE):
            return
        kept = self._allows if is_allow else self._denials
        if kept.maxlen:
            self._made_at[is_allow] = moment
            if self._lines is None:
                self._lines = Lines(self._fields, {})
            kept.append((moment, request.decision_id, self._lines.line(moment, request, decision, seconds)))

    async def find(self, wanted: Mapping[str, str], *, limit: int, most_bytes: int) -> FoundDecisions:
        """Return at most so many decisions whose fields have the `wanted` values, in so many bytes of JSON.

        One search goes on at a time: else each of them would do its part in every turn of the loop, which the checks wait for.
        """
        async with self._searching:
            return await self._found(wanted, limit, most_bytes)

    async def _found(self, wanted: Mapping[str, str], limit: int, most_bytes: int) -> FoundDecisions:
        entries = sorted([*reversed(self._denials), *reversed(self._allows)], key=_moment, reverse=True)
        records: list[dict[str, Any]] = []
        size = 2
        for number, (length, record) in enumerate(self._records(entries, wanted)):
            if number % LISTED_AT_ONCE == 0:
                await asyncio.sleep(0)
            if record is None:
                continue
            if len(records) == limit:
                break
            size += length
            if size > most_bytes:
                return FoundDecisions(records, is_cut=True)
            records.append(record)
        return FoundDecisions(records)

    def _records(self, entries: Collection[_Entry], wanted: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield for each entry the bytes that its record has at most, and the record, or None if it is not wanted."""
        fields = self._fields | _ALWAYS
        decision_id = wanted.get(RecordField.DECISION_ID)
        others = {name: value for name, value in wanted.items() if name != RecordField.DECISION_ID}
        # Most lines are passed by without being read.
        parts = [f"{_quoted(name)}: {_quoted(value)}".encode("ascii") for name, value in others.items()]
        for moment, entry_id, line in entries:
            if decision_id not in (None, entry_id) or any(part not in line for part in parts):
                yield 0, None
                continue
            written = line.hinted if isinstance(line, LineOfUnknownRoute) else line
            values = {"time": round(moment, 3), "decision_id": entry_id} | json.loads(written)
            record = {name: value for name, value in values.items() if name in fields}
            yield len(written) + _MORE, record if all(record.get(name) == value for name, value in others.items()) else None


def _moment(entry: _Entry) -> float:
    return entry[0]
