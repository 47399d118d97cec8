"""Try mutants: `python -m tests.mutants whole`, `changed` for changed lines, or `listed` for those that survived before.

Fails if a mutant that is not in accepted.yaml or unread.yaml survives, or if one that is listed there does not any more.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.mutants import baseline as baselines
from tests.mutants import score as scores
from tests.mutants.mutations import Mutant, in_lines, mutants_of
from tests.mutants.running import CleanRunFailed, Group, Outcome, Result, run
from tests.support.project import ROOT

FOLDER = Path(__file__).parent
PAGE = ROOT / "docs" / "reliability.md"
BUDGET = 300.0


def groups(folder: Path = FOLDER, root: Path = ROOT) -> list[Group]:
    """Read targets.yaml, the worst first: modules are patterns there, each module belongs to the first group that names it."""
    taken: set[str] = set()
    found = []
    for entry in yaml.safe_load((folder / "targets.yaml").read_text(encoding="utf-8")):
        named = [path.relative_to(root).as_posix() for pattern in entry["modules"] for path in sorted(root.glob(pattern))]
        modules = tuple(name for name in dict.fromkeys(named) if name not in taken)
        taken.update(modules)
        found.append(Group(entry["name"], modules, tuple(entry["tests"]), tuple(entry.get("left_out") or ())))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print what is to be done, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("scope", choices=("whole", "changed", "listed"))
    parser.add_argument("--module", default="*", help="only modules that fit this pattern")
    parser.add_argument("--budget", type=float, help=f"seconds; {BUDGET:.0f} for changed lines, none for a whole run")
    parser.add_argument("--record-unread", action="store_true", help="put survivors that are not listed on the list of unread ones")
    options = parser.parse_args(arguments)
    whole = options.scope == "whole"
    budget = options.budget or (BUDGET if options.scope == "changed" else float("inf"))
    deadline = time.monotonic() + budget
    baseline, score = baselines.load(FOLDER), scores.load(FOLDER)
    base = os.environ.get("MUTANTS_BASE") or None
    all_mutants: list[Mutant] = []
    results: list[Result] = []
    for group in groups():
        chosen: list[Mutant] = []
        for module in group.modules:
            if not fnmatch.fnmatch(module, options.module):
                continue
            lines = scores.changed_lines(module, score, root=ROOT, base=base) if options.scope == "changed" else None
            if lines == []:
                continue
            mutants = mutants_of(ROOT / module, root=ROOT)
            all_mutants += mutants
            if lines is not None:
                mutants = in_lines(mutants, lines)
            elif not whole:
                mutants = [mutant for mutant in mutants if mutant.key in baseline.accepted or mutant.key in baseline.unread]
            chosen += mutants
        tried = [mutant for mutant in chosen if not baseline.rule_for(mutant.key)]
        if tried:
            started = time.monotonic()
            try:
                found = list(run(group, tried, root=ROOT, deadline=deadline, accepted=baseline.accepted.keys()))
            except CleanRunFailed as failure:
                print(failure, file=sys.stderr)
                return 2
            results += found
            _print(group, found, time.monotonic() - started)
    complaints = list(baseline.complaints(all_mutants, results))
    if options.scope != "changed":
        _keep(all_mutants, results, baseline, score, whole=whole, record=options.record_unread)
    untried = [result.mutant for result in results if result.outcome is Outcome.NOT_TRIED]
    if untried:
        print(f"\n{len(untried)} mutants were not tried within {budget:.0f} seconds: {_by_module(untried)}")
    listed = [result.mutant for result in results if result.mutant.key in baseline.unread and result.outcome in baselines.UNNOTICED]
    if listed:
        print(f"\n{len(listed)} survived that nobody has looked at (tests/mutants/unread.yaml): {_by_module(listed)}")
    if options.record_unread:
        complaints = [text for text in complaints if "neither accepted nor known" not in text]
    for text in complaints:
        print(f"\n{text}")
    print(f"\n{len(results)} mutants, {len(complaints)} to be dealt with")
    return bool(complaints)


def _keep(
    mutants: Sequence[Mutant],
    results: Sequence[Result],
    baseline: baselines.Baseline,
    score: scores.Score,
    *,
    whole: bool,
    record: bool,
) -> None:
    """Write what a run found: the score, the page, and the unread mutants without those that are noticed now."""
    tried = {mutant.key.module for mutant in mutants}
    unnoticed = [
        result.mutant.key
        for result in results
        if result.outcome in baselines.UNNOTICED and result.mutant.key not in baseline.accepted
    ]
    kept = {key for key in unnoticed if record or key in baseline.unread}
    kept |= {
        result.mutant.key for result in results if result.outcome is Outcome.NOT_TRIED and result.mutant.key in baseline.unread
    }
    kept |= {key for key in baseline.unread if key.module not in tried}
    baselines.write_unread(FOLDER, sorted(kept, key=str))
    found = scores.rows(mutants, results, baseline, root=ROOT)
    score.update(found if whole else scores.corrected(score, found))
    scores.save(FOLDER, score)
    scores.write_page(PAGE, score)


def _print(group: Group, results: Sequence[Result], seconds: float) -> None:
    counts = Counter(str(result.outcome) for result in results)
    print(
        f"{group.name}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + f" in {seconds:.0f} s",
        flush=True,
    )


def _by_module(mutants: Sequence[Mutant]) -> str:
    counts = Counter(mutant.key.module for mutant in mutants)
    return ", ".join(f"{module} {count}" for module, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
