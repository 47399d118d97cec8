"""Files that stand for those of a small configuration, each with what is said about it, word by word.

A file begins with comments: `# stands for:` the file that it replaces, and for each message about it one line
`# expect: LINE key.path: message`, in which <providers> stands for the names of all providers. A folder holds several files, each
with its own expectations.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, get_args

from extauthz.config.oauth import ProviderName

MESSAGES = ("problem", "Problem", "_wrong", "_Found")
"""What describes a problem in the source, by the end of its name."""


def lay_out(file: Path, folder: Path, base: Path) -> None:
    """Write the base configuration into the folder, and the file, or those of a folder, over it."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, folder, dirs_exist_ok=True)
    else:
        shutil.copy(file, folder / stands_for(file))


def stands_for(file: Path) -> str:
    """Return the name of the file that this one replaces."""
    found = re.match(rb"# stands for: (\S+)\n", file.read_bytes())
    assert found, f"{file} does not say which file it stands for"
    return found[1].decode()


def expected(file: Path) -> list[str]:
    """Return the messages that are expected, as `file:line: path: message`."""
    files = {each.name: each for each in file.iterdir()} if file.is_dir() else {stands_for(file): file}
    return [f"{name}:{text}" for name, each in sorted(files.items()) for text in expectations(each)]


def expectations(file: Path) -> list[str]:
    """Return those of one file, without its name."""
    lines = re.findall(rb"^# expect: ([0-9]+) (.+)$", file.read_bytes(), re.MULTILINE)
    *names, last = (repr(name) for name in get_args(ProviderName))
    providers = f"{', '.join(names)} or {last}"
    return [f"{int(line)}: {text.decode().replace('<providers>', providers)}" for line, text in lines]


def silent_places(modules: Collection[ModuleType], runs: Iterable[Callable[[], object]]) -> set[str]:
    """Return the functions of modules with a place that describes a problem and that none of the runs passes."""
    passed: set[tuple[str, int]] = set()
    files = {inspect.getfile(module) for module in modules}

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        passed.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for run in runs:
            run()
    finally:
        sys.settrace(before)
    return {
        f"{module.__name__.rpartition('.')[2]}.{function}"
        for module in modules
        for function, node in places(module)
        if not any((inspect.getfile(module), line) in passed for line in range(node.lineno, (node.end_lineno or 0) + 1))
    }


def places(module: ModuleType) -> Iterator[tuple[str, ast.stmt | ast.expr]]:
    """Yield where a module raises ValueError, describes a problem or words one, with the name of the function."""
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Raise) and "ValueError" in ast.unparse(node):
                    yield function.name, node
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(MESSAGES):
                    yield function.name, node
                if isinstance(node, ast.Return) and function.name == "_message":
                    yield function.name, node
