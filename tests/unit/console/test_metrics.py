"""What the console counts of itself: by patterns of the code, never by what a visitor writes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.console.app import paths
from extauthz.console.metrics import NO_PAGE, Counted, Counters
from extauthz.telemetry.metric_table import CONSOLE, SECONDS, TABLE, Histogram, Type

REQUESTS, LOGINS, CHANGES = (f"extauthz_console_{name}_total" for name in ("requests", "logins", "token_changes"))
PATHS = paths()
NAMES = {definition.name for definition in CONSOLE}


def counted(counters: Counters, name: str) -> dict[tuple[str, ...], float]:
    """Return the counts of a metric that are not 0."""
    return {
        labels: value
        for (series, labels), value in counters.samples().items()
        if series == name and isinstance(value, float) and value
    }


def after(method: str, path: str, status: int) -> Counters:
    counters = Counters(PATHS)
    counters.record(method, path, status, 0.02)
    return counters


@pytest.mark.parametrize(
    ("method", "path", "status", "labels"),
    [
        ("GET", "/", 200, ("/", "2xx")),
        ("GET", "/tokens/new", 200, ("/tokens/new", "2xx")),
        ("GET", "/tokens/0123456789ab", 404, ("/tokens/{token_id}", "4xx")),
        ("GET", "/tokens/0123456789ab/rotate", 303, ("/tokens/{token_id}/rotate", "3xx")),
        ("GET", "/static/0123/console.css", 200, ("/static/{path:path}", "2xx")),
        ("GET", "/api/v1/tokens/0123456789ab", 200, ("/api/v1/tokens/{id}", "2xx")),
        ("GET", "/api/v1/openapi.json", 200, ("/api/v1/openapi.json", "2xx")),
        ("GET", "/api/v1/nothing", 404, (NO_PAGE, "4xx")),
        ("GET", "/wp-login.php", 404, (NO_PAGE, "4xx")),
        ("GET", "/tokens/a/b/c", 404, (NO_PAGE, "4xx")),
        ("GET", "/healthz", 200, (NO_PAGE, "2xx")),
        ("GET", "/", 0, ("/", "5xx")),
    ],
)
def test_a_request_is_counted_by_its_page(method: str, path: str, status: int, labels: tuple[str, str]) -> None:
    assert counted(after(method, path, status), REQUESTS) == {labels: 1.0}


@given(st.text(), st.integers(100, 599), st.sampled_from(["GET", "POST", "PROPFIND"]))
def test_no_label_is_what_a_visitor_chose(text: str, status: int, method: str) -> None:
    counters = after(method, f"/{text}", status)
    known = {*PATHS, NO_PAGE, "local", "openid", "ok", "refused", "throttled", "failed", "created", "rotated", "revoked"}
    known |= {"page", "api", *(f"{number}xx" for number in range(1, 6))}
    assert {label for _, labels in counters.samples() for label in labels} <= known


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("POST", "/login", 303, ("local", "ok")),
        ("POST", "/login", 403, ("local", "refused")),
        ("POST", "/login", 400, ("local", "refused")),
        ("POST", "/login", 429, ("local", "throttled")),
        ("POST", "/login", 503, ("local", "failed")),
        ("POST", "/confirm", 403, ("local", "refused")),
        ("POST", "/confirm", 429, ("local", "throttled")),
        ("POST", "/confirm", 303, None),
        ("GET", "/login", 200, None),
        ("GET", "/login/openid", 303, None),
        ("GET", "/login/openid", 429, ("openid", "throttled")),
        ("GET", "/login/callback", 200, ("openid", "ok")),
        ("GET", "/login/callback", 403, ("openid", "refused")),
        ("GET", "/login/callback", 429, ("openid", "throttled")),
        ("GET", "/login/callback", 503, ("openid", "failed")),
        ("POST", "/logout", 303, None),
    ],
)
def test_logins(method: str, path: str, status: int, expected: tuple[str, str] | None) -> None:
    assert counted(after(method, path, status), LOGINS) == ({expected: 1.0} if expected else {})


@pytest.mark.parametrize(("prefix", "by"), [("", "page"), ("/api/v1", "api")])
@pytest.mark.parametrize(
    ("method", "path", "status", "change"),
    [
        ("POST", "/tokens", 201, "created"),
        ("POST", "/tokens/0123456789ab/rotate", 201, "rotated"),
        ("POST", "/tokens/0123456789ab/revoke", 200, "revoked"),
        ("POST", "/tokens", 422, None),
        ("POST", "/tokens/0123456789ab/revoke", 403, None),
        ("GET", "/tokens", 200, None),
        ("GET", "/tokens/0123456789ab/revoke", 200, None),
    ],
)
def test_changed_tokens(method: str, path: str, status: int, change: str | None, prefix: str, by: str) -> None:
    assert counted(after(method, f"{prefix}{path}", status), CHANGES) == ({(change, by): 1.0} if change else {})


@pytest.mark.parametrize(("page", "by"), [("/tokens/search", "page"), ("/audit/search", "page")])
def test_what_is_sent_to_other_pages_changes_no_token(page: str, by: str) -> None:
    assert counted(after("POST", page, 200), CHANGES) == {}


def test_durations_have_a_few_buckets() -> None:
    counters = Counters(PATHS)
    for seconds in (0.0, 0.01, 0.011, 60.0):
        counters.record("GET", "/", 200, seconds)
    histogram = counters.samples()["extauthz_console_request_seconds", ()]
    assert isinstance(histogram, Histogram)
    assert histogram.counts == [2.0, 1.0, *[0.0] * (len(SECONDS) - 2), 1.0]
    assert histogram.total == pytest.approx(60.021)


def test_an_alert_finds_refusals_counted_from_none_on() -> None:
    samples = Counters(PATHS).samples()
    assert {labels for name, labels in samples if name == LOGINS} == {("local", "refused"), ("openid", "refused")}


def test_the_table_has_these_and_a_sidecar_has_none() -> None:
    assert TABLE.keys() >= NAMES
    assert all(name.startswith("extauthz_console_") for name in NAMES)
    assert {name for name, definition in TABLE.items() if definition.type is Type.HISTOGRAM and name in NAMES} == {
        "extauthz_console_request_seconds"
    }


async def answer(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"made"})


async def fail(_: Any, __: Any, ___: Any) -> None:
    raise OSError("the visitor is gone")


class Broken(Counters):
    """Counters with a fault."""

    def record(self, method: str, path: str, status: int, seconds: float) -> None:
        raise ZeroDivisionError


async def asked(app: Any, counters: Counters, **scope: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await Counted(app, counters, iter((1.0, 1.3)).__next__)(
        {"type": "http", "method": "POST", "path": "/tokens", **scope}, None, send
    )
    return sent


def test_a_metric_that_throws_breaks_no_page(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        sent = asyncio.run(asked(answer, Broken(PATHS)))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert "a request could not be counted" in caplog.text


def test_an_answer_is_counted_with_its_status_and_a_fault_as_one() -> None:
    counters = Counters(PATHS)
    asyncio.run(asked(answer, counters))
    with pytest.raises(OSError, match="gone"):
        asyncio.run(asked(fail, counters))
    assert counted(counters, REQUESTS) == {("/tokens", "2xx"): 1.0, ("/tokens", "5xx"): 1.0}
    asyncio.run(asked(answer, counters, type="lifespan"))
    assert sum(counted(counters, REQUESTS).values()) == 2
