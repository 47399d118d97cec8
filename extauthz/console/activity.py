"""What was allowed and denied in the last hour: samples of counters of several sidecars, and what pages show of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from extauthz.console.metrics_text import Check, Scrape, SidecarFacts

INTERVAL = 10.0
"""Seconds between two samples."""
SAMPLES = 360
MINUTES = 60
MAX_ROUTES = 300
"""Routes of one sample that are told apart, those with the most checks; the others count as OTHER."""
MAX_REASONS = 6
"""Layers of a chart beside OTHER."""
MAX_GAP = 60.0
"""Seconds after which what a sidecar counted in between has no minute of its own: it is not counted."""
OTHER = "(other)"
MONITORED = "would_deny"
"""The layer of what went on in monitor mode although enforcing refuses it."""

Allowed = bool
Ended = tuple[Allowed, str]
"""Whether checks were allowed, and their reason or their route."""
Counts = Mapping[Check, float]


@dataclass(frozen=True, slots=True)
class SidecarState:
    """A sidecar as it was seen last. `error` says why it did not answer, None when it did; `since` is when that began, if known.

    Times are in seconds since the epoch; `facts` are those of the last answer, and `settings_since` is when it was first seen with
    its version of settings.
    """

    name: str
    since: float | None
    error: str | None = None
    facts: SidecarFacts | None = None
    settings_since: float | None = None

    @property
    def answers(self) -> bool:
        """Whether its last scrape was good."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """How many of all sidecars answer and have a version of settings, and since when all of these have it, None where none has."""

    count: int
    total: int
    since: float | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One reason: how many checks ended so in each minute, the oldest first."""

    name: str
    minutes: tuple[float, ...]

    @property
    def total(self) -> float:
        """All minutes together."""
        return sum(self.minutes)

    @property
    def last(self) -> float:
        """The last minute."""
        return self.minutes[-1]


@dataclass(frozen=True, slots=True)
class RouteCounts:
    """How many checks a route had in the last hour."""

    route: str
    allowed: float
    denied: float


@dataclass(frozen=True, slots=True)
class Activity:
    """The last hour before `at`, in seconds since the epoch; layers with the most checks stand first, and so do routes.

    `since` is when counting began, None before it did. `error` says why nothing is known at all, where that is so.
    """

    at: float
    since: float | None
    allowed: tuple[Layer, ...]
    denied: tuple[Layer, ...]
    routes: tuple[RouteCounts, ...]
    sidecars: tuple[SidecarState, ...] = ()
    error: str | None = None

    @property
    def answering(self) -> int:
        """How many of the sidecars answered."""
        return sum(sidecar.answers for sidecar in self.sidecars)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    reasons: Mapping[Ended, float]
    routes: Mapping[Ended, float]


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    counts: Counts
    started_at: float | None


class Samples:
    """The differences of counters, summed over all sidecars, for an hour. It is bounded whatever sidecars send."""

    def __init__(self) -> None:
        """Begin with none."""
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
        self._seen: dict[str, _Seen] = {}
        self.since: float | None = None

    def add(self, at: float, scrapes: Mapping[str, Scrape]) -> None:
        """Add what the sidecars counted since they were scraped before; those that are not there did not answer.

        What a sidecar counted before it was first seen is not of the last hour, and is left out. A counter that fell belongs to a
        process that began anew.
        """
        reasons: dict[Ended, float] = {}
        routes: dict[Ended, float] = {}
        for name, scrape in scrapes.items():
            for (decision, reason, route), count in self._difference(name, at, scrape):
                is_allowed = decision != "deny"
                _count(reasons, (is_allowed, MONITORED if decision == MONITORED else reason), count)
                _count(routes, (is_allowed, route), count)
            self._seen[name] = _Seen(at, scrape.checks, scrape.facts.started_at)
        for name in [name for name, seen in self._seen.items() if at - seen.at > MAX_GAP]:
            del self._seen[name]
        if scrapes and self.since is None:
            self.since = at
        if self._samples and 0 <= at - self._samples[-1].at < INTERVAL * 0.9:
            # Looks in between make no sample of their own, or fewer than an hour of them would be kept.
            last = self._samples.pop()
            at, reasons, routes = last.at, _summed(last.reasons, reasons), _summed(last.routes, routes)
        self._samples.append(_Sample(at, reasons, _bounded(routes)))

    def activity(self, at: float, sidecars: Iterable[SidecarState] = ()) -> Activity:
        """Return the hour before a moment."""
        minutes: dict[Ended, list[float]] = {}
        routes: dict[Ended, float] = {}
        for sample in self._samples:
            minute = MINUTES - 1 - int((at - sample.at) // 60)
            if not 0 <= minute < MINUTES:
                continue
            for key, count in sample.reasons.items():
                minutes.setdefault(key, [0.0] * MINUTES)[minute] += count
            for key, count in sample.routes.items():
                _count(routes, key, count)
        return Activity(
            at=at,
            since=self.since,
            allowed=layers({reason: points for (is_allowed, reason), points in minutes.items() if is_allowed}),
            denied=layers({reason: points for (is_allowed, reason), points in minutes.items() if not is_allowed}),
            routes=route_counts(routes),
            sidecars=tuple(sidecars),
        )

    def _difference(self, name: str, at: float, scrape: Scrape) -> Iterable[tuple[Check, float]]:
        before = self._seen.get(name)
        if before is None or at - before.at > MAX_GAP:
            return
        is_new = before.started_at != scrape.facts.started_at
        for check, count in scrape.checks.items():
            earlier = 0.0 if is_new else before.counts.get(check, 0.0)
            more = count - earlier if count >= earlier else count
            if more > 0:
                yield check, more


def live_version(sidecars: Iterable[SidecarState], version: int) -> LiveVersion:
    """Tell where a version of settings is live."""
    states = tuple(sidecars)
    having = [each for each in states if each.answers and each.facts is not None and each.facts.settings_version == version]
    return LiveVersion(len(having), len(states), max((each.settings_since or 0.0 for each in having), default=None))


def layers(minutes: Mapping[str, Iterable[float]]) -> tuple[Layer, ...]:
    """Return the reasons with the most checks, and the others as one; what never happened is left out."""
    found = sorted((Layer(name, tuple(points)) for name, points in minutes.items()), key=lambda layer: (-layer.total, layer.name))
    found = [layer for layer in found if layer.total > 0]
    if len(found) <= MAX_REASONS + 1:
        return tuple(found)
    rest = tuple(map(sum, zip(*(layer.minutes for layer in found[MAX_REASONS:]), strict=True)))
    return (*found[:MAX_REASONS], Layer(OTHER, rest))


def route_counts(counts: Mapping[Ended, float]) -> tuple[RouteCounts, ...]:
    """Return what each route had, those with the most denials first, then those with the most checks; the rest as OTHER."""
    names = {route for _, route in counts}
    found = [RouteCounts(route, counts.get((True, route), 0.0), counts.get((False, route), 0.0)) for route in names - {OTHER}]
    found.sort(key=lambda each: (-each.denied, -each.allowed, each.route))
    rest = [RouteCounts(OTHER, counts.get((True, OTHER), 0.0), counts.get((False, OTHER), 0.0)), *found[MAX_ROUTES:]]
    other = RouteCounts(OTHER, sum(each.allowed for each in rest), sum(each.denied for each in rest))
    return (*found[:MAX_ROUTES], *([other] if other.allowed or other.denied else []))


def _count(counts: dict[Ended, float], key: Ended, count: float) -> None:
    counts[key] = counts.get(key, 0.0) + count


def _summed(one: Mapping[Ended, float], other: Mapping[Ended, float]) -> dict[Ended, float]:
    both = dict(one)
    for key, count in other.items():
        _count(both, key, count)
    return both


def _bounded(routes: Mapping[Ended, float]) -> Mapping[Ended, float]:
    if len(routes) <= MAX_ROUTES:
        return routes
    in_order = sorted(routes.items(), key=lambda item: -item[1])
    most = dict(in_order[:MAX_ROUTES])
    for (is_allowed, _), count in in_order[MAX_ROUTES:]:
        _count(most, (is_allowed, OTHER), count)
    return most
