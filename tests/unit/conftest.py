"""A unit test starts no process and opens no connection; one that needs them belongs to tests/integration or tests/e2e."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

OUTSIDE = frozenset({"socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn"})
HERE = Path(__file__).parent
OF_THE_PROJECT = HERE / "project"
"""Laws about the files of the project, which ask git, Helm and others about them."""

_running: list[str] = []


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if _running and event in OUTSIDE:
        raise AssertionError(f"a unit test must not reach out: {event} in {_running[-1]}")


sys.addaudithook(_refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Refuse what reaches out of the process while a unit test runs, with its fixtures."""
    # pytest asks this of every test, not only of those in this folder.
    if HERE not in item.path.parents or OF_THE_PROJECT in item.path.parents:
        return (yield)
    _running.append(item.nodeid)
    try:
        return (yield)
    finally:
        _running.pop()
