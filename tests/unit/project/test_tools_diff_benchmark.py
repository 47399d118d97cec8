"""The benchmark of `extauthz diff` finds what it must, and stops at anything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import tools_diff
from benchmarks.answers import WrongAnswer


@pytest.mark.parametrize("change", tools_diff.changes(120), ids=lambda change: change.name)
def test_the_benchmark_of_diff_stops_at_other_differences(change: tools_diff.Change, tmp_path: Path) -> None:
    old = tools_diff.write(tmp_path / "old", 120, tools_diff.Change("", 0))
    new = tools_diff.write(tmp_path / "new", 120, change)
    assert tools_diff.measure(old, new, change) > 0
    with pytest.raises(WrongAnswer, match=change.name):
        tools_diff.measure(old, new, replace(change, findings=change.findings + 1))
