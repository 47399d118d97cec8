"""Mutants are tried: forks of a process that has collected the tests tell which faults are noticed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.mutants.mutations import mutants_of
from tests.mutants.running import CleanRunFailed, Group, Outcome, run

pytestmark = pytest.mark.long

PACKAGE = """
from dataclasses import dataclass
from functools import cached_property, lru_cache

LIMIT = 5


@dataclass(frozen=True, slots=True)
class Rule:
    least: int = 3

    @property
    def is_strict(self):
        return self.least > 3

    def takes(self, number):
        match number:
            case int() if number >= self.least:
                return True
        return False


@lru_cache
def bounded(number):
    return min(number, LIMIT)


def endless(number):
    while number > 0:
        number -= 1
    return number


def unused():
    return 1
"""
TESTS = """
import pytest
from sample import Rule, bounded, endless

@pytest.mark.parametrize(("number", "taken"), [(3, True), (2, False)])
def test_takes(number, taken):
    assert Rule().takes(number) is taken

def test_strict():
    assert Rule(4).is_strict and not Rule().is_strict

def test_bounded():
    assert bounded(1) == 1 and bounded(9) == 5

def test_endless():
    assert endless(3) == 0
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A project of one module and one file of tests."""
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib"]\n')
    (tmp_path / "sample.py").write_text(PACKAGE)
    (tmp_path / "test_sample.py").write_text(TESTS)
    return tmp_path


GROUP = Group("sample", ("sample.py",), ("test_sample.py",))


NOTICED = (
    "case int() if number > self.least:",  # in a slotted class
    "return self.least >= 3",  # in a property
    "return min(None, LIMIT)",  # in a cached function
    "LIMIT = 6",
    "least: int = 4",
    "number = 1",  # does not end
)


def test_faults_are_noticed_in_slotted_classes_properties_cached_functions_and_constants(sample: Path) -> None:
    mutants = [one for one in mutants_of(sample / "sample.py", root=sample) if one.key.now in (*NOTICED, "return 2")]
    results = {result.mutant.key.now: result for result in run(GROUP, mutants, root=sample, deadline=time.monotonic() + 60)}
    assert {now: result.outcome for now, result in results.items()} == {
        **dict.fromkeys(NOTICED[:-1], Outcome.KILLED),
        "number = 1": Outcome.TIMEOUT,
        "return 2": Outcome.NOT_COVERED,
    }
    assert results["LIMIT = 6"].by == "test_sample.py::test_bounded"


def test_a_weaker_test_lets_a_fault_survive(sample: Path) -> None:
    (sample / "test_sample.py").write_text(TESTS.replace("[(3, True), (2, False)]", "[(4, True), (2, False)]"))
    mutants = [one for one in mutants_of(sample / "sample.py", root=sample) if one.key.function == "Rule.takes"]
    survivors = [
        result.mutant.key.now
        for result in run(GROUP, mutants, root=sample, deadline=time.monotonic() + 60)
        if result.outcome is Outcome.SURVIVED
    ]
    assert survivors == ["case int() if number > self.least:"]


def test_tests_that_fail_without_a_fault_end_the_run(sample: Path) -> None:
    (sample / "test_sample.py").write_text(TESTS.replace("== 5", "== 6"))
    with pytest.raises(CleanRunFailed, match="test_bounded"):
        list(run(GROUP, mutants_of(sample / "sample.py", root=sample), root=sample, deadline=time.monotonic() + 60))


def test_what_the_time_does_not_suffice_for_is_told(sample: Path) -> None:
    mutants = mutants_of(sample / "sample.py", root=sample)
    results = list(run(GROUP, mutants, root=sample, deadline=time.monotonic() - 1))
    assert [result.outcome for result in results] == [Outcome.NOT_TRIED] * len(mutants)
