"""The parent of several workers: it starts them, restarts those that end, and is one sidecar to whoever looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any

from extauthz.config.loader import Configuration
from extauthz.control import Channel, Message, packed_files, unpacked_samples
from extauthz.metric_table import Samples, counters, merged
from extauthz.reload import Refused
from extauthz.transport.choice import Name
from extauthz.transport.listening import ListenError

START_TIME = 60.0
"""Seconds that a worker may take until it serves."""
ANSWER_TIME, PREPARE_TIME = 2.0, 30.0
"""Seconds that a worker may take to tell its figures, and to build the parts of another configuration."""
FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0
"""Seconds before a worker that ended by itself is started again: the first time, and after several times in a row."""
STEADY = 60.0
"""Seconds of service after which earlier ends of a worker count no more."""
LAST_WORDS = 5.0
"""Seconds beyond the drain after which a worker that has not ended is killed."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Process:
    """A worker that runs."""

    process: asyncio.subprocess.Process
    channel: Channel
    started_at: float
    waiting: dict[int, asyncio.Future[Message]] = field(default_factory=dict)
    listening: asyncio.Task[None] | None = None

    async def ask(self, number: int, message: Message, seconds: float) -> Message:
        """Ask and return the answer; raises Refused when there is none in time, or when it is a refusal."""
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.waiting[number] = answered
        try:
            await self.channel.send(message | {"id": number})
            answer: Message = await asyncio.wait_for(answered, seconds)
        except (OSError, TimeoutError) as error:
            raise Refused(f"the worker with process id {self.process.pid} does not answer") from error
        finally:
            self.waiting.pop(number, None)
        problem = answer.get("problem")
        if problem is not None:
            raise Refused(str(problem))
        return answer


@dataclass(slots=True)
class _Seat:
    """One worker after the other at the same address, and the counts of those that are gone."""

    index: int
    running: _Process | None = None
    last: Samples = field(default_factory=dict)
    readiness: dict[str, bool] = field(default_factory=dict)
    details: dict[str, bool] = field(default_factory=dict)
    gone: Samples = field(default_factory=dict)
    restarts: int = 0

    def is_served_after(self, gone: _Process) -> bool:
        """Tell whether another worker serves in the place of one that was asked to go."""
        return self.running is not None and self.running is not gone


class Supervisor:
    """Keeps as many workers as the configuration wants, each at an address of its own."""

    def __init__(self, configuration: Configuration, transport: Name, *, log_decisions: bool) -> None:
        """Begin with none running."""
        self._configuration = configuration
        self._transport = transport
        self._log_decisions = log_decisions
        self._seats = [_Seat(index) for index in range(configuration.settings.server.workers)]
        self._numbers = itertools.count(1)
        self._changing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every worker and wait until each serves; raises ListenError with what the first says that cannot."""
        try:
            await asyncio.gather(*map(self._start, self._seats))
        except BaseException:
            await self.stop()
            raise
        self._keepers = [asyncio.create_task(self._keep(seat)) for seat in self._seats]

    async def take(self, configuration: Configuration) -> None:
        """Let every worker serve another configuration, all of them or none; raises Refused."""
        message = {"do": "prepare", **_files(configuration)}
        async with self._changing:
            running = [seat.running for seat in self._seats if seat.running is not None]
            try:
                await _all(self._ask(one, message, PREPARE_TIME) for one in running)
            except Refused:
                await asyncio.gather(*(self._ask(one, {"do": "discard"}) for one in running), return_exceptions=True)
                raise
            self._configuration = configuration
            for one in running:
                try:
                    await self._ask(one, {"do": "commit"})
                except Refused:
                    # It would go on with what no longer counts: its successor begins with what does.
                    _log.exception("a worker did not take the configuration and is restarted", extra={"pid": one.process.pid})
                    with contextlib.suppress(ProcessLookupError):
                        one.process.kill()

    async def reopen(self) -> None:
        """Let every worker open its logs anew."""
        running = [seat.running for seat in self._seats if seat.running is not None]
        await asyncio.gather(*(self._ask(one, {"do": "reopen"}) for one in running), return_exceptions=True)

    async def tell(self) -> tuple[Samples, dict[str, bool], dict[str, bool]]:
        """Return figures, readiness and details of all workers; of one that does not answer the last figures."""
        await asyncio.gather(*map(self._refresh, self._seats))
        samples = [part for seat in self._seats for part in (seat.last, seat.gone, _seat_samples(seat))]
        readiness = {f"worker {seat.index}": all(seat.readiness.values()) and bool(seat.readiness) for seat in self._seats}
        details = {f"worker {seat.index}: {name}": well for seat in self._seats for name, well in seat.details.items()}
        return merged(samples), readiness, details

    async def restart(self) -> None:
        """Replace one worker after the other, each with a drain; between two, Envoy gets the time to see the first one back."""
        for seat in self._seats:
            async with self._changing:
                if self._stopping.is_set() or seat.running is None:
                    continue
                running = seat.running
                _log.info("restarting a worker", extra={"worker": seat.index, "pid": running.process.pid})
                await self._end(running)
            while not self._stopping.is_set() and not seat.is_served_after(running):  # noqa: ASYNC110 - a handful of times
                await asyncio.sleep(0.02)
            await asyncio.sleep(self._configuration.settings.server.drain)

    async def stop(self) -> None:
        """Let every worker drain and end."""
        self._stopping.set()
        running = [seat.running for seat in self._seats if seat.running is not None]
        await asyncio.gather(*map(self._end, running), return_exceptions=True)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def hurry(self) -> None:
        """End the drain of every worker."""
        for seat in self._seats:
            if seat.running is not None:
                with contextlib.suppress(ProcessLookupError):
                    seat.running.process.terminate()

    async def _ask(self, one: _Process, message: Message, seconds: float = ANSWER_TIME) -> Message:
        return await one.ask(next(self._numbers), message, seconds)

    async def _refresh(self, seat: _Seat) -> None:
        if seat.running is None:
            seat.readiness, seat.details = {}, {}
            return
        try:
            told = await self._ask(seat.running, {"do": "tell"})
        except Refused:
            seat.readiness, seat.details = {}, {}
            return
        seat.last, seat.readiness, seat.details = unpacked_samples(told["samples"]), told["readiness"], told["details"]

    async def _start(self, seat: _Seat) -> None:
        """Start the worker of a seat and wait until it serves; raises ListenError."""
        ours, theirs = socket.socketpair()
        command = (sys.executable, "-m", "extauthz", "worker", str(theirs.fileno()), self._transport)
        try:
            process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
        except OSError as error:
            ours.close()
            raise ListenError(f"worker {seat.index} cannot be started: {error}") from error
        finally:
            theirs.close()
        channel = await Channel.over(ours)
        started = _Process(process, channel, asyncio.get_running_loop().time())
        first = {"index": seat.index, "log_decisions": self._log_decisions, **_files(self._configuration)}
        try:
            async with asyncio.timeout(START_TIME):
                await channel.send(first)
                said = await channel.receive() or {"message": f"worker {seat.index} ended at its start"}
        except (OSError, TimeoutError):
            said = {"message": f"worker {seat.index} does not serve after {START_TIME:g} s"}
        if said.get("event") != "serving":
            channel.close()
            await _killed(process)
            raise ListenError(str(said.get("message")))
        started.listening = asyncio.create_task(_listen(started))
        seat.running = started
        if self._stopping.is_set():
            await self._end(started)

    async def _keep(self, seat: _Seat) -> None:
        """Start the worker of a seat again whenever it has ended."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            running = seat.running
            if running is not None:
                code = await running.process.wait()
                self._bury(seat, running)
                if self._stopping.is_set():
                    return
                if asyncio.get_running_loop().time() - running.started_at > STEADY:
                    pause = FIRST_PAUSE
                if code:
                    seat.restarts += 1
                    _log.error("a worker ended by itself", extra={"worker": seat.index, "exit_code": code, "pause": pause})
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LAST_PAUSE)
            try:
                async with self._changing:
                    await self._start(seat)
            except ListenError as error:
                _log.error("a worker does not start", extra={"worker": seat.index, "cause": str(error), "pause": pause})
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
            except Exception:  # noqa: BLE001 - whatever it is, the worker is started again
                _log.exception("a worker does not start")
                await asyncio.sleep(LAST_PAUSE)

    def _bury(self, seat: _Seat, running: _Process) -> None:
        """Keep the last figures of a worker that has ended."""
        seat.gone = merged((seat.gone, counters(seat.last)))
        seat.running, seat.last, seat.readiness, seat.details = None, {}, {}, {}
        running.channel.close()
        if running.listening is not None:
            running.listening.cancel()

    async def _end(self, one: _Process) -> None:
        """Let a worker drain, and kill it if it does not end."""
        with contextlib.suppress(Refused):
            await self._ask(one, {"do": "drain"})
        seconds = self._configuration.settings.server.drain + LAST_WORDS
        try:
            await asyncio.wait_for(one.process.wait(), seconds)
        except TimeoutError:
            _log.error("a worker did not end and is killed", extra={"pid": one.process.pid})
            await _killed(one.process)


async def _all(asking: Iterable[Awaitable[Any]]) -> None:
    """Wait for all, then raise the first failure."""
    for result in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _listen(one: _Process) -> None:
    """Hand each answer to who asked."""
    while (message := await one.channel.receive()) is not None:
        waiting = one.waiting.get(message.get("id", 0))
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


async def _killed(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _seat_samples(seat: _Seat) -> Samples:
    labels = (str(seat.index),)
    return {
        ("extauthz_worker_up", labels): float(seat.running is not None and seat.readiness.get("serving", False)),
        ("extauthz_worker_restarts_total", labels): float(seat.restarts),
    }


def _files(configuration: Configuration) -> Message:
    configuration.read_secrets(os.environ)
    return {"file": str(configuration.file), "files": packed_files(configuration.files.contents)}
