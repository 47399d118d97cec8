"""Every problem that can be made in the configuration, one file each in config/bad: what is said about it, word by word.

A file begins with comments: `# stands for:` the file of config/base that it replaces, and for each problem in it one line
`# expect: LINE key.path: message`, in which <providers> stands for the names of all providers. A folder holds several files, each
with its own expectations.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, get_args

import pytest

from extauthz import addresses
from extauthz.config import (
    answers,
    completeness,
    console,
    cross_checks,
    decision_log,
    document,
    internal_token,
    listeners,
    loader,
    messages,
    oauth,
    patterns,
    risks,
    routes,
    saved_settings,
    sendable,
    settings,
    tables,
    tracing,
    upstream,
    values,
)
from extauthz.config.loader import load
from extauthz.config.oauth import ProviderName
from extauthz.errors import ConfigurationError
from extauthz.responses import denials
from tests.support.project import TESTS

BASE = TESTS / "config" / "base"
BAD = sorted((TESTS / "config" / "bad").iterdir())
SECRET = "hunter2"


def lay_out(bad: Path, folder: Path) -> None:
    """Write the base configuration into the folder, and the bad files over it."""
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    if bad.is_dir():
        shutil.copytree(bad, folder, dirs_exist_ok=True)
    else:
        shutil.copy(bad, folder / stands_for(bad))


def stands_for(bad: Path) -> str:
    found = re.match(rb"# stands for: (\S+)\n", bad.read_bytes())
    assert found, f"{bad} does not say which file it stands for"
    return found[1].decode()


def expected(bad: Path) -> list[str]:
    files = {file.name: file for file in bad.iterdir()} if bad.is_dir() else {stands_for(bad): bad}
    return [f"{name}:{text}" for name, file in sorted(files.items()) for text in expectations(file)]


def expectations(file: Path) -> list[str]:
    lines = re.findall(rb"^# expect: ([0-9]+) (.+)$", file.read_bytes(), re.MULTILINE)
    *names, last = (repr(name) for name in get_args(ProviderName))
    providers = f"{', '.join(names)} or {last}"
    return [f"{int(line)}: {text.decode().replace('<providers>', providers)}" for line, text in lines]


def problems_in(folder: Path) -> list[str]:
    """Load from inside the folder, so that the files are named as they are in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(ConfigurationError) as raised:
            load(Path("extauthz.yaml"))
    return [str(problem) for problem in raised.value.problems]


def test_the_base_loads(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    assert load(tmp_path / "extauthz.yaml").settings.version == 1


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.stem)
def test_the_complete_list_of_problems(bad: Path, tmp_path: Path) -> None:
    lay_out(bad, tmp_path)
    assert problems_in(tmp_path) == expected(bad)


def test_a_secret_stands_in_no_message(tmp_path: Path) -> None:
    holding_a_secret = [bad for bad in BAD if bad.is_dir() or SECRET.encode() in bad.read_bytes()]
    assert len(holding_a_secret) >= 14
    for index, bad in enumerate(holding_a_secret):
        lay_out(bad, tmp_path / str(index))
        assert SECRET not in "\n".join(problems_in(tmp_path / str(index))), bad


def test_many_problems_are_told_in_one_run(tmp_path: Path) -> None:
    """One of them hides none of the others: sections, keys, values, the route file and what stands between two lines."""
    bad = next(bad for bad in BAD if bad.name == "many_at_once")
    lay_out(bad, tmp_path)
    found = problems_in(tmp_path)
    assert len(found) == 35
    assert {re.split(r"[.:\[]", problem.split(": ")[1])[0] for problem in found if problem.startswith("extauthz.yaml")} >= {
        "version",
        "server",
        "oauth",
        "tokens",
        "act_as",
        "identity",
        "scopes",
        "routes",
        "limits",
    }


# Functions with places that config/bad cannot reach, because they are warnings, or need another file system, another environment or
# settings in a store: test_config_document.py, test_config_settings.py and test_saved_settings.py have them. The last line of
# `_message` is for errors that no key of today can have.
ELSEWHERE = {
    "console.risks",
    "document.read",
    "document.problem",
    "saved_settings.overlay",
    "loader.problem",
    "risks.risks",
    "risks._oauth_risks",
    "sendable.secrets",
    "sendable.password",
    "loader._peppers",
    "loader.read_secrets",
    "tables.compile_tables",
    "tables._warnings",
    "tables._other_readings",
    "routes.monitored",
    "routes.useless_audiences",
    "internal_token.private_keys",
    "upstream.kept_hosts",
    "values.read_secret",
    "messages._message",
}
TRACED: list[ModuleType] = [
    answers,
    completeness,
    console,
    cross_checks,
    decision_log,
    document,
    internal_token,
    listeners,
    loader,
    oauth,
    messages,
    risks,
    routes,
    saved_settings,
    sendable,
    settings,
    tables,
    tracing,
    upstream,
    values,
    addresses,
    denials,
    patterns,
]


def test_every_place_that_finds_an_error_has_a_bad_file(tmp_path: Path) -> None:
    passed: set[tuple[str, int]] = set()
    files = {inspect.getfile(module) for module in TRACED}

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        passed.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for index, bad in enumerate(BAD):
            lay_out(bad, tmp_path / str(index))
            problems_in(tmp_path / str(index))
    finally:
        sys.settrace(before)
    silent = {
        f"{module.__name__.rpartition('.')[2]}.{function}"
        for module in TRACED
        for function, node in places(module)
        if not any((inspect.getfile(module), line) in passed for line in range(node.lineno, (node.end_lineno or 0) + 1))
    }
    assert silent == ELSEWHERE


def places(module: ModuleType) -> Iterator[tuple[str, ast.stmt | ast.expr]]:
    """Yield where a module raises ValueError, describes a problem or words one, with the name of the function."""
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Raise) and "ValueError" in ast.unparse(node):
                    yield function.name, node
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("problem", "Problem", "_wrong")):
                    yield function.name, node
                if isinstance(node, ast.Return) and function.name == "_message":
                    yield function.name, node


def test_the_places_are_found() -> None:
    """Keeps the test above from passing because nothing was looked at."""
    assert sum(1 for module in TRACED for _ in places(module)) >= 100
