"""Whole checks over a socket, by h2load; run by `make bench`. Seconds of each load: transport.py 1

The request is a warm OAuth token. First comes the sidecar as it is started by default: the decision log goes to a pipe that is
read, the ops listener is there, and the system picks the cores. Then the variants without the ops listener, the server on one core
and h2load on another: with the decision log, without it, the same transport with an empty handler, and the floor, a server in C.
One answer is judged before and behind each load, and each one of the load by its length. h2load is in Debian's package
nghttp2-client.
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

from benchmarks.answers import WrongAnswer, allowed, exactly
from benchmarks.bench import TYPICAL, machine
from benchmarks.load import Figures, LoadRequest, answered, load
from benchmarks.open_loop import OpenLoad, open_loop
from benchmarks.reloads import metric, scrape
from benchmarks.servers import CLIENT_CORE, SERVER_CORE, built_floor, configuration, issuer, process
from extauthz.addresses import Address
from extauthz.transport.grpc import libnghttp2
from extauthz.transport.select import Name, choose
from tests.support.ports import free_port
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


def by_default(folder: Path, issuer_port: int, request: LoadRequest, transport: str, *flags: str, seconds: int) -> Table:
    """Measure the sidecar as `extauthz serve` starts it; the fast transport also at half its load, with an open loop."""
    port, ops = free_port(), free_port()
    file = configuration(folder, issuer_port, port, transport, ops)
    name = f"{transport}, as by default{', no log' if flags else ''}"
    with process("-m", "extauthz", "serve", "--config", str(file), *flags, pinned=False) as running:
        figures = table(name, port, running.pid, request, seconds=seconds, pinned=False)
        if transport == "nghttp2" and not flags:
            print_half_load(name, port, request, figures[4, 8].rate / 2, folder, seconds=seconds)
        if not flags:
            judge_log(name, ops)
    return figures


def judge_log(name: str, ops: int) -> None:
    """Print how many lines of the decision log were written; raises WrongAnswer when some were dropped, which costs less."""
    page = scrape(ops)
    written, dropped = (metric(page, f"extauthz_decision_log_{each}_total") for each in ("written", "dropped"))
    print(f"  {name}: {written:,.0f} lines of the log written, {dropped:,.0f} dropped")
    if dropped or not written:
        raise WrongAnswer("the decision log dropped lines: what was measured is not the default")


def print_half_load(name: str, port: int, request: LoadRequest, rate: float, folder: Path, *, seconds: int) -> None:
    """Send checks at the moments of a schedule and print their times; raises WrongAnswer."""
    answer = answered(port, request.data, request.judge)
    times = open_loop(OpenLoad.of_check(port, request.data, answer, rate=rate, seconds=seconds), folder)
    shown = f"p50 {times.p50:,.0f} µs, p99 {times.p99:,.0f} = {times.p99 / times.p50:.1f} × (goal ≤ 3)"
    print(f"  {name}, open loop, {rate:,.0f}/s, one connection: {shown},")
    print(f"    p99.9 {times.p999:,.0f}, at most {times.most:,.0f}; the client itself was late by {times.late:,.0f} µs at p99")


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


def floor_in_c(request: LoadRequest, folder: Path, rate: float, *, seconds: int) -> Table | None:
    """Measure a server in C that does nothing but HTTP/2, on one core; None where no compiler is.

    With an open loop as well, on any core and at the rate that the sidecar had: what of its times is the machine's.
    """
    program, port, message = built_floor(folder), free_port(), folder / "message"
    if program is None:
        print("  no C compiler: the floor is not measured")
        return None
    message.write_bytes(EMPTY)
    nothing = replace(request, judge=exactly(EMPTY))
    with process(str(port), str(message), program=str(program), pinned=False):
        print_half_load("C", port, nothing, rate, folder, seconds=seconds)
    with process(str(port), str(message), program=str(program)) as running:
        return table("C, one core, empty", port, running.pid, nothing, seconds=seconds)


def goal(name: str, value: float, text: str = "", *, form: str = ",.1f") -> None:
    """Print one line of the comparison."""
    print(f"  {name:<44} {value:>10{form}}   {text}")


def main(seconds: int) -> None:
    """Measure both transports and compare them with the goals."""
    if shutil.which("h2load") is None or (os.cpu_count() or 1) < 2:
        print("transport: needs h2load (Debian: apt install nghttp2-client) and two cores; not measured")
        return
    machine()
    print(f"libnghttp2 {libnghttp2.version()}; {seconds} s each; one core: the server on {SERVER_CORE}, h2load on {CLIENT_CORE}\n")
    print(f"  {'connections × streams':<40} {'checks/s':>8} {'mean µs':>9} {'p50 µs':>9} {'p99 µs':>9} {'CPU µs':>9}")
    names = ("nghttp2", "grpcio")
    no_log = "--no-decision-log"
    with tempfile.TemporaryDirectory() as name:
        folder, issuer_port = Path(name), free_port()
        with issuer(issuer_port) as keys:
            data = check_request("POST", "/rest/api/v1/search", (TYPICAL | oauth(keys.token(USER))).items())
            request = LoadRequest.of(folder, data, allowed(USER))
            default = {each: by_default(folder, issuer_port, request, each, seconds=seconds) for each in names}
            unlogged = by_default(folder, issuer_port, request, "nghttp2", no_log, seconds=seconds)
            logged = {each: on_one_core(folder, issuer_port, request, each, seconds=seconds) for each in names}
            bare = {each: on_one_core(folder, issuer_port, request, each, no_log, seconds=seconds) for each in names}
            handler = {each: empty(request, each, seconds=seconds) for each in names}
            floor = floor_in_c(request, folder, default["nghttp2"][4, 8].rate / 2, seconds=seconds)
    print("\n  as by default:")
    shape = (4, 8)
    started, fast, slow = default["nghttp2"][shape], bare["nghttp2"], bare["grpcio"]
    goal("nghttp2 : grpcio, checks/s at 4 × 8", started.rate / default["grpcio"][shape].rate)
    goal("CPU of a whole check at 4 × 8, µs", started.cpu, "goal ≤ 22")
    if floor:
        goal("the same : floor in C, empty", started.cpu / floor[shape].cpu, f"goal ≤ 6.5; the floor is {floor[shape].cpu:.1f} µs")
    goal("CPU of a line of the log at 4 × 8, µs", started.cpu - unlogged[shape].cpu, "goal ≤ 3")
    print("  on one core, without the ops listener:")
    goal("checks/s at 4 × 8, with decision log", logged["nghttp2"][shape].rate, "goal ≥ 40,000", form=",.0f")
    goal("CPU of a line of the log at 4 × 8, µs", logged["nghttp2"][shape].cpu - fast[shape].cpu, "goal ≤ 3")
    print("  and without the decision log:")
    goal("nghttp2 : grpcio, checks/s at 4 × 8", fast[shape].rate / slow[shape].rate, "goal ≥ 9")
    goal("CPU of a whole check at 4 × 8, µs", fast[shape].cpu, "goal ≤ 22")
    goal("the same : empty handler", fast[shape].cpu / handler["nghttp2"][shape].cpu)
    if floor:
        goal("the same : floor in C, empty", fast[shape].cpu / floor[shape].cpu)
    goal("mean at 1 × 1, nghttp2 : grpcio", fast[1, 1].mean / slow[1, 1].mean, "goal ≤ 0.55", form=".2f")


if __name__ == "__main__":
    if sys.argv[1:2] == ["empty"]:
        serve_empty(sys.argv[2], int(sys.argv[3]))  # type: ignore[arg-type]
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
