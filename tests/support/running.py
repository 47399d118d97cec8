"""The demo, running in a thread with a loop of its own, for tests that send real requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from extauthz.cli import main
from extauthz.demo.launcher import Demo, running
from extauthz.demo.wiring import Wiring
from extauthz.errors import DemoError
from tests.support.demo_processes import demo_ports
from tests.support.waiting import eventually


@dataclass
class Reply:
    """What a client of Envoy got."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON body."""
        return json.loads(self.text)  # type: ignore[no-any-return]

    @property
    def reason(self) -> str:
        """Our reason as the client is told, or "envoy" for an answer of Envoy itself."""
        try:
            return str(self.document["reason"])
        except (ValueError, KeyError):
            return "envoy"

    @property
    def upstream(self) -> dict[str, Any]:
        """The headers that reached the upstream."""
        return self.document["headers"]  # type: ignore[no-any-return]


@dataclass
class RunningDemo:
    """A demo, and the loop that it runs in."""

    demo: Demo
    loop: asyncio.AbstractEventLoop
    reasons: Mapping[str, str]

    def logged(self, reply: Reply) -> str:
        """Return the reason of a refusal in the decision log, or "" where Envoy itself refused."""
        if reply.reason == "envoy":
            return ""
        decision_id = reply.document["decision_id"]
        eventually(lambda: decision_id in self.reasons)
        return self.reasons[decision_id]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the demo's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=60)

    def send(self, line: str, headers: Iterable[tuple[str, str]] | dict[str, str] = (), *, body: bytes = b"{}") -> Reply:
        """Send "METHOD /path" to Envoy exactly as it is written, duplicates and all."""
        method, _, path = line.partition(" ")
        connection = HTTPConnection("127.0.0.1", self.demo.ports.envoy, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            pairs = list(headers.items() if isinstance(headers, dict) else headers)
            if not any(name.lower() == "host" for name, _ in pairs):
                pairs.insert(0, ("Host", "localhost"))
            for name, value in pairs:
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read().decode("utf-8", "replace"))
        finally:
            connection.close()


async def in_this_process(demo: Demo, *arguments: str) -> list[Any]:
    """Run a command as `Demo.extauthz` does, without the second that a process of its own needs to import all of it."""
    done = CliRunner().invoke(main, [*arguments, "--config", str(demo.configuration), "--json"])
    if done.exit_code:
        raise DemoError(f"extauthz {' '.join(arguments)} failed: {done.output}")
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextlib.contextmanager
def running_demo(
    folder: Path,
    prepare: Callable[[Demo], Coroutine[Any, Any, None]],
    *,
    wiring: Wiring | None = None,
    commands: Callable[..., Coroutine[Any, Any, list[Any]]] = in_this_process,
    **more: Any,
) -> Iterator[RunningDemo]:
    """Run a demo on free ports; `prepare` runs in its loop once it answers, and `commands` runs the commands of both."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Demo, "extauthz", commands)
        with _running(folder, prepare, wiring=wiring, **more) as demo:
            yield demo


@contextlib.contextmanager
def _running(folder: Path, prepare: Callable[[Demo], Coroutine[Any, Any, None]], **more: Any) -> Iterator[RunningDemo]:
    started: threading.Event = threading.Event()
    state: dict[str, Any] = {}

    async def main() -> None:
        state["stop"] = asyncio.Event()
        state["loop"] = asyncio.get_running_loop()
        async with running(demo_ports(), folder, **more) as demo:
            reasons = state["reasons"] = {}
            drained = asyncio.create_task(_drain(demo, reasons))
            await prepare(demo)
            state["demo"] = demo
            started.set()
            await state["stop"].wait()
            drained.cancel()

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            state["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=target)
    thread.start()
    started.wait(timeout=60)
    try:
        if "demo" not in state:
            raise RuntimeError("the demo did not start") from state.get("error")
        yield RunningDemo(state["demo"], state["loop"], state["reasons"])
    finally:
        if "stop" in state and thread.is_alive():
            state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(timeout=30)
    assert not thread.is_alive(), "the demo did not stop"
    assert "error" not in state, state["error"]


async def _drain(demo: Demo, reasons: dict[str, str]) -> None:
    """Read the decision lines, so that the sidecar's pipe never fills, and keep the reasons by the ids of decisions."""
    async for decision in demo.decisions():
        reasons[decision["decision_id"]] = decision["reason"]
