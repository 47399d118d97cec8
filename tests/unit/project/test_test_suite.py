"""Every test can fail, runs everywhere, and waits for something that it can see: broken rules are found in the source.

What is found names the line and what to do. A line that has to break a rule says so itself, with `# why: ...` at its end.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import linting
from tests.support.linting import RULES, Rule, Suite
from tests.support.project import ROOT

HELPERS = """
def checked(value):
    assert value

def passed_on(value):
    checked(value)

def given(value):
    return value
"""


@pytest.fixture(scope="module")
def suite() -> Suite:
    """All the tests; no longer than they are needed, as their trees are millions of objects."""
    return Suite.read(ROOT)


def found(rule: Rule, text: str) -> list[str]:
    """Return what a rule finds in one test file beside some helpers."""
    read = Suite.of({"tests/support/helpers.py": HELPERS, "tests/test_x.py": text})
    return [str(finding) for finding in rule(read, read.sources[1])]


def numbered(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return an id for each row of a table."""
    return [f"{row[0].__name__}-{number}" for number, row in enumerate(rows)]


def test_the_suite_is_read(suite: Suite) -> None:
    tests = [test for source in suite.sources for test in source.tests()]
    assert len(suite.sources) > 100
    assert len(tests) > 1500


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_test_breaks_a_rule(suite: Suite, rule: Rule) -> None:
    findings = [str(finding) for source in suite.sources for finding in rule(suite, source)]
    assert findings == [], "\n".join(findings)


def test_pytest_itself_finds_what_the_source_does_not_show(pytestconfig: pytest.Config) -> None:
    """A table without rows, a mark that nobody knows, a failure that is expected and does not come, and any warning."""
    assert pytestconfig.getini("empty_parameter_set_mark") == "fail_at_collect"
    assert pytestconfig.getini("xfail_strict") is True
    assert pytestconfig.getini("filterwarnings") == ["error"]
    assert {"--strict-markers", "--strict-config"} <= set(pytestconfig.getini("addopts"))


def test_no_name_of_a_test_is_another_one_in_another_process(request: pytest.FixtureRequest) -> None:
    """A set is written in an order that each process draws anew, an object by its place in memory: workers would not agree."""
    names = [item.nodeid for item in request.session.items]
    assert request.node.nodeid in names
    assert [name for name in names if re.search(r"set\(\{[^}]*,| at 0x[0-9a-f]", name)] == [], "give these cases ids of their own"


def test_what_tests_import_is_compiled_once_for_all_processes() -> None:
    """Whatever PYTHONDONTWRITEBYTECODE says: each of the processes that tests start would compile all of it again."""
    ours = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "extauthz"}
    compiled = {name: module.__cached__ for name, module in ours.items() if Path(str(module.__file__)).suffix == ".py"}
    assert "extauthz.core.decide" in compiled
    assert [name for name, file in compiled.items() if not Path(file).is_file()] == []


BROKEN: list[tuple[Rule, str, str]] = [
    (linting.without_assertion, "def test_a():\n    given(1)", "test_a asserts nothing"),
    (linting.without_assertion, "async def test_a():\n    await given(1)", "test_a asserts nothing"),
    (linting.without_assertion, "class TestA:\n    def test_a(self):\n        pass", "test_a asserts nothing"),
    (linting.without_assertion, "from tests.support.helpers import given\ndef test_a():\n    given(1)", "test_a asserts nothing"),
    (linting.without_assertion, "def test_a():\n    if given(1):\n        assert x", "under a condition"),
    (linting.without_assertion, "def test_a():\n    for x in given(1):\n        assert x", "under a condition"),
    (linting.without_assertion, "def test_a():\n    while given(1):\n        assert x", "under a condition"),
    (linting.without_assertion, "def test_a():\n    try:\n        f()\n    except E:\n        assert x", "under a condition"),
    (linting.without_assertion, "def test_a(xs):\n    for x in xs:\n        assert x", "under a condition"),
    (linting.without_assertion, "def test_a():\n    for x in []:\n        assert x", "under a condition"),
    (linting.sleeps, "def test_a():\n    time.sleep(0.1)", "a sleep"),
    (linting.sleeps, "async def test_a():\n    await asyncio.sleep(pause)", "a sleep"),
    (linting.sleeps, "async def test_a():\n    while x:\n        await asyncio.sleep(0)", "a sleep"),
    (linting.sleeps, "async def test_a():\n    for _ in range(9):\n        await sleep(0)", "a sleep"),
    (linting.sleeps, "def until(x):\n    while not x():\n        sleep(0.01)", "a sleep"),
    (linting.sleeps, "def test_a():\n    time.sleep(1)  # a second", "a sleep"),
    (linting.sleeps, "def test_a():\n    time.sleep(1)  # why: slow", "a sleep"),
    (linting.skips, "@pytest.mark.skipif(x, reason='y')\ndef test_a():\n    assert x", "skipif"),
    (linting.skips, "def test_a():\n    pytest.skip('x')", "skip"),
    (linting.skips, "@pytest.mark.xfail\ndef test_a():\n    assert x", "xfail"),
    (linting.alternatives, "assert a or b", "several answers"),
    (linting.alternatives, "assert a.status in (401, 503)", "several answers"),
    (linting.alternatives, "assert a.status in {401, 503}", "several answers"),
    (linting.alternatives, "assert c and (a == 1 or a == 2)", "several answers"),
    (linting.alternatives, "assert all(a in (1, 2) for a in x)", "several answers"),
    (linting.alternatives, "with pytest.raises((ValueError, IndexError)):\n    f()", "several exceptions"),
    (linting.without_effect, "assert True", "a constant"),
    (linting.without_effect, "assert (a == b, 'text')", "a constant"),
    (linting.without_effect, "assert 'text'", "a constant"),
    (linting.without_effect, "assert a.b == a.b", "compared with itself"),
    (linting.without_effect, "assert len(a) >= 0", "no length"),
    (linting.without_effect, "def test_a():\n    assert all(x for x in f())", "if f() is empty"),
    (linting.without_effect, "def test_a():\n    assert not any(x for x in xs)", "if xs is empty"),
    (linting.swallowed, "try:\n    f()\nexcept AssertionError:\n    pass", "is caught"),
    (linting.swallowed, "try:\n    f()\nexcept (OSError, AssertionError):\n    pass", "is caught"),
    (linting.swallowed, "with suppress(AssertionError):\n    f()", "is caught"),
]


@pytest.mark.parametrize(
    ("rule", "text", "advice"), BROKEN, ids=[f"{rule.__name__}-{number}" for number, (rule, *_) in enumerate(BROKEN)]
)
def test_a_broken_rule_is_found(rule: Rule, text: str, advice: str) -> None:
    (finding,) = found(rule, text)
    assert finding.startswith("tests/test_x.py:")
    assert advice in finding


KEPT: list[tuple[Rule, str]] = [
    (linting.without_assertion, "def test_a():\n    assert given(1)"),
    (linting.without_assertion, "def test_a():\n    with pytest.raises(E):\n        f()"),
    (linting.without_assertion, "from tests.support.helpers import checked\ndef test_a():\n    checked(1)"),
    (linting.without_assertion, "from tests.support.helpers import passed_on as p\ndef test_a():\n    p(1)"),
    (linting.without_assertion, "def test_a():\n    def inner():\n        assert x\n    inner()"),
    (linting.without_assertion, "def test_a():\n    for x in (1, 2):\n        assert x"),
    (linting.without_assertion, "def test_a():\n    for x in TABLE:\n        assert x"),
    (linting.without_assertion, "def test_a(xs):\n    for x in xs:\n        assert x\n    assert xs"),
    (linting.without_assertion, "@given(st.lists(st.text()))\ndef test_a(xs):\n    for x in xs:\n        assert x"),
    (linting.without_assertion, "def test_a():\n    if x:\n        assert a\n    else:\n        assert b"),
    (linting.without_assertion, "def test_a():  # why: it passes if nothing raises\n    f()"),
    (linting.sleeps, "async def test_a():\n    await asyncio.sleep(0)"),
    (linting.sleeps, "def test_a():\n    time.sleep(1)  # why: lifetimes are whole seconds"),
    (linting.sleeps, "async def test_a():\n    await asyncio.sleep(1)  # noqa: X1 - why: it is made slow"),
    (linting.skips, "def test_a():\n    reader.skip_all()"),
    (linting.alternatives, "assert a in xs"),
    (linting.alternatives, "assert a == (b or c)"),
    (linting.alternatives, "assert a in (1, 2)  # why: either may come first"),
    (linting.alternatives, "with pytest.raises(ValueError):\n    f()"),
    (linting.without_effect, "assert f() == f()"),
    (linting.without_effect, "assert a.b == a.c"),
    (linting.without_effect, "def test_a():\n    assert len(xs) == 3\n    assert all(x for x in xs)"),
    (linting.swallowed, "with suppress(OSError):\n    f()"),
]


@pytest.mark.parametrize(("rule", "text"), KEPT, ids=numbered(KEPT))
def test_a_kept_rule_is_let_pass(rule: Rule, text: str) -> None:
    assert found(rule, text) == []
