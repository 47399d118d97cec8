"""Whole checks over a socket: each transport on one core, h2load on another; run by `make bench`.

The request is a warm OAuth token. Beside the sidecar stands the same transport with an empty handler, the floor. h2load is in
Debian's package nghttp2-client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench import TYPICAL, machine
from extauthz._pb import ext_authz_pb2 as pb
from extauthz.addresses import Address
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID, DemoIssuer
from extauthz.transport import libnghttp2
from extauthz.transport.choice import Name, choose
from extauthz.transport.limits import Limits
from extauthz.transport.listening import open_port
from extauthz.transport.ops import HttpServer
from tests.support.world import check_request, oauth

SECONDS = 4
SHAPES = ((1, 1), (4, 8), (8, 32))
METHOD = "/envoy.service.auth.v3.Authorization/Check"
SERVER_CORE, CLIENT_CORE = 0, 1
HEADERS = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 200m", "user-agent: envoy", "x-envoy-internal: true")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one load gave; times in microseconds."""

    rate: float
    mean: float
    p50: float
    p99: float
    cpu: float

    def __str__(self) -> str:
        """One line of the table."""
        return f"{self.rate:>10,.0f} {self.mean:>9,.0f} {self.p50:>9,.0f} {self.p99:>9,.0f} {self.cpu:>9.1f}"


def free_port() -> int:
    """Return a port that nobody uses at the moment."""
    with open_port(Address(host="127.0.0.1", port=0)) as opened:
        return int(opened.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process on the server's core; what it logs goes to a file, if one is named."""
    pinned = ("taskset", "-c", str(SERVER_CORE), sys.executable, *command)
    with log.open("w+b") if log else tempfile.TemporaryFile() as errors:
        running = subprocess.Popen(pinned, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            yield running
        except BaseException:
            errors.seek(0)
            print(
                f"exit code so far: {running.poll()}; what it logged:\n{errors.read().decode(errors='replace')[-4000:]}",
                file=sys.stderr,
            )
            raise
        finally:
            running.terminate()
            running.wait(timeout=20)


@contextlib.contextmanager
def issuer(port: int) -> Iterator[DemoIssuer]:
    """Run the demo issuer in a thread, for the keys."""
    made = DemoIssuer(f"http://127.0.0.1:{port}")
    server = HttpServer(made)
    opened = open_port(Address(host="127.0.0.1", port=port))
    thread = threading.Thread(target=asyncio.run, args=(server.run_on(opened),))
    thread.start()
    try:
        yield made
    finally:
        server.should_exit = True
        thread.join()


def answered(port: int, data: bytes) -> bytes:
    """Return the answer to one check, as soon as there is one."""
    deadline = time.monotonic() + 20
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(METHOD)
        while True:
            try:
                return bytes(ask(data, timeout=1, wait_for_ready=True))
            except grpc.RpcError:
                if time.monotonic() > deadline:
                    raise


def load(port: int, pid: int, request: Path, connections: int, streams: int) -> Figures:
    """Load a server for some seconds, after one to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "times"
        before = cpu_seconds(pid)
        command = ["taskset", "-c", str(CLIENT_CORE), "h2load", "-D", str(SECONDS), "--warm-up-time=1"]
        command += ["-c", str(connections), "-m", str(streams), "-d", str(request), f"--log-file={log}"]
        command += [part for header in HEADERS for part in ("-H", header)]
        run = subprocess.run([*command, f"http://127.0.0.1:{port}{METHOD}"], capture_output=True, text=True, check=True)
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [line for line in lines if line[1] != "200"]
    if failed or not lines:
        raise SystemExit(f"{len(failed)} of {len(lines)} calls failed:\n{run.stdout[-800:]}")
    times = sorted(int(line[2]) for line in lines)
    # The log leaves the warm-up out, the processor time does not: it is spread over the calls of both.
    cpu = (cpu_seconds(pid) - before) / (len(times) * (SECONDS + 1) / SECONDS)
    return Figures(len(times) / SECONDS, statistics.fmean(times), times[len(times) // 2], times[len(times) * 99 // 100], cpu * 1e6)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def configuration(folder: Path, issuer_port: int, port: int, transport: str) -> Path:
    """Write a configuration for OAuth tokens of the demo issuer."""
    (folder / "routes.yaml").write_text('routes: [{match: "POST /rest/api/v1/search", scope: SEARCH}]')
    file = folder / f"{transport}.yaml"
    file.write_text(
        f"version: 1\nserver: {{listen: '127.0.0.1:{port}', ops: null, drain: 0s, transport: {transport}}}\n"
        f"oauth: {{provider: okta, issuer: 'http://127.0.0.1:{issuer_port}/oauth2/default', client_ids: [{CLIENT_ID}], "
        f"audience: '{AUDIENCE}'}}\nscopes: [SEARCH]\nroutes: [routes.yaml]\n"
    )
    return file


def table(name: str, port: int, pid: int, request: Path) -> dict[tuple[int, int], Figures]:
    """Load a server in every shape and print the figures."""
    found = {}
    for connections, streams in SHAPES:
        found[connections, streams] = figures = load(port, pid, request, connections, streams)
        print(f"  {name:<30} {connections} × {streams:<3} {figures}", flush=True)
    return found


def serve_empty(transport: Name, port: int) -> None:
    """Answer every check with the same bytes, until the process is ended."""
    chosen = choose(transport)
    answer = b"x" * 490

    async def forever() -> None:
        server = chosen.server(lambda _: answer, answer, limits=Limits(), certificates=None)
        await server.start(Address(host="127.0.0.1", port=port))
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=chosen.new_event_loop) as runner:
        runner.run(forever())


def main() -> None:
    """Measure both transports and compare them with the goals."""
    if shutil.which("h2load") is None or (os.cpu_count() or 1) < 2:
        print("transport: needs h2load (Debian: apt install nghttp2-client) and two cores; not measured")
        return
    machine()
    print(f"libnghttp2 {libnghttp2.version()}; the server on core {SERVER_CORE}, h2load on core {CLIENT_CORE}, {SECONDS} s each\n")
    print(f"  {'connections × streams':<40} {'checks/s':>8} {'mean µs':>9} {'p50 µs':>9} {'p99 µs':>9} {'CPU µs':>9}")
    whole: dict[str, dict[tuple[int, int], Figures]] = {}
    empty: dict[str, dict[tuple[int, int], Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, issuer_port = Path(name), free_port()
        with issuer(issuer_port) as keys:
            data = check_request("POST", "/rest/api/v1/search", (TYPICAL | oauth(keys.token("ana@acme.com"))).items())
            request = folder / "request.bin"
            request.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
            for transport in ("nghttp2", "grpcio"):
                port = free_port()
                file = configuration(folder, issuer_port, port, transport)
                for log in ("--no-decision-log", "--decision-log"):
                    with process("-m", "extauthz", "serve", "--config", str(file), log) as running:
                        if pb.CheckResponse.FromString(answered(port, data)).status.code:
                            raise SystemExit("the check was not allowed")
                        if log == "--decision-log":
                            table(f"{transport}, decision log on", port, running.pid, request)
                        else:
                            whole[transport] = table(transport, port, running.pid, request)
                port = free_port()
                with process(__file__, "empty", transport, str(port)) as running:
                    answered(port, data)
                    empty[transport] = table(f"{transport}, empty handler", port, running.pid, request)
    fast, slow = whole["nghttp2"], whole["grpcio"]
    print(f"\n  nghttp2 : grpcio, checks/s at 4 × 8    {fast[4, 8].rate / slow[4, 8].rate:>8.1f}   goal ≥ 9")
    print(f"  CPU of a whole check at 4 × 8, µs      {fast[4, 8].cpu:>8.1f}   goal ≤ 40")
    print(f"  the same : empty handler               {fast[4, 8].cpu / empty['nghttp2'][4, 8].cpu:>8.2f}   goal ≤ 2.2")
    print(f"  mean at 1 × 1, nghttp2 : grpcio        {fast[1, 1].mean / slow[1, 1].mean:>8.2f}   goal ≤ 0.55")


if __name__ == "__main__":
    if sys.argv[1:2] == ["empty"]:
        serve_empty(sys.argv[2], int(sys.argv[3]))  # type: ignore[arg-type]
    else:
        main()
