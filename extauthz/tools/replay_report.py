"""What another configuration would change about decisions that were made: how many, of which routes and reasons, with examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self, TypeVar

from extauthz.core.model import Allow, Deny, WouldDeny
from extauthz.tools.log_lines import LogLine, RecordedLine, Undecidable, decision_id_of, read_line
from extauthz.tools.masking import Mask
from extauthz.tools.replay import Replay, ReplayOutcome

EXAMPLES = 3
"""Examples of a row."""
MAX_ROWS = 2000
"""Rows that are told apart: a log may be forged."""
MAX_NAME = 256

_Key = TypeVar("_Key")
_RANK = {Deny.outcome: 0, WouldDeny.outcome: 1, Allow.outcome: 2}


class ReplayDifference(StrEnum):
    """What differs between two decisions, the worst first; `meaning` says it in words."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Build a member from its row."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    WIDENED = "widened", "would be let through, or with an identity, and was not"
    NARROWED = "narrowed", "would be refused, or forwarded without an identity, and was not"
    REASON = "reason", "would come to the same for another reason"
    ROUTE = "route", "would come to the same by a route of another name"


@dataclass(frozen=True, slots=True)
class Example:
    """A decision that is counted in a row; no text of it holds a token. `time` is in seconds since the epoch."""

    decision_id: str | None
    time: float | None
    method: str
    path: str
    caller: str | None


@dataclass(slots=True)
class ReplayRow:
    """Decisions that differ alike, or that are undecidable alike: how many, and the first of them."""

    count: float = 0.0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class ReplayReport:
    """Takes lines, and counts what `replay` makes of them; `since` and `until` bound the times of lines.

    `changed` tells difference, decision before and decision now; `undecidable` why, and decision before. `others` are decisions of
    rows for which there was no room. `logged` lines are of a decision log, the others were recorded. A line that is a sample
    counts for all that it stands for.
    """

    replay: Replay
    since: float = -math.inf
    until: float = math.inf
    mask: Mask = Mask()  # noqa: RUF009 - frozen
    lines: int = 0
    broken: int = 0
    sampled: int = 0
    logged: int = 0
    decisions: float = 0.0
    same: float = 0.0
    others: float = 0.0
    differences: dict[ReplayDifference, float] = field(default_factory=lambda: dict.fromkeys(ReplayDifference, 0.0))
    changed: dict[tuple[ReplayDifference, ReplayOutcome, ReplayOutcome], ReplayRow] = field(default_factory=dict)
    undecidable: dict[tuple[Undecidable, ReplayOutcome], ReplayRow] = field(default_factory=dict)
    _texts: dict[tuple[str, str | None], list[str | None]] = field(default_factory=dict)
    _decided: Callable[[LogLine | RecordedLine], ReplayOutcome | Undecidable] = field(init=False)

    def __post_init__(self) -> None:
        """Look the method up once."""
        self._decided = self.replay.decided

    @property
    def left_open(self) -> float:
        """How many decisions are undecidable."""
        return self.decisions - self.same - sum(self.differences.values())

    def add(self, text: bytes) -> None:
        """Take one line; what is no decision is counted as broken, and so is one without a time where times are bounded."""
        line = read_line(text)
        is_bounded = self.since != -math.inf or self.until != math.inf
        if line is None or (is_bounded and line.time is None):
            self.broken += 1
            return
        if is_bounded and line.time is not None and not self.since <= line.time < self.until:
            return
        self.lines += 1
        self.logged += isinstance(line, LogLine)
        self.sampled += line.weight != 1.0
        self.decisions += line.weight
        now = self._decided(line)
        if isinstance(now, Undecidable):
            self._count(self.undecidable, (now, self._shown(line)), line)
            return
        if now[0] == line.outcome and now[1] == line.reason_name and (line.route is None or now[2] == line.route):
            self.same += line.weight
            return
        difference = difference_of(ReplayOutcome(line.outcome, line.reason_name, line.route), now) or ReplayDifference.REASON
        self.differences[difference] += line.weight
        self._count(self.changed, (difference, self._shown(line), now), line)

    def _count(self, rows: dict[_Key, ReplayRow], key: _Key, line: LogLine | RecordedLine) -> None:
        row = rows.get(key)
        if row is None:
            if len(rows) >= MAX_ROWS:
                self.others += line.weight
                return
            row = rows[key] = ReplayRow()
        row.count += line.weight
        if len(row.examples) < EXAMPLES:
            row.examples.append(self._example(line))

    def _shown(self, line: LogLine | RecordedLine) -> ReplayOutcome:
        """Return what was decided: bounded in what a log may say, and masked in what it must not."""
        reason, route = line.reason_name, line.route
        shown = self._texts.get((reason, route))
        if shown is None:
            shown = [text and self.mask(text[:MAX_NAME]) for text in (reason, route)]
            if len(self._texts) < MAX_ROWS:
                self._texts[reason, route] = shown
        return ReplayOutcome(line.outcome, shown[0] or "", shown[1])

    def _example(self, line: LogLine | RecordedLine) -> Example:
        def shown(text: str | None) -> str | None:
            return self.mask(text[:MAX_NAME]) if text is not None else None

        # A query may name persons, and is in no log.
        path = (line.path or "").partition("?")[0]
        decision_id = line.decision_id if decision_id_of(line.decision_id or "") else shown(line.decision_id)
        return Example(decision_id, line.time, shown(line.method) or "?", shown(path) or "?", shown(line.caller))

    def ordered_changes(self) -> list[tuple[tuple[ReplayDifference, ReplayOutcome, ReplayOutcome], ReplayRow]]:
        """Return the rows of differences: the worst first, then the most."""
        worst = list(ReplayDifference)
        return sorted(self.changed.items(), key=lambda item: (worst.index(item[0][0]), -item[1].count, str(item[0])))

    def ordered_undecidable(self) -> list[tuple[tuple[Undecidable, ReplayOutcome], ReplayRow]]:
        """Return the rows of what is undecidable, the most first."""
        return sorted(self.undecidable.items(), key=lambda item: (-item[1].count, str(item[0])))


def difference_of(before: ReplayOutcome, now: ReplayOutcome) -> ReplayDifference | None:
    """Return what differs, None for nothing; a line without a route differs from none in its route."""
    ranks = _RANK[before.decision], _RANK[now.decision]
    if ranks[0] != ranks[1]:
        return ReplayDifference.WIDENED if ranks[0] < ranks[1] else ReplayDifference.NARROWED
    if before.reason != now.reason:
        return ReplayDifference.REASON
    return ReplayDifference.ROUTE if before.route is not None and before.route != now.route else None
