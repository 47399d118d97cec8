"""Tracing of `extauthz serve`: on both transports, through a real Envoy that traces too, and nothing of it while it is off."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from extauthz.demo.launcher import find_envoy
from tests.support.collector import Collector, collecting
from tests.support.h2_client import CHECK
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.sidecar import Sidecar, sidecar
from tests.support.transports import NAMES, Loop, Name, Served
from tests.support.waiting import eventually
from tests.support.world import bearer, check_request

__all__ = ["sidecar"]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
CLIENTS = f"00-{'c' * 32}-{'d' * 16}-01"
ENVOY_FILE = ROOT / "envoy" / "envoy.yaml"
NOT_IMPORTED = ("opentelemetry", "requests", "urllib3", "extauthz.adapters.tracing")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


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


def traced_sidecar(sidecar: Sidecar, collector: Collector, **tracing: Any) -> str:
    """Write the section, start, and return a token."""
    sidecar.settings["tracing"] = {"endpoint": collector.endpoint, **tracing}
    sidecar.write()
    token = sidecar.token()
    sidecar.start()
    return token


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
from extauthz.adapters import logs
from extauthz.serve.main import run
from extauthz.config.loader import load

log = Path(sys.argv[2])
logs.configure(log.open("w"))

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


def bootstrap(sidecar: Sidecar, collector: Collector, port: int, folder: Path) -> dict[str, Any]:
    """Return the shipped bootstrap with a tracer, on free ports; the upstream is a fixed answer."""
    data: dict[str, Any] = yaml.safe_load(ENVOY_FILE.read_text())
    data["admin"]["address"]["pipe"]["path"] = str(folder / "admin.sock")
    runtime = {"tracing.opentelemetry.min_flush_spans": 1}
    data["layered_runtime"] = {"layers": [{"name": "static", "static_layer": runtime}]}
    resources = data["static_resources"]
    (listener,) = resources["listeners"]
    listener["address"]["socket_address"]["port_value"] = port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    exporter = {"http_uri": {"uri": collector.endpoint, "cluster": "collector", "timeout": "5s"}}
    manager["tracing"] = {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "service_name": "envoy",
                "http_service": exporter,
            },
        },
    }
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "upstream"}}}
    ]
    for filter_ in manager["http_filters"]:
        if filter_["name"] == "envoy.filters.http.ext_authz":
            filter_["typed_config"]["grpc_service"]["timeout"] = "5s"
    (authz,) = [cluster for cluster in resources["clusters"] if cluster["name"] == "extauthz"]
    where = authz["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    where["port_value"] = int(sidecar.target.rpartition(":")[2])
    address = {"socket_address": {"address": "127.0.0.1", "port_value": collector.port}}
    ends = {"cluster_name": "collector", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    resources["clusters"] = [authz, {"name": "collector", "type": "STATIC", "connect_timeout": "1s", "load_assignment": ends}]
    return data


def status_of(port: int, headers: dict[str, str]) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/search", b"{}", {"content-type": "text/plain", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@pytest.mark.envoy
@pytest.mark.parametrize("transport", NAMES)
def test_a_check_is_below_the_span_of_envoy(sidecar: Sidecar, collector: Collector, transport: Name, tmp_path: Path) -> None:
    sidecar.settings["server"]["transport"] = transport
    token = traced_sidecar(sidecar, collector)
    port, file = free_port(), tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(bootstrap(sidecar, collector, port, tmp_path)))
    command = [find_envoy(), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with (tmp_path / "envoy.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as envoy:
        try:
            known = {"Authorization": f"Bearer {token}"}
            eventually(
                lambda: status_of(port, known | {"traceparent": SAMPLED[:-1] + "0"}) == 200,
                seconds=30,
                what=lambda: (tmp_path / "envoy.log").read_text()[-2000:],
            )
            assert collector.named("check") == []
            assert status_of(port, known | {"traceparent": CLIENTS}) == 200
            assert status_of(port, {"traceparent": CLIENTS}) == 401
            eventually(lambda: len(collector.named("check")) == 2, seconds=20, what=lambda: collector.spans)
            eventually(
                lambda: {span.parent_id for span in collector.named("check")} <= {span.span_id for span in collector.spans},
                seconds=20,
                what=lambda: collector.spans,
            )
            spans = {span.span_id: span for span in collector.spans}
        finally:
            envoy.terminate()
    checks = collector.named("check")
    assert {span.trace_id for span in checks} == {"c" * 32}
    assert {span.parent_id for span in checks} & {"d" * 16} == set()
    assert {spans[span.parent_id].service for span in checks} == {"envoy"}
    assert sorted(span.attributes["extauthz.reason"] for span in checks) == ["allowed", "credential_missing"]
