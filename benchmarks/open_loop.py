"""An HTTP/2 client that sends at the moments of a schedule, whether or not what it sent before has been answered.

A client that waits for an answer before it asks again stops asking while the server stands still, and so leaves the bad times out
of its figures (coordinated omission). Here the moments are drawn before the run (a Poisson process of a given rate), and a time is
counted from the moment of the schedule, not from when the client came to send. A process of its own: it is called with the path of
a JSON file that holds an `OpenLoad`, and prints `Latencies` as JSON.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import SystemRandom
from time import perf_counter

import hpack

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer
from tests.support import h2_client as h2

WIDE = 2**31 - 1
"""The widest window (RFC 9113 6.9.1)."""
NARROW = 65_535
SLACK = 80e-6
"""Seconds before a moment in which the client turns instead of sleeping, because it would wake too late."""
DRAIN = 5.0
"""Seconds to wait for the last answers."""
FRAME = struct.Struct(">HBBBI")


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """What is sent, how often a second and for how long; `size` is that of each answer's body, in bytes."""

    port: int
    headers: list[list[str]]
    body: str
    size: int
    rate: float
    seconds: float
    connections: int = 1

    @classmethod
    def of_check(cls, port: int, data: bytes, answer: bytes, *, rate: float, seconds: float) -> OpenLoad:
        """Return a load of checks that are all answered like `answer`, over one connection, as from one worker of Envoy."""
        headers = [[str(name), str(value)] for name, value in (*h2.FIELDS, ("grpc-timeout", "200m"))]
        return cls(port, headers, h2.framed(data).decode("latin-1"), len(h2.framed(answer)), rate, seconds)


@dataclass(frozen=True, slots=True)
class Latencies:
    """What an open loop gave, in microseconds from the moments of the schedule; `late` is how late the client was, at p99."""

    count: int
    p50: float
    p99: float
    p999: float
    most: float
    late: float

    @classmethod
    def of(cls, times: list[float], lateness: list[float]) -> Latencies:
        """Sum up seconds."""
        times, lateness = sorted(times), sorted(lateness)

        def share(values: list[float], part: float) -> float:
            return values[min(len(values) - 1, int(len(values) * part))] * 1e6

        p50, p99, p999 = (share(times, part) for part in (0.5, 0.99, 0.999))
        return cls(len(times), p50, p99, p999, times[-1] * 1e6, share(lateness, 0.99))


@dataclass(eq=False)
class Connection:
    """One connection on which requests are sent that are all the same."""

    load: OpenLoad
    times: list[float]
    socket: socket.socket = field(init=False)
    _window: int = NARROW
    _stream_limit: int = 100
    _waiting: deque[float] = field(default_factory=deque)
    _moments: dict[int, float] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _next: int = 1
    _buffer: bytes = b""

    def __post_init__(self) -> None:
        """Connect and greet; raises OSError."""
        self.socket = h2.connect(self.load.port)
        greeting = h2.settings({h2.INITIAL_WINDOW_SIZE: WIDE, h2.MAX_CONCURRENT_STREAMS: 0})
        self.socket.sendall(h2.PREFACE + greeting + h2.window_update(0, WIDE - NARROW))
        encoder = hpack.Encoder()
        fields = [(name, value) for name, value in self.load.headers]
        # The second block is short: it points to what the first one put into the table.
        self._first, self._block = encoder.encode(fields), encoder.encode(fields)
        self._body = self.load.body.encode("latin-1")

    @property
    def open(self) -> int:
        """How many requests have no answer yet."""
        return len(self._moments) + len(self._waiting)

    def send(self, moment: float) -> None:
        """Send the request of a moment, as soon as the other side's window and its limit of streams allow it."""
        self._waiting.append(moment)
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self._window >= len(self._body) and len(self._moments) < self._stream_limit:
            stream, self._next = self._next, self._next + 2
            self._moments[stream] = self._waiting.popleft()
            self._sizes[stream] = 0
            self._window -= len(self._body)
            block, self._first = self._first or self._block, b""
            headers = h2.frame(h2.HEADERS, block, flags=h2.END_HEADERS, stream=stream)
            self.socket.sendall(headers + h2.data(stream, self._body, end=True))

    def receive(self) -> None:
        """Take what came; raises WrongAnswer for a stream that ends otherwise than with a body of the size that is expected."""
        content = self.socket.recv(262_144)
        now = perf_counter()
        if not content:
            raise WrongAnswer("the connection was closed")
        for kind, flags, stream, payload in self._frames(content):
            match kind:
                case h2.DATA:
                    self._sizes[stream] += len(payload)
                case h2.WINDOW_UPDATE if stream == 0:
                    self._window += int.from_bytes(payload, "big")
                case h2.SETTINGS if not flags & h2.ACK:
                    self._take_settings(payload)
                case h2.PING if not flags & h2.ACK:
                    self.socket.sendall(h2.frame(h2.PING, payload, flags=h2.ACK))
                case h2.RST_STREAM | h2.GOAWAY:
                    raise WrongAnswer(f"stream {stream} ended with a frame of type {kind}: {payload!r}")
            if kind in (h2.DATA, h2.HEADERS) and flags & h2.END_STREAM:
                size = self._sizes.pop(stream)
                if size != self.load.size:
                    raise WrongAnswer(f"an answer of {self.load.size} bytes was expected, and one of {size} came")
                self.times.append(now - self._moments.pop(stream))
        self._flush()

    def _frames(self, content: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        content = self._buffer + content
        start = 0
        while start + 9 <= len(content):
            high, low, kind, flags, stream = FRAME.unpack_from(content, start)
            end = start + 9 + (high << 8) + low
            if end > len(content):
                break
            yield kind, flags, stream, content[start + 9 : end]
            start = end
        self._buffer = content[start:]

    def _take_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == h2.MAX_CONCURRENT_STREAMS:
                self._stream_limit = value
        self.socket.sendall(h2.settings(flags=h2.ACK))


def run(load: OpenLoad, moments: list[float]) -> Latencies:
    """Send a request at each of the moments, seconds from the start; raises WrongAnswer."""
    times, lateness = list[float](), list[float]()
    with ExitStack() as stack:
        connections = [Connection(load, times) for _ in range(load.connections)]
        for connection in connections:
            stack.callback(connection.socket.close)
        sockets = {connection.socket: connection for connection in connections}

        def read(seconds: float) -> None:
            for readable in select.select(sockets, [], [], max(0.0, seconds))[0]:
                sockets[readable].receive()

        read(0.2)
        start = perf_counter()
        for number, moment in enumerate(moments):
            due = start + moment
            while (left := due - perf_counter()) > 0:
                read(left - SLACK)
            lateness.append(-left)
            connections[number % len(connections)].send(due)
        deadline = perf_counter() + DRAIN
        while any(connection.open for connection in connections):
            if perf_counter() > deadline:
                raise WrongAnswer(f"{sum(connection.open for connection in connections)} requests were not answered")
            read(0.1)
    return Latencies.of(times, lateness)


def schedule(rate: float, seconds: float) -> list[float]:
    """Draw the moments of so many independent requests a second."""
    draw = SystemRandom().expovariate
    moments, moment = list[float](), draw(rate)
    while moment < seconds:
        moments.append(moment)
        moment += draw(rate)
    return moments


def open_loop(load: OpenLoad, folder: Path) -> Latencies:
    """Run a load in a process of its own; raises WrongAnswer with what that process printed."""
    file = folder / "open_load.json"
    file.write_text(json.dumps(asdict(load)), encoding="utf-8")
    done = subprocess.run([sys.executable, __file__, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongAnswer(f"open loop: {done.stderr[-2000:]}")
    return Latencies(**json.loads(done.stdout))


def main(file: Path) -> None:
    """Run the load of a file."""
    load = OpenLoad(**json.loads(file.read_text(encoding="utf-8")))
    moments = schedule(load.rate, load.seconds)
    gc.disable()
    print(json.dumps(asdict(run(load, moments))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
