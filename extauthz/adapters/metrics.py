"""Metrics for Prometheus: own counters while serving, rendered when scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from extauthz.core.model import AuthType, Decision, Deny, Reason, Request, WouldDeny
from extauthz.telemetry.metric_table import BUCKETS, TABLE, Definition, Histogram, Samples, Type, Value

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SAMPLED = "-01"
"""What a traceparent of a sampled check ends with."""
NONE = "none"
"""The value of a label that a decision has no value for."""
_TOKEN_REASONS = frozenset(reason for reason in Reason if reason.status == 401 and reason.value.startswith("token_"))


class DecisionCounters:
    """Counts decisions; each costs a fraction of a microsecond."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        """Begin with none; `now` returns the moment of an exemplar, in seconds since the epoch."""
        self._now = now
        self._checks: dict[tuple[str, Reason, str | None, AuthType | None], int] = {}
        self._durations: dict[str, Histogram] = {}
        self._failures: Counter[tuple[str, str]] = Counter()

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Count one decision."""
        outcome, reason, identity = decision.outcome, decision.reason, decision.identity
        key = outcome, reason, decision.route, None if identity is None else identity.auth_type
        self._checks[key] = self._checks.get(key, 0) + 1
        durations = self._durations.get(outcome)
        if durations is None:
            durations = self._durations[outcome] = Histogram()
        bucket = bisect_left(BUCKETS, seconds)
        durations.counts[bucket] += 1
        durations.total += seconds
        if request.traceparent.endswith(SAMPLED):
            durations.exemplars[bucket] = request.traceparent[3:35], seconds, self._now()
        if reason in _TOKEN_REASONS:
            kind = decision.kind if isinstance(decision, (Deny, WouldDeny)) else None
            self._failures[kind or NONE, reason.value] += 1

    def samples(self) -> Samples:
        """Return what was counted so far."""
        samples: Samples = {}
        for (outcome, reason, route, auth_type), count in self._checks.items():
            labels = (outcome, reason.value, route or NONE, auth_type.value if auth_type else NONE)
            samples["extauthz_checks_total", labels] = float(count)
        for decision, durations in self._durations.items():
            samples["extauthz_check_duration_seconds", (decision,)] = durations + Histogram()
        for labels_of_failure, count in self._failures.items():
            samples["extauthz_token_verification_failures_total", labels_of_failure] = float(count)
        return samples


@dataclass(slots=True, eq=False)
class _Collector(Collector):
    samples: Samples

    def collect(self) -> Iterable[Metric]:
        families: dict[str, list[tuple[tuple[str, ...], Value]]] = {}
        for (name, labels), value in sorted(self.samples.items(), key=lambda item: item[0]):
            families.setdefault(name, []).append((labels, value))
        for name, rows in families.items():
            yield _family(TABLE[name], rows)


def render(samples: Samples, *, openmetrics: bool = False) -> tuple[str, bytes]:
    """Return content type and text of samples, beside those of this process."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(_Collector(samples))
    if openmetrics:
        return OPENMETRICS_TYPE, bytes(generate_openmetrics(registry))  # type: ignore[no-untyped-call]
    return TEXT_TYPE, generate_latest(registry)


def _family(definition: Definition, rows: list[tuple[tuple[str, ...], Value]]) -> Metric:
    name, text, labels = definition.name, definition.text, definition.labels
    match definition.type:
        case Type.HISTOGRAM:
            histogram = HistogramMetricFamily(name, text, labels=labels)
            for values, value in rows:
                if isinstance(value, Histogram):
                    histogram.add_metric(values, _cumulative(value, definition.buckets), value.total)
            return histogram
        case Type.INFO:
            info = InfoMetricFamily(name.removesuffix("_info"), text, labels=())
            for values, _ in rows:
                info.add_metric((), dict(zip(labels, values, strict=True)))
            return info
        case Type.COUNTER:
            family: CounterMetricFamily | GaugeMetricFamily = CounterMetricFamily(name.removesuffix("_total"), text, labels=labels)
        case Type.GAUGE:
            family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        if not isinstance(value, Histogram):
            family.add_metric(values, value)
    return family


def _cumulative(histogram: Histogram, buckets: tuple[float, ...]) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    total = 0.0
    rows: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for index, (bound, count) in enumerate(zip((*map(str, buckets), "+Inf"), histogram.counts, strict=True)):
        total += count
        exemplar = histogram.exemplars.get(index)
        if exemplar is None:
            rows.append((bound, total))
        else:
            rows.append((bound, total, Exemplar({"trace_id": exemplar[0]}, exemplar[1], exemplar[2])))
    return rows
