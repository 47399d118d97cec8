"""Fixtures for every test."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import pytest

# Whatever PYTHONDONTWRITEBYTECODE says: hundreds of processes of the tests would each compile all that they import. It stays as it
# is for them: they read what is written here. Some run where no file may grow, and half a compiled file would break all the others.
sys.dont_write_bytecode = False

from tests.support.transports import NAMES, Loop, Name  # noqa: E402
from tests.support.world import MakeWorld, World  # noqa: E402

# The time of the wall for one example says what else the machine does. What may cost so much is a matter of counted work.
hypothesis.settings.register_profile("machine", deadline=None)
hypothesis.settings.load_profile("machine")

SLOW_FILES = (
    "envoy",
    "serve",
    "console_browser",
    "doctor",
    "oauth_live",
    "introspection",
    "prometheus",
    "cold_start",
    "pgbouncer",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: one of them that begins last leaves the other cores idle."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what is alive now out of later collections: many thousand tests, which every test that collects would look through.

    Not outside of `make test`: whoever runs mutants looks for functions among what collections see.
    """
    if hasattr(session.config, "workerinput"):
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def authorities() -> Iterator[None]:
    """Read the authorities that clients trust by default once, and not for each of a thousand clients, which costs 20 ms."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(httpx2, "create_ssl_context", cache(httpx2.create_ssl_context))
        yield


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """Return a maker of worlds: routes first, then changes to the settings as keywords."""
    count = 0

    def make(routes: Any, *, more_files: dict[str, Any] | None = None, **changes: Any) -> World:
        nonlocal count
        count += 1
        return World(tmp_path / f"world-{count}", routes, changes, more_files=more_files or {})

    return make


@pytest.fixture(params=NAMES)
def transport(request: pytest.FixtureRequest) -> Name:
    """Each transport by turns."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def loop(transport: Name) -> Iterator[Loop]:
    """Return a loop of the transport under test, which complains of nothing until its end."""
    made = Loop(transport)
    yield made
    made.close()
    assert made.complaints == []
