"""The bounded memory of verified tokens: a verdict on a token, never an authorization."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from extauthz.core.credentials import Kind
from extauthz.core.model import Reason
from extauthz.ports import Clock, Evidence, Verdict

REFUSAL_LIFETIME = 10.0
REFUSAL_SHARE = 10

_KIND_BYTES = {Kind.OAUTH: b"o", Kind.ISSUED: b"i"}


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a token is refused, until a moment of the monotonic clock; not while the wall clock was set back before `since`."""

    reason: Reason
    until: float
    since: float


class VerdictCache:
    """Least recently used verdicts go first; `hits`, `refusals` and `misses` count the look-ups, `evictions` what had to make room.

    The key is SHA-256 over the kind, the hash of the configuration section that the verifier was built from, and the whole token;
    the token itself is not kept. `lifetime` is in seconds of the monotonic clock; `exp` is compared at every decision. Refusals
    have a share of their own, a tenth of `capacity`, so that garbage pushes out nothing but garbage. One that names a time is kept
    only while the wall clock cannot take it back.
    """

    def __init__(self, kind: Kind, section: bytes, *, lifetime: float, clock: Clock, capacity: int = 100_000) -> None:
        """Start empty; `section` is a digest of fixed length."""
        self._prefix = hashlib.sha256(_KIND_BYTES[kind] + section)
        self._lifetime = lifetime
        self._clock = clock
        self._capacity = capacity
        self._entries: OrderedDict[bytes, Verdict] = OrderedDict()
        self._refusals: OrderedDict[bytes, _Refusal] = OrderedDict()
        self.hits = 0
        self.refusals = 0
        self.misses = 0
        self.evictions = 0

    @property
    def limits(self) -> tuple[float, int]:
        """Lifetime and capacity."""
        return self._lifetime, self._capacity

    def __len__(self) -> int:
        """Return how many verified tokens are kept."""
        return len(self._entries)

    def recall(self, token: str) -> Verdict | Reason | None:
        """Return the verdict on a token that is younger than a lifetime, or why the token is refused."""
        key = self._key(token)
        verdict = self._entries.get(key)
        if verdict is None:
            return self._refusal(key)
        if self._clock.monotonic() >= verdict.until:
            del self._entries[key]
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return verdict

    def put(self, token: str, evidence: Evidence, *, lifetime: float | None = None, basis: object = None) -> None:
        """Remember a verified token, or for a few seconds one that is refused."""
        key, now = self._key(token), self._clock.monotonic()
        if isinstance(evidence, Reason):
            self._entries.pop(key, None)
            self._refusals.pop(key, None)
            if evidence is Reason.TOKEN_NOT_YET_VALID:
                return  # which the next moment may end
            expired_at = self._clock.now() if evidence is Reason.TOKEN_EXPIRED else float("-inf")
            self._refusals[key] = _Refusal(evidence, now + REFUSAL_LIFETIME, expired_at)
            if len(self._refusals) > self._capacity // REFUSAL_SHARE:
                self._refusals.popitem(last=False)
            return
        self._refusals.pop(key, None)
        self._entries[key] = Verdict(evidence, now + (self._lifetime if lifetime is None else lifetime), basis)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
            self.evictions += 1

    def forget_refusals(self) -> None:
        """Ask anew about every token that was refused."""
        self._refusals.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._refusals.clear()

    def _refusal(self, key: bytes) -> Reason | None:
        refusal = self._refusals.get(key)
        if refusal is not None and self._clock.monotonic() < refusal.until and self._clock.now() >= refusal.since:
            self.refusals += 1
            return refusal.reason
        self.misses += 1
        return None

    def _key(self, token: str) -> bytes:
        hasher = self._prefix.copy()
        hasher.update(token.encode("latin-1"))
        return hasher.digest()
