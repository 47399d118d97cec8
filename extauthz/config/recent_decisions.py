"""The section `server.recent_decisions`: how many decisions each process remembers, for whoever asks why."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from extauthz.config.values import Section

MAX_REMEMBERED = 10_000
"""40 MB per process, where each line is as long as a line can be."""


def _bounded(count: int) -> int:
    if count > MAX_REMEMBERED:
        raise ValueError(f"is too large: write at most {MAX_REMEMBERED}")
    return count


Remembered = Annotated[int, Field(ge=0), AfterValidator(_bounded)]


class RecentDecisionsSection(Section):
    """What /decisions shows; 0 remembers none."""

    denials: Remembered = 1_000
    allows: Remembered = 200
