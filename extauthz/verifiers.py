"""Who holds a token: memory first, then the store or the issuer's keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping

from extauthz.core import jwt, tokens
from extauthz.core.model import Identity, Reason
from extauthz.core.providers import ProviderRules
from extauthz.ports import Clock, Evidence, KeySource, TokenStore, Unavailable, Verdicts

MAX_PENDING = 64
"""Verifications that may wait for keys at the same time; each holds a token that anybody may have sent."""
KEY_DELAY = 60.0
"""Seconds that an issuer may sign with a key before it publishes it."""


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
            known = self._verdicts.get(token)
            if known is not None:
                return known
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


class OAuthVerifier:
    """Verifies JWT access tokens with the keys of the one provider whose issuer they name; they are sent nowhere."""

    def __init__(self, providers: Mapping[ProviderRules, KeySource], verdicts: Verdicts, *, clock: Clock) -> None:
        """Take each provider's rules with its key source; issuers differ."""
        self._providers = {rules.issuer: (rules, source) for rules, source in providers.items()}
        self._sources = tuple(providers.values())
        self._keys = [source.keys() for source in self._sources]
        self._verdicts = verdicts
        self._clock = clock
        self._tasks: set[asyncio.Task[Evidence]] = set()

    def verify(self, token: str, now: float) -> Evidence | Awaitable[Evidence]:
        """Answer at once when a usable key is in memory; raises Unavailable."""
        self._forget_if_keys_changed()
        known = self._verdicts.get(token)
        if known is not None:
            return known
        unverified = jwt.read(token)
        if isinstance(unverified, Reason):
            return unverified
        rules, source = self._providers.get(jwt.issuer(unverified) or "", (None, None))
        if rules is None or source is None:
            return Reason.TOKEN_ISSUER
        refusal = jwt.precheck(unverified, rules, now)
        if refusal:
            return refusal
        keys = source.keys()
        if keys is None and len(self._tasks) >= MAX_PENDING:
            raise Unavailable(Reason.OVERLOADED)
        if keys is None:
            return self._own(self._with_keys(token, unverified, rules, source.load()))
        evidence = jwt.verify(unverified, keys, rules, now)
        if evidence is Reason.TOKEN_KEY_UNKNOWN:
            return self._with_unknown_key(token, unverified, rules, source)
        return self._remembered(token, evidence)

    def _forget_if_keys_changed(self) -> None:
        """Void the verdicts when a key was removed or replaced: it may be one that signed them."""
        for index, source in enumerate(self._sources):
            before, now = self._keys[index], source.keys()
            if now is not before:
                if before and (now is None or any(now.get(key_id) != key for key_id, key in before.items())):
                    self._verdicts.clear()
                self._keys[index] = now

    def _with_unknown_key(
        self, token: str, unverified: jwt.Unverified, rules: ProviderRules, source: KeySource
    ) -> Evidence | Awaitable[Evidence]:
        refusal = jwt.time_refusal(unverified.claims, rules, self._clock.now())
        if refusal or jwt.key_id(unverified) is None:
            return refusal or Reason.TOKEN_KEY_UNKNOWN
        pending = source.reload_for_unknown_key()
        if pending is not None:
            return self._own(self._with_keys(token, unverified, rules, pending))
        if source.fetched_at > jwt.issued_at(unverified) + KEY_DELAY:
            return Reason.TOKEN_KEY_UNKNOWN
        raise Unavailable(Reason.KEY_SET_UNAVAILABLE)

    async def _with_keys(
        self, token: str, unverified: jwt.Unverified, rules: ProviderRules, pending: Awaitable[jwt.KeySet]
    ) -> Evidence:
        keys = await pending
        return self._remembered(token, jwt.verify(unverified, keys, rules, self._clock.now()))

    def _remembered(self, token: str, evidence: Evidence) -> Evidence:
        if isinstance(evidence, Identity):
            self._verdicts.put(token, evidence)
        return evidence

    def _own(self, work: Coroutine[None, None, Evidence]) -> Awaitable[Evidence]:
        """Make a task that no check cancels, and whose failure nobody has to collect."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        waiting = asyncio.shield(task)
        for future in (task, waiting):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return waiting
