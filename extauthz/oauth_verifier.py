"""Who holds an OAuth access token: memory first, then the issuer's keys, or the issuer itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from extauthz.budgets import Budget
from extauthz.core import claims, jwt, tokens
from extauthz.core.model import Identity, Reason
from extauthz.core.providers import ProviderRules
from extauthz.ports import Clock, Evidence, Introspector, KeySource, Signer, Unavailable, Verdicts

MAX_PENDING = 64
"""Verifications of one issuer that may wait at the same time; each holds a token that anybody may have sent."""
KEY_DELAY = 60.0
"""Seconds that an issuer may sign with a key before it publishes it."""

_UNSETTLED = frozenset({Reason.TOKEN_KEY_UNKNOWN, Reason.TOKEN_NOT_YET_VALID})
"""Refusals that time may turn into an identity: they are not remembered."""


@dataclass(slots=True)
class Issuer:
    """One configured provider, and whom to ask: `keys` for its JWTs, or `introspector`; `userinfo` for the user besides."""

    rules: ProviderRules
    keys: KeySource | None = None
    introspector: Introspector | None = None
    userinfo: Introspector | None = None
    pending: int = 0
    known: jwt.KeySet = field(default_factory=dict)
    signers: dict[str, Signer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an issuer that nobody could be asked about."""
        if (self.keys is None) == (self.introspector is None):
            raise ValueError(f"{self.rules.name}: either keys or an introspector")


class OAuthVerifier:
    """Verifies access tokens with the one issuer that they name; what names none goes to the one whose tokens are opaque."""

    def __init__(
        self, issuers: Iterable[Issuer], verdicts: Verdicts, *, clock: Clock, signatures: Budget, remote_lifetime: float = 60.0
    ) -> None:
        """Take issuers that differ; `signatures` bounds checks of signatures, `remote_lifetime` is that of remote verdicts."""
        self._issuers = tuple(issuers)
        self._by_issuer = {issuer.rules.issuer: issuer for issuer in self._issuers if not issuer.rules.provider.opaque}
        self._opaque = next((issuer for issuer in self._issuers if issuer.rules.provider.opaque), None)
        self._verdicts = verdicts
        self._clock = clock
        self._signatures = signatures
        self._remote_lifetime = remote_lifetime
        self._flights: dict[str, asyncio.Task[Evidence]] = {}

    def verify(self, token: str, now: float) -> Evidence | Awaitable[Evidence]:
        """Answer at once when memory or a key in memory suffices; checks of one token share the work. Raises Unavailable."""
        self._notice_new_keys()
        known = self._verdicts.get(token)
        if known is not None:
            return known
        flight = self._flights.get(token)
        if flight is not None:
            return _waiting(flight)
        if not jwt.is_jwt(token):
            return self._opaque_token(token)
        unverified = jwt.read(token)
        if isinstance(unverified, Reason):
            return unverified
        name = unverified.claims.get("iss")
        issuer = self._by_issuer.get(name) if isinstance(name, str) else None
        if issuer is None:
            return Reason.TOKEN_ISSUER
        refusal = claims.precheck(unverified.claims, issuer.rules, now) or jwt.header_refusal(unverified, issuer.rules)
        if refusal:
            return refusal
        if issuer.introspector is not None:
            question = issuer.introspector.ask(token)
            return self._own(token, issuer, self._introspected(token, issuer, unverified.claims, question))
        return self._signed_token(token, issuer, unverified)

    def _opaque_token(self, token: str) -> Evidence | Awaitable[Evidence]:
        issuer = self._opaque
        # A token that somebody issued himself is nobody else's business.
        if issuer is None or issuer.introspector is None or tokens.FORM(token):
            return Reason.TOKEN_MALFORMED
        return self._own(token, issuer, self._introspected(token, issuer, {}, issuer.introspector.ask(token)))

    def _signed_token(self, token: str, issuer: Issuer, unverified: jwt.Unverified) -> Evidence | Awaitable[Evidence]:
        source = issuer.keys
        if source is None:
            return Reason.TOKEN_ISSUER
        keys = source.keys()
        if keys is None:
            self._refuse_crowd(issuer)
            return self._own(token, issuer, self._with_keys(token, issuer, unverified, source.load()))
        if jwt.key_id(unverified) in keys:
            return self._with_known_keys(token, issuer, unverified)
        refusal = claims.time_refusal(unverified.claims, issuer.rules, self._clock.now())
        if refusal or jwt.key_id(unverified) is None:
            return refusal or Reason.TOKEN_KEY_UNKNOWN
        pending = source.reload_for_unknown_key()
        if pending is not None:
            return self._own(token, issuer, self._with_keys(token, issuer, unverified, pending))
        if source.fetched_at > (claims.moment(unverified.claims.get("iat")) or 0.0) + KEY_DELAY:
            return Reason.TOKEN_KEY_UNKNOWN
        raise Unavailable(Reason.KEY_SET_UNAVAILABLE)

    async def _with_keys(self, token: str, issuer: Issuer, unverified: jwt.Unverified, pending: Awaitable[jwt.KeySet]) -> Evidence:
        await pending
        self._notice_new_keys()
        found = self._with_known_keys(token, issuer, unverified)
        return found if isinstance(found, (Identity, Reason)) else await found

    def _with_known_keys(self, token: str, issuer: Issuer, unverified: jwt.Unverified) -> Evidence | Awaitable[Evidence]:
        key_id = jwt.key_id(unverified)
        if key_id is None or key_id not in issuer.known:
            return Reason.TOKEN_KEY_UNKNOWN
        self._signatures.take()
        refusal = jwt.signature_refusal(unverified, issuer.known)
        signer = issuer.signers.setdefault(key_id, Signer())
        if refusal or issuer.userinfo is None:
            evidence = refusal or claims.verify(unverified.claims, issuer.rules, self._clock.now())
            return self._remembered(token, evidence, signer=signer)
        question = issuer.userinfo.ask(token)
        return self._own(token, issuer, self._with_user(token, issuer, unverified.claims, question, signer))

    async def _introspected(
        self,
        token: str,
        issuer: Issuer,
        payload: claims.Claims,
        question: Coroutine[None, None, Mapping[str, Any] | Reason],
    ) -> Evidence:
        answer = await question
        told = answer if isinstance(answer, Reason) else claims.vouched(payload, answer, issuer.rules)
        if isinstance(told, Reason):
            return self._remembered(token, told, lifetime=self._remote_lifetime)
        if issuer.userinfo is not None:
            return await self._with_user(token, issuer, told, issuer.userinfo.ask(token), None)
        evidence = claims.verify(told, issuer.rules, self._clock.now())
        return self._remembered(token, evidence, lifetime=self._remote_lifetime)

    async def _with_user(
        self,
        token: str,
        issuer: Issuer,
        told: claims.Claims,
        question: Coroutine[None, None, Mapping[str, Any] | Reason],
        signer: Signer | None,
    ) -> Evidence:
        answer = await question
        full = answer if isinstance(answer, Reason) else claims.with_user(told, answer, issuer.rules)
        evidence = full if isinstance(full, Reason) else claims.verify(full, issuer.rules, self._clock.now())
        return self._remembered(token, evidence, lifetime=self._remote_lifetime, signer=signer)

    def _remembered(
        self, token: str, evidence: Evidence, *, lifetime: float | None = None, signer: Signer | None = None
    ) -> Evidence:
        if evidence not in _UNSETTLED:
            self._verdicts.put(token, evidence, lifetime=lifetime, signer=signer)
        return evidence

    def _notice_new_keys(self) -> None:
        """Void the verdicts of every key that was removed or replaced since the last look."""
        for issuer in self._issuers:
            if issuer.keys is None:
                continue
            before, now = issuer.known, issuer.keys.keys() or {}
            if now is before:
                continue
            issuer.known = now
            for key_id in [key_id for key_id, key in before.items() if now.get(key_id) != key]:
                issuer.signers.pop(key_id, Signer()).published = False
            if now != before:
                self._verdicts.forget_refusals()

    def _refuse_crowd(self, issuer: Issuer) -> None:
        if issuer.pending >= MAX_PENDING:
            raise Unavailable(Reason.OVERLOADED)

    def _own(self, token: str, issuer: Issuer, work: Coroutine[None, None, Evidence]) -> Awaitable[Evidence]:
        """Make a task that no check cancels, and whose failure nobody has to collect."""
        task = self._flights[token] = asyncio.ensure_future(work)
        issuer.pending += 1

        def landed(_: asyncio.Task[Evidence]) -> None:
            issuer.pending -= 1
            if self._flights.get(token) is task:
                del self._flights[token]

        task.add_done_callback(landed)
        task.add_done_callback(_collect)
        return _waiting(task)


def _waiting(task: asyncio.Task[Evidence]) -> Awaitable[Evidence]:
    waiting = asyncio.shield(task)
    waiting.add_done_callback(_collect)
    return waiting


def _collect(done: asyncio.Future[Evidence]) -> None:
    if not done.cancelled():
        done.exception()
