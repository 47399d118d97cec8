"""A load of checks by h2load, and what it gave; one that is not answered as expected ends the run."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.answers import Judge, judge_h2load
from benchmarks.servers import CLIENT_CORE, cpu_seconds, on_core

METHOD = "/envoy.service.auth.v3.Authorization/Check"
PATIENCE = 30
"""Seconds that h2load has to come to its end, behind those of the load."""
HEADERS = ("content-type: application/grpc", "te: trailers", "user-agent: envoy", "x-envoy-internal: true")
ENVOY_TIMEOUT = "200m"
"""What Envoy gives a check by default, as gRPC writes it."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A request, the file that h2load sends it from, and what is expected of its answer."""

    data: bytes
    file: Path
    judge: Judge

    @classmethod
    def of(cls, folder: Path, data: bytes, judge: Judge) -> LoadRequest:
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


def h2load(
    port: int,
    request: Path,
    answer: bytes,
    *,
    seconds: int,
    shape: tuple[int, int],
    log: Path,
    pinned: bool,
    timeout: str = ENVOY_TIMEOUT,
) -> None:
    """Load with checks for some seconds and judge: raises WrongAnswer where not every answer is like the given one."""
    url = f"http://127.0.0.1:{port}{METHOD}"
    flags = [part for header in (*HEADERS, f"grpc-timeout: {timeout}") for part in ("-H", header)]
    run_h2load(url, request, framed_size(answer), *flags, seconds=seconds, shape=shape, log=log, pinned=pinned)


def run_h2load(
    url: str, body: Path, size: int, *flags: str, seconds: int, shape: tuple[int, int], log: Path, pinned: bool = False
) -> None:
    """Post a body for some seconds; `size` is that of an answer's body. Raises WrongAnswer where not every answer has it."""
    connections, streams = shape
    command = [*on_core(CLIENT_CORE, pinned=pinned), "h2load", "-D", str(seconds), f"--log-file={log}"]
    command += ["-c", str(connections), "-m", str(streams), "-d", str(body), *flags, url]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + PATIENCE)
    judge_h2load(run.stdout, size, in_flight=connections * streams)


def framed_size(answer: bytes) -> int:
    """Return the size of an answer behind the five bytes that gRPC writes before a message."""
    return 5 + len(answer)


def times_of(log: Path) -> list[int]:
    """Return the times that h2load wrote into its log, in microseconds, the shortest first."""
    return sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())


def load(port: int, pid: int | None, request: LoadRequest, shape: tuple[int, int], *, seconds: int, pinned: bool) -> Figures:
    """Load a server for some seconds, after one to warm up; raises WrongAnswer."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "times"
        answer = answered(port, request.data, request.judge)
        h2load(port, request.file, answer, seconds=1, shape=shape, log=log, pinned=pinned)
        log.unlink()
        before = cpu_seconds(pid)
        h2load(port, request.file, answer, seconds=seconds, shape=shape, log=log, pinned=pinned)
        used = cpu_seconds(pid) - before
        answered(port, request.data, request.judge)
        times = times_of(log)
    median, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return Figures(len(times) / seconds, statistics.fmean(times), median, p99, used / len(times) * 1e6)
