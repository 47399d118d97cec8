"""The mutants themselves: what is put into a text, what becomes of it, and what a run complains about."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.mutants import baseline as baselines
from tests.mutants import score as scores
from tests.mutants.__main__ import FOLDER, PAGE, ROOT, groups
from tests.mutants.baseline import Baseline, BaselineError, Rule
from tests.mutants.mutations import Key, Mutant, in_lines, mutants_of
from tests.mutants.running import EACH, Group, Noted, Outcome, Result, run

OPERATORS = [
    ("if a < b:\n        return 1", "if a <= b:"),
    ("if a and b:\n        return 1", "if a or b:"),
    ("if a and b:\n        return 1", "if (a):"),
    ("if a and b:\n        return 1", "if (b):"),
    ("if a:\n        return 1", "if not a:"),
    ("if a:\n        return 1", "pass"),
    ("if a:\n        raise ValueError", "pass"),
    ("a.clear()", "pass"),
    ("b = (1, a)", "b = (a,)"),
    ("b = 1, a", "b = (1,)"),
    ("c(a, key=b)", "c(None, key=b)"),
    ("c(a, key=b)", "c(a, )"),
    ("b = 'x' if a else 'y'", "b = ('x')"),
    ("b = [one for one in a if one]", "b = [one for one in a]"),
    ("match a:\n        case 1:\n            return 2\n        case _:\n            return 3", "case 1: return 2"),
    ("match a:\n        case int() if b:\n            return 2", "case int() if True:"),
    ("b = a + 1", "b = a + 2"),
    ("b = a is None", "b = a is not None"),
    ("return True", "return False"),
]


def written(folder: Path, text: str, name: str = "module.py") -> list[Mutant]:
    """Return the mutants of a module with this text."""
    (folder / name).write_text(text)
    return mutants_of(folder / name, root=folder)


@pytest.mark.parametrize(("body", "expected"), OPERATORS)
def test_each_kind_of_fault_is_made(tmp_path: Path, body: str, expected: str) -> None:
    found = written(tmp_path, f"def f(a, b, c):\n    {body}\n")
    assert expected in [mutant.key.now or mutant.key.was for mutant in found]
    for mutant in found:
        compile(mutant.text, "module.py", "exec")
        assert mutant.within_function


@pytest.mark.parametrize(
    "text",
    ['"""Text."""\n', "import os\n", "_log = get('x')\n", "Name = Mapping[str, int]\n", "def f(a: int = b()) -> str | None: ...\n"],
)
def test_what_decides_nothing_is_left_alone(tmp_path: Path, text: str) -> None:
    assert written(tmp_path, text) == []


def test_a_mutant_keeps_its_name_when_lines_move_or_are_wrapped(tmp_path: Path) -> None:
    before = written(tmp_path, "class C:\n    def f(self, a):\n        return a == 1 and a\n")
    after = written(tmp_path, "\n\nX: int\nclass C:\n    def f(self, a):\n        return a  ==  1 and a\n")
    assert [mutant.key for mutant in before if mutant.key.now == "return a != 1 and a"] == [
        Key("module.py", "C.f", "return a == 1 and a", "return a != 1 and a")
    ]
    assert {(mutant.key.function, mutant.key.was) for mutant in after if "X" not in mutant.key.was} == {
        ("C.f", "return a == 1 and a")
    }


def test_the_same_change_twice_in_a_function_has_two_names(tmp_path: Path) -> None:
    found = written(tmp_path, "def f(a):\n    if a:\n        return 1\n    if not a:\n        return 1\n    return 2\n")
    assert sorted(mutant.key.nth for mutant in found if mutant.key.was == "return 1" and mutant.key.now == "pass") == [1, 2]


def test_a_text_of_several_lines_runs_where_it_begins(tmp_path: Path) -> None:
    found = written(tmp_path, "def f(a):\n    return (\n        'one '\n        f'{a} two '\n        'three'\n    )\n")
    assert [(mutant.first, mutant.last) for mutant in found if "XXthreeXX" in mutant.key.now] == [(3, 5)]


def test_a_constant_and_a_default_are_known_to_be_set_at_import(tmp_path: Path) -> None:
    found = written(tmp_path, "LIMIT = 5\n\ndef f(a=6):\n    return a\n")
    assert {(mutant.key.now, mutant.within_function) for mutant in found} == {("LIMIT = 6", False), ("def f(a=7):", False)}


def test_what_is_set_at_import_is_tried_with_tests_that_run_no_line_of_its_module_too(tmp_path: Path) -> None:
    constant, statement = written(tmp_path, "LIMIT = 5\n\ndef f():\n    return 6\n")[:2]
    alike = list(range(EACH + 1))
    tests = Noted([f"a.py::{number}" for number in alike] + ["b.py::0"], [], [], {"module.py": {4: alike}}, {"module.py": [1, 3]})
    others = [EACH, EACH + 1]
    assert tests.rounds(constant) == (alike[:EACH], others)
    assert tests.rounds(constant, recent=["b.py::0"]) == ([*alike[:EACH], EACH + 1], others)
    assert tests.rounds(statement, recent=["b.py::0"]) == (alike[:EACH], [EACH])


KEY = Key("module.py", "f", "return a < b", "return a <= b")
MUTANT = Mutant(KEY, "", 1, 1, True)


@pytest.mark.parametrize(
    ("baseline", "outcome", "expected"),
    [
        (Baseline(), Outcome.KILLED, []),
        (Baseline(), Outcome.TIMEOUT, []),
        (Baseline(), Outcome.NOT_TRIED, []),
        (Baseline(), Outcome.SURVIVED, ["survived, and neither"]),
        (Baseline(), Outcome.NOT_COVERED, ["not covered, and neither"]),
        (Baseline(accepted={KEY: "why"}), Outcome.SURVIVED, []),
        (Baseline(accepted={KEY: "why"}), Outcome.NOT_COVERED, []),
        (Baseline(accepted={KEY: "why"}), Outcome.NOT_TRIED, []),
        (Baseline(accepted={KEY: "why"}), Outcome.KILLED, ["accepted, but a test notices"]),
        (Baseline(unread=frozenset({KEY})), Outcome.SURVIVED, []),
        (Baseline(unread=frozenset({KEY})), Outcome.KILLED, []),
        (Baseline(accepted={Key("module.py", "f", "gone", "more"): "why"}), Outcome.KILLED, ["no such mutant any more"]),
        (Baseline(unread=frozenset({Key("module.py", "f", "gone", "more")})), Outcome.KILLED, ["no such mutant any more"]),
        (Baseline(accepted={Key("other.py", "f", "gone", "more"): "why"}), Outcome.KILLED, []),
    ],
)
def test_what_a_run_complains_about(baseline: Baseline, outcome: Outcome, expected: list[str]) -> None:
    found = list(baseline.complaints([MUTANT], [Result(MUTANT, outcome)]))
    assert len(found) == len(expected)
    assert all(text in complaint for text, complaint in zip(expected, found, strict=True))


def test_a_group_for_which_no_time_is_left_is_not_even_collected(tmp_path: Path) -> None:
    """Every group with a changed line would add seconds to a run that is over."""
    mutants = written(tmp_path, "def f(a):\n    return a\n\ndef g(a):\n    return a == 1\n")
    group = Group("none", ("module.py",), ("no_such_test.py",))
    assert list(run(group, mutants, root=tmp_path, deadline=time.monotonic() - 1)) == [
        Result(mutant, Outcome.NOT_TRIED) for mutant in mutants
    ]


def test_an_accepted_mutant_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "unread.yaml").write_text("[]")
    entry = "accepted: [{module: m.py, function: f, was: a, now: [b, c], reason: '%s'}]"
    (tmp_path / "accepted.yaml").write_text(entry % "It does the same.")
    assert set(baselines.load(tmp_path).accepted) == {Key("m.py", "f", "a", "b"), Key("m.py", "f", "a", "c")}
    (tmp_path / "accepted.yaml").write_text(entry % "")
    with pytest.raises(BaselineError, match="no reason"):
        baselines.load(tmp_path)


def test_the_list_of_unread_mutants_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "accepted.yaml").write_text("accepted: []")
    keys = {KEY, Key("module.py", "f", "return a < b", "pass"), Key("module.py", "f", "x: 'é' # y", "- z", 2)}
    baselines.write_unread(tmp_path, keys)
    assert baselines.load(tmp_path).unread == keys


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.com")
    subprocess.run(["git", *identity, "-C", folder, *arguments], check=True, capture_output=True)


def test_lines_count_as_changed_from_the_text_that_was_tried(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "m.py").write_text("a\nb\nc\nd\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    score = {"m.py": {"blob": scores.blob_of(b"a\nb\nc\nd\n")}}

    def changed(text: str, base: str | None = None, known: scores.Score = score) -> list[int]:
        (tmp_path / "m.py").write_text(text)
        return scores.changed_lines("m.py", known, root=tmp_path, base=base)

    assert changed("a\nb\nc\nd\n") == []
    assert changed("a\nB\nc\nd\ne\n") == [2, 5]
    assert changed("a\nc\nd\n") == [1, 2]
    assert changed("a\nB\nc\nd\n", base="HEAD") == [2]
    # Never tried, tried in a history that this clone does not have, or with a base that does not exist: all of it.
    assert changed("a\nb\n", known={}) == [1, 2]
    assert changed("a\nb\n", known={"m.py": {"blob": "0" * 40}}) == [1, 2]
    assert changed("a\nb\n", base="no-such-commit") == [1, 2]


def test_only_mutants_of_changed_lines_are_tried() -> None:
    mutants = [Mutant(KEY, "", first, last, True) for first, last in ((1, 1), (2, 4), (5, 5))]
    assert in_lines(mutants, [3, 5]) == mutants[1:]


def test_the_score_counts_each_mutant_once(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("")
    keys = [Key("module.py", "f", "was", str(number)) for number in range(6)]
    logged = Key("module.py", "f", "_log.info(1)", "pass")
    mutants = [Mutant(key, "", 1, 1, True) for key in (*keys, logged)]
    outcomes = (Outcome.KILLED, Outcome.TIMEOUT, Outcome.SURVIVED, Outcome.NOT_COVERED, Outcome.NOT_TRIED)
    results = [Result(mutant, outcome) for mutant, outcome in zip(mutants, outcomes, strict=False)]
    rule = Rule("log", re.compile("^_log"), "why")
    score = scores.rows(mutants, results, Baseline((rule,), {keys[2]: "why"}), root=tmp_path)
    assert {name: score["module.py"][name] for name in scores.COLUMNS} == {
        "mutants": 7,
        "killed": 2,
        "accepted": 1,
        "by rule": 1,
        "not looked at": 1,
        "not tried": 2,
    }
    page = tmp_path / "page.md"
    page.write_text(f"before\n{scores.START}\nold\n{scores.END}\nafter\n")
    scores.write_page(page, score)
    scores.write_page(page, score)
    assert page.read_text() == f"before\n{scores.START}\n{scores.table(score)}\n{scores.END}\nafter\n"
    assert "| all | 7 | 2 | 1 | 1 | 1 | 2 |" in page.read_text()


def test_the_targets_exist_and_the_page_shows_the_score() -> None:
    found = groups()
    assert all(group.modules for group in found)
    missing = [test for group in found for test in group.tests if not (ROOT / test).is_file()]
    assert missing == []
    assert {*(path.relative_to(ROOT).as_posix() for path in (ROOT / "extauthz/core").glob("*.py"))} <= set(found[0].modules)
    assert f"{scores.START}\n{scores.table(scores.load(FOLDER))}\n{scores.END}" in PAGE.read_text()


def test_every_listed_mutant_is_in_a_module_that_is_tried() -> None:
    baseline = baselines.load(FOLDER)
    modules = {module for group in groups() for module in group.modules}
    assert {key.module for key in (*baseline.accepted, *baseline.unread)} <= modules
