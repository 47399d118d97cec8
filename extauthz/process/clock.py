"""The clocks of the machine."""

from __future__ import annotations

import time


class SystemClock:
    """The wall clock and the monotonic clock, both in seconds."""

    now = staticmethod(time.time)  # noqa: TID251 - the one reading of the wall clock
    monotonic = staticmethod(time.monotonic)
