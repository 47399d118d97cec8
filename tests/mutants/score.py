"""How many mutants of each module the tests notice: kept in score.yaml, shown in docs/reliability.md."""

from __future__ import annotations

import difflib
import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.mutants.baseline import UNNOTICED, Baseline
from tests.mutants.mutations import Mutant
from tests.mutants.running import Outcome, Result

START, END = "<!-- mutants: written by make mutants -->", "<!-- mutants: end -->"
COLUMNS = ("mutants", "killed", "accepted", "by rule", "not looked at", "not tried")

Score = dict[str, dict[str, Any]]


def load(folder: Path) -> Score:
    """Return what the last runs found, by module."""
    path = folder / "score.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def save(folder: Path, score: Mapping[str, Any]) -> None:
    """Write what the last runs found."""
    head = (
        "# Written by `make mutants`. `blob` is the text that was tried, as git names it: changed lines are those that\n"
        "# differ from it.\n"
    )
    (folder / "score.yaml").write_text(head + yaml.safe_dump(dict(score), sort_keys=True, width=200), encoding="utf-8")


def rows(mutants: Iterable[Mutant], results: Iterable[Result], baseline: Baseline, *, root: Path) -> Score:
    """Count what became of the mutants of each module; `unlisted` survivors make the run fail and are in no column."""
    outcomes = {result.mutant.key: result.outcome for result in results}
    counts: dict[str, Counter[str]] = {}
    for mutant in mutants:
        count = counts.setdefault(mutant.key.module, Counter())
        count["mutants"] += 1
        outcome = outcomes.get(mutant.key, Outcome.NOT_TRIED)
        if baseline.rule_for(mutant.key):
            count["by rule"] += 1
        elif outcome in UNNOTICED:
            count["accepted" if mutant.key in baseline.accepted else "not looked at"] += 1
            count["not covered"] += outcome is Outcome.NOT_COVERED
        else:
            count["not tried" if outcome is Outcome.NOT_TRIED else "killed"] += 1
    return {
        module: {"blob": blob_of((root / module).read_bytes()), **{name: count[name] for name in (*COLUMNS, "not covered")}}
        for module, count in counts.items()
    }


def corrected(score: Score, found: Score) -> Score:
    """Return the rows of a score after a run of what was listed alone: what is not listed any more is killed."""
    rows: Score = {}
    for module, row in found.items():
        if module in score and score[module]["mutants"] == row["mutants"]:
            rows[module] = score[module] | {name: row[name] for name in ("accepted", "by rule", "not looked at", "not covered")}
            rows[module]["killed"] = 2 * row["mutants"] - sum(rows[module][name] for name in COLUMNS if name != "killed")
    return rows


def table(score: Score) -> str:
    """Render the score as a Markdown table, with a last row for all modules together."""
    lines = ["| module | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    total: Counter[str] = Counter()
    for module in sorted(score):
        total.update({name: score[module][name] for name in COLUMNS})
        lines.append(f"| `{module}` | " + " | ".join(str(score[module][name]) for name in COLUMNS) + " |")
    lines.append("| all | " + " | ".join(str(total[name]) for name in COLUMNS) + " |")
    return "\n".join(lines)


def write_page(page: Path, score: Score) -> None:
    """Put the table between the markers of a page."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n{table(score)}\n{END}{after}", encoding="utf-8")


def blob_of(data: bytes) -> str:
    """Return the name that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def changed_lines(module: str, score: Score, *, root: Path, base: str | None) -> list[int]:
    """Return the numbers of the lines that differ from `base`, a commit, or else from the text that was tried last.

    All lines count as changed where there is no such text: a module that was never tried, or a clone without its history.
    """
    text = (root / module).read_text(encoding="utf-8")
    blob = score.get(module, {}).get("blob", "")
    if base is None and blob == blob_of(text.encode()):
        return []
    name = f"{base}:{module}" if base else blob
    shown = (
        subprocess.run(["git", "-C", root, "cat-file", "-p", name], capture_output=True, text=True, check=False) if name else None
    )
    lines = text.splitlines()
    if shown is None or shown.returncode:
        return list(range(1, len(lines) + 1))
    changed: list[int] = []
    for kind, _, _, first, last in difflib.SequenceMatcher(None, shown.stdout.splitlines(), lines, autojunk=False).get_opcodes():
        match kind:
            case "equal":
                pass
            case "delete":
                # The lines around a gap: what was guarded by what is gone.
                changed += [number for number in (first, first + 1) if 1 <= number <= len(lines)]
            case _:
                changed += range(first + 1, last + 1)
    return changed
