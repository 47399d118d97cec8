"""The ports that a check may wait for, each with a span around the work for a sampled check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

from opentelemetry.trace import Link, Span, SpanContext

from extauthz.adapters.tracing.spans import CANCELLED, CURRENT, OUTCOME, Spans
from extauthz.core.jwt import KeySet
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenRecord
from extauthz.errors import Unavailable
from extauthz.ports import Introspector, KeySource, TokenStore

LOOK_UP, FETCH, REMOTE = "store look-up", "key fetch", "remote verification"
ISSUER = "extauthz.issuer"


class TracedStore:
    """A token store; `system` is its kind, as OpenTelemetry's conventions name databases."""

    def __init__(self, store: TokenStore, spans: Spans, *, system: str) -> None:
        """Look up in this store."""
        self._find = store.find
        self._spans = spans
        self._attributes = {"db.system.name": system}

    def find(self, token_id: str) -> TokenRecord | Awaitable[TokenRecord | None] | None:
        """Return the record of an id, at once or when awaited; raises Unavailable then or now."""
        span = self._spans.below(LOOK_UP, self._attributes)
        if span is None:
            return self._find(token_id)
        try:
            answer = self._find(token_id)
        except Unavailable as unavailable:
            self._spans.fail(span, unavailable)
            raise
        if isinstance(answer, Awaitable):
            pending = asyncio.ensure_future(answer)
            self._spans.follow(span, pending, _outcome)
            return pending
        self._spans.end(span, {OUTCOME: _outcome(answer)})
        return answer


class TracedKeys:
    """The keys of one issuer: a fetch is below the check that caused it, and linked from the spans of those that joined it."""

    def __init__(self, source: KeySource, spans: Spans, *, issuer: str) -> None:
        """Fetch from this source; what is in memory comes from there directly."""
        self.keys = source.keys
        self._source = source
        self._spans = spans
        self._attributes = {ISSUER: issuer}
        self._first: SpanContext | None = None

    @property
    def fetched_at(self) -> float:
        """When the keys in memory were fetched, in seconds since the epoch; 0 for never."""
        return self._source.fetched_at

    def load(self) -> Awaitable[KeySet]:
        """Fetch the first keys, or join the fetch that is under way; raises Unavailable."""
        return self._traced(self._source.load())

    def reload_for_unknown_key(self) -> Awaitable[KeySet] | None:
        """Fetch once more for a key that the set lacks, or None while no further fetch may be made."""
        pending = self._source.reload_for_unknown_key()
        return None if pending is None else self._traced(pending)

    def _traced(self, pending: Awaitable[KeySet]) -> Awaitable[KeySet]:
        links = [Link(self._first)] if self._first is not None else []
        span = self._spans.below(FETCH, self._attributes, links=links)
        if span is None:
            return pending
        fetch = asyncio.ensure_future(pending)
        self._spans.follow(span, fetch, lambda _: "fetched")
        if self._first is None:
            self._first = span.get_span_context()
            fetch.add_done_callback(self._landed)
        return fetch

    def _landed(self, _: asyncio.Future[KeySet]) -> None:
        self._first = None


class TracedIntrospector:
    """One issuer that verifies tokens remotely; a question that a budget or a breaker refuses has no span."""

    def __init__(self, introspector: Introspector, spans: Spans, *, issuer: str, method: str) -> None:
        """Ask this introspector."""
        self._ask = introspector.ask
        self._spans = spans
        self._attributes = {ISSUER: issuer, "extauthz.method": method}

    def ask(self, token: str, *, is_known: bool = False) -> Coroutine[None, None, Mapping[str, Any] | Reason]:
        """Ask the issuer about a token; raises Unavailable, at once or when awaited."""
        question, check = self._ask(token, is_known=is_known), CURRENT.get()
        if check is None:
            return question
        self._spans.has_child = True
        return self._answer(question, check)

    async def _answer(self, question: Coroutine[None, None, Mapping[str, Any] | Reason], check: Span) -> Mapping[str, Any] | Reason:
        span = self._spans.below(REMOTE, self._attributes, of=check)
        if span is None:
            return await question
        try:
            answer = await question
        except Unavailable as unavailable:
            self._spans.fail(span, unavailable)
            raise
        except asyncio.CancelledError:
            self._spans.end(span, {OUTCOME: CANCELLED}, error=CANCELLED)
            raise
        self._spans.end(span, {OUTCOME: answer.value if isinstance(answer, Reason) else "answered"})
        return answer


def _outcome(record: TokenRecord | None) -> str:
    return "unknown" if record is None else "found"
