"""Makes the line of a decision at once, in two microseconds; a thread writes what has come up, many lines in one call."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from time import monotonic, sleep, time  # noqa: TID251 - the time of a line is its own

from extauthz.adapters.decision_log.hints import Hints, LineOfUnknownRoute
from extauthz.adapters.decision_log.lines import MAX_LINE, Lines, limit_of
from extauthz.adapters.decision_log.ring import DecisionRing
from extauthz.adapters.decision_log.sinks import PATIENCE, Sink, SinkClosed
from extauthz.core.model import Decision, Reason, Request
from extauthz.telemetry.decision_record import RecordField

BATCH = 1024
"""Lines that the thread takes at once."""
FIRST_DELAY, LAST_DELAY = 0.1, 5.0
"""Seconds between two attempts to write to a place that is broken, at first and after many that failed."""
REPEAT_INTERVAL = 60.0
"""Seconds in which a fault that comes back is not logged again."""
CLOSE_TIMEOUT = 1.0
"""Seconds."""

_log = logging.getLogger(__name__)


class DecisionLog:
    """The log of one process: `record` is called by the event loop, everything that waits happens in a thread of its own.

    A reader that stalls, a full disk or a folder that vanished stops that thread alone: the oldest lines beyond `capacity` are
    dropped and counted. What waits is what will be written, and nothing else of a request. The thread runs as little of Python as
    can be: it and the loop take turns at the interpreter, and every turn costs a check more than its line.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        fields: Collection[str] = tuple(RecordField),
        sample: Mapping[Reason, float] | None = None,
        capacity: int = 10_000,
        interval: float = 0.05,
        hints: Hints | None = None,
        recent: DecisionRing | None = None,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """Start the writing thread; `sample` is the share that is written by reason, `interval` in seconds, `wait` its pause.

        `recent` keeps the lines that are made, and hears of what is not written.
        """
        self._sink = sink
        shares = {reason: share for reason, share in (sample or {}).items() if share < 1}
        self._limits = {reason: limit_of(share) for reason, share in shares.items()}
        self.hints = hints or Hints()
        self.recent = recent
        self._line = Lines(fields, shares, self.hints).line
        self._capacity = capacity
        self._interval = interval
        self._wait = wait
        self._waiting: deque[bytes] = deque()
        self._lines: list[bytes] = []
        self._displaced = self._lost = self._not_made = 0
        self.written = 0
        self._is_failing = self._is_logged = self._is_stalled = False
        self._logged_at = -REPEAT_INTERVAL
        self._stop, self._rotated = threading.Event(), threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Decisions that were to be written and never will be."""
        return self._displaced + self._lost + self._not_made + (0 if self._thread.is_alive() else len(self._waiting))

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Take one decision, unless it is not in the sample of its reason."""
        if self._limits and request.decision_id >= self._limits.get(decision.reason, "g"):
            self._remember(request, decision, seconds)
            return
        moment = time()
        try:
            line = self._line(moment, request, decision, seconds)
        except Exception as error:  # noqa: BLE001 - one line is lost, not all that follow
            self._could_not_be_made(error)
            return
        if len(self._waiting) >= self._capacity:
            self._displace()
        self._waiting.append(line)
        if self.recent is not None:
            self.recent.keep(moment, request.decision_id, line, decision)

    def _remember(self, request: Request, decision: Decision, seconds: float) -> None:
        try:
            if self.recent is not None:
                self.recent.record(request, decision, seconds)
        except Exception as error:  # noqa: BLE001 - others hear of it too
            self._could_not_be_made(error)

    def _could_not_be_made(self, error: Exception) -> None:
        if not self._not_made:
            _log.error("decision log: a line could not be made", exc_info=error)
        self._not_made += 1

    def _displace(self) -> None:
        # The writing thread may have been quicker.
        with contextlib.suppress(IndexError):
            self._waiting.popleft()
            self._displaced += 1

    def reopen(self) -> None:
        """Let the thread open the place anew, after a rotation; what waits is written to the new one."""
        self._rotated.set()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write what is left for `timeout` seconds at most; what is recorded later is dropped. With 0 nothing is waited for."""
        if not self._stop.is_set():
            self._deadline = monotonic() + timeout
            self._stop.set()
        self._thread.join(timeout + 2 * PATIENCE if timeout else 0)

    def _run(self) -> None:
        delay = 0.0
        try:
            while not self._wait(self._stop, self._interval + delay):
                went_well = self._attempt()
                delay = 0.0 if went_well or self._is_stalled else min(max(2 * delay, FIRST_DELAY), LAST_DELAY)
            while not self._attempt() and monotonic() < self._deadline:
                sleep(FIRST_DELAY)
        finally:
            self._lost += len(self._lines)
            self._lines = []
            self._sink.close()

    def _attempt(self) -> bool:
        """Write what waits; return whether that succeeded."""
        went_well, before = self._reopen_if_rotated(), self.written
        self._is_stalled = False
        try:
            is_more = True
            while monotonic() < self._deadline:
                if not self._lines:
                    if not (is_more and self._take(BATCH)):
                        break
                    # Fewer wait for others: to take them one by one would hold up the loop each time.
                    is_more = len(self._lines) == BATCH or self._stop.is_set()
                count = self._sink.write(self._lines)
                del self._lines[:count]
                self.written += count
        except SinkClosed:
            self._complain("decision log not written any more")
            self._take(len(self._waiting))
            self._lost += len(self._lines)
            self._lines = []
            return True
        except Exception as error:  # noqa: BLE001 - mostly an OSError; whatever it is, the next attempt may go well
            # The attempt has waited for the reader, and ends as soon as there is room: a longer pause would only keep him waiting.
            self._is_stalled = isinstance(error, (TimeoutError, BlockingIOError))
            self._complain("decision log not written", error)
            return False
        if went_well and self.written > before:
            self._recover()
        return went_well

    def _reopen_if_rotated(self) -> bool:
        if self._rotated.is_set():
            self._rotated.clear()
            try:
                self._sink.reopen()
            except OSError as error:
                self._rotated.set()
                self._complain("decision log not opened again", error)
                return False
        return True

    def _take(self, most: int) -> bool:
        """Take some of the lines that wait, the oldest first; return whether there were any."""
        # `record` may displace one in the meantime.
        with contextlib.suppress(IndexError):
            self._lines.extend(self._waiting.popleft() for _ in range(min(most, len(self._waiting))))
        if LineOfUnknownRoute in set(map(type, self._lines)):
            self._lines = [self.hints.written(line, MAX_LINE) for line in self._lines]
        return bool(self._lines)

    def _complain(self, message: str, error: Exception | None = None) -> None:
        """Log a fault once, and not again when it comes back soon."""
        now = monotonic()
        if not self._is_failing and now - self._logged_at >= REPEAT_INTERVAL:
            self._logged_at = now
            self._is_logged = True
            is_expected = error is None or isinstance(error, OSError)
            extra = {"to": self._sink.name, "cause": getattr(error, "strerror", None) or str(error or "nobody reads it any more")}
            _log.error(message, extra=extra, exc_info=None if is_expected else error)
        self._is_failing = True

    def _recover(self) -> None:
        if self._is_logged:
            _log.warning("decision log written again", extra={"to": self._sink.name, "dropped": self.dropped})
        self._is_failing = self._is_logged = False
