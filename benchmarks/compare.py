"""The sidecar beside other ways to authorize, interleaved in one run; run by `make compare`.

Two tables. Bytes to bytes: h2load sends the same CheckRequest to each server, over 1, 4 and 8 connections. Through Envoy: the same
request goes through an Envoy without authorization, through one that verifies the token itself (jwt_authn and rbac), and through
one that asks each of the servers; one at a time, over 32 connections at once, and at a fixed rate with an open loop. Every figure
is the median of the rounds. All servers run all the time, each as it is started by default, and one of them is asked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import contenders
from benchmarks.answers import Judge, WrongAnswer, allow, allowed
from benchmarks.bench import TYPICAL, machine
from benchmarks.chart import Bar, draw
from benchmarks.contenders import BODY, PATH, USER, Contender, Envoy
from benchmarks.load import Figures, LoadRequest, answered, load, run_h2load, times_of
from benchmarks.open_loop import OpenLoad, open_loop
from benchmarks.servers import built_floor, configuration, cpu_seconds, issuer, process
from extauthz.addresses import Address
from tests.support.ports import free_port
from tests.support.world import check_request

SHAPES = ((1, 1), (4, 8), (8, 32))
WITHOUT = "no authorization"
FLOOR = "floor: C, allows everything"
TRANSPORTS = {"extauthz, grpcio": "grpcio", "extauthz": "nghttp2"}
BUSY = 32
"""Connections of the load that wants as many requests as there can be."""


@dataclass(frozen=True, slots=True)
class Through:
    """What came of one round through an Envoy; times in microseconds, shares of one core."""

    p50: float
    rate: float
    envoy_cpu: float
    server_cpu: float
    envoy_busy: float
    server_busy: float
    open_p50: float
    open_p99: float


def medians(rounds: Sequence[Figures] | Sequence[Through]) -> dict[str, float]:
    """Return the median of each figure."""
    return {field.name: statistics.median(getattr(each, field.name) for each in rounds) for field in fields(rounds[0])}


def through(envoy: Envoy, contender: Contender, headers: Mapping[str, str], folder: Path, *, seconds: int, rate: float) -> Through:
    """Load an Envoy in three ways; raises WrongAnswer."""
    answer = contenders.request(envoy.port, headers)
    if answer != (200, BODY):
        raise WrongAnswer(f"{contender.name}: expected 200 and the body of the route, got {answer}")
    alone = _closed_loop(envoy.port, headers, folder, 1, seconds=seconds)
    before = _cpu(envoy, contender)
    busy = _closed_loop(envoy.port, headers, folder, BUSY, seconds=seconds)
    envoy_cpu, server_cpu = (now - then for now, then in zip(_cpu(envoy, contender), before, strict=True))
    pseudo = {":method": "POST", ":scheme": "http", ":path": PATH, ":authority": "localhost"}
    sent = [[name, value] for name, value in (pseudo | dict(headers)).items()]
    times = open_loop(OpenLoad(envoy.port, sent, "{}", len(BODY), rate, seconds, connections=8), folder)
    count = len(busy)
    return Through(
        p50=alone[len(alone) // 2],
        rate=count / seconds,
        envoy_cpu=envoy_cpu / count * 1e6,
        server_cpu=server_cpu / count * 1e6,
        envoy_busy=envoy_cpu / seconds,
        server_busy=server_cpu / seconds,
        open_p50=times.p50,
        open_p99=times.p99,
    )


def _closed_loop(port: int, headers: Mapping[str, str], folder: Path, connections: int, *, seconds: int) -> list[int]:
    body, log = folder / "body.json", folder / "times"
    body.write_text("{}")
    log.unlink(missing_ok=True)
    flags = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    url = f"http://localhost:{port}{PATH}"
    run_h2load(url, body, len(BODY), *flags, seconds=seconds, shape=(connections, 1), log=log)
    return times_of(log)


def _cpu(envoy: Envoy, contender: Contender) -> tuple[float, float]:
    return cpu_seconds(envoy.pid), cpu_seconds(contender.pid)


def started(stack: ExitStack, folder: Path, issuer_port: int) -> tuple[list[Contender], Path]:
    """Start the servers of our own; return them, and the configuration of one."""
    bare = free_port()
    running = stack.enter_context(process(contenders.__file__, str(bare), pinned=False))
    made = [Contender("bare grpc.aio", server=Address(host="127.0.0.1", port=bare), pid=running.pid)]
    for name, transport in TRANSPORTS.items():
        port = free_port()
        file = configuration(folder, issuer_port, port, transport, free_port())
        running = stack.enter_context(process("-m", "extauthz", "serve", "--config", str(file), pinned=False))
        made.append(Contender(name, server=Address(host="127.0.0.1", port=port), pid=running.pid))
    return made, file


def floor(stack: ExitStack, folder: Path, ours: Contender, data: bytes) -> list[Contender]:
    """Start the server in C, which gives the sidecar's answer to anybody; none where no compiler is. Raises WrongAnswer."""
    program, port = built_floor(folder), free_port()
    if program is None or ours.server is None:
        return []
    message = folder / "message"
    message.write_bytes(answered(ours.server.port, data, allowed(USER)))
    running = stack.enter_context(process(str(port), str(message), program=str(program), pinned=False))
    return [Contender(FLOOR, server=Address(host="127.0.0.1", port=port), pid=running.pid)]


def bytes_to_bytes(servers: Iterable[Contender], data: Mapping[str, bytes], folder: Path, *, rounds: int, seconds: int) -> None:
    """Print the first table; raises WrongAnswer."""
    measured: dict[tuple[str, tuple[int, int]], list[Figures]] = {}
    for round_ in range(rounds):
        for server in servers:
            assert server.server
            judge: Judge = allowed(USER) if server.name in TRANSPORTS else allow
            request = LoadRequest.of(folder, data["raw" if server.is_ours else "map"], judge)
            for shape in SHAPES:
                figures = load(server.server.port, server.pid, request, shape, seconds=seconds, pinned=False)
                measured.setdefault((server.name, shape), []).append(figures)
        print(f"  round {round_ + 1} of {rounds} done", file=sys.stderr, flush=True)
    print(f"\n| bytes to bytes, connections × streams | {' | '.join(f'{a} × {b}' for a, b in SHAPES)} |")
    print("|---|" + "---:|" * len(SHAPES))
    for server in servers:
        cells = []
        for shape in SHAPES:
            each = medians(measured[server.name, shape])
            cells.append(f"{each['rate']:,.0f}/s, p50 {each['p50']:,.0f} µs, p99 {each['p99']:,.0f}, CPU {each['cpu']:.0f} µs")
        print(f"| {server.name} | {' | '.join(cells)} |")


def through_envoy(
    envoys: Sequence[tuple[Contender, Envoy]], headers: Mapping[str, str], folder: Path, *, rounds: int, seconds: int, rate: float
) -> dict[str, dict[str, float]]:
    """Print the second table and return its figures; raises WrongAnswer."""
    measured: dict[str, list[Through]] = {}
    for round_ in range(rounds):
        for contender, envoy in envoys:
            measured.setdefault(contender.name, []).append(through(envoy, contender, headers, folder, seconds=seconds, rate=rate))
        print(f"  round {round_ + 1} of {rounds} done", file=sys.stderr, flush=True)
    figures = {name: medians(each) for name, each in measured.items()}
    nothing = figures[WITHOUT]
    print(
        f"\n| through Envoy | p50 at 1, added | requests/s at {BUSY} | CPU of Envoy | of the server | busy: Envoy, server "
        f"| open loop, {rate:,.0f}/s: p50, p99 |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, each in figures.items():
        server = f"{each['server_cpu']:.1f} µs" if each["server_cpu"] else "-"
        print(
            f"| {name} | {each['p50']:,.0f} µs, +{each['p50'] - nothing['p50']:,.0f} | {each['rate']:,.0f} "
            f"| {each['envoy_cpu']:.1f} µs | {server} | {each['envoy_busy']:.0%}, {each['server_busy']:.0%} "
            f"| {each['open_p50']:,.0f} µs, {each['open_p99']:,.0f} |"
        )
    return figures


def print_goals(figures: Mapping[str, Mapping[str, float]], others: Iterable[Contender]) -> None:
    """Print what must hold."""
    ours, bare, nothing = figures["extauthz"], figures["bare grpc.aio"], figures[WITHOUT]
    print(f"\n  CPU of the sidecar : of Envoy                 {ours['server_cpu'] / ours['envoy_cpu']:.2f}   goal ≤ 0.25")
    print(f"  busy at {BUSY} connections: the sidecar           {ours['server_busy']:.0%}   goal ≤ 25 %, Envoy near 100 %")
    added, bare_added = ours["p50"] - nothing["p50"], bare["p50"] - nothing["p50"]
    print(f"  latency added at one connection : bare grpc.aio {added / bare_added:.2f}")
    if FLOOR in figures:
        floor_added = figures[FLOOR]["p50"] - nothing["p50"]
        print(f"  latency added at one connection : floor         {added / floor_added:.2f}")
    for other in others:
        each = figures[other.name]
        print(f"  requests/s : {other.name}   {ours['rate'] / each['rate']:.1f}   goal for OPA-Envoy ≥ 4")


def main(arguments: argparse.Namespace) -> None:
    """Start everything, measure, print and draw."""
    if shutil.which("h2load") is None:
        raise SystemExit("compare: needs h2load (Debian: apt install nghttp2-client)")
    machine()
    others = [contenders.other(text) for text in arguments.also]
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as scratch_name, ExitStack() as stack:
        folder, scratch, port = Path(name), Path(scratch_name), arguments.issuer_port or free_port()
        keys = stack.enter_context(issuer(port))
        # The user's address is the subject as well, because Envoy's filters and others have no rule of their own for it.
        token = keys.token(USER, sub=USER, lifetime=86_400)
        headers = TYPICAL | {"authorization": f"Bearer {token}", "x-glean-auth-type": "OAUTH"}
        if arguments.seconds == 0:
            print("\n".join(f"{header}: {value}" for header, value in headers.items()))
            input("the issuer runs until you press Enter ")
            return
        data = {form: check_request("POST", PATH, headers.items(), form=form) for form in ("raw", "map")}
        servers, file = started(stack, folder, port)
        servers += floor(stack, scratch, servers[-1], data["raw"])
        servers += others
        address = keys.issuer
        key_set = json.dumps(keys.document("/oauth2/default/v1/keys"))
        native = [
            Contender(
                f"Envoy's jwt_authn + rbac, cache {'on' if cached else 'off'}", contenders.in_envoy(address, key_set, cached=cached)
            )
            for cached in (False, True)
        ]
        envoys = []
        for number, contender in enumerate((Contender(WITHOUT), *native, *servers)):
            own = contenders.own_bootstrap(file, free_port(), scratch / f"admin-{number}.sock")
            running = contenders.running(contenders.bootstrap_of(contender, own), scratch)
            envoys.append((contender, stack.enter_context(running)))
        print(f"medians of {arguments.rounds} rounds of {arguments.seconds} s; Envoy 1.40, one worker each", flush=True)
        bytes_to_bytes(servers, data, scratch, rounds=arguments.rounds, seconds=arguments.seconds)
        figures = through_envoy(envoys, headers, scratch, rounds=arguments.rounds, seconds=arguments.seconds, rate=arguments.rate)
    print_goals(figures, others)
    bars = [Bar(name, (each["envoy_cpu"], each["server_cpu"])) for name, each in figures.items()]
    arguments.svg.parent.mkdir(parents=True, exist_ok=True)
    arguments.svg.write_text(draw("Processor time of a request, µs", ("Envoy", "who is asked"), bars), encoding="utf-8")
    print(f"\ndrawn: {arguments.svg}")


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=HOST:PORT", help="another ext_authz server")
    parser.add_argument("--issuer-port", type=int, default=0, help="where the keys of the token are, for the policies of others")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each load; 0: only run the issuer and print the headers")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second of the open loop")
    parser.add_argument("--svg", type=Path, default=Path("build/compare.svg"))
    return parser.parse_args(words)


if __name__ == "__main__":
    main(parsed(sys.argv[1:]))
