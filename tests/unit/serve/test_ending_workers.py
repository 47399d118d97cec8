"""A worker that ends while others take a configuration: one that was told to is not taken for one that answers nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.config.loader import Configuration, load
from extauthz.serve.messages import Commit, Discard, Done, Message, Prepare
from extauthz.serve.reload import ReloadRefused
from extauthz.serve.supervisor import LAST_WORDS, Supervisor
from extauthz.serve.worker_link import WorkerLink
from tests.support.virtual_time import in_virtual_time

SETTINGS = """\
version: 1
server: {listen: 127.0.0.1:9001, ops: null, workers: 2}
tokens: {store: "sqlite:///tokens.db", peppers: [{id: p1, file: pepper}]}
scopes: [SEARCH]
routes: [routes.yaml]
"""


class Worker:
    """A worker's process and its end of the conversation, which is gone with a request of one type; it ends some seconds later."""

    def __init__(self, gone_at: type[Message] | None = None, ends_after: float | None = None) -> None:
        self.pid = 4711
        self.returncode: int | None = None
        self.asked: list[type[Message]] = []
        self.killed_at: float | None = None
        self._gone_at = gone_at
        self._ends_after = ends_after
        self._answers: asyncio.Queue[tuple[int, Message]] = asyncio.Queue()
        self._end = asyncio.Event()

    def end(self, code: int = 0) -> None:
        if self.returncode is None:
            self.returncode = code
            self._end.set()

    async def wait(self) -> int:
        await self._end.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        self.killed_at = asyncio.get_running_loop().time()
        self.end(-9)

    async def send(self, message: Message, number: int) -> None:
        self.asked.append(type(message))
        if type(message) is self._gone_at:
            if self._ends_after is not None:
                asyncio.get_running_loop().call_later(self._ends_after, self.end)
            raise BrokenPipeError(32, "Broken pipe")
        self._answers.put_nowait((number, Done()))

    async def receive(self) -> tuple[int, Message]:
        return await self._answers.get()

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    (tmp_path / "pepper").write_bytes(bytes(range(32)))
    (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    (tmp_path / "extauthz.yaml").write_text(SETTINGS)
    return load(tmp_path / "extauthz.yaml")


@pytest.mark.parametrize(
    ("told", "gone_at", "ends_after", "taken", "killed_at"),
    [
        (True, Prepare, 1.0, True, None),
        (True, Commit, 1.0, True, None),
        (True, Prepare, LAST_WORDS - 0.5, True, None),
        (True, Prepare, None, False, LAST_WORDS),
        (True, Commit, None, True, LAST_WORDS),
        (False, Prepare, 1.0, False, 0.0),
        (False, Commit, 1.0, True, 0.0),
    ],
)
def test_who_was_told_to_end_keeps_nobody_from_taking_a_configuration(
    configuration: Configuration, told: bool, gone_at: type[Message], ends_after: float | None, taken: bool, killed_at: float | None
) -> None:
    async def work() -> tuple[bool, Worker, Worker]:
        supervisor = Supervisor(configuration, "nghttp2", log_decisions=False)
        other, ending = Worker(), Worker(gone_at, ends_after)
        for slot, worker in zip(supervisor._slots, (other, ending), strict=True):
            slot.running = WorkerLink(worker, worker)  # type: ignore[arg-type]
            slot.running.is_ending = told and worker is ending
        try:
            await supervisor.take(replace(configuration))
        except ReloadRefused:
            return False, other, ending
        return True, other, ending

    was_taken, other, ending = in_virtual_time(work)
    assert (was_taken, ending.killed_at, other.killed_at) == (taken, killed_at, None)
    assert other.asked == [Prepare, Commit if taken else Discard]
    assert ending.asked.count(Commit) == (gone_at is Commit)
