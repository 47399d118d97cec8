"""What decision logs tell of monitor mode: refusals by route and reason, who they concern, and since when."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from extauthz.admin.metadata import utc
from extauthz.core.model import Allow, Deny, WouldDeny

MAX_CALLERS = 1000
"""Callers that are told apart, for each route and reason."""
SHOWN_CALLERS = 20
OUTCOMES = (Allow.outcome, Deny.outcome, WouldDeny.outcome)
EVER = (-math.inf, math.inf)


@dataclass(slots=True)
class TimeSpan:
    """The first and the last time of something, in seconds since the epoch."""

    first: float = math.inf
    last: float = -math.inf

    def add(self, at: float | None) -> None:
        """Widen it; a time that is not known changes nothing."""
        if at is not None:
            self.first, self.last = min(self.first, at), max(self.last, at)

    def texts(self) -> tuple[str | None, str | None]:
        """Return both as text, None when nothing is known."""
        return (None, None) if self.first > self.last else (utc(int(self.first)), utc(int(self.last)))


@dataclass(slots=True)
class RefusalRow:
    """What enforcing would have refused of one route for one reason; the rest of the callers are counted, not named."""

    count: float = 0.0
    callers: dict[str, float] = field(default_factory=dict)
    span: TimeSpan = field(default_factory=TimeSpan)

    def add(self, who: str, weight: float, at: float | None) -> None:
        """Count one line."""
        self.count += weight
        self.span.add(at)
        if who in self.callers or len(self.callers) < MAX_CALLERS:
            self.callers[who] = self.callers.get(who, 0.0) + weight

    def most(self) -> list[tuple[str, float]]:
        """Return the callers with the most refusals."""
        return sorted(self.callers.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_CALLERS]


@dataclass(slots=True)
class RefusalReport:
    """What a decision log tells; a line that is a sample of several decisions counts for all of them."""

    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0.0))
    traffic: dict[str | None, float] = field(default_factory=dict)
    rows: dict[tuple[str | None, str], RefusalRow] = field(default_factory=dict)
    span: TimeSpan = field(default_factory=TimeSpan)
    lines: int = 0
    broken: int = 0
    sampled: int = 0

    def add(self, line: bytes, since: float, until: float) -> None:
        """Take one line; what is no decision is counted as broken."""
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict) or data.get("decision") not in OUTCOMES or not isinstance(data.get("reason"), str):
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
        weight = _weight(data.get("sample"))
        self.sampled += weight > 1
        route = data.get("route") if isinstance(data.get("route"), str) else None
        self.totals[data["decision"]] += weight
        self.traffic[route] = self.traffic.get(route, 0.0) + weight
        if data["decision"] == WouldDeny.outcome:
            self.rows.setdefault((route, data["reason"]), RefusalRow()).add(caller(data), weight, at)

    def ordered(self) -> list[tuple[str | None, str, RefusalRow]]:
        """Return the rows, the most refusals first."""
        return sorted(
            ((route, reason, row) for (route, reason), row in self.rows.items()),
            key=lambda item: (-item[2].count, item[0] or "", item[1]),
        )


def seconds(value: object) -> float | None:
    """Read a time of a log, in seconds since the epoch or in ISO 8601; None when it is none."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 2**38 else None  # type: ignore[operator, arg-type]


def caller(data: dict[str, Any]) -> str:
    """Name who called: the holder of the token, else its client, else the fingerprint of a token that was not verified."""
    for name, form in (("actor", "{}"), ("client_id", "client {}"), ("token_sha256", "access token {}")):
        if isinstance(data.get(name), str) and data[name]:
            return form.format(data[name][:256])
    return "not known"


def _weight(sample: object) -> float:
    is_share = isinstance(sample, (int, float)) and not isinstance(sample, bool) and 1e-9 <= sample <= 1
    return 1 / sample if is_share else 1.0  # type: ignore[operator]
