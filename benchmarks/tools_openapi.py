"""`extauthz routes import openapi` and `routes coverage` on a description of 5 MB; run by `make bench`.

Each command is a process of its own, as in CI, and every result is looked at: how many operations there are, and what each needs,
is worked out here, from its number.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer
from benchmarks.bench import machine, row
from tests.support.world import SETTINGS

SIZE = 5_000_000
"""Bytes of the description."""
GOAL = "goal ≤ 10 s"
METHODS = ("get", "put", "post", "delete")
SCOPES = {"read": "SEARCH", "write": "CHAT"}
RULES = {"rules": [{"security": name, "scope": scope} for name, scope in SCOPES.items()]}


def operation(number: int) -> dict[str, Any]:
    """Describe an operation: half of them read, a quarter writes, and a quarter asks for what no rule maps."""
    name = ("read", "read", "write", "other")[number % 4]
    schema = {"type": "object", "properties": {f"field{place}": {"type": "string", "example": "text"} for place in range(4)}}
    return {
        "operationId": f"operation{number}",
        "summary": f"What operation {number} does, in a sentence as long as those of real descriptions.",
        "tags": [f"area{number % 20}"],
        "security": [{"oauth": [name]}],
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {"200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}},
    }


def described(size: int) -> tuple[str, int]:
    """Return a description in YAML of so many bytes, at least, and how many operations it has."""
    head = {"openapi": "3.1.0", "info": {"title": "Many", "version": "1"}, "servers": [{"url": "https://api.acme.com/v1"}]}
    parts, number = [yaml.safe_dump(head, sort_keys=False), "paths:\n"], 0
    written = sum(map(len, parts))
    while written < size:
        item = {f"/items{number}/{{id}}/parts": {method: operation(number + place) for place, method in enumerate(METHODS)}}
        text = "".join(f"  {line}\n" for line in yaml.dump(item, Dumper=yaml.CSafeDumper, sort_keys=False).splitlines())
        parts.append(text)
        written, number = written + len(text), number + len(METHODS)
    return "".join(parts), number


def files(folder: Path, size: int) -> int:
    """Write a configuration, a description and a mapping file; return how many operations there are."""
    text, number = described(size)
    (folder / "api.yaml").write_text(text)
    (folder / "map.yaml").write_text(json.dumps(RULES))
    (folder / "extauthz.yaml").write_text(json.dumps(SETTINGS))
    return number


def processor() -> float:
    """Return the seconds that the processor worked for the commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run a command on the description; return how long it took, and what it printed."""
    command = [sys.executable, "-m", "extauthz", "routes", *arguments, "--config", "extauthz.yaml", "--json"]
    started, worked = time.perf_counter(), processor()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    taken = f"{time.perf_counter() - started:.1f} s, {processor() - worked:.1f} s of a processor"
    if done.returncode != code:
        raise WrongAnswer(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")
    return taken, done.stdout


def judge_import(printed: str, number: int, part: str) -> None:
    """Compare what an import says with what each operation needs; `part` is where its lines are listed."""
    facts = json.loads(printed or "{}")
    found = Counter(each["access"] for each in facts.get(part, ()))
    right = Counter(("scope SEARCH", "scope SEARCH", "scope CHAT", "deny")[each % 4] for each in range(number))
    if part == "changed":
        del right["deny"]
    if facts.get("operations") != number or found != right:
        raise WrongAnswer(f"{facts.get('operations')} of {number} operations, {dict(found)}")


def judge_coverage(printed: str, number: int) -> None:
    """Every operation has a route, and none is wider."""
    facts = json.loads(printed or "{}")
    if (facts.get("operations"), facts.get("findings"), facts.get("denied")) != (number, [], number // 4):
        raise WrongAnswer(f"{facts.get('operations')} of {number} operations, findings: {facts.get('findings')}")


def measure(folder: Path, number: int) -> dict[str, str]:
    """Import, import again, change most lines, and compare; return how long each took. Raises WrongAnswer."""
    (folder / "routes.yaml").unlink(missing_ok=True)
    to = ("import", "openapi", "api.yaml", "--output", "routes.yaml")
    first, printed = run(folder, *to, "--map", "map.yaml")
    judge_import(printed, number, "added")
    second, printed = run(folder, *to, "--map", "map.yaml")
    if json.loads(printed)["is_written"]:
        raise WrongAnswer("the second import changed the file")
    covering, printed = run(folder, "coverage", "api.yaml", "--map", "map.yaml")
    judge_coverage(printed, number)
    run(folder, *to)
    third, printed = run(folder, *to, "--map", "map.yaml")
    judge_import(printed, number, "changed")
    return {"import": first, "import again": second, "import that changes most lines": third, "coverage": covering}


def main() -> None:
    """Print the seconds."""
    machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        number = files(folder, SIZE)
        row("description", f"{(folder / 'api.yaml').stat().st_size / 1e6:.1f} MB of YAML", f"{number:,} operations")
        for what, taken in measure(folder, number).items():
            row(f"routes {what}", taken, GOAL)


if __name__ == "__main__":
    main()
