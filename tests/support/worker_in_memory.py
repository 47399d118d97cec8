"""A worker of this process, as its parent sees one: the process, and its end of the conversation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml

from extauthz.config.loader import Configuration, load
from extauthz.serve.messages import Message
from extauthz.serve.worker_link import WorkerLink
from tests.support.virtual_time import now


def configured(folder: Path, **server: Any) -> Configuration:
    """Return a configuration for a parent whose workers serve nothing, with these keys of `server`."""
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001", "ops": None, **server},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
    }
    (folder / "pepper").write_bytes(bytes(range(32)))
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return load(folder / "extauthz.yaml")


class WorkerInMemory:
    """A worker that reads what it is asked, and gives one answer to all of it, or none; made in the loop whose time counts.

    With a `code` it has ended from the beginning. It is gone with a request of the type `gone_at`, and ends so many seconds later,
    if it ends by itself.
    """

    def __init__(
        self,
        answer: Message | None = None,
        *,
        code: int | None = None,
        gone_at: type[Message] | None = None,
        ends_after: float | None = None,
    ) -> None:
        self.pid = 4711
        self.started = now()
        self.asked: list[tuple[float, Message]] = []
        self.killed: list[float] = []
        self._answer, self._gone_at, self._ends_after = answer, gone_at, ends_after
        self._answers: asyncio.Queue[tuple[int, Message]] = asyncio.Queue()
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if code is not None:
            self._end.set_result(code)

    @property
    def link(self) -> WorkerLink:
        """What a parent has of it."""
        return WorkerLink(self, self)  # type: ignore[arg-type]

    @property
    def returncode(self) -> int | None:
        return self._end.result() if self._end.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    def kill(self) -> None:
        self.killed.append(now())
        self._finish(-9)

    async def send(self, message: Message, number: int) -> None:
        self.asked.append((now(), message))
        if self._gone_at is not None and isinstance(message, self._gone_at):
            if self._ends_after is not None:
                asyncio.get_running_loop().call_later(self._ends_after, self._finish, 0)
            raise BrokenPipeError(32, "Broken pipe")
        if self._answer is not None:
            self._answers.put_nowait((number, self._answer))

    async def receive(self) -> tuple[int, Message]:
        return await self._answers.get()

    def close(self) -> None:
        """Nothing is open."""

    def _finish(self, code: int) -> None:
        if not self._end.done():
            self._end.set_result(code)
