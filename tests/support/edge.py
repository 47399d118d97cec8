"""What stands around an Envoy with several listeners: an upstream, a look at each check on its way to the sidecar, a browser."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import grpc

from extauthz._pb import ext_authz_pb2 as pb
from tests.support.envoy import process
from tests.support.h2_client import CHECK

CHROMIUM = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def answer(self, content: bytes, content_type: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))


class _Upstream(_Handler):
    """Answers with the headers that came, or repeats what comes over a WebSocket."""

    def do_GET(self) -> None:
        if self.headers.get("upgrade") != "websocket":
            return self.do_POST()
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        self.close_connection = True
        with contextlib.suppress(OSError):
            while data := self.connection.recv(1024):
                self.connection.sendall(data)
        return None

    def do_POST(self) -> None:
        self.body()
        self.answer(json.dumps({"headers": {name.lower(): value for name, value in self.headers.items()}}).encode())


@contextlib.contextmanager
def _served(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def running_http_upstream() -> contextlib.AbstractContextManager[int]:
    """Run an upstream that knows WebSockets and "Expect: 100-continue"; yields its port."""
    return _served(_Upstream)


@dataclass
class Tap(grpc.GenericRpcHandler):
    """Passes every call on to the sidecar, and keeps the checks."""

    sidecar: int
    checks: list[pb.CheckRequest] = field(default_factory=list)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return what passes this method on."""
        method = handler_call_details.method
        call = self.channel.unary_unary(method)

        def pass_on(data: bytes, context: grpc.ServicerContext) -> bytes:
            if method == CHECK:
                self.checks.append(pb.CheckRequest.FromString(data))
            return call(data, timeout=5)  # type: ignore[no-any-return]

        return grpc.unary_unary_rpc_method_handler(pass_on)

    def __post_init__(self) -> None:
        """Connect."""
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.sidecar}")


@contextlib.contextmanager
def running_grpc(handler: grpc.GenericRpcHandler) -> Iterator[int]:
    """Serve gRPC; yields the port."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


class EchoService(grpc.GenericRpcHandler):
    """A gRPC upstream of which every method answers with what it was sent."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the only method."""
        return grpc.unary_unary_rpc_method_handler(lambda data, _: data)


@dataclass
class Pages:
    """A web site of one page, which is `shown` as soon as it is set, and what its script posts to it."""

    port: int
    posted: Queue[Any] = field(default_factory=Queue)
    shown: str = ""


@contextlib.contextmanager
def running_pages() -> Iterator[Pages]:
    """Serve the page at http://127.0.0.1 and http://localhost, which are two origins."""
    pages = Pages(0)

    class Site(_Handler):
        def do_GET(self) -> None:
            self.answer(pages.shown.encode(), "text/html")

        def do_POST(self) -> None:
            pages.posted.put(json.loads(self.body()))
            self.answer(b"{}")

    with _served(Site) as pages.port:
        yield pages


@contextlib.contextmanager
def running_chromium(folder: Path, address: str) -> Iterator[None]:
    """Show a page to a real browser, which is closed at the end of the block."""
    program = shutil.which("chromium")
    assert program, "no Chromium: run 'make browser', or on Debian 'apt-get install chromium'"
    with process([program, *CHROMIUM, f"--user-data-dir={folder / 'chromium'}", address], folder / "chromium.log"):
        yield


def merged(bootstraps: Mapping[str, dict[str, Any]], change: Callable[[str, dict[str, Any]], None]) -> dict[str, Any]:
    """Return one bootstrap with the listeners of all, after `change` has changed each; clusters are known by their names."""
    whole: dict[str, Any] = {}
    for name, bootstrap in bootstraps.items():
        change(name, bootstrap)
        own = bootstrap["static_resources"]
        own["listeners"][0]["name"] = name
        whole = whole or bootstrap | {"static_resources": {"listeners": [], "clusters": []}}
        all_of_them = whole["static_resources"]
        all_of_them["listeners"] += own["listeners"]
        known = {cluster["name"] for cluster in all_of_them["clusters"]}
        all_of_them["clusters"] += [cluster for cluster in own["clusters"] if cluster["name"] not in known]
    return whole
