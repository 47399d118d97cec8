"""A collector of spans on loopback: OTLP over HTTP, read with OpenTelemetry's own messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.waiting import eventually


@dataclass
class Seen:
    """A span, and the service that it is of."""

    service: str
    span: Span

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def error(self) -> str:
        """The message of its status, if that is an error."""
        return self.span.status.message if self.span.status.code == 2 else ""

    @property
    def attributes(self) -> dict[str, str]:
        """Ours, without those that every check has."""
        return {one.key: one.value.string_value for one in self.span.attributes if not one.key.startswith("rpc.")}

    @property
    def links(self) -> list[str]:
        return [link.span_id.hex() for link in self.span.links]

    @property
    def events(self) -> list[str]:
        return [event.name for event in self.span.events]


@dataclass
class Collector:
    """Keeps what it is sent; `status` is what it answers, and while `hang` is set it answers nothing."""

    port: int = 0
    status: int = 200
    answer_headers: dict[str, str] = field(default_factory=dict)
    hang: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """Where spans are sent."""
        return f"http://127.0.0.1:{self.port}/v1/traces"

    @property
    def spans(self) -> list[Seen]:
        """All spans so far."""
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                found += [Seen(names["service.name"], span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def named(self, name: str) -> list[Seen]:
        """Those of our spans that have this name."""
        return [seen for seen in self.spans if seen.name == name and seen.service == "extauthz"]

    def wait_for(self, count: int, *, seconds: float = 10.0) -> list[Seen]:
        """Return the spans when there are so many."""
        eventually(lambda: len(self.spans) >= count, seconds=seconds, what=lambda: self.spans)
        return self.spans


@contextmanager
def collecting(**options: Any) -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            collector.paths.append(self.path)
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            while collector.hang.is_set() and not collector.ended.wait(0.01):
                pass
            if collector.status == 200:
                collector.bodies.append(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            # What a hostile collector would do: give back what it was told.
            told = self.headers.get("authorization", "")
            self.send_response(collector.status, told or None)
            for name, value in collector.answer_headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told.encode())

        do_GET = do_POST  # noqa: N815 - the library looks for this name

        def _body(self) -> bytes:
            if self.headers["transfer-encoding"] != "chunked":
                return self.rfile.read(int(self.headers["content-length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """A client that went away is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.ended.set()
            server.shutdown()
            thread.join(10)
