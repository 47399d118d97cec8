"""How often somebody may try: token buckets by key, of which a bounded number is remembered; per process."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

MOST = 4096
"""Keys that are remembered; with one more the one that was used longest ago is forgotten."""
OF_ALL = 60
"""Logins a minute of all strangers together: each one costs a hash of a password."""
MAX_KEY = 254
"""Characters of a key that count: whoever tries writes it, and an e-mail address has no more."""


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
        key = key[:MAX_KEY]
        balance = self._balance(key, now)
        self._buckets[key] = (balance - 1 if balance >= 1 else balance, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return self._until(balance)

    def look(self, key: str, now: float) -> float:
        """Return the seconds until a key may try, 0 for now, and do not let it through."""
        return self._until(self._balance(key[:MAX_KEY], now))

    def _balance(self, key: str, now: float) -> float:
        balance, at = self._buckets.get(key, (float(self._burst), now))
        return min(self._burst, balance + max(0.0, now - at) * self._per_second)

    def _until(self, balance: float) -> float:
        return 0.0 if balance >= 1 else (1 - balance) / self._per_second

    def forget(self, key: str) -> None:
        """Let a key begin anew."""
        self._buckets.pop(key[:MAX_KEY], None)


class LoginThrottle:
    """Five logins a minute for an address and sixty for all; for an account twenty an hour from an address, and a hundred in all.

    One address cannot use up the hundred, and so keep the owner of an account out; they are against guesses from many. Who is
    turned away takes nothing of any limit, and makes nobody forgotten. Browsers that the account logged in with before have limits
    of their own, five a minute and twenty an hour for all of one account, which strangers cannot use up (OWASP: device cookies).
    """

    def __init__(self) -> None:
        """Begin with nobody known."""
        self._addresses = Throttle(5, 60)
        self._pairs = Throttle(20, 3600)
        self._accounts = Throttle(100, 3600)
        self._all = Throttle(OF_ALL, 60)
        self._known = Throttle(5, 60)
        self._known_hours = Throttle(20, 3600)

    def wait(self, address: str, account: str, now: float, *, is_known: bool = False) -> float:
        """Return 0 if somebody may try, else the seconds until then; `is_known` is a browser of this very account."""
        limits: tuple[tuple[Throttle, str], ...] = (
            (self._addresses, network_of(address)),
            (self._all, ""),
            (self._pairs, _pair(address, account)),
            (self._accounts, account),
        )
        if is_known:
            limits = ((self._known, account), (self._known_hours, account))
        seconds = max(limit.look(key, now) for limit, key in limits)
        if not seconds:
            for limit, key in limits:
                limit.wait(key, now)
        return seconds

    def succeeded(self, address: str, account: str, *, is_known: bool = False) -> None:
        """Forget the attempts at an account before a login, of others than this address only as far as they count for the account.

        Those of the address stay: else an account of one's own would pay for any number of attempts at others. Known browsers and
        strangers give each other nothing back.
        """
        if is_known:
            self._known_hours.forget(account)
            return
        self._pairs.forget(_pair(address, account))
        self._accounts.forget(account)


def _pair(address: str, account: str) -> str:
    return f"{network_of(address)} {account}"


def network_of(address: str) -> str:
    """Return what one client can choose freely: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed.packed, 64), strict=False))
