"""Whoever hears of decisions hears of each one whole, whoever else comes and goes."""

from __future__ import annotations

import pytest

from extauthz.core.model import Decision, Deny, Reason, Request
from extauthz.telemetry.recorders import Recorders

REQUEST = Request("GET", "/a", "api.acme.com", {}, raw=True, decision_id="0" * 32)
DENIED = Deny(Reason.ROUTE_UNKNOWN)


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Request, Decision, float]] = []

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        self.heard.append((request, decision, seconds))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, "ab"),
        (None, "c", "abc"),
        ("a", "c", "bc"),
        ("b", None, "a"),
        ("a", "a", "ba"),
        ("c", None, "ab"),
    ],
)
def test_one_is_replaced_and_the_others_stay(before: str | None, after: str | None, expected: str) -> None:
    listeners = {name: Listener() for name in "abc"}
    recorders = Recorders((listeners["a"], listeners["b"]))
    recorders.replace(listeners[before] if before else None, listeners[after] if after else None)
    assert [name for each in recorders.recorders for name, listener in listeners.items() if listener is each] == [*expected]
    recorders.record(REQUEST, DENIED, 0.25)
    assert {name: listener.heard for name, listener in listeners.items()} == {
        name: [(REQUEST, DENIED, 0.25)] if name in expected else [] for name in "abc"
    }
