"""The fast transport at full speed while 10,000 routes are reloaded, tokens are new to it and its metrics are scraped.

Run by `make soak`. Ends with an error at the first answer that is not the expected one, when a reload does not come and when a
scrape is no page. What it prints are the times of warm checks, by what went on meanwhile.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import allowed
from benchmarks.bench import TYPICAL, machine
from benchmarks.load import LoadRequest, answered, h2load
from benchmarks.servers import free_port, issuer, process
from benchmarks.transport import USER
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, fingerprint
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID
from tests.support.h2_client import Peer
from tests.support.world import PEPPER, bearer, check_request, oauth

ROUTES, ROUNDS, BURST = 10_000, 3, 200
"""A burst stays within `limits.store_per_second` and comes over one connection, a few at once."""
AT_ONCE = 20
PATIENCE = 60.0
COLD = allowed(None)
PIECE = 5
"""Seconds of one run of h2load."""
RELOADS = re.compile(r'^extauthz_config_reloads_total\{[^}]*result="ok"[^}]*\} ([0-9.]+)$', re.MULTILINE)


@dataclass
class Phases:
    """When something went on beside the load, in seconds of the wall clock."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Do something and note how long it took."""
        started = time.time()  # noqa: TID251 - h2load writes the wall clock
        work()
        self.spans.append((name, started, time.time()))  # noqa: TID251

    def of(self, moment: float) -> str:
        """Tell what went on at a moment."""
        return next((name for name, started, ended in self.spans if started <= moment <= ended), "nothing else")


def write_routes(folder: Path, round_: int) -> None:
    """Write 10,000 routes, others each time but for the one that is asked for."""
    lines = [f'  - {{match: "GET /v{round_}/items{number}/{{id}}", scope: SEARCH}}\n' for number in range(ROUTES)]
    text = 'routes:\n  - {match: "POST /rest/api/v1/search", scope: SEARCH, anonymous: true}\n' + "".join(lines)
    new = folder / "routes.new"
    new.write_text(text)
    new.replace(folder / "routes.yaml")


def make_tokens(folder: Path, count: int) -> list[str]:
    """Make a store with so many tokens; return their texts."""
    (folder / "pepper").write_bytes(PEPPER)
    now = int(time.time())  # noqa: TID251 - the tokens must live now
    order = TokenRequest("benchmark", AuthType.ANONYMOUS, frozenset({"SEARCH"}), now - 60, "bench", now + 86400)
    rules = TokenRules("glean", order.scopes, 1e9, ActAs())
    made = [issue(order, rules, pepper_id="p1", pepper=PEPPER, entropy=os.urandom(ENTROPY_BYTES)) for _ in range(count)]
    with closing(SqlTokenStore(folder / "tokens.db", create=True, audit=AuditKey.of("p1", PEPPER))) as store:
        store.migrate()
        store.add_many([record for _, record in made], {"p1": fingerprint(PEPPER)}, Change(now, "bench"))
    return [text.text for text, _ in made]


def look_up(port: int, tokens: list[str]) -> None:
    """Ask about tokens that the sidecar has not seen, a few at once; raises WrongAnswer."""
    with Peer(port) as peer:
        for start in range(0, len(tokens), AT_ONCE):
            numbers = []
            for token in tokens[start : start + AT_ONCE]:
                numbers.append(number := peer.stream())
                peer.send(peer.request(number, check_request("POST", "/rest/api/v1/search", (TYPICAL | bearer(token)).items())))
            for number in numbers:
                COLD(peer.answer(number).message)


def scrape(port: int) -> str:
    """Return the metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as response:
        return str(response.read().decode())


def reloads(ops: int) -> float:
    """Return how many reloads went well."""
    return sum(map(float, RELOADS.findall(scrape(ops))))


def reload(folder: Path, pid: int, ops: int, round_: int) -> None:
    """Write other routes, say so, and wait until they are in use."""
    before = reloads(ops)
    write_routes(folder, round_)
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE
    while reloads(ops) == before:
        if time.monotonic() > deadline:
            raise SystemExit("the reload did not come")
        time.sleep(0.2)


def assert_page(ops: int) -> None:
    """Scrape, and want a whole page."""
    if "extauthz_checks_total" not in scrape(ops):
        raise SystemExit("the scrape brought no metrics")


@dataclass
class Load:
    """One h2load after the other; `lines` are its lines: when a call began, its status and its time."""

    port: int
    request: LoadRequest
    answer: bytes
    folder: Path
    ending: threading.Event = field(default_factory=threading.Event)
    lines: list[list[str]] = field(default_factory=list)

    def run(self) -> None:
        """Go on until told to end; raises WrongAnswer."""
        log = self.folder / "times"
        while not self.ending.is_set():
            log.unlink(missing_ok=True)
            h2load(self.port, self.request.file, self.answer, seconds=PIECE, shape=(4, 8), log=log, pinned=True)
            answered(self.port, self.request.data, self.request.judge)
            self.lines += [line.split("\t") for line in log.read_text().splitlines()]


def disturb(folder: Path, pid: int, port: int, ops: int, tokens: list[str], beside: Future[None]) -> Phases:
    """Reload, look up and scrape, one after the other, several times; raises WrongAnswer, and what ended the load beside it."""
    phases = Phases()
    for round_ in range(ROUNDS):
        burst = tokens[round_ * BURST : (round_ + 1) * BURST]
        time.sleep(1)
        phases.run("a reload of 10,000 routes", partial(reload, folder, pid, ops, round_ + 1))
        phases.run(f"a burst of {BURST} cold look-ups", partial(look_up, port, burst))
        phases.run("a scrape", partial(assert_page, ops))
        if beside.done():
            beside.result()
    time.sleep(1)
    return phases


def report(phases: Phases, lines: list[list[str]]) -> int:
    """Print times by what went on, and tell whether all went well."""
    by_phase: dict[str, list[int]] = {}
    for began, _, took in lines:
        by_phase.setdefault(phases.of(int(began) / 1e6), []).append(int(took))
    print(f"  {'meanwhile':<34} {'calls':>9} {'p50 µs':>9} {'p99 µs':>9} {'most µs':>9}")
    for name, times in sorted(by_phase.items()):
        times.sort()
        print(f"  {name:<34} {len(times):>9,} {times[len(times) // 2]:>9,} {times[len(times) * 99 // 100]:>9,} {times[-1]:>9,}")
    for name in dict.fromkeys(name for name, _, _ in phases.spans):
        spans = sorted(ended - started for each, started, ended in phases.spans if each == name)
        print(f"  {name} took {spans[len(spans) // 2]:.2f} s, at most {spans[-1]:.2f} s")
    failed = sum(status != "200" for _, status, _ in lines)
    print(f"\n  {failed} of {len(lines):,} warm calls failed")
    return int(failed > 0 or not lines)


def main() -> int:
    """Load, disturb and print."""
    machine()
    with tempfile.TemporaryDirectory() as name:
        folder, issuer_port, port, ops = Path(name), free_port(), free_port(), free_port()
        tokens = make_tokens(folder, ROUNDS * BURST)
        write_routes(folder, 0)
        file = folder / "extauthz.yaml"
        file.write_text(
            f"version: 1\nserver: {{listen: '127.0.0.1:{port}', ops: '127.0.0.1:{ops}', drain: 0s, transport: nghttp2}}\n"
            f"oauth: {{provider: okta, issuer: 'http://127.0.0.1:{issuer_port}/oauth2/default', client_ids: [{CLIENT_ID}], "
            f"audience: '{AUDIENCE}'}}\ntokens: {{store: 'sqlite:///tokens.db', peppers: [{{id: p1, file: pepper}}]}}\n"
            "scopes: [SEARCH]\nroutes: [routes.yaml]\n"
        )
        with issuer(issuer_port) as keys:
            data = check_request("POST", "/rest/api/v1/search", (TYPICAL | oauth(keys.token(USER))).items())
            request = LoadRequest.of(folder, data, allowed(USER))
            with process("-m", "extauthz", "serve", "--config", str(file), "--no-decision-log") as running:
                load = Load(port, request, answered(port, data, request.judge), folder)
                with ThreadPoolExecutor() as pool:
                    beside = pool.submit(load.run)
                    try:
                        phases = disturb(folder, running.pid, port, ops, tokens, beside)
                    finally:
                        load.ending.set()
                    beside.result()
    return report(phases, load.lines)


if __name__ == "__main__":
    sys.exit(main())
