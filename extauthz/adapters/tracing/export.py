"""Ended spans to a collector (OTLP over HTTP), in a thread of the library's and behind a queue that is bounded."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, Tracer

from extauthz.ports import Clock

QUEUE = 2_048
"""Ended spans that wait for the collector; further ones are dropped."""
BATCH = 512
"""Spans in one request."""
INTERVAL = 1.0
"""Seconds after which what waits is sent."""
TIMEOUT = 5.0
"""Seconds for a batch, repetitions included."""
FLUSH = 2.0
"""Seconds at the end for what still waits."""
QUIET = 60.0
"""Seconds between two complaints."""

_log = logging.getLogger(__name__)


class SpanExport:
    """Takes ended spans without ever waiting; counts those that were `exported`, `failed` at the collector, or were `dropped`."""

    def __init__(
        self,
        endpoint: str,
        *,
        service: Mapping[str, str],
        headers: Mapping[str, str],
        ca_file: Path | None,
        clock: Clock,
        interval: float = INTERVAL,
    ) -> None:
        """Start the thread; `service` are the attributes of the resource, `interval` is in seconds."""
        # What they have to say is logged by `_Sender`, seldom and without a word of the collector's own, which may quote a header.
        for chatty in ("opentelemetry", "urllib3"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        self._sender = _Sender(endpoint, headers, ca_file, clock)
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource(dict(service)), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._sender, max_queue_size=QUEUE, schedule_delay_millis=interval * 1000, max_export_batch_size=BATCH
            )
        )
        self.tracer: Tracer = self._provider.get_tracer("extauthz", service.get("service.version"))
        self._accepted = 0
        self.dropped = 0

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self._sender.exported

    @property
    def failed(self) -> int:
        """Spans that it was offered in vain."""
        return self._sender.failed

    def take(self, span: Span) -> None:
        """End a span and let it wait for the collector."""
        if self._accepted - self.exported - self.failed >= QUEUE:
            self.dropped += 1
            return
        self._accepted += 1
        span.end()

    async def close(self) -> None:
        """Send what waits, for a bounded time; who does not answer by then is left alone."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        deadline = asyncio.get_running_loop().time() + FLUSH
        while ending.is_alive() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)


class _Sender(SpanExporter):
    """The library's exporter, which complains of every batch; this one does when something has changed, or once in a while."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], ca_file: Path | None, clock: Clock) -> None:
        self._session = _Session()
        self._exporter = OTLPSpanExporter(
            endpoint,
            certificate_file=None if ca_file is None else str(ca_file),
            headers=headers,
            timeout=TIMEOUT,
            compression=Compression.Gzip,
            session=self._session,
        )
        self._endpoint = endpoint
        self._clock = clock
        self._complained_at = float("-inf")
        self._down = False
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; never raises."""
        self._session.cause = ""
        try:
            result = self._exporter.export(spans)
            cause = self._session.cause or ("" if result is SpanExportResult.SUCCESS else "not sent")
        except Exception as error:  # noqa: BLE001 - the next batch may be a better one
            cause = type(error).__name__
        if cause:
            self.failed += len(spans)
            self._complain(cause)
            return SpanExportResult.FAILURE
        self.exported += len(spans)
        if self._down:
            self._down = False
            _log.info("spans are exported again", extra={"endpoint": self._endpoint})
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Stop, also in the middle of a repetition."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits in here."""
        return True

    def _complain(self, cause: str) -> None:
        self._down = True
        now = self._clock.monotonic()
        if now - self._complained_at >= QUIET:
            self._complained_at = now
            _log.warning("spans are not exported", extra={"endpoint": self._endpoint, "cause": cause, "failed": self.failed})


class _Session(requests.Session):
    """Uses neither proxies nor netrc of the environment; `cause` is why the last request was in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cause = ""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        try:
            response = super().send(request, **options)
        except Exception as error:
            self.cause = type(error).__name__
            raise
        # To the library a redirect that it does not follow is a success.
        self.cause = f"status {response.status_code}" if response.status_code >= 300 else ""
        return response
