"""`extauthz test` on a route map of 10,000 lines: 10,000 cases, their coverage, and a first suite; run by `make bench`.

Each command is a process of its own, as in CI, and every result is looked at: what a case expects is worked out here, from the
number of its route.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer
from benchmarks.bench import machine, row
from tests.support.world import SETTINGS

SIZE = 10_000
GOAL = "goal ≤ 10 s"
SCOPES = ("CHAT", "DOCUMENTS", "FEED", "SEARCH")


def route(number: int) -> str:
    """Return a line of the route map: most have a parameter, each tenth is public, and each tenth denies."""
    match = f"GET /v{number % 7}/items{number}" + ("/{id}" if number % 3 else "")
    rule = "public: true" if number % 10 == 8 else "deny: true" if number % 10 == 9 else f"scope: {SCOPES[number % 4]}"
    return f'  - {{match: "{match}", {rule}}}\n'


def case(number: int) -> str:
    """Return a case of a route: each other token has another scope than the route asks for."""
    holds = number % 4 if number % 2 else (number + 1) % 4
    expected = {8: "public", 9: "route_denied"}.get(number % 10, "allowed" if number % 2 else "scope_missing")
    request = f"GET /v{number % 7}/items{number}" + ("/7" if number % 3 else "")
    who = f"USER user=ana@acme.com scopes={SCOPES[holds]}"
    return (
        f'  - {{request: "{request}", who: "{who}", expect: {{reason: {expected}, route: "{route(number).split(chr(34))[1]}"}}}}\n'
    )


def written(folder: Path, size: int) -> Path:
    """Write a configuration with so many routes, and its suite; return the configuration."""
    (folder / "tests").mkdir()
    (folder / "routes.yaml").write_text("routes:\n" + "".join(map(route, range(size))))
    (folder / "tests" / "suite.yaml").write_text("cases:\n" + "".join(map(case, range(size))))
    file = folder / "extauthz.yaml"
    file.write_text(json.dumps(SETTINGS))
    return file


def run(file: Path, *arguments: str) -> tuple[float, str]:
    """Run the command; return the seconds and what it printed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "extauthz", "test", *arguments, "--config", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout or done.stderr


def judge(printed: str, cases: int, reached: int | None = None) -> None:
    """Raise WrongAnswer unless so many cases were run, all passed, and so many routes were reached."""
    try:
        told: dict[str, Any] = json.loads(printed)
    except ValueError as error:
        raise WrongAnswer(f"no results: {printed[:200]}") from error
    if (told["passed"], told["failed"], len(told["cases"])) != (cases, 0, cases):
        raise WrongAnswer(f"{told['passed']} of {cases} cases passed, {told['failed']} failed")
    if reached is not None and told["coverage"]["reached"]["routes"] != reached:
        raise WrongAnswer(f"{told['coverage']['reached']['routes']} of {reached} routes are reached")


def measure(file: Path, cases: int, *flags: str, reached: int | None = None) -> float:
    """Return how long a run of all cases takes, in seconds; raises WrongAnswer for one that is not right."""
    seconds, printed = run(file, "--json", *flags)
    judge(printed, cases, reached)
    return seconds


def best(times: Sequence[float]) -> str:
    """Write the best of several times."""
    return f"{min(times):.1f} s"


def main() -> None:
    """Print everything."""
    machine()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        file = written(folder, SIZE)
        row(f"test, {SIZE:,} cases over {SIZE:,} routes", best([measure(file, SIZE) for _ in range(2)]), GOAL)
        row("the same, with --coverage", best([measure(file, SIZE, "--coverage", reached=SIZE)]), GOAL)
        first = folder / "first.yaml"
        seconds, printed = run(file, "--init", str(first))
        if not first.exists():
            raise WrongAnswer(f"no suite: {printed[:200]}")
        count = first.read_text().count("\n  - ")
        row(f"test --init, {count:,} cases", f"{seconds:.1f} s")
        row(f"test, {count:,} cases of --init", best([measure(file, count, str(first))]))


if __name__ == "__main__":
    main()
