"""The browsers that an account logged in with before, by a cookie of theirs: strangers cannot use up what these may try.

Nothing is kept of them: the cookie has its end and a MAC over account and end, whose key is derived from a pepper. It lets nobody
in, so that one that is stolen gives its thief a few attempts at one account.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from starlette.responses import Response

from extauthz.adapters.store.chain import canonical

COOKIE = "__Host-device"
LIFETIME = 90 * 86_400
"""Seconds that a browser is known after its last login."""

_LABEL = b"extauthz console device"
_VALUE = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")


def device_value(email: str, peppers: Mapping[str, bytes], now: int) -> str:
    """Return the cookie's value for an account; `now` in seconds since the epoch. Raises StopIteration without a pepper."""
    ends_at = now + LIFETIME
    return f"{ends_at}.{_mac(email, ends_at, next(iter(peppers.values())))}"


def is_device_of(value: str, email: str, peppers: Mapping[str, bytes], now: int) -> bool:
    """Tell whether a cookie was given to a browser of this account, by any of the peppers, and is not over."""
    found = _VALUE.fullmatch(value)
    if found is None or int(found[1]) <= now:
        return False
    return any(hmac.compare_digest(found[2], _mac(email, int(found[1]), pepper)) for pepper in peppers.values())


def set_device(response: Response, value: str) -> None:
    """Let the browser be known."""
    response.set_cookie(COOKIE, value, max_age=LIFETIME, path="/", secure=True, httponly=True, samesite="strict")


def _mac(email: str, ends_at: int, pepper: bytes) -> str:
    key = hmac.digest(pepper, _LABEL, "sha256")
    return hmac.digest(key, canonical([email.lower(), ends_at]).encode(), "sha256").hex()
