"""`config check` of a map with 10,000 routes: how long it takes in all, as a command and in its parts.

    python -m benchmarks.tools_check

The goal is 3 s for the whole command. The check must come to no problem, and find the lints that the map was made with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.answers import WrongAnswer
from extauthz.config.lints import Lint
from extauthz.config.loader import load
from extauthz.tools.lint import LintFinding, LintLevel, lints

ROUTES = 10_000
GOAL = 3.0
"""Seconds of the whole command."""
_OF_A_GROUP = (
    ("GET /api/v1/group{n}/items", "scope: READ"),
    ("POST /api/v1/group{n}/items", "scope: WRITE"),
    ("GET /api/v1/group{n}/items/{{id}}", "scope: READ"),
    ("PUT|DELETE /api/v1/group{n}/items/{{id}}", "scope: WRITE"),
    ("GET /api/v1/group{n}/items/{{id}}/parts", "scope: READ"),
    ("POST /api/v1/group{n}/items/{{id}}/parts", "any_of: [WRITE, ADMIN]"),
    ("* /api/v1/group{n}/admin/**", "scope: ADMIN"),
    ("GET /api/v1/group{n}/admin/state", "public: true"),
    ("POST /api/v1/group{n}/hook", "public: true"),
    ("GET /api/v1/group{n}/search/{{word}}/**", "scope: READ"),
)
EXPECTED = {Lint.PUBLIC_UNDER_PROTECTED: 1, Lint.ANONYMOUS_WRITE: 1}
"""Findings of each group; every other one of the second kind is silenced."""


def write_map(folder: Path, routes: int = ROUTES) -> Path:
    """Write a configuration with so many routes, and return its file."""
    lines = []
    for number in range(routes // len(_OF_A_GROUP)):
        for match, rule in _OF_A_GROUP:
            is_silenced = "/hook" in match and number % 2
            comment = f"  # extauthz: ignore {Lint.ANONYMOUS_WRITE}: the sender signs it" if is_silenced else ""
            lines.append(f'  - {{match: "{match.format(n=number)}", {rule}}}{comment}\n')
    (folder / "routes.yaml").write_text(f"upstream: {{}}\nroutes:\n{''.join(lines)}", encoding="utf-8")
    file = folder / "extauthz.yaml"
    file.write_text(
        "version: 1\nserver: {listen: 127.0.0.1:9001}\n"
        "tokens: {store: sqlite:///tokens.db, peppers: [{id: p1, file: pepper}]}\n"
        'act_as: {allow: ["*@acme.com"]}\nscopes: [READ, WRITE, ADMIN]\nroutes: [routes.yaml]\n',
        encoding="utf-8",
    )
    return file


def judge(findings: list[LintFinding], routes: int) -> None:
    """Raise WrongAnswer unless the findings are those that the map was made with."""
    groups = routes // len(_OF_A_GROUP)
    expected = {
        (Lint.PUBLIC_UNDER_PROTECTED.value, LintLevel.WARNING): groups,
        (Lint.ANONYMOUS_WRITE.value, LintLevel.WARNING): groups - groups // 2,
        (Lint.ANONYMOUS_WRITE.value, LintLevel.SILENCED): groups // 2,
    }
    found: dict[tuple[str, LintLevel], int] = {}
    for finding in findings:
        key = (str(finding.problem.name), finding.level)
        found[key] = found.get(key, 0) + 1
    if found != expected:
        raise WrongAnswer(f"the lints found {found}, and the map has {expected}")


def judge_command(printed: str, code: int, routes: int) -> None:
    """Raise WrongAnswer unless the command printed every finding and ended well."""
    report = json.loads(printed) if printed.startswith("{") else {}
    counts = {kind: len(report.get(kind, ())) for kind in ("problems", "warnings", "silenced")}
    groups = routes // len(_OF_A_GROUP)
    expected = {"problems": 0, "warnings": 2 * groups - groups // 2, "silenced": groups // 2}
    if (code, counts) != (0, expected):
        raise WrongAnswer(f"config check ended with {code} and {counts}, not with 0 and {expected}")


def in_parts(file: Path, routes: int) -> tuple[float, float]:
    """Return the seconds of loading and of the lints."""
    begin = time.perf_counter()
    configuration = load(file)
    loaded = time.perf_counter()
    findings = lints(configuration)
    end = time.perf_counter()
    judge(findings, routes)
    return loaded - begin, end - loaded


def as_command(file: Path, routes: int) -> float:
    """Return the seconds of the whole command, its start included."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "extauthz", "config", "check", "--json", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    judge_command(done.stdout, done.returncode, routes)
    return seconds


def main() -> int:
    """Measure, print the figures with the goal, and return 1 if it is missed."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_map(Path(folder))
        loading, linting = in_parts(file, ROUTES)
        whole = as_command(file, ROUTES)
    verdict = "reached" if whole <= GOAL else "missed"
    print(f"config check of {ROUTES:,} routes: {whole:.2f} s in all, goal {GOAL:g} s: {verdict}")
    print(f"  loading {loading:.2f} s, lints {linting:.2f} s")
    return 0 if whole <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
