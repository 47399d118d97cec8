"""The bounded memory of verified tokens: a verdict on a token, never an authorization."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from extauthz.core.credentials import Kind
from extauthz.core.model import Identity
from extauthz.ports import Clock

_KIND_BYTES = {Kind.OAUTH: b"o", Kind.ISSUED: b"i"}


class VerdictCache:
    """Least recently used verdicts go first; `hits` and `misses` count the look-ups.

    The key is SHA-256 over the kind, the hash of the configuration section that the verifier was built from, and the whole token;
    the token itself is not kept. `lifetime` is in seconds of the monotonic clock; `exp` is compared at every decision.
    """

    def __init__(self, kind: Kind, section: bytes, *, lifetime: float, clock: Clock, capacity: int = 100_000) -> None:
        """Start empty; `section` is a digest of fixed length."""
        self._prefix = hashlib.sha256(_KIND_BYTES[kind] + section)
        self._lifetime = lifetime
        self._clock = clock
        self._capacity = capacity
        self._entries: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        """Return how many verdicts are kept."""
        return len(self._entries)

    def get(self, token: str) -> Identity | None:
        """Return the identity behind a token that was verified less than a lifetime ago."""
        key = self._key(token)
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        identity, until = entry
        if self._clock.monotonic() >= until:
            del self._entries[key]
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return identity

    def put(self, token: str, identity: Identity) -> None:
        """Remember a verified token."""
        key = self._key(token)
        self._entries[key] = identity, self._clock.monotonic() + self._lifetime
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _key(self, token: str) -> bytes:
        hasher = self._prefix.copy()
        hasher.update(token.encode("latin-1"))
        return hasher.digest()
