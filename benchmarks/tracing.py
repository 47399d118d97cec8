"""What tracing costs a warm check: off, on for a trace that is not sampled, and on for one that is; no collector answers."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench import TYPICAL, machine, row
from extauthz import __version__
from extauthz.adapters.metrics import DecisionCounters
from extauthz.adapters.tracing.checks import Tracing
from extauthz.process.clock import SystemClock
from extauthz.serve.decision_ids import decision_id
from extauthz.service import Authorizer
from extauthz.telemetry.recorders import Recorders
from tests.support.world import World, bearer, check_request

ROUNDS, TIMES = 150, 100
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


def world(folder: Path) -> tuple[World, bytes]:
    """Return a world that knows a token, and a request with it."""
    made = World(folder, [{"match": "POST /rest/api/v1/search", "scope": "SEARCH"}])
    data = check_request("POST", "/rest/api/v1/search", [*bearer(made.token("USER")).items(), *TYPICAL.items()])
    return made, data


def best(cases: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the best of many short rounds of each, in turn, in microseconds of this thread's CPU a call."""
    found = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):
        for name, call in cases.items():
            started = time.thread_time()
            for _ in range(TIMES):
                call()
            found[name] = min(found[name], (time.thread_time() - started) / TIMES * 1e6)
    return found


def main() -> None:
    """Measure."""
    machine()
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        made, data = world(Path(folder))
        runtime = made.build().runtime
        tracing = Tracing(
            "http://127.0.0.1:9/v1/traces",
            service_name="extauthz",
            version=__version__,
            ratio=0.0,
            checks_per_second=10_000_000,
            headers={},
            ca_file=None,
            clock=clock,
            random=secrets.SystemRandom().random,
        )
        off = Authorizer(runtime, Recorders((DecisionCounters(now=SystemClock.now),)), clock=made.clock, decision_ids=decision_id)
        recorders = Recorders((DecisionCounters(now=SystemClock.now), tracing))
        wrapped = replace(runtime, codec=tracing.codec(runtime.codec))
        on = Authorizer(wrapped, recorders, clock=made.clock, decision_ids=decision_id)
        traced = tracing.handler(on.check)
        cases: dict[str, Callable[[], object]] = {
            "off": lambda: off.check(data),
            "on, call without traceparent": lambda: traced(data, "", ""),
            "on, not sampled": lambda: traced(data, f"{TRACE}-00", ""),
            "on, sampled": lambda: traced(data, f"{TRACE}-01", ""),
        }
        for name, found in best(cases).items():
            row(f"a warm check, tracing {name}", f"{found:.1f} µs")
        print(f"  spans: {tracing.export.failed:,} offered in vain, {tracing.export.dropped:,} dropped")


if __name__ == "__main__":
    main()
