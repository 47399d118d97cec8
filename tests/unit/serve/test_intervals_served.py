"""How long listeners and watchers wait: in a loop whose time is made up, or as the library that does the waiting is told."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from extauthz.adapters.tracing import export
from extauthz.transport.grpc import grpcio
from extauthz.transport.http import key_set, ops
from extauthz.transport.http.ops import BoundedConnection
from extauthz.transport.tls import Certificates, TlsFiles
from tests.support.transports import Authority, default_limits
from tests.support.virtual_time import LoopClock, elapse, in_virtual_time

QUESTION = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


class Line(asyncio.Transport):
    """The side of the server: when it was closed, politely or not."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.closed: list[tuple[str, float]] = []
        self.said = b""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if not self.closed:
            self.closed.append((how, now()))
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


async def answer(scope: Any, _: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def hang(scope: Any, _: Any, send: Any) -> None:
    await asyncio.Event().wait()


CASES = [
    (ops.BoundedConnection, b"", answer, ("aborted", 5.0)),
    (ops.BoundedConnection, QUESTION[:-2], answer, ("aborted", 5.0)),
    (ops.BoundedConnection, QUESTION, answer, ("closed", 30.0)),
    (ops.BoundedConnection, QUESTION, hang, ("aborted", 40.0)),
    (key_set.BriefConnection, b"", answer, ("aborted", 5.0)),
    (key_set.BriefConnection, QUESTION, answer, ("closed", 5.0)),
    (key_set.BriefConnection, QUESTION, hang, ("aborted", 10.0)),
]


@pytest.mark.parametrize(("kind", "words", "application", "end"), CASES)
def test_a_connection_ends_by_itself(kind: type[BoundedConnection], words: bytes, application: Any, end: tuple[str, float]) -> None:
    async def work() -> list[tuple[str, float]]:
        settings = uvicorn.Config(application, http=kind, ws="none", lifespan="off", log_config=None, timeout_keep_alive=75)
        settings.load()
        protocol = kind(settings, ServerState(), {}, asyncio.get_running_loop())
        line = Line(protocol)
        protocol.connection_made(line)
        if words:
            protocol.data_received(words)
        await elapse(100)
        assert (b"200 OK" in line.said) == (words == QUESTION and application is answer)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return line.closed

    assert in_virtual_time(work) == [end]


def test_certificates_are_looked_at_every_five_seconds(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    looks: list[float] = []

    @dataclass(frozen=True)
    class Renewed(TlsFiles):
        """Files that are others at each look."""

        def load(self, *, protocol: str = "h2") -> Certificates:
            looks.append(0.0)
            return authority.server(f"server {len(looks)}")

    async def work() -> list[float]:
        seen: list[float] = []
        enough = asyncio.Event()

        async def use(_: Certificates) -> None:
            seen.append(now())
            if len(seen) == 3:
                enough.set()

        files = Renewed(tmp_path, tmp_path)
        watching = asyncio.create_task(files.watch(authority.server(), use))
        await enough.wait()
        watching.cancel()
        await asyncio.wait({watching})
        return seen

    assert in_virtual_time(work) == [5, 10, 15]


def test_grpcio_is_told_how_long_a_connection_may_be_idle() -> None:
    for idle_timeout, expected in ((600.0, 60_000), (90.0, 60_000), (30.0, 30_000)):
        told = dict(grpcio._limits(default_limits(idle_timeout=idle_timeout)))
        assert told["grpc.max_connection_idle_ms"] == expected
    told = dict(grpcio._limits(default_limits()))
    assert (told["grpc.server_handshake_timeout_ms"], told["grpc.max_connection_age_grace_ms"]) == (5_000, 10_000)


async def test_the_library_that_sends_spans_is_told_its_times() -> None:
    made = export.SpanExport("http://127.0.0.1:1/v1/traces", service={}, headers={}, ca_file=None, clock=LoopClock())
    try:
        (processor,) = made._provider._active_span_processor._span_processors
        batches = processor._batch_processor  # type: ignore[attr-defined]
        assert (batches._schedule_delay, batches._max_export_batch_size, batches._max_queue_size) == (1.0, 512, 2048)
        assert made._sender._exporter._client._timeout == 5.0  # type: ignore[attr-defined]
    finally:
        await made.close()


def test_the_end_waits_two_seconds_for_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that never ends stands for a collector that never answers."""
    made = export.SpanExport("http://127.0.0.1:1/v1/traces", service={}, headers={}, ca_file=None, clock=LoopClock())
    end, ended = made._provider.shutdown, threading.Event()

    async def work() -> float:
        await made.close()
        return now()

    monkeypatch.setattr(made._provider, "shutdown", ended.wait)
    assert in_virtual_time(work) == pytest.approx(2.0, abs=0.02)
    ended.set()
    end()
