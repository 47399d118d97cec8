"""What is counted, how the figures of several workers become one, and that the table, the code and the document agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from extauthz.adapters.metrics import OPENMETRICS_TYPE, TEXT_TYPE, DecisionCounters, render
from extauthz.core.credentials import Kind
from extauthz.core.model import ALLOWING, Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request
from extauthz.serve.messages import packed_samples, unpacked_samples
from extauthz.telemetry.metric_table import BUCKETS, DEFINITIONS, TABLE, Across, Histogram, Samples, Type, counters, merged
from tests.support import fuzz
from tests.support.world import DECISION_ID, NOW

MARKER = fuzz.MARKER
ROUTE = "POST /search"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def decision(reason: Reason, auth_type: AuthType | None = None, *, route: str | None = ROUTE, kind: Kind | None = None) -> Decision:
    identity = auth_type and Identity(auth_type, "token:one", "ana@acme.com", frozenset({"S"}), NOW)
    if reason in ALLOWING:
        return Allow(reason, route or ROUTE, HeaderEdits((), ()), identity)
    return Deny(reason, route, identity, kind=kind)


def request(path: str = "/search", method: str = "POST", **headers: str) -> Request:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, "api.acme.com", lines, raw=True, decision_id=DECISION_ID)


def families(samples: Samples) -> dict[str, Metric]:
    """Read the page as Prometheus does."""
    return {family.name: family for family in text_string_to_metric_families(render(samples)[1].decode())}


def found(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one name by their label values, in the order of the label names."""
    rows = (sample for family in families(samples).values() for sample in family.samples if sample.name == name)
    return {tuple(value for _, value in sorted(row.labels.items())): row.value for row in rows}


def one_of_each() -> Samples:
    """Return a sample of every metric."""
    histogram = Histogram([1.0] * (len(BUCKETS) + 1), 0.5, {0: (TRACE, 0.00001, NOW)})
    return {
        (each.name, tuple(f"{label}-1" for label in each.labels)): histogram + Histogram() if each.type is Type.HISTOGRAM else 1.0
        for each in DEFINITIONS
    }


def test_the_page_has_every_metric_of_the_table_with_its_type() -> None:
    shown = families(one_of_each())
    types = {Type.INFO: "gauge"}
    expected = {each.name.removesuffix("_total"): (types.get(each.type, each.type.value), each.text) for each in DEFINITIONS}
    assert {name: (family.type, family.documentation) for name, family in shown.items() if name.startswith("extauthz")} == expected
    assert "process_resident_memory_bytes" in shown


def test_whoever_wants_openmetrics_gets_it() -> None:
    kind, text = render(one_of_each(), openmetrics=True)
    assert kind == OPENMETRICS_TYPE
    assert text.endswith(b"# EOF\n")
    names = {family.name for family in openmetrics_families(text.decode())}
    assert {each.name.removesuffix("_total").removesuffix("_info") for each in DEFINITIONS} <= names
    assert render({})[0] == TEXT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_names_are_those_of_prometheus() -> None:
    for each in DEFINITIONS:
        assert each.name.startswith("extauthz_")
        assert each.name.endswith("_total") == (each.type is Type.COUNTER), each.name
        assert each.name.endswith("_info") == (each.type is Type.INFO), each.name
        assert each.text.endswith("."), each.name
        if each.type is Type.COUNTER:
            assert each.across is Across.SUM


def test_every_reason_is_counted_under_its_name() -> None:
    tallies = DecisionCounters(now=lambda: NOW)
    expected: dict[tuple[str, ...], float] = {}
    for number, (reason, auth_type) in enumerate(itertools.product(Reason, [None, *AuthType]), start=1):
        for _ in range(number % 3 + 1):
            tallies.record(request(), decision(reason, auth_type), 0.001)
        label = "none" if auth_type is None else auth_type.value
        expected[label, "allow" if reason in ALLOWING else "deny", reason.value, ROUTE] = number % 3 + 1
    assert found(tallies.samples(), "extauthz_checks_total") == expected


def test_routes_are_told_apart_and_none_is_a_route_too() -> None:
    tallies = DecisionCounters(now=lambda: NOW)
    for route in (ROUTE, "GET /feed", None, None):
        tallies.record(request(), decision(Reason.ROUTE_UNKNOWN, route=route), 0.001)
    counts = found(tallies.samples(), "extauthz_checks_total")
    assert {key[-1]: count for key, count in counts.items()} == {ROUTE: 1, "GET /feed": 1, "none": 2}


@pytest.mark.parametrize(
    ("reason", "kind", "expected"),
    [
        (Reason.TOKEN_EXPIRED, Kind.OAUTH, {("token_expired", "oauth"): 1}),
        (Reason.TOKEN_CHECKSUM, Kind.ISSUED, {("token_checksum", "issued"): 1}),
        (Reason.CREDENTIAL_MISSING, None, {}),
        (Reason.TOKEN_IN_QUERY, None, {}),
        (Reason.STORE_UNAVAILABLE, Kind.ISSUED, {}),
        (Reason.ALLOWED, None, {}),
    ],
)
def test_refused_tokens_are_counted_by_kind_and_cause(
    reason: Reason, kind: Kind | None, expected: dict[tuple[str, ...], float]
) -> None:
    tallies = DecisionCounters(now=lambda: NOW)
    tallies.record(request(), decision(reason, kind=kind), 0.001)
    assert found(tallies.samples(), "extauthz_token_verification_failures_total") == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Reason.ALLOWED, Reason.PUBLIC, Reason.TOKEN_UNKNOWN, Reason.SCOPE_MISSING, Reason.INTERNAL]),
            st.sampled_from([None, *AuthType]),
            st.one_of(st.floats(0, 3), st.sampled_from([*BUCKETS, 0.0, 1e-9, 60.0])),
        ),
        max_size=30,
    )
)
def test_histograms_are_cumulative(records: list[tuple[Reason, AuthType | None, float]]) -> None:
    tallies = DecisionCounters(now=lambda: NOW)
    for reason, auth_type, seconds in records:
        tallies.record(request(), decision(reason, auth_type), seconds)
    samples = tallies.samples()
    buckets = found(samples, "extauthz_check_duration_seconds_bucket")
    checks = found(samples, "extauthz_checks_total")
    for label in ("allow", "deny"):
        times = [seconds for reason, _, seconds in records if ("allow" if reason in ALLOWING else "deny") == label]
        if not times:
            assert not any(key[0] == label for key in buckets)
            continue
        expected = {(label, float(bound)): sum(seconds <= bound for seconds in times) for bound in (*BUCKETS, math.inf)}
        assert {(of, float(bound)): count for (of, bound), count in buckets.items() if of == label} == expected
        assert found(samples, "extauthz_check_duration_seconds_count")[label,] == len(times)
        assert found(samples, "extauthz_check_duration_seconds_sum")[label,] == pytest.approx(sum(times))
        assert sum(count for (_, of, _, _), count in checks.items() if of == label) == len(times)


def test_nothing_that_a_client_chooses_is_a_label() -> None:
    tallies = DecisionCounters(now=lambda: NOW)
    for number in range(500):
        text = f'{MARKER}{number}"\n}} 1\nevil{{x="'
        identity = Identity(AuthType.USER, text, text, frozenset({text}), NOW, text)
        sent = request(f"/{text}?{text}", text, authorization=text, x_glean_auth_type=text)
        tallies.record(sent, Allow(Reason.ALLOWED, ROUTE, HeaderEdits(((text, text),), (text,)), identity, text), 0.001)
        tallies.record(sent, Deny(Reason.SCOPE_MISSING, ROUTE, identity, text, (text,)), 0.001)
        tallies.record(sent, Deny(Reason.TOKEN_UNKNOWN, ROUTE), 0.001)
    samples = tallies.samples()
    assert MARKER not in render(samples)[1].decode()
    assert len(found(samples, "extauthz_checks_total")) == 3


# --- several workers


def of(name: str, *values: float) -> Iterable[Samples]:
    return [{(name, tuple(TABLE[name].labels)): value} for value in values]


MERGED = [
    ("extauthz_checks_total", (2.0, 3.0), 5.0),
    ("extauthz_verdicts", (10.0, 5.0), 15.0),
    ("extauthz_feed_age_seconds", (0.5, 7.0, 1.0), 7.0),
    ("extauthz_keys", (3.0, 0.0), 0.0),
    ("extauthz_audit_position", (math.nan, 4.0), 4.0),
    ("extauthz_audit_position", (4.0, math.nan), 4.0),
    ("extauthz_keys_age_seconds", (1.0, math.inf), math.inf),
]


@pytest.mark.parametrize(("name", "values", "expected"), MERGED)
def test_figures_of_workers_become_one(name: str, values: tuple[float, ...], expected: float) -> None:
    assert list(merged(of(name, *values)).values()) == [expected]


def test_what_only_one_worker_has_is_kept() -> None:
    first: Samples = {("extauthz_worker_up", ("0",)): 1.0}
    second: Samples = {("extauthz_worker_up", ("1",)): 0.0}
    assert merged((first, second)) == first | second


EXEMPLARS = st.dictionaries(
    st.integers(0, len(BUCKETS)), st.tuples(st.text("0123456789abcdef"), st.floats(0, 1), st.floats(0, 2e9))
)
HISTOGRAMS = st.builds(
    Histogram,
    st.lists(st.floats(0, 1e9), min_size=len(BUCKETS) + 1, max_size=len(BUCKETS) + 1),
    st.floats(0, 1e9),
    EXEMPLARS,
)


@given(st.lists(HISTOGRAMS, min_size=1, max_size=4))
def test_histograms_are_added_and_the_latest_exemplar_of_a_bucket_stays(histograms: list[Histogram]) -> None:
    samples: list[Samples] = [{("extauthz_check_duration_seconds", ("allow",)): one} for one in histograms]
    (total,) = merged(samples).values()
    assert isinstance(total, Histogram)
    assert total.counts == pytest.approx([sum(column) for column in zip(*(one.counts for one in histograms), strict=True)])
    assert total.total == pytest.approx(sum(one.total for one in histograms))
    for index in range(len(BUCKETS) + 1):
        known = [one.exemplars[index][2] for one in histograms if index in one.exemplars]
        assert (index in total.exemplars) == bool(known)
        if known:
            assert total.exemplars[index][2] == max(known)


@pytest.mark.parametrize(("flags", "expected"), [("01", 1), ("00", 0), (None, 0)])
def test_the_trace_of_a_sampled_check_is_an_exemplar_for_who_wants_openmetrics(flags: str | None, expected: int) -> None:
    tallies = DecisionCounters(now=lambda: NOW)
    asked = request()
    if flags is not None:
        asked = replace(asked, traceparent=f"00-{TRACE}-00f067aa0ba902b7-{flags}")
    tallies.record(asked, decision(Reason.ALLOWED, AuthType.USER), 0.0004)
    text = render(tallies.samples(), openmetrics=True)[1].decode()
    line = f'extauthz_check_duration_seconds_bucket{{decision="allow",le="0.0005"}} 1.0 # {{trace_id="{TRACE}"}} 0.0004 {NOW}'
    assert text.count(line) == expected
    assert text.count("trace_id") == expected
    assert "trace_id" not in render(tallies.samples())[1].decode()


def test_of_a_worker_that_is_gone_the_counts_stay_and_the_gauges_do_not() -> None:
    kept = {name for name, _ in counters(one_of_each())}
    assert kept == {each.name for each in DEFINITIONS if each.type in (Type.COUNTER, Type.HISTOGRAM)}


def test_samples_go_over_the_wire_and_back() -> None:
    samples = one_of_each() | {("extauthz_keys_age_seconds", ("https://x",)): math.inf}
    assert unpacked_samples(packed_samples(samples)) == samples
