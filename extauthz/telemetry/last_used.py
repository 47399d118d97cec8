"""When and from where issued tokens were last used: noted in passing, coarsely, and written late and in batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from extauthz.core.model import Allow, Decision, Request
from extauthz.errors import Unavailable
from extauthz.ports import RESOLUTION, Clock, UsageStore, Use

INTERVAL = 60.0
"""Seconds between two times of writing, half as many to half as many again."""
CAPACITY = 100_000
"""Tokens that are remembered as noted."""
MOST_WAITING = 10_000
"""Uses that wait for being written."""
BATCH = 1000
"""Uses in one statement: more would hold up the checks while they are made ready."""
CLOSING = 0.5
"""Seconds for writing the last time."""
UNKNOWN = "unknown"
_IPV4, _IPV6 = 24, 48

_log = logging.getLogger(__name__)


class LastUsedTimes:
    """Records which issued tokens were used by a request that was allowed; `run` writes it.

    A token that was noted is passed over for RESOLUTION seconds and up to a third more, by chance: tokens that came together do not
    come together again. What cannot be written waits for the next time; nothing of this concerns a check.
    """

    def __init__(
        self,
        store: UsageStore,
        *,
        clock: Clock,
        random: Callable[[], float],
        interval: float = INTERVAL,
        capacity: int = CAPACITY,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Take the store and chance: numbers from 0 to 1."""
        self._store = store
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._random = random
        self._interval = interval
        self._capacity = capacity
        self._most_waiting = most_waiting
        self._noted: OrderedDict[str, float] = OrderedDict()
        self._waiting: dict[str, Use] = {}
        self._is_failing = False
        self.written = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """How many uses are not written yet."""
        return len(self._waiting)

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Note the use of an issued token, unless that was done a while ago."""
        identity = decision.identity
        token_id = identity.token_id if identity is not None else None
        if token_id is None or self._noted.get(token_id, 0.0) > self._monotonic():
            return
        if isinstance(decision, Allow):
            self._note(token_id, request.source)

    async def run(self) -> None:
        """Write what waits, again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._interval * (0.5 + self._random()))
            await self.write()

    async def write(self) -> None:
        """Write what waits; what could not be written waits on."""
        waiting = list(self._waiting.items())
        for start in range(0, len(waiting), BATCH):
            if not await self._write(dict(waiting[start : start + BATCH])):
                return

    async def close(self) -> None:
        """Write what waits for the last time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.write(), CLOSING)
        if self._waiting:
            _log.warning("uses of tokens are lost", extra={"tokens": len(self._waiting)})

    async def _write(self, batch: dict[str, Use]) -> bool:
        try:
            self.written += await self._store.record_usage(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, checks go on and so does this
            if not self._is_failing:
                cause, unforeseen = str(error.__cause__ or error), None if isinstance(error, Unavailable) else error
                _log.warning("uses of tokens cannot be written", extra={"cause": cause}, exc_info=unforeseen)
            self._is_failing = True
            return False
        if self._is_failing:
            _log.warning("uses of tokens are written again")
        self._is_failing = False
        for token_id, use in batch.items():
            # What came meanwhile is for the next time.
            if self._waiting.get(token_id) is use:
                del self._waiting[token_id]
        return True

    def _note(self, token_id: str, source: str) -> None:
        if token_id in self._waiting or len(self._waiting) < self._most_waiting:
            self._waiting[token_id] = int(self._now()), network(source)
            pause = RESOLUTION * (1 + self._random() / 3)
        else:
            self.dropped += 1
            pause = self._interval
        self._noted[token_id] = self._monotonic() + pause
        self._noted.move_to_end(token_id)
        if len(self._noted) > self._capacity:
            self._noted.popitem(last=False)


def network(source: str) -> str:
    """Tell an address coarsely, by the network that it belongs to; "unknown" for what is no address."""
    try:
        address = ip_address(source)
    except ValueError:
        return UNKNOWN
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    match address:
        case IPv4Address():
            return str(IPv4Network((int(address), _IPV4), strict=False))
        case IPv6Address():
            return str(IPv6Network((int(address), _IPV6), strict=False))
