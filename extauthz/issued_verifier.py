"""Who holds an issued token: memory first, then the store."""

from __future__ import annotations

from collections.abc import Mapping

from extauthz.core import tokens
from extauthz.core.model import Identity, Reason
from extauthz.ports import Clock, Evidence, TokenStore, Unavailable, Verdicts


class IssuedVerifier:
    """Verifies issued tokens against the store.

    A verdict in memory counts only while `poll` keeps seeing the store: `contact` is the longest time in seconds since its last
    success. A change in the store empties the memory, so that a revocation is seen one poll later.
    """

    def __init__(
        self,
        store: TokenStore,
        verdicts: Verdicts,
        *,
        peppers: Mapping[str, bytes],
        prefixes: frozenset[str],
        clock: Clock,
        contact: float = 1.0,
    ) -> None:
        """Start without contact: until the first poll every token is read from the store."""
        self._store = store
        self._verdicts = verdicts
        self._peppers = peppers
        self._prefixes = prefixes
        self._clock = clock
        self._contact = contact
        self._version: object = None
        self._polled_at = float("-inf")

    def verify(self, token: str, now: float) -> Evidence:
        """Answer from memory or from the store; raises Unavailable."""
        in_contact = self._clock.monotonic() - self._polled_at <= self._contact
        if in_contact:
            known = self._verdicts.recall(token)
            if known is not None:
                return known if isinstance(known, Reason) else known.identity
        text = tokens.parse(token, self._prefixes)
        if isinstance(text, Reason):
            return text
        evidence = tokens.verify(text, self._store.find(text.id), self._peppers, now)
        if isinstance(evidence, Identity) and in_contact:
            self._verdicts.put(token, evidence)
        return evidence

    def poll(self) -> bool:
        """Look whether the store changed and say whether it could be reached; called several times a second."""
        try:
            version = self._store.version()
        except Unavailable:
            return False
        if version != self._version:
            self._verdicts.clear()
            self._version = version
        self._polled_at = self._clock.monotonic()
        return True
