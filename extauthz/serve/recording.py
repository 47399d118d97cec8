"""A recording in one process that answers checks: it hears of decisions for a while, and ends by itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from extauthz.config.loader import Configuration
from extauthz.core.model import Decision, Request
from extauthz.serve.messages import Recorded, StartRecording
from extauthz.telemetry.recorded_requests import SHOWN, recorded_request

LEASE = 10.0
"""Seconds after which a recording ends that nobody takes anything from: its client has gone."""
BYTES_AT_ONCE = 256 * 1024
"""Of what is handed out at a time: a millisecond or two for the loop."""

_log = logging.getLogger(__name__)


def forbidden(configuration: Configuration) -> str | None:
    """Return why nothing may be recorded with a configuration, and what to do about it."""
    if not configuration.settings.server.recording:
        return "recording is off: write server.recording: true in the configuration, which counts with the next reload"
    missing = sorted(SHOWN - configuration.settings.decision_log.written_fields)
    if missing:
        return f"decision_log.fields leaves out {', '.join(missing)}, which a recording would show: it takes a log with these"
    return None


class Recording:
    """Takes down requests until there are so many, the time is over, nobody asks any more, or the configuration forbids it."""

    def __init__(
        self,
        start: StartRecording,
        configuration: Callable[[], Configuration],
        detach: Callable[[Recording], None],
        *,
        now: Callable[[], float],
    ) -> None:
        """Begin; `detach` is called when no more is to be heard of, `now` returns seconds since the epoch."""
        self.name = start.recording
        self._wanted = dict(start.wanted)
        self._configuration = configuration
        self._detach = detach
        self._now = now
        self._number, self._room = start.number, start.most_bytes
        self._left_out = 0
        self._taken_down: deque[tuple[int, dict[str, Any]]] = deque()
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.call_later(start.seconds, self.end)
        self._lease = self._loop.call_later(LEASE, self.abandon)

    @property
    def is_over(self) -> bool:
        """Return whether it hears of nothing any more."""
        return self._is_over

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Take down one request, if it is wanted; whatever goes wrong ends the recording and nothing else."""
        try:
            self._record(request, decision)
        except Exception:  # noqa: BLE001 - the checks go on
            _log.exception("a recording failed and is ended")
            self.abandon()

    def take(self) -> Recorded:
        """Hand out what was taken down, as much as is handed out at a time, and stay for as long again."""
        self._lease.cancel()
        if forbidden(self._configuration()):
            self.abandon()
            return Recorded([], is_over=True)
        self._lease = self._loop.call_later(LEASE, self.abandon)
        requests: list[dict[str, Any]] = []
        size = 0
        while self._taken_down and size < BYTES_AT_ONCE:
            length, request = self._taken_down.popleft()
            size += length
            requests.append(request)
        left_out, self._left_out = self._left_out, 0
        return Recorded(requests, left_out, is_over=self._is_over and not self._taken_down)

    def end(self) -> None:
        """Hear of no more; what was taken down can be taken for a while."""
        if not self._is_over:
            self._is_over = True
            self._end.cancel()
            self._detach(self)

    def abandon(self) -> None:
        """End, and forget what was taken down."""
        self._lease.cancel()
        self._taken_down.clear()
        self.end()

    def _record(self, request: Request, decision: Decision) -> None:
        if self._is_over or not self._fits(decision):
            return
        configuration = self._configuration()
        if forbidden(configuration):
            self.abandon()
            return
        scopes = configuration.settings.scopes
        recorded = recorded_request(configuration.policy, request, decision, self._now(), scopes=scopes)
        # What is left out counts too, so that nobody is looked at without end.
        self._number -= 1
        if recorded is None:
            self._left_out += 1
        else:
            length = len(json.dumps(recorded)) + 1
            self._room -= length
            if self._room >= 0:
                self._taken_down.append((length, recorded))
        if self._number <= 0 or self._room < 0:
            self.end()

    def _fits(self, decision: Decision) -> bool:
        values = {"reason": decision.reason.value, "route": decision.route, "user": decision.user}
        return all(values.get(name) == value for name, value in self._wanted.items())
