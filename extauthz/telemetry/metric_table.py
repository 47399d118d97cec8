"""Every metric: its name, its type, its labels, what it tells, and how the figures of several workers become one.

Label values come from enums, the configuration, the store's audit, the version and the workers, never from a request.
`docs/reference/metrics.md` is this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BUCKETS = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
"""Upper bounds of the durations of checks, in seconds; one more bucket has none."""

SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the durations of the console's requests."""

Exemplar = tuple[str, float, float]
"""A trace id, what was observed, and when, in seconds since the epoch."""


@dataclass(slots=True)
class Histogram:
    """Counts of the buckets, not summed up, the sum of what was observed, and the latest exemplar of a bucket by its index."""

    counts: list[float] = field(default_factory=lambda: [0.0] * (len(BUCKETS) + 1))
    total: float = 0.0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)

    def __add__(self, other: Histogram) -> Histogram:
        """Return both as one."""
        exemplars = dict(self.exemplars)
        for index, exemplar in other.exemplars.items():
            if index not in exemplars or exemplar[2] > exemplars[index][2]:
                exemplars[index] = exemplar
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(counts, self.total + other.total, exemplars)


Value = float | Histogram
Series = tuple[str, tuple[str, ...]]
"""The name of a metric and the values of its labels."""
Samples = dict[Series, Value]


class Type(StrEnum):
    """The types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Across(StrEnum):
    """What several workers make together."""

    SUM = "sum"
    GREATEST = "greatest"
    LEAST = "least"


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric; `name` is the one that is scraped."""

    name: str
    type: Type
    labels: tuple[str, ...]
    text: str
    across: Across = Across.SUM
    buckets: tuple[float, ...] = BUCKETS


def _counter(name: str, text: str, *labels: str) -> Definition:
    return Definition(name, Type.COUNTER, labels, text)


def _gauge(name: str, text: str, *labels: str, across: Across = Across.SUM) -> Definition:
    return Definition(name, Type.GAUGE, labels, text, across)


DEFINITIONS = (
    _counter("extauthz_checks_total", "Checks answered.", "decision", "reason", "route", "auth_type"),
    Definition("extauthz_check_duration_seconds", Type.HISTOGRAM, ("decision",), "Time from bytes to bytes."),
    _gauge("extauthz_checks_in_flight", "Checks that wait for a store or an issuer."),
    _counter(
        "extauthz_checks_shed_total",
        "Checks answered with overloaded: by max_in_flight, or by a budget for cold work (store, signatures, remote).",
        "cause",
    ),
    _counter(
        "extauthz_transport_refusals_total",
        "Connections and requests that were refused before there was a decision; the log says what to look at.",
        "reason",
    ),
    _counter("extauthz_verdict_lookups_total", "Look-ups of tokens in memory: hit, refusal or miss.", "kind", "outcome"),
    _gauge("extauthz_verdicts", "Verified tokens in memory.", "kind"),
    _counter("extauthz_verdict_evictions_total", "Verified tokens that had to make room in memory for others.", "kind"),
    _counter(
        "extauthz_token_verification_failures_total", "Checks refused because of their token, by the true cause.", "kind", "cause"
    ),
    _gauge("extauthz_keys", "Keys of the issuer that may be used; 0: its tokens get 503.", "issuer", across=Across.LEAST),
    _gauge(
        "extauthz_keys_age_seconds", "Seconds since the last good fetch of the issuer's keys.", "issuer", across=Across.GREATEST
    ),
    _counter("extauthz_key_fetches_total", "Fetches of the issuer's keys: ok, failed, or proxy_refused (407).", "issuer", "result"),
    _counter(
        "extauthz_remote_verifications_total",
        "Questions to an issuer about a token: answered, failed, proxy_refused (407), or shed by a limit or after failures.",
        "issuer",
        "method",
        "outcome",
    ),
    _counter("extauthz_remote_verification_seconds_total", "Time that these questions took.", "issuer", "method"),
    _counter("extauthz_store_queries_total", "Look-ups in the token store: ok or failed.", "outcome"),
    _counter("extauthz_unknown_ids_total", "Checks of ids that no token has, answered without a look-up in the token store."),
    _gauge("extauthz_known_ids", "Ids of tokens in memory; 0 also when there are more than limits.known_ids."),
    _gauge(
        "extauthz_known_ids_complete",
        "1 while unknown ids are recognised by the ids in memory; 0: these are still being read, or are too many.",
        across=Across.LEAST,
    ),
    _gauge(
        "extauthz_feed_age_seconds",
        "Seconds since the token store was last heard; beyond max_staleness its tokens get 503.",
        across=Across.GREATEST,
    ),
    _gauge(
        "extauthz_feed_rewound",
        "1 while the token store is an older one than it was: its tokens get 503 until `extauthz store accept-restore`.",
        across=Across.GREATEST,
    ),
    _gauge("extauthz_store_stale", "1 while known issued tokens get 503 because of max_staleness.", across=Across.GREATEST),
    _gauge(
        "extauthz_audit_position",
        "Number of the last row of the audit; it never falls unless rows were cut off or an older store was put in place.",
        across=Across.GREATEST,
    ),
    Definition(
        "extauthz_audit_head_info",
        Type.INFO,
        ("number", "mac"),
        "The last row of the audit, as `extauthz audit verify --head NUMBER:MAC` takes it.",
        Across.GREATEST,
    ),
    _counter("extauthz_internal_tokens_signed_total", "Internal tokens that were signed; the others were reused."),
    _gauge("extauthz_internal_tokens", "Internal tokens in memory."),
    _gauge("extauthz_token_uses_waiting", "Last uses of tokens that are not written to the store yet."),
    _counter("extauthz_token_uses_written_total", "Last uses of tokens that were written."),
    _counter("extauthz_token_uses_dropped_total", "Last uses that were not noted because too many waited already."),
    _counter(
        "extauthz_config_reloads_total",
        "Attempts to take changed files: ok, failed because of a problem, or refused because a change needs a restart.",
        "result",
    ),
    _gauge(
        "extauthz_config_last_reload_success_timestamp_seconds",
        "When the configuration that is served was taken, in seconds since the epoch.",
        across=Across.LEAST,
    ),
    _gauge(
        "extauthz_config_stale",
        "1 while the files, or the OAuth settings in the store, are not what is served.",
        across=Across.GREATEST,
    ),
    _gauge(
        "extauthz_settings_version",
        "Version of the OAuth settings in the store that is served; 0 before the first, while none is known, and with "
        "`oauth.managed_by: yaml`.",
        across=Across.LEAST,
    ),
    _gauge(
        "extauthz_settings_turned_back",
        "1 while an older version of the OAuth settings in the store is served than one that this process served before: a "
        "restored backup was accepted, or somebody who writes to the database made it look so.",
        across=Across.GREATEST,
    ),
    Definition(
        "extauthz_config_info", Type.INFO, ("hash",), "Hash of the files that are served, secrets left out.", Across.GREATEST
    ),
    _gauge(
        "extauthz_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of the listener ends, in seconds since the epoch.",
        across=Across.LEAST,
    ),
    _gauge(
        "extauthz_event_loop_lag_seconds",
        "The longest time since the last scrape that the event loop was late for a timer.",
        across=Across.GREATEST,
    ),
    Definition(
        "extauthz_build_info",
        Type.INFO,
        ("version", "transport"),
        "Version, and the transport that serves: nghttp2 or grpcio.",
        Across.GREATEST,
    ),
    _gauge("extauthz_ready", "1 when /readyz answers 200.", across=Across.LEAST),
    _gauge("extauthz_monitor_mode", "1 while a route, or everything, is in monitor mode.", across=Across.GREATEST),
    _gauge("extauthz_worker_up", "1 while the worker serves.", "worker"),
    _counter("extauthz_worker_restarts_total", "Restarts of a worker that ended by itself.", "worker"),
    _counter("extauthz_spans_total", "Spans of traced checks: exported, failed at the collector, or dropped before it.", "outcome"),
    _counter("extauthz_decision_log_written_total", "Lines of the decision log that were written."),
    _counter("extauthz_decision_log_dropped_total", "Lines of the decision log that nobody read in time."),
    _counter("extauthz_process_log_dropped_total", "Lines on standard error that nobody read in time."),
)

CONSOLE = (
    _counter(
        "extauthz_console_requests_total",
        "Requests, by the pattern of the page's path and the class of the status, 2xx to 5xx; none: no page has this path.",
        "page",
        "status",
    ),
    Definition(
        "extauthz_console_request_seconds", Type.HISTOGRAM, (), "Time from a request to the end of its answer.", buckets=SECONDS
    ),
    _counter(
        "extauthz_console_logins_total",
        "Attempts to log in, local or by openid: ok, refused, throttled, or failed by the store or the provider.",
        "method",
        "outcome",
    ),
    _counter("extauthz_console_token_changes_total", "Tokens created, rotated and revoked, by page or api.", "change", "by"),
    _gauge("extauthz_console_sessions", "Sessions that last and were written with a pepper, of all consoles of the store."),
    _gauge(
        "extauthz_console_tokens_ending",
        "Active tokens that end within 1d or 7d and have no successor; used: whether within the last seven days. "
        "A token whose whole life is less than four times as long does not count.",
        "permission",
        "within",
        "used",
    ),
    _gauge("extauthz_console_scrape_age_seconds", "Seconds since the last good scrape, or since the start.", "sidecar"),
    _counter(
        "extauthz_console_configuration_reloads_total",
        "Readings of changed files: ok, failed, or restart_needed: taken, and some of the changed keys wait for a restart.",
        "result",
    ),
    _gauge(
        "extauthz_console_configuration_last_reload_success_timestamp_seconds",
        "When the configuration that counts was taken, in seconds since the epoch.",
    ),
    _gauge(
        "extauthz_console_configuration_stale",
        "1 while the files have an error, or a changed key in them waits for a restart of the console.",
    ),
    _gauge("extauthz_console_ready", "1 when the token store answers."),
    Definition("extauthz_console_build_info", Type.INFO, ("version",), "Version.", Across.GREATEST),
)
"""What the console counts; a process of its own, whose workers are none."""

TABLE: Mapping[str, Definition] = {definition.name: definition for definition in (*DEFINITIONS, *CONSOLE)}


def merged(of_workers: Iterable[Samples]) -> Samples:
    """Make the samples of several workers into one; `extauthz_worker_up` and the like are told apart by their labels."""
    total: Samples = {}
    for samples in of_workers:
        for series, value in samples.items():
            before = total.get(series)
            total[series] = value if before is None else _joined(TABLE[series[0]].across, before, value)
    return total


def counters(samples: Samples) -> Samples:
    """Return what must not be lost with the worker, or with the part of it, that counted it."""
    return {series: value for series, value in samples.items() if TABLE[series[0]].type in (Type.COUNTER, Type.HISTOGRAM)}


def _joined(across: Across, one: Value, other: Value) -> Value:
    if isinstance(one, Histogram) and isinstance(other, Histogram):
        return one + other
    if isinstance(one, Histogram) or isinstance(other, Histogram):
        raise ValueError("a histogram and a number have the same name")
    match across:
        case Across.SUM:
            return one + other
        case Across.GREATEST:
            # Whoever has not heard of anything yet, nan, says nothing.
            return max(one, other, key=lambda value: (value == value, value))
        case Across.LEAST:
            return min(one, other)
