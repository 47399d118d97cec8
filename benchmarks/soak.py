"""The fast transport at full speed for ten minutes, beside a peer that resets its calls at random; run by `make soak`.

Ends with an error at the first answer that is not the expected one, to h2load or to the peer. Exit 1 if the sidecar logs a warning
or an error, or if resident memory grows by 2 % or more over the last half. Seconds: soak.py 60
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from secrets import SystemRandom

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import allowed
from benchmarks.bench import TYPICAL, machine
from benchmarks.load import LoadRequest, answered, h2load
from benchmarks.servers import configuration, free_port, issuer, process
from benchmarks.transport import USER
from tests.support.h2_client import Peer, reset
from tests.support.world import check_request, oauth

PIECE = 10
"""Seconds of one run of h2load; memory is read behind each."""
SHAPE = (4, 8)
"""Connections and streams of h2load."""
MOST_GROWTH = 0.02


def resident(pid: int) -> int:
    """Return the resident memory of a process, in kB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


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


def soak(pid: int, port: int, request: LoadRequest, log: Path, seconds: float) -> list[int]:
    """Load piece by piece; return the resident memory behind each; raises WrongAnswer, and what ended the rude peer."""
    answer = answered(port, request.data, request.judge)
    rude, sizes = RudePeer(port, request), list[int]()
    with ThreadPoolExecutor() as pool:
        playing = pool.submit(rude.play)
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until and not playing.done():
                h2load(port, request.file, answer, seconds=PIECE, shape=SHAPE, log=log, pinned=True)
                calls = len(log.read_text().splitlines())
                log.unlink()
                answered(port, request.data, request.judge)
                sizes.append(resident(pid))
                print(
                    f"  {sizes[-1]:>7,} kB  {rude.calls:>8,} calls of the rude peer, {rude.judged:,} judged  {calls:>9,} of h2load",
                    flush=True,
                )
        finally:
            rude.ending.set()
        playing.result()
    return sizes


def main(seconds: float) -> int:
    """Soak and print memory as it goes."""
    machine()
    with tempfile.TemporaryDirectory() as name:
        folder, issuer_port, port = Path(name), free_port(), free_port()
        with issuer(issuer_port) as keys:
            token = keys.token(USER, lifetime=int(seconds) + 3600)
            data = check_request("POST", "/rest/api/v1/search", (TYPICAL | oauth(token)).items())
            request = LoadRequest.of(folder, data, allowed(USER))
            file = configuration(folder, issuer_port, port, "nghttp2")
            log = folder / "sidecar.log"
            with process("-m", "extauthz", "serve", "--config", str(file), "--no-decision-log", log=log) as running:
                sizes = soak(running.pid, port, request, folder / "times", seconds)
            logged = [line for line in log.read_text().splitlines() if '"INFO"' not in line]
    half = sizes[len(sizes) // 2 :]
    growth = max(0.0, half[-1] / half[0] - 1)
    print(f"\n  growth over the last half {growth:.2%}, goal < {MOST_GROWTH:.0%}; every answer was the expected one")
    print("\n".join(logged or ["  the sidecar logged neither warning nor error"]))
    return int(bool(logged) or growth >= MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0))
