"""An hour of samples: differences of counters, processes that begin anew, and bounds on what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.console.activity import (
    INTERVAL,
    MAX_GAP,
    MAX_REASONS,
    MAX_ROUTES,
    MINUTES,
    MONITORED,
    OTHER,
    SAMPLES,
    Activity,
    Layer,
    LiveVersion,
    RouteCounts,
    Samples,
    SidecarState,
    layers,
    live_version,
)
from extauthz.console.metrics_text import Scrape, SidecarFacts

NOW = 1_800_000_000.0
ALLOWED, DENIED = ("allow", "allowed", "items"), ("deny", "scope_missing", "items")


def scrape(checks: dict[tuple[str, str, str], float], started_at: float = 1.0) -> Scrape:
    return Scrape(checks, SidecarFacts(version="1", started_at=started_at))


def totals(activity: Activity) -> dict[str, float]:
    return {layer.name: layer.total for layer in (*activity.allowed, *activity.denied)}


def test_what_is_counted_between_scrapes_is_what_happened() -> None:
    samples = Samples()
    samples.add(NOW, {"a": scrape({ALLOWED: 100, DENIED: 5}), "b": scrape({ALLOWED: 7})})
    samples.add(NOW + 10, {"a": scrape({ALLOWED: 110, DENIED: 5}), "b": scrape({ALLOWED: 8, ("deny", "token_expired", "none"): 2})})
    activity = samples.activity(NOW + 15)

    assert totals(activity) == {"allowed": 11, "token_expired": 2}
    assert [layer.last for layer in activity.allowed] == [11]
    assert activity.routes == (RouteCounts("none", 0, 2), RouteCounts("items", 11, 0))
    assert activity.since == NOW


SCRAPES = {
    "the same": ([(10, 1.0), (10, 1.0)], 0),
    "more": ([(10, 1.0), (12, 1.0)], 2),
    "a process that began anew": ([(10, 1.0), (3, 2.0)], 3),
    "one that began anew and has counted more since": ([(10, 1.0), (12, 2.0)], 12),
    "a counter that fell without a new process": ([(10, 1.0), (4, 1.0)], 4),
    "a first scrape": ([(10, 1.0)], 0),
    "one that did not answer once": ([(10, 1.0), None, (12, 1.0)], 2),
    "one that did not answer for a minute": ([(10, 1.0), *[None] * 6, (12, 1.0), (13, 1.0)], 1),
}


@pytest.mark.parametrize("name", SCRAPES)
def test_differences(name: str) -> None:
    steps, expected = SCRAPES[name]
    samples = Samples()
    for number, step in enumerate(steps):
        found = {} if step is None else {"a": scrape({ALLOWED: step[0]}, started_at=step[1])}
        samples.add(NOW + number * INTERVAL, found)

    assert MAX_GAP == 60
    assert sum(totals(samples.activity(NOW + len(steps) * INTERVAL)).values()) == expected


def test_monitor_mode_is_told_apart_from_what_was_allowed_and_denied() -> None:
    samples = Samples()
    for count in (0, 4):
        samples.add(NOW + count, {"a": scrape({("would_deny", "scope_missing", "items"): count})})
    activity = samples.activity(NOW + 5)

    assert ([layer.name for layer in activity.allowed], activity.denied) == ([MONITORED], ())


def test_each_minute_has_its_own_count_and_an_hour_is_all() -> None:
    samples = Samples()
    for number in range(SAMPLES + 12):
        samples.add(NOW + number * INTERVAL, {"a": scrape({ALLOWED: number})})
    activity = samples.activity(NOW + (SAMPLES + 11) * INTERVAL)

    assert activity.allowed == (Layer("allowed", (6.0,) * MINUTES),)
    assert samples.activity(NOW + 3 * 3600).allowed == (), "what is older than an hour is shown"
    assert samples.activity(NOW - 3600).allowed == (), "what lies ahead is shown"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1000)), min_size=1, max_size=40))
def test_nothing_is_lost_or_made_up(steps: list[tuple[int, int]]) -> None:
    """Whatever is counted, of whichever reason: the layers add up to it, and so do the routes."""
    samples, counts = Samples(), dict.fromkeys((("deny", f"reason {number}", f"route {number % 3}") for number in range(6)), 0)
    keys = list(counts)
    samples.add(NOW, {"a": scrape(dict(counts))})
    for number, (which, more) in enumerate(steps, 1):
        counts[keys[which]] += more
        samples.add(NOW + number * INTERVAL, {"a": scrape(dict(counts))})
    activity = samples.activity(NOW + len(steps) * INTERVAL)

    assert totals(activity) == {f"reason {number}": count for number, count in enumerate(counts.values()) if count}
    assert sum(each.denied for each in activity.routes) == sum(counts.values())


def test_the_most_frequent_reasons_stand_first_and_the_others_are_one() -> None:
    minutes = {f"reason {number}": [float(number)] * MINUTES for number in range(12)}
    found = layers(minutes)

    assert [layer.name for layer in found] == [f"reason {11 - number}" for number in range(MAX_REASONS)] + [OTHER]
    assert found[-1].total == sum(range(1, 6)) * MINUTES
    assert len(layers({f"reason {number}": [1.0] for number in range(MAX_REASONS + 1)})) == MAX_REASONS + 1
    assert layers({"never": [0.0]}) == layers({}) == ()


def test_routes_beyond_the_bound_are_counted_as_one() -> None:
    samples = Samples()
    for count in (0, 1):
        checks = {("deny", "scope_missing", f"route {number}"): float(count * (number + 1)) for number in range(MAX_ROUTES + 10)}
        samples.add(NOW + count, {"a": scrape(checks)})
    routes = {each.route: each.denied for each in samples.activity(NOW + 1).routes}

    assert len(routes) == MAX_ROUTES + 1
    assert routes[OTHER] == sum(range(1, 11))


def test_routes_of_an_hour_are_bounded_too() -> None:
    samples = Samples()
    for number in range(4):
        checks = {("deny", "scope_missing", f"route {number} {index}"): 1.0 for index in range(MAX_ROUTES)}
        samples.add(NOW + number * INTERVAL, {"a": scrape(checks)})
    routes = samples.activity(NOW + 40).routes

    assert (len(routes), routes[-1]) == (MAX_ROUTES + 1, RouteCounts(OTHER, 0, 2 * MAX_ROUTES))
    assert {each.denied for each in routes[:-1]} == {1}


def test_looks_in_between_lose_no_part_of_the_hour() -> None:
    samples = Samples()
    for number in range(3 * SAMPLES):
        samples.add(NOW + number * INTERVAL / 3, {"a": scrape({ALLOWED: number})})

    assert totals(samples.activity(NOW + SAMPLES * INTERVAL - 1)) == {"allowed": 3 * SAMPLES - 1}


def state(name: str, version: int | None, since: float, error: str | None = None) -> SidecarState:
    return SidecarState(name, NOW, error, SidecarFacts(settings_version=version), since)


def test_where_a_version_of_settings_is_live() -> None:
    states = [state("a", 7, NOW + 5), state("b", 7, NOW + 9), state("c", 6, NOW + 20), state("d", 7, NOW, "status 503")]

    assert live_version(states, 7) == LiveVersion(2, 4, NOW + 9)
    assert live_version(states, 8) == LiveVersion(0, 4, None)
    assert live_version([], 7) == LiveVersion(0, 0, None)


def test_how_many_answer() -> None:
    states = [SidecarState("a", NOW), SidecarState("b", NOW, "status 503"), SidecarState("c", NOW)]
    activity = Samples().activity(NOW, states)

    assert (activity.answering, len(activity.sidecars), activity.since) == (2, 3, None)
