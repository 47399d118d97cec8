"""Spans that cannot hurt: whatever the library does, the check goes on, with a span or without."""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from extauthz.adapters.tracing.export import QUIET
from extauthz.errors import Unavailable
from extauthz.ports import Clock

CURRENT: ContextVar[Span | None] = ContextVar("check", default=None)
"""The span of the sampled check at work; work that a check begins inherits it."""
OUTCOME = "extauthz.outcome"
CANCELLED = "cancelled"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Spans:
    """Begins and ends spans; `has_child` is whether the check at work has begun any below its own."""

    def __init__(self, tracer: Tracer, take: Callable[[Span], None], *, clock: Clock) -> None:
        """Make spans with a tracer, and hand over to `take` those that are to be ended."""
        self._tracer = tracer
        self._take = take
        self._clock = clock
        self._complained_at = float("-inf")
        self.has_child = False

    def start(
        self,
        name: str,
        context: Context,
        kind: SpanKind,
        *,
        attributes: Mapping[str, str] | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """Begin a span; raises whatever the library raises."""
        return self._tracer.start_span(name, context, kind, attributes, links)

    def below(self, name: str, attributes: Mapping[str, str], *, links: Sequence[Link] = (), of: Span | None = None) -> Span | None:
        """Begin a span below the check at work, or below `of`; None when it is not sampled."""
        parent = of or CURRENT.get()
        if parent is None:
            return None
        try:
            self.has_child = True
            return self.start(name, set_span_in_context(parent, Context()), SpanKind.CLIENT, attributes=attributes, links=links)
        except Exception:  # noqa: BLE001 - see above
            self.complain()
            return None

    def end(self, span: Span, attributes: Mapping[str, str], *, error: str = "") -> None:
        """End a span, once; `error` is one of our own words."""
        try:
            if span.is_recording():
                span.set_attributes(attributes)
                if error:
                    span.set_status(Status(StatusCode.ERROR, error))
                self._take(span)
        except Exception:  # noqa: BLE001 - see above
            self.complain()

    def fail(self, span: Span, unavailable: Unavailable) -> None:
        """End a span with the reason of a failure."""
        self.end(span, {OUTCOME: unavailable.reason.value}, error=unavailable.reason.value)

    def note(self, span: Span, event: str) -> None:
        """Add an event to a span."""
        try:
            span.add_event(event)
        except Exception:  # noqa: BLE001 - see above
            self.complain()

    def follow(self, span: Span, pending: Future[_T], outcome: Callable[[_T], str]) -> None:
        """End a span when a future is done, with what `outcome` says of its result."""
        pending.add_done_callback(partial(self._end_with, span, outcome))

    def complain(self) -> None:
        """Log the exception at hand, unless one was logged a moment ago."""
        now = self._clock.monotonic()
        if now - self._complained_at >= QUIET:
            self._complained_at = now
            _log.exception("tracing failed; checks go on without")

    def _end_with(self, span: Span, outcome: Callable[[_T], str], future: Future[_T]) -> None:
        if future.cancelled():
            self.end(span, {OUTCOME: CANCELLED}, error=CANCELLED)
            return
        error = future.exception()
        if isinstance(error, Unavailable):
            self.fail(span, error)
        elif error is not None:
            self.end(span, {OUTCOME: "failed"}, error=type(error).__name__)
        else:
            self.end(span, {OUTCOME: outcome(future.result())})
