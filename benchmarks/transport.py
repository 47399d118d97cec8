"""Whole checks over a socket, by h2load; run by `make bench`. Seconds of each load: transport.py 1

The request is a warm OAuth token. First comes the sidecar as it is started by default: the decision log goes to a pipe that is
read, the ops listener is there, and the system picks the cores. Then the variants without the ops listener, the server on one core
and h2load on another: with the decision log, without it, and the same transport with an empty handler, the floor. One answer
is judged before and behind each load, and each one of the load by its length. h2load is in Debian's package nghttp2-client.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import Judge, allowed, exactly, judge_h2load
from benchmarks.bench import TYPICAL, machine
from extauthz.addresses import Address
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID, DemoIssuer
from extauthz.transport.grpc import libnghttp2
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.select import Name, choose
from extauthz.transport.sockets import open_port
from tests.support.transports import default_limits
from tests.support.world import check_request, oauth

SECONDS = 4
SHAPES = ((1, 1), (4, 8), (8, 32))
EMPTY = b"x" * 490
"""What the empty handler answers."""
USER = "ana@acme.com"
METHOD = "/envoy.service.auth.v3.Authorization/Check"
SERVER_CORE, CLIENT_CORE = 0, 1
HEADERS = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 200m", "user-agent: envoy", "x-envoy-internal: true")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, the file that h2load sends it from, and what is expected of its answer."""

    data: bytes
    file: Path
    judge: Judge

    @classmethod
    def of(cls, folder: Path, data: bytes, judge: Judge) -> Asked:
        """Write the file, as gRPC frames the request."""
        file = folder / "request.bin"
        file.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
        return cls(data, file, judge)


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


def on_core(core: int, *, pinned: bool) -> tuple[str, ...]:
    """Return what a command begins with that is to stay on one core."""
    return ("taskset", "-c", str(core)) if pinned else ()


@contextlib.contextmanager
def process(*command: str, log: Path | None = None, pinned: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, on the server's core if pinned; what it logs goes to a file, if one is named, and what it prints is read."""
    with log.open("w+b") if log else tempfile.TemporaryFile() as errors:
        begin = on_core(SERVER_CORE, pinned=pinned)
        running = subprocess.Popen([*begin, sys.executable, *command], stdout=subprocess.PIPE, stderr=errors)
        reading = threading.Thread(target=read_to_the_end, args=(running.stdout,))
        reading.start()
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
            reading.join(timeout=20)


def read_to_the_end(pipe: IO[bytes]) -> None:
    """Read what a process prints, as a log collector does, and forget it."""
    with pipe:
        while pipe.read1(65536):  # type: ignore[attr-defined]
            pass


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


def answered(port: int, data: bytes, judge: Judge) -> bytes:
    """Return the answer to one check, as soon as there is one; raises WrongAnswer if it is not the expected one."""
    deadline = time.monotonic() + 20
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(METHOD)
        while True:
            try:
                answer = bytes(ask(data, timeout=1, wait_for_ready=True))
            except grpc.RpcError:
                if time.monotonic() > deadline:
                    raise
            else:
                judge(answer)
                return answer


def h2load(port: int, request: Path, answer: bytes, *, seconds: int, shape: tuple[int, int], log: Path, pinned: bool) -> None:
    """Load for some seconds and judge: raises WrongAnswer where not every answer is like the given one."""
    connections, streams = shape
    command = [*on_core(CLIENT_CORE, pinned=pinned), "h2load", "-D", str(seconds), f"--log-file={log}"]
    command += ["-c", str(connections), "-m", str(streams), "-d", str(request)]
    command += [part for header in HEADERS for part in ("-H", header)]
    run = subprocess.run([*command, f"http://127.0.0.1:{port}{METHOD}"], capture_output=True, text=True, check=False)
    judge_h2load(run.stdout, answer, in_flight=connections * streams)


def load(port: int, pid: int, asked: Asked, shape: tuple[int, int], *, seconds: int, pinned: bool) -> Figures:
    """Load a server for some seconds, after one to warm up; raises WrongAnswer."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "times"
        answer = answered(port, asked.data, asked.judge)
        h2load(port, asked.file, answer, seconds=1, shape=shape, log=log, pinned=pinned)
        log.unlink()
        before = cpu_seconds(pid)
        h2load(port, asked.file, answer, seconds=seconds, shape=shape, log=log, pinned=pinned)
        used = cpu_seconds(pid) - before
        answered(port, asked.data, asked.judge)
        times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    median, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return Figures(len(times) / seconds, statistics.fmean(times), median, p99, used / len(times) * 1e6)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def configuration(folder: Path, issuer_port: int, port: int, transport: str, ops: int | None = None) -> Path:
    """Write a configuration for OAuth tokens of the demo issuer, with the ops listener on a port."""
    address = "null" if ops is None else f"'127.0.0.1:{ops}'"
    (folder / "routes.yaml").write_text('routes: [{match: "POST /rest/api/v1/search", scope: SEARCH}]')
    file = folder / f"{transport}.yaml"
    file.write_text(
        f"version: 1\nserver: {{listen: '127.0.0.1:{port}', ops: {address}, drain: 0s, transport: {transport}}}\n"
        f"oauth: {{provider: okta, issuer: 'http://127.0.0.1:{issuer_port}/oauth2/default', client_ids: [{CLIENT_ID}], "
        f"audience: '{AUDIENCE}'}}\nscopes: [SEARCH]\nroutes: [routes.yaml]\n"
    )
    return file


Table = dict[tuple[int, int], Figures]


def table(name: str, port: int, pid: int, asked: Asked, *, seconds: int, pinned: bool = True) -> Table:
    """Load a server in every shape and print the figures; raises WrongAnswer."""
    found = {}
    for shape in SHAPES:
        found[shape] = figures = load(port, pid, asked, shape, seconds=seconds, pinned=pinned)
        print(f"  {name:<30} {shape[0]} × {shape[1]:<3} {figures}", flush=True)
    return found


def serve_empty(transport: Name, port: int) -> None:
    """Answer every check with the same bytes, until the process is ended."""
    chosen = choose(transport)
    answer = EMPTY

    async def forever() -> None:
        server = chosen.server(lambda _: answer, answer, limits=default_limits(), certificates=None)
        await server.start(Address(host="127.0.0.1", port=port))
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=chosen.new_event_loop) as runner:
        runner.run(forever())


def by_default(folder: Path, issuer_port: int, asked: Asked, transport: str, *, seconds: int) -> Table:
    """Measure the sidecar as `extauthz serve` starts it."""
    port = free_port()
    file = configuration(folder, issuer_port, port, transport, free_port())
    with process("-m", "extauthz", "serve", "--config", str(file), pinned=False) as running:
        return table(f"{transport}, as by default", port, running.pid, asked, seconds=seconds, pinned=False)


def on_one_core(folder: Path, issuer_port: int, asked: Asked, transport: str, *flags: str, seconds: int) -> Table:
    """Measure the sidecar on one core, without the ops listener."""
    port = free_port()
    file = configuration(folder, issuer_port, port, transport)
    name = f"{transport}, one core{'' if flags else ', decision log'}"
    with process("-m", "extauthz", "serve", "--config", str(file), *flags) as running:
        return table(name, port, running.pid, asked, seconds=seconds)


def empty(asked: Asked, transport: str, *, seconds: int) -> Table:
    """Measure the transport on one core, with a handler that does nothing."""
    port = free_port()
    with process(__file__, "empty", transport, str(port)) as running:
        nothing = replace(asked, judge=exactly(EMPTY))
        return table(f"{transport}, one core, empty", port, running.pid, nothing, seconds=seconds)


def main(seconds: int) -> None:
    """Measure both transports and compare them with the goals."""
    if shutil.which("h2load") is None or (os.cpu_count() or 1) < 2:
        print("transport: needs h2load (Debian: apt install nghttp2-client) and two cores; not measured")
        return
    machine()
    print(f"libnghttp2 {libnghttp2.version()}; {seconds} s each; one core: the server on {SERVER_CORE}, h2load on {CLIENT_CORE}\n")
    print(f"  {'connections × streams':<40} {'checks/s':>8} {'mean µs':>9} {'p50 µs':>9} {'p99 µs':>9} {'CPU µs':>9}")
    names = ("nghttp2", "grpcio")
    with tempfile.TemporaryDirectory() as name:
        folder, issuer_port = Path(name), free_port()
        with issuer(issuer_port) as keys:
            data = check_request("POST", "/rest/api/v1/search", (TYPICAL | oauth(keys.token(USER))).items())
            asked = Asked.of(folder, data, allowed(USER))
            default = {each: by_default(folder, issuer_port, asked, each, seconds=seconds) for each in names}
            logged = {each: on_one_core(folder, issuer_port, asked, each, seconds=seconds) for each in names}
            bare = {each: on_one_core(folder, issuer_port, asked, each, "--no-decision-log", seconds=seconds) for each in names}
            floor = {each: empty(asked, each, seconds=seconds) for each in names}
    print("\n  as by default:")
    started, fast, slow = default["nghttp2"], bare["nghttp2"], bare["grpcio"]
    print(f"  nghttp2 : grpcio, checks/s at 4 × 8    {started[4, 8].rate / default['grpcio'][4, 8].rate:>8.1f}")
    print(f"  CPU of a whole check at 4 × 8, µs      {started[4, 8].cpu:>8.1f}   goal ≤ 22")
    print("  on one core, without the ops listener:")
    print(f"  checks/s at 4 × 8, with decision log   {logged['nghttp2'][4, 8].rate:>8,.0f}   goal ≥ 40,000")
    print(f"  CPU of a line of the log at 4 × 8, µs  {logged['nghttp2'][4, 8].cpu - fast[4, 8].cpu:>8.1f}   goal ≤ 3")
    print("  and without the decision log:")
    print(f"  nghttp2 : grpcio, checks/s at 4 × 8    {fast[4, 8].rate / slow[4, 8].rate:>8.1f}   goal ≥ 9")
    print(f"  CPU of a whole check at 4 × 8, µs      {fast[4, 8].cpu:>8.1f}   goal ≤ 22")
    print(f"  the same : empty handler               {fast[4, 8].cpu / floor['nghttp2'][4, 8].cpu:>8.2f}")
    print(f"  mean at 1 × 1, nghttp2 : grpcio        {fast[1, 1].mean / slow[1, 1].mean:>8.2f}   goal ≤ 0.55")


if __name__ == "__main__":
    if sys.argv[1:2] == ["empty"]:
        serve_empty(sys.argv[2], int(sys.argv[3]))  # type: ignore[arg-type]
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
