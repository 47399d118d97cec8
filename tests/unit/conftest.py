"""A unit test starts no process and opens no connection; one that needs them belongs to tests/integration or tests/e2e."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OUTSIDE = frozenset({"socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn"})
OF_THE_PROJECT = Path(__file__).parent / "project"
"""Laws about the files of the project, which ask git, Helm and others about them."""

_running: list[str] = []


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if _running and event in OUTSIDE:
        raise AssertionError(f"a unit test must not reach out: {event} in {_running[-1]}")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def stays_inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse what reaches out of the process while a unit test runs."""
    if OF_THE_PROJECT in request.path.parents:
        yield
        return
    _running.append(request.node.nodeid)
    yield
    _running.pop()
