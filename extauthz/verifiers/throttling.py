"""How much work strangers can cause: so many a second, and no further while somebody else is down."""

from __future__ import annotations

from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from extauthz.ports import Clock

MAX_REST = 3600.0


class Budget:
    """Pieces of work a second, with bursts as large as one second's share, and so many at the same time; per process."""

    def __init__(self, per_second: float, at_once: int | None = None, *, clock: Clock) -> None:
        """Start full."""
        self._per_second = per_second
        self._at_once = at_once
        self._clock = clock
        self._balance = per_second
        self._filled_at = clock.monotonic()
        self.under_way = 0
        self.refused = 0

    def take(self, pieces: int = 1) -> None:
        """Take so many pieces for one work, all that there can be at most; raises Unavailable when there are not as many left.

        With `at_once` each work is to be given back.
        """
        cost = max(1, min(pieces, self._per_second))
        now = self._clock.monotonic()
        self._balance = min(self._per_second, self._balance + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._balance < cost or (self._at_once is not None and self.under_way >= self._at_once):
            self.refused += 1
            raise Unavailable(Reason.OVERLOADED)
        self._balance -= cost
        self.under_way += 1

    def give_back(self) -> None:
        """Note that a piece of work is over."""
        self.under_way -= 1


class CoolDown:
    """Lets one through, and the next one so many seconds after that at the earliest."""

    def __init__(self, seconds: float, *, clock: Clock) -> None:
        """Start with nobody let through."""
        self._seconds = seconds
        self._clock = clock
        self._taken_at = float("-inf")

    def take(self) -> bool:
        """Let one through if it is time."""
        if self._clock.monotonic() - self._taken_at < self._seconds:
            return False
        self.start()
        return True

    def start(self) -> None:
        """Count the seconds from now on."""
        self._taken_at = self._clock.monotonic()

    def give_back(self) -> None:
        """Let the next one through at once, because the last one came to nothing."""
        self._taken_at = float("-inf")


class Backoff:
    """Spaces the attempts after a failure: `first` seconds until the next one, twice as long each time, `longest` at most."""

    def __init__(self, *, first: float, longest: float, clock: Clock) -> None:
        """Start with nothing failed."""
        self._first = first
        self._longest = longest
        self._clock = clock
        self._pause = first
        self._retry_at = float("-inf")
        self.failed = False

    @property
    def wait(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self._retry_at - self._clock.monotonic())

    def fail(self) -> None:
        """Note that an attempt failed."""
        self._pause = min(self._pause * 2, self._longest) if self.failed else self._first
        self._retry_at = self._clock.monotonic() + self._pause
        self.failed = True

    def succeed(self) -> None:
        """Note that one succeeded."""
        self.failed = False


class Breaker:
    """Stops asking somebody who failed several times in a row, then lets one question through at a time."""

    def __init__(self, *, clock: Clock, failures: int = 5, pause: float = 5.0) -> None:
        """Start closed; `pause` are the seconds until the next question, after `failures` in a row."""
        self._clock = clock
        self._allowed = failures
        self._pause = pause
        self._failures = 0
        self._open_until = self._rest_until = float("-inf")

    @property
    def closed(self) -> bool:
        """Tell whether every question passes."""
        return self._failures < self._allowed and self._clock.monotonic() >= self._rest_until

    def look(self) -> None:
        """Raise Unavailable while no question may pass."""
        now = self._clock.monotonic()
        if now < self._rest_until or (self._failures >= self._allowed and now < self._open_until):
            raise Unavailable(Reason.ISSUER_UNAVAILABLE)

    def take(self) -> None:
        """Let a question pass; raises Unavailable while none may."""
        self.look()
        # When this question follows a pause, no other is asked until it is answered or as much time has passed again.
        self._open_until = self._clock.monotonic() + self._pause

    def succeed(self) -> None:
        """Note an answer, whatever it was."""
        self._failures = 0

    def fail(self) -> None:
        """Note a time-out, a broken connection, or an answer that is none."""
        self._failures += 1
        self._open_until = self._clock.monotonic() + self._pause

    def rest(self, seconds: float | None) -> None:
        """Ask nothing for as long as the other side wants it (429 and Retry-After, RFC 6585 4), an hour at most."""
        until = self._clock.monotonic() + (self._pause if seconds is None else min(seconds, MAX_REST))
        self._rest_until = max(self._rest_until, until)
