"""What `extauthz diff` takes of the processor for two maps of 10,000 routes, their reading included; run by `make bench`.

Each line is one change between them, with the differences that it must find: other ones stop the benchmark.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer
from benchmarks.bench import machine, row
from extauthz.config.loader import load
from extauthz.tools.diff import differences

ROUTES = 10_000
GOAL = "<= 10 s"
SCOPES = tuple(f"SCOPE-{number}" for number in range(17))
_PATTERNS = (
    "/api/v{version}/service-{group}/items",
    "/api/v{version}/service-{group}/items/{{id}}",
    "/api/v{version}/service-{group}/items/{{id}}/parts/{{part}}",
    "/api/v{version}/service-{group}/action-{number}",
    "/{{tenant}}/service-{group}/task-{number}",
)


@dataclass(frozen=True, slots=True)
class Change:
    """What the new configuration has that the old one has not, and how many findings that comes to.

    Each line with a number that `every` divides asks for another scope; `allow` are the users who may be acted for.
    """

    name: str
    findings: int
    every: int = 0
    allow: Sequence[str] = ("*@acme.com",)


def changes(count: int) -> tuple[Change, ...]:
    """Return the changes that are measured, of maps with so many routes: a line with another scope widens and narrows."""
    return (
        Change("nothing", 0),
        Change("one line in a hundred", 2 * -(-count // 100), every=100),
        Change("every line", 2 * count, every=1),
        Change("whom tokens may act for", 1, allow=("*@acme.com", "*@acme.example")),
    )


def write(folder: Path, count: int, change: Change) -> Path:
    """Write a configuration, and return its file."""
    settings: Mapping[str, object] = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "act_as": {"allow": list(change.allow)},
        "scopes": list(SCOPES),
        "routes": ["routes.yaml"],
    }
    folder.mkdir()
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    lines = [_line(number, is_changed=change.every > 0 and number % change.every == 0) for number in range(count)]
    (folder / "routes.yaml").write_text("routes:\n" + "".join(lines))
    return folder / "extauthz.yaml"


def measure(old: Path, new: Path, change: Change) -> float:
    """Return the seconds of the processor that reading and comparing take.

    Raises WrongAnswer for other differences than expected.
    """
    begun = time.process_time()
    found = differences(load(old), load(new))
    taken = time.process_time() - begun
    if len(found.findings) != change.findings or found.incomplete:
        raise WrongAnswer(f"{change.name}: {len(found.findings)} findings in place of {change.findings}, {found.incomplete}")
    return taken


def _line(number: int, *, is_changed: bool) -> str:
    pattern = _PATTERNS[number % len(_PATTERNS)].format(version=number % 7, group=number // 10, number=number)
    method = ("GET", "POST")[number // len(_PATTERNS) % 2]
    scope = SCOPES[(number + is_changed) % len(SCOPES)]
    return f'  - {{match: "{method} {pattern}", scope: {scope}}}\n'


def main() -> None:
    """Print everything."""
    machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = write(folder / "old", ROUTES, Change("", 0))
        for number, change in enumerate(changes(ROUTES)):
            taken = measure(old, write(folder / str(number), ROUTES, change), change)
            row(f"diff of {ROUTES:,} routes: {change.name} ({change.findings:,} findings)", f"{taken:.1f} s", GOAL)


if __name__ == "__main__":
    main()
