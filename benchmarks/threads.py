"""What works beside the loop costs warm checks: last uses, traces, reloads; run by `make bench`. Not pinned, decision log on.

Each case has a sidecar of its own with the same store of tokens, loaded by h2load in turns with the others. The CPU is that of all
threads, what goes on beside included; `loop` is that of the loop's thread. Every answer is judged, and what is said to go on must.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer, allowed
from benchmarks.bench import TYPICAL, machine
from benchmarks.load import Figures, LoadRequest, answered, load
from benchmarks.reloads import RouteEditor, metric, scrape
from benchmarks.servers import cpu_seconds, issuer, process
from benchmarks.transport import USER
from benchmarks.under_load import ROUTES, make_tokens
from extauthz.adapters.store.reader import SqliteReader
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID
from extauthz.ports import RESOLUTION
from extauthz.telemetry.last_used import LastUsedTimes
from tests.support.collector import Collector, collecting
from tests.support.ports import successive_ports
from tests.support.world import check_request, oauth

SHAPE, SECONDS, RUNS = (4, 8), 4, 2
TOKENS = 10_000
"""Whose use is written every second: as many as may wait, sixty times as often as `serve` writes."""

Beside = Callable[[threading.Event], str]
"""Does something until told to end, and says what it was; raises RuntimeError when nothing came of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A sidecar, and what goes on beside its checks."""

    name: str
    port: int
    pid: int
    beside: Beside

    def measure(self, request: LoadRequest) -> tuple[Figures, float, str]:
        """Return what a load gave, the share of the loop in its CPU, and what went on; raises WrongAnswer and RuntimeError."""
        ending = threading.Event()
        answered(self.port, request.data, request.judge)
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(self.beside, ending)
            loop, whole = cpu_seconds(f"{self.pid}/task/{self.pid}"), cpu_seconds(self.pid)
            try:
                figures = load(self.port, self.pid, request, SHAPE, seconds=SECONDS, pinned=False)
            except WrongAnswer as error:
                raise WrongAnswer(f"{self.name}: {error}") from error
            finally:
                ending.set()
            loop, whole = cpu_seconds(f"{self.pid}/task/{self.pid}") - loop, cpu_seconds(self.pid) - whole
            return figures, loop / whole, doing.result()


def nothing(ending: threading.Event) -> str:
    """Do nothing."""
    ending.wait()
    return ""


def counted(what: str, count: Callable[[], float], ending: threading.Event) -> str:
    """Tell how often something happened by itself."""
    before = count()
    ending.wait()
    happened = count() - before
    if not happened:
        raise RuntimeError(f"not measured: there were no {what}")
    return f"{happened:,.0f} {what}"


def written(ops: int) -> float:
    """Return how many uses of tokens a sidecar has written."""
    return metric(scrape(ops), "extauthz_token_uses_written_total")


def spans(collector: Collector) -> float:
    """Return how many spans came."""
    return len(collector.spans)


def reloading(editor: RouteEditor, ending: threading.Event) -> str:
    """Reload other routes, again and again; raises WrongAnswer."""
    while not ending.is_set():
        editor.reload(is_told=True)
    return f"{editor.reloads} reloads of {editor.count:,} routes"


@contextmanager
def sidecar(folder: Path, issuer_port: int, more: str = "", *program: str) -> Iterator[tuple[int, int, int]]:
    """Run a sidecar with a store in a folder; yield its port, that of its metrics, and its process."""
    port, ops = successive_ports(2)
    folder.mkdir()
    make_tokens(folder, TOKENS)
    (folder / "routes.yaml").write_text('routes: [{match: "POST /rest/api/v1/search", scope: SEARCH}]')
    file = folder / "extauthz.yaml"
    file.write_text(
        f"version: 1\nserver: {{listen: '127.0.0.1:{port}', ops: '127.0.0.1:{ops}', drain: 0s}}\n"
        f"oauth: {{provider: okta, issuer: 'http://127.0.0.1:{issuer_port}/oauth2/default', client_ids: [{CLIENT_ID}], "
        f"audience: '{AUDIENCE}'}}\ntokens: {{store: 'sqlite:///tokens.db', peppers: [{{id: p1, file: pepper}}]}}\n"
        f"scopes: [SEARCH]\nroutes: [routes.yaml]\n{more}"
    )
    with process(*(program or ("-m", "extauthz")), "serve", "--config", str(file), pinned=False) as running:
        yield port, ops, running.pid


def cases(folder: Path, issuer_port: int, collector: Collector, headers: Mapping[str, str], stack: ExitStack) -> Iterator[Case]:
    """Start all sidecars; the headers are those of a request that is allowed."""
    traced = f"tracing: {{{{endpoint: '{collector.endpoint}', sample: {{}}}}}}\n"

    def start(name: str, more: str = "", *program: str) -> tuple[int, int, int]:
        return stack.enter_context(sidecar(folder / name, issuer_port, more, *program))

    port, _, pid = start("quiet")
    yield Case("nothing beside", port, pid, nothing)
    port, ops, pid = start("uses", "", __file__)
    yield Case(f"{TOKENS:,} last uses a second", port, pid, partial(counted, "uses written", partial(written, ops)))
    port, _, pid = start("parent", traced.format("parent"))
    yield Case("traces on, none sampled", port, pid, nothing)
    port, _, pid = start("traced", traced.format("0.01"))
    yield Case("traces on, one in 100 sampled", port, pid, partial(counted, "spans", partial(spans, collector)))
    port, ops, pid = start("reloads")
    editor = RouteEditor(folder / "reloads", ops, port, USER, headers, ROUTES, pid)
    editor.write(0)
    yield Case("reloads in a row", port, pid, partial(reloading, editor))


def write_uses(database: Path) -> None:
    """Be `extauthz`, but write the use of every token every second."""
    from extauthz.__main__ import main as extauthz

    with closing(SqliteReader(database)) as reader:
        ids = reader.read_ids("", TOKENS)

    async def run(self: LastUsedTimes) -> None:
        moment = int(time.time())  # noqa: TID251 - uses have the wall clock's
        while True:
            await asyncio.sleep(1)
            moment += RESOLUTION + 1
            self._waiting = dict.fromkeys(ids, (moment, "203.0.113.0/24"))
            await self.write()

    LastUsedTimes.run = run  # type: ignore[method-assign]
    extauthz()


def main() -> None:
    """Print everything."""
    machine()
    if shutil.which("h2load") is None:
        print("threads: needs h2load (Debian: apt install nghttp2-client); not measured")
        return
    print(f"  {'beside warm checks at 4 × 8':<32} {'checks/s':>9} {'CPU µs':>7} {'loop µs':>8} {'p99 µs':>7}")
    (issuer_port,) = successive_ports(1)
    with tempfile.TemporaryDirectory() as name, issuer(issuer_port) as keys, collecting() as collector, ExitStack() as stack:
        folder = Path(name)
        headers = TYPICAL | oauth(keys.token(USER))
        data = check_request("POST", "/rest/api/v1/search", headers.items())
        request = LoadRequest.of(folder, data, allowed(USER))
        every = list(cases(folder, issuer_port, collector, headers, stack))
        runs = [{case.name: case.measure(request) for case in every} for _ in range(RUNS)]
        for case in every:
            figures, loop, what = min((run[case.name] for run in runs), key=lambda one: one[0].cpu)
            own = figures.cpu * loop
            print(f"  {case.name:<32} {figures.rate:>9,.0f} {figures.cpu:>7.1f} {own:>8.1f} {figures.p99:>7,.0f}  {what}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        write_uses(Path(sys.argv[sys.argv.index("--config") + 1]).with_name("tokens.db"))
    else:
        main()
