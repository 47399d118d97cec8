"""Tracing of `extauthz serve`: on both transports, through a real Envoy that traces too, and nothing of it while it is off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.support.collector import Collector
from tests.support.h2_client import CHECK
from tests.support.sidecar import Sidecar, sidecar
from tests.support.tracing_served import CLIENTS, PARENT, SAMPLED, TRACE, collector, traced_sidecar
from tests.support.transports import NAMES, Loop, Name, Served
from tests.support.waiting import eventually
from tests.support.world import bearer, check_request

__all__ = ["collector", "sidecar"]

NOT_IMPORTED = ("opentelemetry", "requests", "urllib3", "extauthz.adapters.tracing")


# --- the transports


@pytest.fixture(params=NAMES)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    made = Loop(request.param)
    yield made
    made.close()
    assert made.complaints == []


@pytest.fixture
def serve_traced(loop: Loop) -> Iterator[Callable[[Callable[[bytes, str, str], Any]], Served]]:
    started: list[Served] = []

    def untraced(_: bytes) -> bytes:
        return b"the handler that is not traced"

    def start(traced: Callable[[bytes, str, str], Any]) -> Served:
        started.append(Served(loop, untraced, traced=traced))
        return started[-1]

    yield start
    for served in started:
        served.stop()


def call(served: Served, *metadata: tuple[str, str | bytes]) -> bytes:
    with grpc.insecure_channel(served.address, [("grpc.enable_http_proxy", 0)]) as channel:
        return bytes(channel.unary_unary(CHECK)(b"?", timeout=10, metadata=metadata))


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ((), b"?||"),
        ((("traceparent", SAMPLED),), f"?|{SAMPLED}|".encode()),
        ((("tracestate", "a=1"), ("traceparent", "x")), b"?|x|a=1"),
        ((("trace-bin", b"\x00\xff"), ("tracestate", "a=1")), b"?||a=1"),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_a_transport_hands_on_what_the_call_came_with(
    serve_traced: Callable[..., Served], metadata: tuple[tuple[str, str | bytes], ...], told: bytes, waits: bool
) -> None:
    async def later(answer: bytes) -> bytes:
        return answer

    def traced(message: bytes, parent: str, state: str) -> Any:
        answer = b"|".join((message, parent.encode(), state.encode()))
        return later(answer) if waits else answer

    assert call(serve_traced(traced), *metadata) == told


@pytest.mark.parametrize("answer", [b"", None, RuntimeError("the handler failed")])
def test_a_traced_handler_stands_behind_the_same_fence(serve_traced: Callable[..., Served], answer: Any) -> None:
    def traced(*_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert b"the fallback" in call(serve_traced(traced))


# --- the process


def ask(sidecar: Sidecar, token: str, *metadata: tuple[str, str], **headers: str) -> bytes:
    with grpc.insecure_channel(sidecar.target) as channel:
        return bytes(
            channel.unary_unary(CHECK)(
                check_request("POST", "/search", bearer(token, **headers).items()), timeout=10, metadata=metadata
            )
        )


@pytest.mark.parametrize("transport", NAMES)
def test_the_metadata_of_the_call_wins_over_the_request(
    sidecar: Sidecar, collector: Collector, transport: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_AUTHORIZATION", "Bearer s3cret-of-the-collector")
    sidecar.settings["server"]["transport"] = transport
    headers = {"authorization": {"env": "OTEL_AUTHORIZATION"}}
    token = traced_sidecar(sidecar, collector, service_name="extauthz", headers=headers)
    answers = [ask(sidecar, token, ("traceparent", SAMPLED), ("tracestate", "a=1"), traceparent=CLIENTS)]
    # They come while it serves.
    assert {span.name for span in collector.wait_for(2)} == {"check", "store look-up"}
    answers += [
        ask(sidecar, token, traceparent=CLIENTS),
        ask(sidecar, token, ("traceparent", SAMPLED[:-1] + "0"), traceparent=CLIENTS),
        ask(sidecar, token),
    ]
    assert sidecar.stop() == 0
    checks, (look_up,) = collector.named("check"), collector.named("store look-up")
    assert [(span.trace_id, span.parent_id) for span in checks] == [(TRACE, PARENT), ("c" * 32, "d" * 16)]
    assert [span.attributes["extauthz.reason"] for span in checks] == ["allowed", "allowed"]
    assert checks[0].span.trace_state == "a=1"
    assert (look_up.trace_id, look_up.parent_id) == (TRACE, checks[0].span_id)
    ids = [answer.count(span.attributes["extauthz.decision_id"].encode()) for answer, span in zip(answers, checks, strict=False)]
    assert ids == [2, 2]
    assert {headers["authorization"] for headers in collector.headers} == {"Bearer s3cret-of-the-collector"}
    assert b"s3cret" not in b"".join(collector.bodies)
    written = "".join(log.read_text() for log in sidecar.logs)
    assert "s3cret" not in written
    lines = [json.loads(line) for line in sidecar.logs[0].read_text().splitlines()]
    assert [line.get("trace_id") for line in lines] == [TRACE, "c" * 32, TRACE, None]
    assert token not in written


def test_a_collector_that_hangs_holds_up_neither_checks_nor_the_end(sidecar: Sidecar, collector: Collector) -> None:
    collector.hang.set()
    token = traced_sidecar(sidecar, collector, checks_per_second=10_000)
    answers = {len(ask(sidecar, token, ("traceparent", SAMPLED))) for _ in range(5)}
    eventually(lambda: collector.headers, seconds=10)
    answers |= {len(ask(sidecar, token, ("traceparent", SAMPLED))) for _ in range(5)}
    assert len(answers) == 1
    assert sidecar.stop() == 0
    assert "Traceback" not in sidecar.logs[1].read_text()


def refused(sidecar: Sidecar, collector: Collector, *, code: int = 3, **tracing: Any) -> str:
    """Start with a section that stops it, and return what is said."""
    sidecar.settings["tracing"] = {"endpoint": collector.endpoint, **tracing}
    sidecar.write()
    (sidecar.folder / "pepper").write_text("a pepper for tests, 32 bytes long")
    call = [sys.executable, "-m", "extauthz", "serve", "--config", str(sidecar.file)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def test_an_unset_secret_stops_it(sidecar: Sidecar, collector: Collector) -> None:
    told = refused(sidecar, collector, headers={"x-key": {"env": "NOT_SET_ANYWHERE"}})
    assert "tracing.headers.x-key: the environment variable NOT_SET_ANYWHERE is not set" in told


def test_a_missing_bundle_stops_it(sidecar: Sidecar, collector: Collector) -> None:
    told = refused(sidecar, collector, ca_file="nowhere.pem")
    assert "tracing.ca_file: " in told
    assert "nowhere.pem: no such file" in told


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_extra_is_named(sidecar: Sidecar, collector: Collector, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = sidecar.folder / "without" / "opentelemetry"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'opentelemetry'\")")
    monkeypatch.setenv("PYTHONPATH", str(missing.parent))
    sidecar.settings["server"] |= {"workers": workers, "listen": f"unix://{sidecar.folder / 'c.sock'}"}
    # What stops a worker is told by its parent, which has no fault of its own.
    told = refused(sidecar, collector, code=3 if workers == 1 else 1)
    line = next(number for number, text in enumerate(sidecar.file.read_text().splitlines(), 1) if "endpoint" in text)
    assert f"extauthz.yaml:{line}: tracing.endpoint: needs OpenTelemetry" in told
    assert "pip install 'extauthz[otel]'" in told


WATCHED = """
import json, os, signal, sys, threading, time
from pathlib import Path
from extauthz.adapters import process_log
from extauthz.serve.main import run
from extauthz.config.loader import load

log = Path(sys.argv[2])
process_log.configure(log.open("w"))

def end():
    while '"serving"' not in log.read_text():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end, daemon=True).start()
run(load(Path(sys.argv[1])), log_decisions=False)
print(json.dumps([sorted(sys.modules), sorted(thread.name for thread in threading.enumerate())]))
"""


@pytest.mark.parametrize("on", [False, True])
def test_nothing_is_imported_while_it_is_off(sidecar: Sidecar, collector: Collector, on: bool) -> None:
    sidecar.settings["tracing"] = {"service_name": "off", **({"endpoint": collector.endpoint} if on else {})}
    sidecar.write()
    sidecar.token()
    call = [sys.executable, "-c", WATCHED, str(sidecar.file), str(sidecar.folder / "log")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=30, check=True)
    modules, _ = json.loads(done.stdout)
    found = [name for name in NOT_IMPORTED if name in modules]
    assert found == (list(NOT_IMPORTED) if on else [])


# --- the real Envoy
