"""Whole checks over a socket, by h2load; run by `make bench`. Seconds of each load: transport.py 1

The request is a warm OAuth token. First comes the sidecar as it is started by default: the decision log goes to a pipe that is
read, the ops listener is there, and the system picks the cores. Then the variants without the ops listener, the server on one core
and h2load on another: with the decision log, without it, and the same transport with an empty handler, the floor. One answer
is judged before and behind each load, and each one of the load by its length. h2load is in Debian's package nghttp2-client.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import allowed, exactly
from benchmarks.bench import TYPICAL, machine
from benchmarks.load import Figures, LoadRequest, load
from benchmarks.servers import CLIENT_CORE, SERVER_CORE, configuration, free_port, issuer, process
from extauthz.addresses import Address
from extauthz.transport.grpc import libnghttp2
from extauthz.transport.select import Name, choose
from tests.support.transports import default_limits
from tests.support.world import check_request, oauth

SECONDS = 4
SHAPES = ((1, 1), (4, 8), (8, 32))
EMPTY = b"x" * 490
"""What the empty handler answers."""
USER = "ana@acme.com"


Table = dict[tuple[int, int], Figures]


def table(name: str, port: int, pid: int, request: LoadRequest, *, seconds: int, pinned: bool = True) -> Table:
    """Load a server in every shape and print the figures; raises WrongAnswer."""
    found = {}
    for shape in SHAPES:
        found[shape] = figures = load(port, pid, request, shape, seconds=seconds, pinned=pinned)
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


def by_default(folder: Path, issuer_port: int, request: LoadRequest, transport: str, *, seconds: int) -> Table:
    """Measure the sidecar as `extauthz serve` starts it."""
    port = free_port()
    file = configuration(folder, issuer_port, port, transport, free_port())
    with process("-m", "extauthz", "serve", "--config", str(file), pinned=False) as running:
        return table(f"{transport}, as by default", port, running.pid, request, seconds=seconds, pinned=False)


def on_one_core(folder: Path, issuer_port: int, request: LoadRequest, transport: str, *flags: str, seconds: int) -> Table:
    """Measure the sidecar on one core, without the ops listener."""
    port = free_port()
    file = configuration(folder, issuer_port, port, transport)
    name = f"{transport}, one core{'' if flags else ', decision log'}"
    with process("-m", "extauthz", "serve", "--config", str(file), *flags) as running:
        return table(name, port, running.pid, request, seconds=seconds)


def empty(request: LoadRequest, transport: str, *, seconds: int) -> Table:
    """Measure the transport on one core, with a handler that does nothing."""
    port = free_port()
    with process(__file__, "empty", transport, str(port)) as running:
        nothing = replace(request, judge=exactly(EMPTY))
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
            request = LoadRequest.of(folder, data, allowed(USER))
            default = {each: by_default(folder, issuer_port, request, each, seconds=seconds) for each in names}
            logged = {each: on_one_core(folder, issuer_port, request, each, seconds=seconds) for each in names}
            bare = {each: on_one_core(folder, issuer_port, request, each, "--no-decision-log", seconds=seconds) for each in names}
            floor = {each: empty(request, each, seconds=seconds) for each in names}
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
