"""The fast transport at full speed for ten minutes, beside a peer that resets its calls at random; run by `make soak`.

Exit 1 if a call of h2load fails, if the sidecar logs a warning or an error, or if resident memory grows by 2 % or more over the
last half. Seconds: soak.py 60
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from secrets import SystemRandom

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench import TYPICAL, machine
from benchmarks.transport import CLIENT_CORE, HEADERS, METHOD, answered, configuration, free_port, issuer, process
from tests.support.h2_client import Peer, reset
from tests.support.world import check_request, oauth

PIECE = 10
"""Seconds of one run of h2load; memory is read behind each."""
MOST_GROWTH = 0.02


def resident(pid: int) -> int:
    """Return the resident memory of a process, in kB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def play_resets(port: int, data: bytes, ending: threading.Event, played: list[int]) -> None:
    """Ask and reset by chance, on one connection after the other."""
    chance = SystemRandom()
    while not ending.is_set():
        with Peer(port) as peer:
            for _ in range(200):
                stream = peer.stream()
                request = peer.request(stream, data)
                cut = chance.randrange(len(request)) if chance.random() < 0.05 else len(request)
                if cut < len(request):
                    # A connection that is cut in the middle of a call.
                    peer.send(request[:cut])
                    break
                peer.send(request, *([reset(stream)] if chance.random() < 0.5 else []))
                played[0] += 1
            time.sleep(0.05)


def load(port: int, request: Path) -> str:
    """Load for a piece of time; return what h2load counted."""
    command = ["taskset", "-c", str(CLIENT_CORE), "h2load", "-D", str(PIECE), "-c", "4", "-m", "8", "-d", str(request)]
    command += [part for header in HEADERS for part in ("-H", header)]
    run = subprocess.run([*command, f"http://127.0.0.1:{port}{METHOD}"], capture_output=True, text=True, check=True)
    return next(line for line in run.stdout.splitlines() if line.startswith("requests:"))


def main(seconds: float) -> int:
    """Soak and print memory as it goes."""
    machine()
    with tempfile.TemporaryDirectory() as name:
        folder, issuer_port, port = Path(name), free_port(), free_port()
        with issuer(issuer_port) as keys:
            token = keys.token("ana@acme.com", lifetime=int(seconds) + 3600)
            data = check_request("POST", "/rest/api/v1/search", (TYPICAL | oauth(token)).items())
            request = folder / "request.bin"
            request.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
            file = configuration(folder, issuer_port, port, "nghttp2")
            log = folder / "sidecar.log"
            with process("-m", "extauthz", "serve", "--config", str(file), "--no-decision-log", log=log) as running:
                answered(port, data)
                ending, played = threading.Event(), [0]
                resetting = threading.Thread(target=play_resets, args=(port, data, ending, played))
                resetting.start()
                sizes: list[int] = []
                failed = False
                try:
                    until = time.monotonic() + seconds
                    while time.monotonic() < until and not failed:
                        counted = load(port, request)
                        sizes.append(resident(running.pid))
                        failed = " 0 failed, 0 errored, 0 timeout" not in counted
                        print(f"  {sizes[-1]:>8,} kB  {played[0]:>8,} calls of the rude peer  {counted}", flush=True)
                finally:
                    ending.set()
                    resetting.join()
            logged = [line for line in log.read_text().splitlines() if '"INFO"' not in line]
    half = sizes[len(sizes) // 2 :]
    growth = max(0.0, half[-1] / half[0] - 1)
    print(f"\n  growth over the last half {growth:.2%}, goal < {MOST_GROWTH:.0%}; {'calls failed' if failed else 'no call failed'}")
    print("\n".join(logged or ["  the sidecar logged neither warning nor error"]))
    return int(failed or bool(logged) or growth >= MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0))
