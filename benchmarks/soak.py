"""Ten minutes at full speed while a peer resets and cuts, routes change and the log's reader rests; run by `make soak`.

The sidecar runs as a user starts it: with the decision log and the ops listener, on whatever cores the system picks. Ends with an
error at the first answer that is not the expected one, to h2load or to anybody else. Exit 1 if the sidecar logs a warning or an
error that nothing explains, if a line of the decision log is neither read nor counted as dropped, if resident memory grows by 2 %
or more over the last half, or if descriptors or threads become more. Seconds: soak.py 60
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from secrets import SystemRandom
from typing import IO, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer, allowed
from benchmarks.bench import TYPICAL, machine
from benchmarks.load import LoadRequest, answered, h2load
from benchmarks.reloads import PATIENCE, RouteEditor, metric, scrape
from benchmarks.servers import configuration, issuer, process
from benchmarks.transport import USER
from tests.support.h2_client import Peer, reset
from tests.support.ports import free_port
from tests.support.world import check_request, oauth

PIECE = 10
"""Seconds of one run of h2load; what the process has is read behind each."""
SHAPE = (4, 8)
"""Connections and streams of h2load."""
TIMEOUT = "1H"
"""What h2load gives a check: on a machine with other work one that took 200 ms is none of the faults that are looked for."""
ROUTES = 300
MOST_GROWTH = 0.02
MOST_PASSING = 3
"""Descriptors and threads that come and go: connections of those who ask beside the load, a file that is read."""
EXPECTED = re.compile(r"300 routes disappeared with this reload|decision log not written\"|decision log written again\"")
"""What the sidecar has to say of routes that change, and of a reader that rests."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process has: resident memory in kB, open descriptors, threads."""

    kilobytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Holdings:
        """Read them."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return cls(int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"]))


class Companion(Protocol):
    """Somebody who uses or changes the sidecar beside the load; `ending` tells that it is over."""

    ending: threading.Event

    def play(self) -> None:
        """Go on until told to end; raises WrongAnswer."""


@dataclass
class RudePeer:
    """Asks and resets by chance, on one connection after the other."""

    port: int
    request: LoadRequest
    ending: threading.Event = field(default_factory=threading.Event)
    calls: int = 0
    judged: int = 0

    def play(self) -> None:
        """Go on until told to end; raises WrongAnswer, or what h2_client raises where a call does not end well."""
        while not self.ending.is_set():
            self._play_once()
            time.sleep(0.05)

    def _play_once(self) -> None:
        """Ask 200 times, or until the connection is cut in the middle of a call, by half of the times with others under way."""
        chance, waiting, cut = SystemRandom(), [], b""
        with Peer(self.port) as peer:
            for _ in range(200):
                stream = peer.stream()
                request = peer.request(stream, self.request.data)
                if chance.random() < 0.05:
                    cut = request[: chance.randrange(len(request))]
                    break
                is_reset = chance.random() < 0.5
                peer.send(request, *([reset(stream)] if is_reset else []))
                waiting += [] if is_reset else [stream]
                self.calls += 1
            if not cut or chance.random() < 0.5:
                for stream in waiting:
                    self.request.judge(peer.answer(stream).message)
                    self.judged += 1
            peer.send(cut)


@dataclass
class RestingReader:
    """Reads the decision log, and rests now and then for longer than the sidecar waits for it, or keeps lines."""

    longest_rest: float = 1.5
    lines: int = 0
    rests: int = 0

    def read(self, pipe: IO[bytes]) -> None:
        """Read to the end."""
        chance, rest_at = SystemRandom(), 0.0
        with pipe:
            while chunk := pipe.read1(65536):  # type: ignore[attr-defined]
                self.lines += chunk.count(b"\n")
                if time.monotonic() > rest_at:
                    time.sleep(chance.uniform(0.0, self.longest_rest))
                    self.rests += 1
                    rest_at = time.monotonic() + chance.uniform(5.0, 20.0)


def soak(
    pid: int,
    port: int,
    request: LoadRequest,
    log: Path,
    seconds: float,
    *companions: Companion,
    still: threading.Lock | None = None,
) -> list[Holdings]:
    """Load piece by piece; return what the process has behind each; raises WrongAnswer, and what ended a companion.

    It is looked at while the lock is free, which a companion holds who makes it need more for a moment.
    """
    answer = answered(port, request.data, request.judge)
    found = list[Holdings]()
    with ThreadPoolExecutor() as pool:
        playing = [pool.submit(companion.play) for companion in companions]
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until and not any(each.done() for each in playing):
                h2load(port, request.file, answer, seconds=PIECE, shape=SHAPE, log=log, pinned=False, timeout=TIMEOUT)
                calls = len(log.read_text().splitlines())
                log.unlink()
                answered(port, request.data, request.judge)
                with still or threading.Lock():
                    found.append(now := Holdings.of(pid))
                print(
                    f"  {now.kilobytes:>8,} kB  {now.descriptors:>3} descriptors  {now.threads:>2} threads  {calls:>9,} of h2load",
                    flush=True,
                )
        finally:
            for companion in companions:
                companion.ending.set()
        for each in playing:
            each.result()
    return found


def growth(found: Sequence[Holdings]) -> float:
    """Return by which share resident memory grew over the last half."""
    half = found[len(found) // 2 :]
    return half[-1].kilobytes / half[0].kilobytes - 1


def has_more(counts: Sequence[int]) -> bool:
    """Tell whether there are always more in the last quarter than there ever were in the first one, by what comes and goes."""
    quarter = max(1, len(counts) // 4)
    return min(counts[-quarter:]) > max(counts[:quarter]) + MOST_PASSING


def unexplained(logged: str) -> list[str]:
    """Return the lines of the process log above INFO that nothing explains."""
    return [line for line in logged.splitlines() if '"INFO"' not in line and not EXPECTED.search(line)]


def account(ops: int, reader: RestingReader) -> str:
    """Compare the decisions with the lines that were read and dropped, as soon as all are; raises WrongAnswer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        page = scrape(ops)
        decided, written, dropped = (
            metric(page, f"extauthz_{name}_total") for name in ("checks", "decision_log_written", "decision_log_dropped")
        )
        text = f"{decided:,.0f} decisions: {reader.lines:,} lines read, {written:,.0f} written, {dropped:,.0f} dropped"
        if decided == written + dropped and written == reader.lines:
            return text
        if time.monotonic() > deadline:
            raise WrongAnswer(text)
        time.sleep(0.2)


def main(seconds: float) -> int:
    """Soak and print what the process has as it goes."""
    machine()
    with tempfile.TemporaryDirectory() as name:
        folder, issuer_port, port, ops = Path(name), free_port(), free_port(), free_port()
        with issuer(issuer_port) as keys:
            token = keys.token(USER, lifetime=int(seconds) + 3600)
            data = check_request("POST", "/rest/api/v1/search", (TYPICAL | oauth(token)).items())
            request = LoadRequest.of(folder, data, allowed(USER))
            file = configuration(folder, issuer_port, port, "nghttp2", ops)
            log, reader = folder / "sidecar.log", RestingReader()
            editor = RouteEditor(folder, ops, port, USER, TYPICAL | oauth(token), ROUTES)
            editor.write(0)
            with process("-m", "extauthz", "serve", "--config", str(file), log=log, pinned=False, read=reader.read) as running:
                editor.pid, rude = running.pid, RudePeer(port, request)
                found = soak(running.pid, port, request, folder / "times", seconds, rude, editor, still=editor.still)
                accounted = account(ops, reader)
            logged = unexplained(log.read_text())
    grown, more = growth(found), [each for each in ("descriptors", "threads") if has_more([getattr(one, each) for one in found])]
    print(f"\n  {rude.calls:,} calls of the rude peer, {rude.judged:,} of them judged; {editor.reloads} reloads, each in use")
    print(f"  {accounted}; the reader rested {reader.rests} times")
    print(f"  growth of memory over the last half {grown:.2%}, goal < {MOST_GROWTH:.0%}; every answer was the expected one")
    print(f"  {' and '.join(more) or 'neither descriptors nor threads'} became more")
    print("\n".join(logged or ["  the sidecar logged no warning and no error that nothing explains"]))
    return int(bool(logged or more) or grown >= MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0))
