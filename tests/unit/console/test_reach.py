"""How many sidecars know of a change, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from extauthz.console import reach
from extauthz.console.activity import SidecarState
from extauthz.console.metrics_text import SidecarFacts
from extauthz.console.reach import Reach, has_read, has_settings, reach_of

Position = int | str | None
"""Up to where a sidecar has read, None where it does not say; a text is why it did not answer."""


class Looks:
    """A collector that sees what a test says, one list of positions after the other."""

    def __init__(self, *looks: Sequence[Position]) -> None:
        self._looks = list(looks)
        self.sidecars: tuple[SidecarState, ...] = ()

    async def collect(self) -> None:
        positions = self._looks.pop(0)
        self.sidecars = tuple(
            SidecarState(f"http://{number}", 0.0, at)
            if isinstance(at, str)
            else SidecarState("", 0.0, facts=SidecarFacts(audit_position=at))
            for number, at in enumerate(positions)
        )


CASES: list[tuple[list[Sequence[Position]], Reach | None]] = [
    ([[]], None),
    ([[7]], Reach(1, 1, 1.0)),
    ([[8, 7]], Reach(2, 2, 1.0)),
    ([[6, 7], [7, 7]], Reach(2, 2, 2.0)),
    ([[6], [6], [6], [6]], Reach(0, 1, 4.0)),
    ([[7, None], [7, None], [7, None], [7, None]], Reach(1, 2, 4.0)),
    ([[7, "no answer"], [7, "no answer"], [7, "no answer"], [7, 9]], Reach(2, 2, 4.0)),
]


@pytest.mark.parametrize(("looks", "expected"), CASES)
async def test_reach(looks: list[Sequence[Position]], expected: Reach | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PAUSES", (0.0,) * 4)
    ticks = iter(range(10))
    collector: Any = Looks(*looks)
    assert await reach_of(collector, has_read(7), monotonic=lambda: float(next(ticks))) == expected


def test_settings_are_known_by_their_version_alone() -> None:
    knows = has_settings(7)
    assert [knows(SidecarFacts(settings_version=version)) for version in (None, 6, 7, 8)] == [False, False, True, False]
