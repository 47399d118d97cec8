"""How the cost of a warm check grows with what is configured, known, received and connected; run by `make bench`.

First bytes to bytes, in this process and with the decision log on: the sizes of a series are measured in turns, so that a busy
machine slows all of them, and the best round of each counts. Then over sockets, the sidecar as `extauthz serve` starts it: with
more connections of one stream each, and with two workers, each of which gets half of the load. Every answer is judged.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import allowed, judge_all
from benchmarks.bench import TYPICAL, machine, row
from benchmarks.load import Figures, LoadRequest, answered, load
from benchmarks.servers import configuration, issuer, process
from benchmarks.transport import USER
from benchmarks.under_load import make_tokens
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.sinks import File
from extauthz.adapters.metrics import DecisionCounters
from extauthz.adapters.store.reader import SqliteReader
from extauthz.process.clock import SystemClock
from extauthz.serve.decision_ids import decision_id
from extauthz.service import Authorizer
from extauthz.telemetry.recorders import Recorders
from tests.support.ports import successive_ports
from tests.support.world import CLIENT, World, bearer, check_request, claims, oauth, sign

ROUNDS, CHECKS = 60, 300
"""Rounds of each size, and checks in one."""
ISSUERS = (1, 10, 100)
ROUTES = (10, 1_000, 10_000)
TOKENS = (1, 1_000, 100_000)
HEADERS = (5, 20, 50, 100)
CONNECTIONS = (1, 10, 100, 1_000)
WORKERS = (1, 2)
SAMPLE = 100
"""Requests that come by turns, each for the next of as many routes as there are; as many requests with few routes."""
SEARCH = [{"match": "POST /search", "scope": "SEARCH"}]
PLENTY = {"verdicts": 200_000, "signatures_per_second": 10_000_000, "store_per_second": 10_000_000}
ISSUER = "https://acme{}.okta.com/oauth2/default"
SECONDS = 3

Check = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Size:
    """One size of a series: what answers, and requests that come by turns; each is an allow for the user, or for nobody."""

    name: str
    check: Check
    requests: Iterator[bytes]
    user: str | None

    @classmethod
    def of(cls, name: str, check: Check, requests: Sequence[bytes], user: str | None = USER) -> Size:
        """Have every request answered once, so that it is warm from now on; raises WrongAnswer."""
        judge_all(allowed(user), map(check, requests))
        return cls(name, check, itertools.cycle(requests), user)

    def measure(self) -> float:
        """Return the microseconds of a check; raises WrongAnswer."""
        data, check = list(itertools.islice(self.requests, CHECKS)), self.check
        started = time.perf_counter()
        answers = [check(each) for each in data]
        taken = time.perf_counter() - started
        judge_all(allowed(self.user), answers)
        return taken / CHECKS * 1e6


def grow(series: Sequence[Size], goal: float | None = None) -> None:
    """Measure the sizes in turns, and print what each costs, and costs of what the first does; raises WrongAnswer."""
    best = [float("inf")] * len(series)
    for _ in range(ROUNDS):
        best = [min(before, size.measure()) for before, size in zip(best, series, strict=True)]
    for size, taken in zip(series, best, strict=True):
        row(size.name, f"{taken:.1f} µs", f"{taken / best[0]:.2f} ×" + (f"   goal ≤ {goal}" if goal and size is series[-1] else ""))


def now() -> int:
    """Return the time: the tokens must live now."""
    return int(time.time())  # noqa: TID251


@contextmanager
def answering(world: World) -> Iterator[Check]:
    """Yield what answers in a world, with the decision log and the counters of `serve`."""
    world.clock.wall = float(now())
    log = DecisionLog(File(Path(os.devnull)), capacity=10_000)
    recorders = Recorders((DecisionCounters(now=SystemClock.now), log))
    try:
        yield Authorizer(world.authorizer._runtime, recorders, clock=SystemClock(), decision_ids=decision_id).check
    finally:
        log.close()


def access_token(algorithm: str = "RS256", **changes: object) -> dict[str, str]:
    """Return the headers of an access token of USER."""
    return oauth(sign(claims(**{"sub": USER, "iat": now() - 60, "exp": now() + 7200} | changes), algorithm=algorithm))


def request(path: str, credential: Mapping[str, str]) -> bytes:
    """Return a usual request."""
    return check_request("POST", path, (TYPICAL | credential).items())


def stored(folder: Path, count: int, stack: ExitStack) -> tuple[World, SqliteReader, list[str]]:
    """Return a world that reads a SQLite store, what it reads with, and the tokens in it, which are nobody's."""
    world = World(folder, [{**SEARCH[0], "anonymous": True}], {"limits": PLENTY})
    texts = make_tokens(folder, count)
    reader = stack.enter_context(closing(SqliteReader(folder / "tokens.db")))
    world.store = reader  # type: ignore[assignment]
    world.authorizer.swap(world.build().runtime)
    return world, reader, texts


def issuers(folder: Path, count: int, stack: ExitStack) -> Size:
    """Providers, each with an issuer of its own; the token is of the last one."""
    entry = {"provider": "okta", "audience": "api://default"}
    providers = [entry | {"name": f"okta-{n}", "issuer": ISSUER.format(n), "client_ids": [CLIENT]} for n in range(count)]
    world = World(folder, SEARCH, {"oauth": {"providers": providers}})
    data = request("/search", access_token(iss=ISSUER.format(count - 1)))
    return Size.of(f"issuers: {count:,}", stack.enter_context(answering(world)), [data])


def routes(folder: Path, count: int, stack: ExitStack) -> Size:
    """Routes, of which 60 % are literal, 30 % have a parameter, and 10 % end in `**`."""
    shapes = ("/api/v1/group{n}/item", "/api/v1/group{n}/{{id}}/part", "/files/area{n}/**")
    patterns = [shapes[0 if n % 10 < 6 else 1 if n % 10 < 9 else 2].format(n=n) for n in range(count)]
    lines = (f'  - {{match: "POST {pattern}", scope: SEARCH}}\n' for pattern in patterns)
    world, credential = World(folder, f"routes:\n{''.join(lines)}"), access_token()
    paths = [patterns[n * 97 % count].replace("{id}", "x42").replace("**", "a/b") for n in range(SAMPLE)]
    requests = [request(path, {**credential, "x-request-id": f"{n:032}"}) for n, path in enumerate(paths)]
    return Size.of(f"routes: {count:,}", stack.enter_context(answering(world)), requests)


def tokens(folder: Path, count: int, stack: ExitStack) -> Size:
    """Issued tokens that are known, each of which comes again when all others have come."""
    world, _, texts = stored(folder, count, stack)
    check = stack.enter_context(answering(world))
    return Size.of(f"known tokens: {count:,}", check, [request("/search", bearer(text)) for text in texts], None)


def headers(folder: Path, count: int, stack: ExitStack) -> Size:
    """Headers that Envoy received and passes on, the two of the credential among them."""
    more = {f"x-application-{number}": f"value {number} of the application" for number in range(count)}
    lines = (access_token() | TYPICAL | more).items()
    data = check_request("POST", "/search", itertools.islice(lines, count))
    world = World(folder, SEARCH)
    return Size.of(f"received headers: {count:,}", stack.enter_context(answering(world)), [data])


def in_process(folder: Path) -> None:
    """Measure what needs no socket; raises WrongAnswer."""
    series: list[tuple[Callable[[Path, int, ExitStack], Size], tuple[int, ...], float | None]] = [
        (issuers, ISSUERS, 1.1),
        (routes, ROUTES, 1.1),
        (tokens, TOKENS, None),
        (headers, HEADERS, None),
    ]
    for make, sizes, goal in series:
        with ExitStack() as stack:
            grow([make(folder / f"{make.__name__}-{size}", size, stack) for size in sizes], goal)


def workers_of(pid: int) -> list[int]:
    """Return the processes that answer: what a process has started, or itself."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())) or [pid]


def together(ports: Sequence[int], pids: Sequence[int], asked: LoadRequest, shape: tuple[int, int], *, seconds: int) -> Figures:
    """Load every port at once, each in this shape, and return what that gave in all; raises WrongAnswer."""
    with ThreadPoolExecutor(len(ports)) as pool:
        begun = [
            pool.submit(load, port, pid, asked, shape, seconds=seconds, pinned=False) for port, pid in zip(ports, pids, strict=True)
        ]
        found = [each.result() for each in begun]
    rate = sum(each.rate for each in found)

    def mean(value: Callable[[Figures], float]) -> float:
        return sum(value(each) * each.rate for each in found) / rate

    return Figures(
        rate, mean(lambda one: one.mean), mean(lambda one: one.p50), max(one.p99 for one in found), mean(lambda one: one.cpu)
    )


@contextmanager
def sidecar(folder: Path, issuer_port: int, asked: LoadRequest, workers: int) -> Iterator[Callable[[tuple[int, int]], Figures]]:
    """Run `extauthz serve`, and yield what loads each of its workers in a shape for some seconds; raises WrongAnswer."""
    *ports, ops = successive_ports(workers + 1)
    file = configuration(folder, issuer_port, ports[0], "auto", ops)
    # Room for those that h2load has closed and the sidecar has not noticed yet.
    file.write_text(
        f"{file.read_text().replace('drain:', f'workers: {workers}, drain:')}grpc: {{connections: {CONNECTIONS[-1] + 100}}}\n"
    )
    with process("-m", "extauthz", "serve", "--config", str(file), pinned=False) as running:
        for port in ports:
            answered(port, asked.data, asked.judge)
        yield partial(together, ports, workers_of(running.pid), asked, seconds=SECONDS)


def scale(series: Mapping[str, Callable[[], Figures]]) -> None:
    """Load in turns, and print the better of two runs of each size; raises WrongAnswer."""
    runs = [{name: run() for name, run in series.items()} for _ in range(2)]
    best = {name: min((run[name] for run in runs), key=lambda one: one.cpu) for name in series}
    first = next(iter(best.values()))
    for name, one in best.items():
        ratios = f"{one.rate / first.rate:.2f} × the checks, {one.cpu / first.cpu:.2f} × the CPU"
        row(name, f"{one.cpu:.1f} µs CPU", f"{one.rate:>7,.0f} checks/s, p99 {one.p99:>7,.0f} µs; {ratios}")


def served(folder: Path) -> None:
    """Measure what needs sockets; raises WrongAnswer."""
    (issuer_port,) = successive_ports(1)
    with issuer(issuer_port) as keys:
        asked = LoadRequest.of(folder, request("/rest/api/v1/search", oauth(keys.token(USER))), allowed(USER))
        with sidecar(folder, issuer_port, asked, 1) as load_it:
            scale({f"connections of one stream: {count:,}": partial(load_it, (count, 1)) for count in CONNECTIONS})
        with ExitStack() as stack:
            series = {}
            for workers in WORKERS:
                own = folder / f"workers-{workers}"
                own.mkdir()
                load_it = stack.enter_context(sidecar(own, issuer_port, asked, workers))
                series[f"workers: {workers}, {8 // workers} × 8 each"] = partial(load_it, (8 // workers, 8))
            scale(series)


def main() -> None:
    """Print everything."""
    machine()
    gc.freeze()  # as `serve` does when it has started
    with tempfile.TemporaryDirectory() as name:
        in_process(Path(name))
        if shutil.which("h2load") is None:
            print("  over sockets: not measured, needs h2load (Debian: apt install nghttp2-client)")
        else:
            served(Path(name))


if __name__ == "__main__":
    main()
