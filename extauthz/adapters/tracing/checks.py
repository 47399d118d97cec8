"""A span for each sampled check, below the span of the Envoy that sent it.

Whether a check is sampled is decided from the text of its traceparent; the library is not touched for one that is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, TraceState, set_span_in_context

from extauthz.adapters.tracing.export import SpanExport
from extauthz.adapters.tracing.spans import CANCELLED, CURRENT, OUTCOME, Spans
from extauthz.adapters.tracing.waits import TracedIntrospector, TracedKeys, TracedStore
from extauthz.core.model import Decision, Request
from extauthz.errors import Unavailable
from extauthz.ports import Clock, Codec, Introspector, KeySource, TokenStore
from extauthz.telemetry import traceparent
from extauthz.verifiers.throttling import Budget

MAX_TRACESTATE = 512
"""Characters of a tracestate that is passed on (W3C Trace Context 3.3.1.5)."""
JOINED = "waits for work that another check began"

_RPC = {"rpc.system.name": "grpc", "rpc.method": "envoy.service.auth.v3.Authorization/Check"}

Answer = bytes | Awaitable[bytes]

_CALLER: ContextVar[tuple[str, str] | None] = ContextVar("caller", default=None)
"""The traceparent and tracestate of the call at work."""


class Tracing:
    """Traces checks: `handler` is what a transport serves, `record` ends the span of a check, and the ports are wrapped.

    The request of a check gets its effective `traceparent`: that of its own span when it is sampled, else its caller's.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        service_name: str,
        version: str,
        ratio: float,
        checks_per_second: float,
        headers: Mapping[str, str],
        ca_file: Path | None,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """Export spans to `endpoint`.

        A check with a parent is sampled as the parent is, one without with the probability `ratio`; of either kind at most
        `checks_per_second`. `random` returns numbers from 0 to less than 1.
        """
        service = {"service.name": service_name, "service.version": version}
        self.export = SpanExport(endpoint, service=service, headers=headers, ca_file=ca_file, clock=clock)
        self._spans = Spans(self.export.tracer, self.export.take, clock=clock)
        self._ratio = ratio
        self._random = random
        self._budget = Budget(checks_per_second, clock=clock)

    @property
    def shed(self) -> int:
        """Checks that were not traced because too many were."""
        return self._budget.refused

    @property
    def spans(self) -> dict[str, int]:
        """What became of the spans so far."""
        return {"exported": self.export.exported, "failed": self.export.failed, "dropped": self.export.dropped}

    def handler(self, check: Callable[[bytes], Answer]) -> Callable[[bytes, str, str], Answer]:
        """Return what answers a call that came with this traceparent and tracestate."""

        def traced(data: bytes, parent: str, state: str) -> Answer:
            caller, current = _CALLER.set((parent, state)), CURRENT.set(None)
            try:
                answer, span = check(data), CURRENT.get()
                return answer if span is None or isinstance(answer, bytes) else self._followed(answer, span)
            finally:
                CURRENT.reset(current)
                _CALLER.reset(caller)

        return traced

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """End the span of the check at work."""
        span = CURRENT.get()
        if span is None:
            return
        reason = decision.reason
        attributes = {
            "extauthz.decision": decision.outcome,
            "extauthz.reason": reason.value,
            "extauthz.decision_id": request.decision_id,
        }
        if decision.route is not None:
            attributes["extauthz.route"] = decision.route
        if decision.identity is not None:
            attributes["extauthz.auth_type"] = decision.identity.auth_type.value
        self._spans.end(span, attributes, error=reason.value if reason.status >= 500 else "")

    def codec(self, codec: Codec) -> Codec:
        """Return a codec that begins the span of a check as soon as its request is read."""
        return _TracedCodec(codec, self._begin)

    def store(self, store: TokenStore, *, system: str) -> TokenStore:
        """Return a store with a span for each look-up of a sampled check."""
        return TracedStore(store, self._spans, system=system)

    def keys(self, source: KeySource, *, issuer: str) -> KeySource:
        """Return a key source with a span for each fetch that a sampled check waits for."""
        return TracedKeys(source, self._spans, issuer=issuer)

    def introspector(self, introspector: Introspector, *, issuer: str, method: str) -> Introspector:
        """Return an introspector with a span for each question of a sampled check."""
        return TracedIntrospector(introspector, self._spans, issuer=issuer, method=method)

    async def close(self) -> None:
        """Export what is left, for a bounded time."""
        await self.export.close()

    def _begin(self, request: Request | None) -> Request | None:
        """Begin the span of a sampled check; return its request with the traceparent that counts from now on."""
        caller = _CALLER.get()
        if caller is None:
            return request
        try:
            text, state = caller
            parent = traceparent.read(text)
            if not parent and request is not None and "traceparent" in request.headers:
                parent, state = traceparent.read(request.header("traceparent")), request.header("tracestate")
            sampled = traceparent.is_sampled(parent) if parent else self._random() < self._ratio if self._ratio else False
            own = self._start(parent, state) if sampled and self._may_begin() else f"{parent[:-1]}0" if parent else ""
            return replace(request, traceparent=own) if request is not None and own else request
        except Exception:  # noqa: BLE001 - a check that cannot be traced is a check all the same
            self._spans.complain()
            return request

    def _may_begin(self) -> bool:
        try:
            self._budget.take()
        except Unavailable:
            return False
        return True

    def _start(self, parent: str, state: str) -> str:
        """Begin a span; return its traceparent, "" where there is none."""
        span = self._spans.start("check", _remote(parent, state) if parent else Context(), SpanKind.SERVER, attributes=_RPC)
        context = span.get_span_context()
        self._spans.has_child = False
        CURRENT.set(span)
        return traceparent.write(context.trace_id, context.span_id) if context.is_valid else ""

    def _followed(self, answer: Awaitable[bytes], span: Span) -> Awaitable[bytes]:
        """Give the rest of a check a task, which inherits the span, and end the span when nobody waits for the task any more."""
        rest = asyncio.ensure_future(answer)
        if not self._spans.has_child:
            self._spans.note(span, JOINED)
        rest.add_done_callback(partial(self._over, span))
        return rest

    def _over(self, span: Span, _: asyncio.Future[bytes]) -> None:
        self._spans.end(span, {OUTCOME: CANCELLED}, error=CANCELLED)


class _TracedCodec:
    """A codec that has each request that it reads looked at, and may get another one back."""

    def __init__(self, codec: Codec, begin: Callable[[Request | None], Request | None]) -> None:
        self._read = codec.read
        self._begin = begin
        self.write = codec.write
        self.fixed = codec.fixed

    def read(self, data: bytes, decision_id: str) -> Request | None:
        return self._begin(self._read(data, decision_id))


def _remote(parent: str, state: str) -> Context:
    context = SpanContext(
        int(parent[traceparent.TRACE_ID], 16),
        int(parent[traceparent.SPAN_ID], 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([state]) if 0 < len(state) <= MAX_TRACESTATE else None,
    )
    return set_span_in_context(NonRecordingSpan(context), Context())
