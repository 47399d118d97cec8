"""Warm checks at full speed while 10,000 routes are reloaded, tokens are new to the sidecar and its metrics are scraped.

Run by `make soak`, first as a user starts it: with the decision log, on whatever cores the system picks. What it prints are the
times of warm checks, by what went on meanwhile, against those of the same run while nothing else did. Ends with an error at the
first answer that is not the expected one, when a reload does not come or its routes are not in use, and when a scrape is no page.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer, allowed
from benchmarks.bench import TYPICAL, machine
from benchmarks.load import LoadRequest, answered, h2load
from benchmarks.reloads import PATIENCE, RouteEditor
from benchmarks.servers import issuer, process
from benchmarks.transport import USER
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, fingerprint
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID
from tests.support.h2_client import ACK, DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, RST_STREAM, Peer, settings, window_update
from tests.support.ports import free_port
from tests.support.world import PEPPER, bearer, check_request, oauth

ROUTES, ROUNDS, SCRAPES, BURST = 10_000, 4, 10, 200
"""A burst stays within `limits.store_per_second` and comes over one connection, a few at once."""
AT_ONCE = 20
PAUSE = 0.2
"""Seconds between two disturbances, in which nothing else goes on."""
COLD = allowed(None)
PIECE = 5
"""Seconds of one run of h2load."""
QUIET, PREPARING = "nothing else", ""
GOAL = 2.0


@dataclass
class Phases:
    """When something went on beside the load, in seconds of the wall clock."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], object]) -> None:
        """Do something and note how long it took."""
        started = time.time()  # noqa: TID251 - h2load writes the wall clock
        work()
        self.spans.append((name, started, time.time()))  # noqa: TID251

    def of(self, began: float, ended: float) -> str:
        """Tell what went on while a call was under way."""
        return next((name for name, started, over in self.spans if started <= ended and began <= over), QUIET)


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


class Burst:
    """Checks of tokens that the sidecar has not seen, written and judged apart: to send them costs the machine little."""

    def __init__(self, peer: Peer, tokens: Sequence[str]) -> None:
        """Write the requests, a few at once; the peer lets all answers come."""
        self._socket, self._bodies = peer.socket, dict[int, bytes]()
        peer.send(settings(flags=ACK), window_update(0, 2**24))
        self._batches = list[tuple[bytes, int]]()
        for start in range(0, len(tokens), AT_ONCE):
            batch = [TYPICAL | bearer(token) for token in tokens[start : start + AT_ONCE]]
            requests = [check_request("POST", "/rest/api/v1/search", headers.items()) for headers in batch]
            self._batches.append((b"".join(peer.request(peer.stream(), data) for data in requests), len(batch)))

    def send(self) -> None:
        """Send one batch behind the answers to the one before; raises OSError."""
        buffer = bytearray()
        for batch, count in self._batches:
            self._socket.sendall(batch)
            while count:
                if not (received := self._socket.recv(65536)):
                    raise ConnectionResetError("the sidecar closed the connection")
                buffer += received
                while len(buffer) >= 9 + (length := int.from_bytes(buffer[:3])):
                    kind, flags, stream = buffer[3], buffer[4], int.from_bytes(buffer[5:9])
                    if kind == DATA:
                        self._bodies[stream] = self._bodies.get(stream, b"") + buffer[9 : 9 + length]
                    count -= kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM)
                    del buffer[: 9 + length]

    def judge(self) -> None:
        """Judge all answers; raises WrongAnswer."""
        expected = sum(count for _, count in self._batches)
        if len(self._bodies) != expected:
            raise WrongAnswer(f"{len(self._bodies)} of {expected} look-ups were answered")
        for body in self._bodies.values():
            COLD(body[5:])


def look_up(port: int, tokens: Sequence[str], run: Callable[[Callable[[], None]], None]) -> None:
    """Look tokens up while `run` notes the time; raises WrongAnswer."""
    with Peer(port, own_settings={INITIAL_WINDOW_SIZE: 2**20}, polite=False) as peer:
        burst = Burst(peer, tokens)
        run(burst.send)
        burst.judge()


def scrape(port: int, run: Callable[[Callable[[], None]], None]) -> None:
    """Scrape while `run` notes the time; raises WrongAnswer unless the page is whole."""
    page = list[bytes]()

    def fetch() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            while received := connection.recv(65536):
                page.append(received)

    run(fetch)
    if b"extauthz_checks_total" not in b"".join(page):
        raise WrongAnswer("the scrape brought no metrics")


def reload(editor: RouteEditor, log: Path, phases: Phases, name: str) -> None:
    """Write other routes, say so, and wait until the log says that they are in use, and they are; raises WrongAnswer."""
    phases.run(PREPARING, partial(editor.write, editor.reloads + 1))
    before = _logged_reloads(log)

    def wait() -> None:
        os.kill(editor.pid, signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while _logged_reloads(log) == before:
            if time.monotonic() > deadline:
                raise WrongAnswer("the reload did not come")
            time.sleep(0.01)

    phases.run(name, wait)
    editor.reloads += 1
    phases.run(PREPARING, editor.try_routes)


def _logged_reloads(log: Path) -> int:
    return log.read_text().count('"configuration reloaded"')


@dataclass
class Load:
    """One h2load after the other; `lines` are its lines: when a call began, its status and its time."""

    port: int
    request: LoadRequest
    answer: bytes
    folder: Path
    pinned: bool = False
    ending: threading.Event = field(default_factory=threading.Event)
    lines: list[list[str]] = field(default_factory=list)

    def run(self) -> None:
        """Go on until told to end; raises WrongAnswer."""
        log = self.folder / "times"
        while not self.ending.is_set():
            log.unlink(missing_ok=True)
            h2load(self.port, self.request.file, self.answer, seconds=PIECE, shape=(4, 8), log=log, pinned=self.pinned)
            answered(self.port, self.request.data, self.request.judge)
            self.lines += [line.split("\t") for line in log.read_text().splitlines()]


def disturb(editor: RouteEditor, log: Path, tokens: list[str], beside: Future[None]) -> Phases:
    """Reload, look up and scrape, one after the other, several times; raises WrongAnswer, and what ended the load beside it."""
    phases = Phases()
    for round_ in range(ROUNDS):
        time.sleep(1)
        reload(editor, log, phases, f"a reload of {ROUTES:,} routes")
        time.sleep(1)
        burst = tokens[round_ * BURST : (round_ + 1) * BURST]
        look_up(editor.port, burst, partial(phases.run, f"a burst of {BURST} cold look-ups"))
        for _ in range(SCRAPES):
            time.sleep(PAUSE)
            scrape(editor.ops, partial(phases.run, "a scrape"))
        if beside.done():
            beside.result()
    time.sleep(1)
    return phases


def report(phases: Phases, lines: list[list[str]]) -> int:
    """Print times by what went on, and tell whether all went well."""
    by_phase: dict[str, list[int]] = {QUIET: []}
    for start, _, took in lines:
        began = int(start) / 1e6
        by_phase.setdefault(phases.of(began, began + int(took) / 1e6), []).append(int(took))
    by_phase.pop(PREPARING, None)
    quiet = 0
    print(f"  {'meanwhile':<34} {'calls':>9} {'p50 µs':>9} {'p99 µs':>9} {'most µs':>9}")
    for name, times in by_phase.items():
        times.sort()
        p99 = times[len(times) * 99 // 100] if times else 0
        quiet = quiet or p99
        ratio = "" if name == QUIET else f"   p99 {p99 / max(quiet, 1):.2f} × that of {QUIET}, goal ≤ {GOAL:.0f}"
        middle, most = (times[len(times) // 2], times[-1]) if times else (0, 0)
        print(f"  {name:<34} {len(times):>9,} {middle:>9,} {p99:>9,} {most:>9,}{ratio}")
    for name in dict.fromkeys(name for name, _, _ in phases.spans if name != PREPARING):
        spans = sorted(ended - started for each, started, ended in phases.spans if each == name)
        print(f"  {name} took {spans[len(spans) // 2]:.3f} s, at most {spans[-1]:.3f} s")
    failed = sum(status != "200" for _, status, _ in lines)
    print(f"  {failed} of {len(lines):,} warm calls failed\n", flush=True)
    return int(failed > 0 or not lines)


def measure(name: str, *, pinned: bool) -> int:
    """Load and disturb a sidecar, and print what that gave; tell whether all went well."""
    print(f"  {name}")
    with tempfile.TemporaryDirectory() as folder_name:
        folder, issuer_port, port, ops = Path(folder_name), free_port(), free_port(), free_port()
        tokens, log, file = make_tokens(folder, ROUNDS * BURST), folder / "sidecar.log", folder / "extauthz.yaml"
        file.write_text(
            f"version: 1\nserver: {{listen: '127.0.0.1:{port}', ops: '127.0.0.1:{ops}', drain: 0s, transport: nghttp2}}\n"
            f"oauth: {{provider: okta, issuer: 'http://127.0.0.1:{issuer_port}/oauth2/default', client_ids: [{CLIENT_ID}], "
            f"audience: '{AUDIENCE}'}}\ntokens: {{store: 'sqlite:///tokens.db', peppers: [{{id: p1, file: pepper}}]}}\n"
            "scopes: [SEARCH]\nroutes: [routes.yaml]\n"
        )
        with issuer(issuer_port) as keys:
            headers = TYPICAL | oauth(keys.token(USER))
            data = check_request("POST", "/rest/api/v1/search", headers.items())
            request = LoadRequest.of(folder, data, allowed(USER))
            editor = RouteEditor(folder, ops, port, USER, headers, ROUTES)
            editor.write(0)
            with process("-m", "extauthz", "serve", "--config", str(file), log=log, pinned=pinned) as running:
                editor.pid = running.pid
                load = Load(port, request, answered(port, data, request.judge), folder, pinned)
                with ThreadPoolExecutor() as pool:
                    beside = pool.submit(load.run)
                    try:
                        phases = disturb(editor, log, tokens, beside)
                    finally:
                        load.ending.set()
                    beside.result()
    return report(phases, load.lines)


def main() -> int:
    """Measure as a user starts it, and pinned."""
    machine()
    failures = measure("as by default: any core, the decision log read", pinned=False)
    return failures | measure("the same on one core, h2load on another", pinned=True)


if __name__ == "__main__":
    sys.exit(main())
