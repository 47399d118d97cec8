"""Asks an issuer about a token: tokeninfo, introspection (RFC 7662), userinfo (OpenID Connect Core 5.3)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import MAX_CAUSE, Answer, JsonFetcher
from extauthz.adapters.oauth.signed_answers import SignedAnswers
from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.errors import FetchError, ProxyRefusal, Unavailable
from extauthz.ports import Clock
from extauthz.verifiers.throttling import Breaker, Budget

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Method:
    """How a token is sent, and what an answer looks like.

    `endpoint` is the member of the discovery document, `address` what counts without one. An answer has the member `mark` of the
    type `mark_type`; a status in `refusals` says that the token is not good.
    """

    endpoint: str
    mark: str
    mark_type: type
    refusals: frozenset[int]
    address: str | None = None


_METHODS: Mapping[Verification, _Method] = {
    Verification.TOKENINFO: _Method(
        "tokeninfo_endpoint", "aud", str, frozenset({400, 401}), "https://oauth2.googleapis.com/tokeninfo"
    ),
    # Here 400 and 401 speak of this client, not of the token: an unknown token is a 200 that says so (RFC 7662 2.2, 2.3).
    Verification.INTROSPECTION: _Method("introspection_endpoint", "active", bool, frozenset()),
    Verification.USERINFO: _Method("userinfo_endpoint", "sub", str, frozenset({400, 401})),
}


def endpoint_of(method: Verification) -> tuple[str, str | None]:
    """Return the member of the discovery document that names the address to ask, and the address that counts without one."""
    return _METHODS[method].endpoint, _METHODS[method].address


class Introspection:
    """One way to ask one issuer; tokens go nowhere else, and never into an address.

    A budget and a breaker belong to each. `outcomes` counts the questions: answered, failed, refused by the proxy, or shed by
    budget and breaker; `seconds` is what all of them took.
    """

    def __init__(
        self,
        method: Verification,
        discovery: Discovery,
        fetcher: JsonFetcher,
        *,
        clock: Clock,
        budget: Budget,
        strangers: Budget,
        breaker: Breaker,
        uri: str | None = None,
        credentials: tuple[str, str] | None = None,
        signed: SignedAnswers | None = None,
    ) -> None:
        """Ask within `budget`, about tokens that were never seen within `strangers` as well; `uri` replaces the discovered address.

        `credentials` are client id and secret, for introspection. With `signed` only answers count that it can read.
        """
        self.issuer = discovery.issuer
        self.method = method
        self._method = _METHODS[method]
        self._discovery = discovery
        self._fetcher = fetcher
        self._clock = clock
        self._budget = budget
        self._strangers = strangers
        self._breaker = breaker
        self._address = uri or self._method.address
        self._credentials = credentials
        self._signed = signed
        self.outcomes: Counter[str] = Counter(answered=0, failed=0, proxy_refused=0, shed=0)
        self.seconds = 0.0

    def ask(self, token: str, *, is_known: bool = False) -> Coroutine[None, None, Mapping[str, Any] | Reason]:
        """Ask about a token: what the issuer says of it, or TOKEN_INACTIVE; raises Unavailable, at once or when awaited."""
        budgets = (self._budget,) if is_known else (self._strangers, self._budget)
        budgets_taken: list[Budget] = []
        try:
            self._breaker.look()
            for budget in budgets:
                budget.take()
                budgets_taken.append(budget)
            self._breaker.take()
        except Unavailable:
            self.outcomes["shed"] += 1
            for budget in budgets_taken:
                budget.give_back()
            raise
        return self._answer(token, budgets_taken)

    @property
    def answers(self) -> bool:
        """Return whether questions are sent to the issuer at the moment."""
        return self._breaker.closed

    async def _answer(self, token: str, budgets_taken: list[Budget]) -> Mapping[str, Any] | Reason:
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._fetcher.timeout):
                answer = await self._send(token)
            evidence = self._evidence(answer)
        except (FetchError, TimeoutError) as error:
            self._breaker.fail()
            self._discovery.expire()
            cause = str(error) or f"no whole answer within {self._fetcher.timeout:g} s"
            raise self._failure(cause, "proxy_refused" if isinstance(error, ProxyRefusal) else "failed") from error
        finally:
            for budget in budgets_taken:
                budget.give_back()
            self.seconds += self._clock.monotonic() - started
        self.outcomes["answered"] += 1
        return evidence

    async def _send(self, token: str) -> Answer:
        address = self._address or await self._discovery.endpoint(self._method.endpoint)
        match self.method:
            case Verification.INTROSPECTION:
                form = {"token": token, "token_type_hint": "access_token"}
                answer = await self._fetcher.ask(address, basic=self._credentials, form=form)
                if self._signed is not None and answer.status == 200:
                    return replace(answer, document=await self._signed.read(answer.document))
                return answer
            case Verification.TOKENINFO:
                return await self._fetcher.ask(address, bearer=token, form={})
            case _:
                return await self._fetcher.ask(address, bearer=token)

    def _evidence(self, answer: Answer) -> Mapping[str, Any] | Reason:
        document, method = answer.document, self._method
        if answer.status >= 500:
            raise FetchError(f"the {self.method} of {self.issuer} answered with status {answer.status}")
        if answer.status == 429:
            self._breaker.rest(answer.retry_after)
            raise self._failure("it asks for a pause (429)")
        self._breaker.succeed()
        if answer.status == 200:
            if isinstance(document, dict) and isinstance(document.get(method.mark), method.mark_type):
                return document if document.get("active", True) is True else Reason.TOKEN_INACTIVE
            raise self._failure(f"it answers without {method.mark!r}")
        unscoped = answer.status == 403 and method.refusals and 'error="insufficient_scope"' in answer.challenge
        if answer.status in method.refusals or unscoped:
            return Reason.TOKEN_INACTIVE
        if answer.status in (400, 401):
            kind, keys = ("", "") if answer.status == 401 else (", or it introspects no such tokens", "; keys verify JWTs")
            hint = f"compare client_ids and client_secret with the issuer's settings{keys}"
            raise self._failure(f"it refuses this client{kind} ({answer.status}): {hint}")
        self._discovery.expire()
        raise self._failure(f"it answers with status {answer.status}")

    def _failure(self, cause: str, outcome: str = "failed") -> Unavailable:
        self.outcomes[outcome] += 1
        _log.warning(
            "issuer tells nothing of a token",
            extra={"issuer": self.issuer, "method": self.method.value, "cause": cause[:MAX_CAUSE]},
        )
        return Unavailable(Reason.ISSUER_UNAVAILABLE)
