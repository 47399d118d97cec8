"""What decision logs tell of refusals: how many, of what, who they concern, and since when.

Names in a log may be chosen by strangers without end, so the most frequent ones are kept and the rest is one number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from extauthz.admin.metadata import utc
from extauthz.core.model import Allow, Deny, WouldDeny
from extauthz.tools.log_lines import LogLine, RecordedLine, read_line
from extauthz.tools.masking import Mask

MAX_ROWS = 2000
"""Rows that are told apart."""
MAX_NAMES = 200
"""Names of one kind that are told apart in a row."""
MAX_TRAFFIC = 100_000
"""Routes, clients or users whose decisions are counted, to know the share that was refused."""
MAX_NAME = 256
SHOWN_NAMES = 20
OUTCOMES = (Allow.outcome, Deny.outcome, WouldDeny.outcome)
REFUSALS = frozenset({Deny.outcome, WouldDeny.outcome})
KEYS = {"route": "route", "reason": "reason_name", "client": "client_id", "user": "user"}
"""What rows can be told apart by, and what of a line has it."""
EVER = (-math.inf, math.inf)

Key = tuple[str | None, ...]
_masked = lru_cache(maxsize=10_000)(Mask())


@dataclass(slots=True)
class TimeSpan:
    """The first and the last time of something, in seconds since the epoch."""

    first: float = math.inf
    last: float = -math.inf

    def add(self, at: float | None) -> None:
        """Widen it; a time that is not known changes nothing."""
        if at is not None:
            if at < self.first:
                self.first = at
            if at > self.last:
                self.last = at

    def texts(self) -> tuple[str | None, str | None]:
        """Return both as text, None when nothing is known."""
        return (None, None) if self.first > self.last else (utc(int(self.first)), utc(int(self.last)))


@dataclass(slots=True)
class NameCounts:
    """How often each name came; when there are too many, the rarer half of them becomes part of `others`.

    The sum is always right. The count of a name that was rare before can be too low.
    """

    counts: dict[str, float] = field(default_factory=dict)
    others: float = 0.0

    def add(self, name: str, weight: float) -> None:
        """Count a name."""
        counts = self.counts
        counts[name] = counts.get(name, 0.0) + weight
        if len(counts) > MAX_NAMES:
            kept = self.most(MAX_NAMES // 2)
            self.others += sum(counts.values()) - sum(count for _, count in kept)
            self.counts = dict(kept)

    def most(self, number: int = SHOWN_NAMES) -> list[tuple[str, float]]:
        """Return the names that came most often."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def rest(self, number: int = SHOWN_NAMES) -> float:
        """Return how often all other names came."""
        return self.others + sum(self.counts.values()) - sum(count for _, count in self.most(number))


@dataclass(slots=True)
class RefusalRow:
    """Refusals that have the key of a row in common; `monitored` are those of them that monitor mode forwarded."""

    count: float = 0.0
    monitored: float = 0.0
    span: TimeSpan = field(default_factory=TimeSpan)
    names: dict[str, NameCounts] = field(default_factory=dict)

    def add(self, line: LogLine) -> None:
        """Count one line."""
        self.count += line.weight
        if line.outcome == WouldDeny.outcome:
            self.monitored += line.weight
        self.span.add(line.time)
        for kind, name in _names(line):
            counts = self.names.get(kind)
            if counts is None:
                counts = self.names[kind] = NameCounts()
            counts.add(name, line.weight)


@dataclass(slots=True)
class RefusalReport:
    """What a decision log tells, by these KEYS; a line that is a sample of several decisions counts for all of them.

    `others` are refusals of rows that were given up because there were too many.
    """

    by: Sequence[str] = ("route", "reason")
    outcomes: frozenset[str] = REFUSALS
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0.0))
    rows: dict[Key, RefusalRow] = field(default_factory=dict)
    others: float = 0.0
    span: TimeSpan = field(default_factory=TimeSpan)
    lines: int = 0
    broken: int = 0
    sampled: int = 0
    _traffic: dict[Key, float] = field(default_factory=dict)
    _fields: tuple[str, ...] = ()
    _places: tuple[int, ...] = ()
    """Those of the keys that allowed requests have too: all but the reason."""

    def __post_init__(self) -> None:
        """Look the fields up once."""
        self._fields = tuple(KEYS[name] for name in self.by)
        self._places = tuple(place for place, name in enumerate(self.by) if name != "reason")

    def add(self, text: bytes, since: float, until: float) -> None:
        """Take one line; what is no decision is counted as broken."""
        line = read_line(text)
        if isinstance(line, RecordedLine):
            line = line.without_caller()
        if line is None or (line.time is None and (since, until) != EVER):
            self.broken += 1
            return
        if line.time is None or since <= line.time < until:
            self._count(line)

    def _count(self, line: LogLine) -> None:
        self.lines += 1
        self.span.add(line.time)
        weight = line.weight
        self.sampled += weight > 1
        if line.user is not None:
            line.user = _masked(line.user[:MAX_NAME])
        key = tuple([_name(getattr(line, name)) for name in self._fields])
        traffic = tuple([key[place] for place in self._places])
        self.totals[line.outcome] += weight
        if traffic in self._traffic or len(self._traffic) < MAX_TRAFFIC:
            self._traffic[traffic] = self._traffic.get(traffic, 0.0) + weight
        if line.outcome in self.outcomes:
            row = self.rows.get(key)
            if row is None:
                row = self.rows[key] = RefusalRow()
            row.add(line)
            if len(self.rows) > MAX_ROWS:
                kept = self.ordered()[: MAX_ROWS // 2]
                self.others += sum(row.count for row in self.rows.values()) - sum(row.count for _, row in kept)
                self.rows = dict(kept)

    def share(self, key: Key, row: RefusalRow) -> float | None:
        """Return how much of the traffic of a route, client or user was refused, of all of it without these; None if not known."""
        traffic = self._traffic.get(tuple(key[place] for place in self._places))
        return None if not traffic or self.others else row.count / traffic

    def ordered(self) -> list[tuple[Key, RefusalRow]]:
        """Return the rows, the most refusals first."""
        return sorted(self.rows.items(), key=lambda item: (-item[1].count, [part or "" for part in item[0]]))


def _names(line: LogLine) -> Iterator[tuple[str, str]]:
    """Yield what tells a refusal from others in its row."""
    yield "callers", caller(line)
    for kind, value in (("clients", line.client_id), ("users", line.user), ("nearest routes", line.nearest_route)):
        if value is not None:
            yield kind, value[:MAX_NAME]
    if line.required_scopes is not None:
        yield "required scopes", line.required_scopes[:MAX_NAME] or "none"
        yield "held scopes", (line.held_scopes or "none")[:MAX_NAME]
    if line.route is None and line.path is not None:
        yield "paths", _masked(f"{_name(line.method) or '?'} {line.path[:MAX_NAME]}")


def caller(line: LogLine) -> str:
    """Name who called: the holder of the token, else its client, else the fingerprint of a token that was not verified."""
    for value, form in ((line.actor, "{}"), (line.client_id, "client {}"), (line.token_sha256, "access token {}")):
        if value:
            return form.format(value[:MAX_NAME])
    return "not known"


def _name(value: str | None) -> str | None:
    return None if value is None else value[:MAX_NAME]
