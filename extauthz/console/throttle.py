"""How often somebody may try: token buckets by key, of which a bounded number is remembered; per process."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable

MOST = 4096
"""Keys that are remembered; with one more the one that was used longest ago is forgotten."""


class Throttle:
    """Lets each key through `burst` times, and once more each `seconds` / `burst`; time is an argument, in seconds."""

    def __init__(self, burst: int, seconds: float, *, most: int = MOST) -> None:
        """Begin with no key."""
        self._burst = burst
        self._per_second = burst / seconds
        self._most = most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._buckets)

    def wait(self, key: str, now: float) -> float:
        """Let a key through and return 0, or return the seconds until it may try again."""
        balance, at = self._buckets.pop(key, (float(self._burst), now))
        balance = min(self._burst, balance + max(0.0, now - at) * self._per_second)
        is_allowed = balance >= 1
        self._buckets[key] = (balance - 1 if is_allowed else balance, now)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - balance) / self._per_second

    def forget(self, key: str) -> None:
        """Let a key begin anew."""
        self._buckets.pop(key, None)


class LoginThrottle:
    """Five logins a minute for an address and for an account, and sixty for all together."""

    def __init__(self) -> None:
        """Begin with nobody known."""
        self._each = Throttle(5, 60)
        self._all = Throttle(60, 60)

    def wait(self, address: str, account: str, now: float) -> float:
        """Return 0 if somebody may try, else the seconds until then."""
        return max(self._waits([f"address {network_of(address)}", f"account {account}"], now))

    def _waits(self, keys: Iterable[str], now: float) -> list[float]:
        waits = [self._each.wait(key, now) for key in keys]
        # Who is turned away takes nothing from the others.
        return waits if any(waits) else [self._all.wait("", now)]

    def succeeded(self, address: str, account: str) -> None:
        """Forget the attempts before a login."""
        self._each.forget(f"address {network_of(address)}")
        self._each.forget(f"account {account}")


def network_of(address: str) -> str:
    """Return what one client can choose freely: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network(f"{address}/64", strict=False))
