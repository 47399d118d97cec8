"""What decision logs tell of refusals: how many, of what, who they concern, and since when.

Names in a log may be chosen by strangers without end, so the most frequent ones are kept and the rest is one number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from extauthz.admin.metadata import utc
from extauthz.cli.moments import seconds
from extauthz.core.model import Allow, Deny, WouldDeny
from extauthz.telemetry.decision_record import weight_of

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
KEYS = {"route": "route", "reason": "reason", "client": "client_id", "user": "user"}
"""What rows can be told apart by, and the field of the log that has it."""
EVER = (-math.inf, math.inf)

Key = tuple[str | None, ...]


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

    def add(self, data: dict[str, Any], weight: float, at: float | None) -> None:
        """Count one line."""
        self.count += weight
        if data["decision"] == WouldDeny.outcome:
            self.monitored += weight
        self.span.add(at)
        for kind, name in _names(data):
            counts = self.names.get(kind)
            if counts is None:
                counts = self.names[kind] = NameCounts()
            counts.add(name, weight)


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

    def add(self, line: bytes, since: float, until: float) -> None:
        """Take one line; what is no decision is counted as broken."""
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict) or not isinstance(data.get("reason"), str) or data.get("decision") not in OUTCOMES:
            self.broken += 1
            return
        at = seconds(data.get("time"))
        if at is None and (since, until) != EVER:
            self.broken += 1
            return
        if at is None or since <= at < until:
            self._count(data, at)

    def _count(self, data: dict[str, Any], at: float | None) -> None:
        self.lines += 1
        self.span.add(at)
        weight = weight_of(data.get("sample"))
        self.sampled += weight > 1
        key = tuple([_name(data.get(name)) for name in self._fields])
        traffic = tuple([key[place] for place in self._places])
        self.totals[data["decision"]] += weight
        if traffic in self._traffic or len(self._traffic) < MAX_TRAFFIC:
            self._traffic[traffic] = self._traffic.get(traffic, 0.0) + weight
        if data["decision"] in self.outcomes:
            row = self.rows.get(key)
            if row is None:
                row = self.rows[key] = RefusalRow()
            row.add(data, weight, at)
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


def _names(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what tells a refusal from others in its row."""
    yield "callers", caller(data)
    for kind, name in (("clients", "client_id"), ("users", "user"), ("nearest routes", "nearest_route")):
        value = data.get(name)
        if value is not None and isinstance(value, str):
            yield kind, value[:MAX_NAME]
    required = data.get("required_scopes")
    if isinstance(required, str):
        held = data.get("held_scopes")
        yield "required scopes", required[:MAX_NAME] or "none"
        yield "held scopes", held[:MAX_NAME] if isinstance(held, str) and held else "none"
    if data.get("route") is None and isinstance(data.get("path"), str):
        yield "paths", f"{_name(data.get('method')) or '?'} {data['path'][:MAX_NAME]}"


def caller(data: dict[str, Any]) -> str:
    """Name who called: the holder of the token, else its client, else the fingerprint of a token that was not verified."""
    for name, form in (("actor", "{}"), ("client_id", "client {}"), ("token_sha256", "access token {}")):
        value = data.get(name)
        if value and isinstance(value, str):
            return form.format(value[:MAX_NAME])
    return "not known"


def _name(value: object) -> str | None:
    return value[:MAX_NAME] if isinstance(value, str) else None
