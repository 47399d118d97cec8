"""The files of a configuration in a folder, and who takes them when they change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from extauthz.config.loader import Configuration, load
from extauthz.errors import StoreError
from extauthz.serve.reload import Reloader, ReloadRefused
from tests.support.waiting import settled

SETTINGS = """\
version: 1
server: {listen: 127.0.0.1:9001, ops: null}
tokens: {store: "sqlite:///tokens.db", peppers: [{id: p1, file: pepper}]}
act_as: {allow: ["*@acme.com"]}
scopes: [SEARCH, CHAT]
routes: [routes.yaml]
"""
ROUTES = 'routes:\n  - {match: "POST /search", scope: SEARCH}\n'
MORE = ROUTES + '  - {match: "POST /chat", scope: CHAT}\n'
PEPPER = "a pepper for tests that is 32 bytes"


@dataclass
class Watched:
    """Files in a folder, and who takes them."""

    folder: Path
    taken: list[Configuration] = field(default_factory=list)
    error: Exception | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, **files: str) -> None:
        """Write files, their names without the ending."""
        for name, content in files.items():
            (self.folder / (name if name == "pepper" else f"{name}.yaml")).write_text(content)

    async def take(self, configuration: Configuration) -> None:
        """Serve a configuration, or raise."""
        if self.error is not None:
            raise self.error
        self.taken.append(configuration)

    @property
    def reloader(self) -> Reloader:
        """A reloader that serves what the files say now."""
        served = load(self.folder / "extauthz.yaml")
        served.read_secrets(self.environment)
        return Reloader(served, self.take, environment=self.environment, now=lambda: 1_000.0)


@pytest.fixture
def files(tmp_path: Path) -> Watched:
    folder = tmp_path / "config"
    folder.mkdir()
    made = Watched(folder)
    made.write(extauthz=SETTINGS, routes=ROUTES, pepper=PEPPER)
    return made


@contextlib.asynccontextmanager
async def watching(reloader: Reloader) -> AsyncIterator[None]:
    task = asyncio.create_task(reloader.run())
    await settled()  # the folders are watched from the first step of the task on
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def count(reloader: Reloader, result: str) -> float:
    value = reloader.samples()["extauthz_config_reloads_total", (result,)]
    assert isinstance(value, float)
    return value


FAILURES: list[Exception] = [
    StoreError("the token store needs another pepper"),
    ReloadRefused("the worker with process id 7 does not answer"),
    RuntimeError("a fault of ours"),
]


# --- files that are written slowly, in place

GUARDED = ROUTES + '  - {match: "GET /admin/**", deny: true}\n  - {match: "* /internal/**", deny: true}\n'
MARKED = "reload: {end_marker: true}\n" + SETTINGS
END = "# end\n"
MISSING = "its last line is not the comment '# end'"
