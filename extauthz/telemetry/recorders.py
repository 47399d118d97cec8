"""Who hears of each decision."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.core.model import Decision, Request
from extauthz.ports import Recorder


@dataclass(slots=True)
class Recorders:
    """Several recorders as one."""

    recorders: tuple[Recorder, ...]

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Hand the decision to each."""
        for recorder in self.recorders:
            recorder.record(request, decision, seconds)

    def replace(self, before: Recorder | None, after: Recorder | None) -> None:
        """Hand decisions to another recorder from now on; None stands for none."""
        others = (recorder for recorder in self.recorders if recorder is not before)
        self.recorders = (*others, after) if after is not None else tuple(others)
