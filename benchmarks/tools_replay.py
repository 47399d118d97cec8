"""A million decisions, decided again by another configuration; run by `make bench`.

Lines of a decision log of which each has a path of its own, then some that come again and again, then recorded requests. Read and
counted as `extauthz replay` does, in this process. What has to differ is known beforehand, and compared.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer
from benchmarks.bench import machine, row
from extauthz.cli.log_files import lines
from extauthz.config.loader import Configuration
from extauthz.tools.replay import Replay
from extauthz.tools.replay_report import ReplayDifference, ReplayReport
from tests.support.world import NOW, World

SIZE = 1_000_000
"""Lines; of recorded requests, which are of CALLERS, a tenth."""
GOAL = 60.0
"""Seconds of the processor for SIZE lines."""
ROUTES, TOKENS, USERS, CALLERS = 500, 50_000, 20_000, 1_000
NARROWED, OPENED = 10, 25
"""Of so many routes one asks for another scope now, and one of so many is public now."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How many decisions have to be what."""

    same: int
    narrowed: int
    reason: int
    undecidable: int


def configuration(folder: Path) -> Configuration:
    """Return the new configuration: the old one asked for SEARCH everywhere."""
    routes = []
    for number in range(ROUTES):
        kind = {"public": True} if number % OPENED == 1 else {"scope": "CHAT" if number % NARROWED == 0 else "SEARCH"}
        routes.append({"match": f"GET /v1/group{number}/items/{{id}}", "name": f"items {number}", **kind})
    return World(folder, routes).configuration


def expected(size: int, *, recorded: bool = False) -> Expected:
    """Return what has to come out of so many lines: where it is not recorded, nobody knows what every fourth token holds."""
    narrowed = reason = undecidable = 0
    for number in range(size):
        route = number % ROUTES
        if route % OPENED == 1:
            reason += 1
        elif not recorded and number % TOKENS % 4 == 3:
            undecidable += 1
        elif route % NARROWED == 0:
            narrowed += 1
    return Expected(size - narrowed - reason - undecidable, narrowed, reason, undecidable)


def log(size: int, *, paths: int) -> Iterator[bytes]:
    """Yield lines of allowed requests of GLOBAL tokens, as the decision log writes them."""
    for number in range(size):
        token, route = f"{number % TOKENS:012}", number % ROUTES
        yield (
            f'{{"time": {NOW + number / 1000:.3f}, "decision": "allow", "reason": "allowed", "status": 200, '
            f'"decision_id": "{number:032x}", "request_id": "{number:032x}", "method": "GET", '
            f'"path": "/v1/group{route}/items/{number % paths}", "client_address": "203.0.113.7", "route": "items {route}", '
            f'"auth_type": "GLOBAL", "actor": "token:{token}", "user": "user-{number % USERS}@acme.com", "token_id": "{token}", '
            f'"microseconds": 42}}\n'
        ).encode()


def recordings(size: int) -> Iterator[bytes]:
    """Yield the same requests as `extauthz record` writes them."""
    for number in range(size):
        route = number % ROUTES
        line = {
            "version": 1,
            "method": "GET",
            "path": f"/v1/group{route}/items/{number}?page=2",
            "host": "api.acme.com",
            "headers": {"x-scio-actas": f"user-{number % USERS}@acme.com", "accept": "*/*", "user-agent": "curl/8.5.0"},
            "caller": f"GLOBAL scopes=SEARCH token={number % CALLERS:012}",
            "decision": "allow",
            "reason": "allowed",
            "route": f"items {route}",
            "time": 1.0,
        }
        yield json.dumps(line).encode() + b"\n"


def scopes_of(token_id: str) -> frozenset[str] | None:
    """Know the scopes of three tokens in four."""
    return None if int(token_id) % 4 == 3 else frozenset({"SEARCH"})


def measure(loaded: Configuration, data: bytes, wanted: Expected) -> float:
    """Return the seconds of the processor that it takes to replay these lines; raises WrongAnswer."""
    report = ReplayReport(Replay(loaded.policy, loaded.providers, loaded.settings.scopes, scopes_of=scopes_of))
    started = time.process_time()
    for line in lines(io.BytesIO(data), lambda _: None):
        report.add(line)
    taken = time.process_time() - started
    counts = {difference: round(count) for difference, count in report.differences.items()}
    found = Expected(
        round(report.same), counts[ReplayDifference.NARROWED], counts[ReplayDifference.REASON], round(report.left_open)
    )
    if found != wanted or report.broken:
        raise WrongAnswer(f"expected {wanted}, got {found} and {report.broken} broken lines")
    return taken


def main() -> None:
    """Measure each kind of lines."""
    machine()
    print(f"extauthz replay, seconds of the processor; {ROUTES} routes, {TOKENS:,} tokens, {USERS:,} users")
    with tempfile.TemporaryDirectory() as name:
        loaded = configuration(Path(name))
        for about, paths in (("each path its own", SIZE), ("1,000 paths", 1_000)):
            taken = measure(loaded, b"".join(log(SIZE, paths=paths)), expected(SIZE))
            row(f"{SIZE:,} lines, {about}", f"{taken:.1f} s", f"goal ≤ {GOAL:.0f}")
        tenth = SIZE // 10
        taken = measure(loaded, b"".join(recordings(tenth)), expected(tenth, recorded=True))
        row(f"{tenth:,} recorded requests", f"{taken:.1f} s", f"goal ≤ {GOAL / 10:.0f}")


if __name__ == "__main__":
    main()
