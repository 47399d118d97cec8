"""Decisions as Prometheus metrics: own tallies while serving, rendered by one collector when scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from extauthz.core.model import ALLOWING, AuthType, Decision, Reason, Request

BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.25, 1.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Reading:
    family: Any
    name: str
    text: str
    reading: Callable[[], float]
    labels: Mapping[str, str]


class Metrics(Collector):
    """Tallies per decision, reason and auth type. Labels come from our own enums only, never from a request."""

    def __init__(self, version: str, *, transport: str = "") -> None:
        """Register this collector and those of the process; `transport` is the name of the one that serves."""
        self._build = {"version": version, "transport": transport}
        self._readings: list[_Reading] = []
        self._infos: list[tuple[str, str, Callable[[], Mapping[str, str]]]] = []
        self._tallies: dict[tuple[Reason, AuthType | None], list[int]] = {}
        self._seconds: dict[tuple[Reason, AuthType | None], float] = {}
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._registry.register(self)

    def add_gauge(self, name: str, text: str, reading: Callable[[], float], **labels: str) -> None:
        """Render a value that is read when scraped; label values come from the configuration, never from a request."""
        self._readings.append(_Reading(GaugeMetricFamily, name, text, reading, labels))

    def add_counter(self, name: str, text: str, reading: Callable[[], float], **labels: str) -> None:
        """Render a count that is read when scraped."""
        self._readings.append(_Reading(CounterMetricFamily, name, text, reading, labels))

    def add_info(self, name: str, text: str, reading: Callable[[], Mapping[str, str]]) -> None:
        """Render labels that are read when scraped, as one series; none while there are none."""
        self._infos.append((name, text, reading))

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Count one decision."""
        identity = decision.identity
        key = decision.reason, None if identity is None else identity.auth_type
        buckets = self._tallies.get(key)
        if buckets is None:
            buckets = self._tallies[key] = [0] * (len(BUCKETS) + 1)
            self._seconds[key] = 0.0
        buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds[key] += seconds

    def collect(self) -> Iterable[Metric]:
        """Render the tallies."""
        checks = CounterMetricFamily("extauthz_checks", "Checks answered.", labels=("decision", "reason", "auth_type"))
        duration = HistogramMetricFamily("extauthz_check_duration_seconds", "Time from bytes to bytes.", labels=("decision",))
        per_decision: dict[str, tuple[list[int], float]] = {}
        for (reason, auth_type), buckets in sorted(self._tallies.items(), key=lambda item: (item[0][0], item[0][1] or "")):
            decision = "allow" if reason in ALLOWING else "deny"
            checks.add_metric((decision, reason.value, auth_type.value if auth_type else "none"), sum(buckets))
            counts, total = per_decision.get(decision, ([0] * len(buckets), 0.0))
            seconds = self._seconds[reason, auth_type]
            per_decision[decision] = [a + b for a, b in zip(counts, buckets, strict=True)], total + seconds
        for decision, (counts, total) in per_decision.items():
            duration.add_metric([decision], _cumulative(counts), total)
        build = InfoMetricFamily("extauthz_build", "Version of this sidecar.")
        build.add_metric((), self._build)
        yield from (checks, duration, build)
        families: dict[str, Any] = {}
        for read in self._readings:
            family = families.setdefault(read.name, read.family(read.name, read.text, labels=tuple(read.labels)))
            family.add_metric(tuple(read.labels.values()), read.reading())
        yield from families.values()
        for name, text, reading in self._infos:
            info = InfoMetricFamily(name, text)
            if labels := reading():
                info.add_metric((), dict(labels))
            yield info

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    rows = []
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows
