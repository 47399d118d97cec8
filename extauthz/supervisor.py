"""The parent of several workers: it starts them, restarts those that end, and is one sidecar to whoever looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from extauthz.config.loader import Configuration
from extauthz.control import Message, packed_files, unpacked_samples
from extauthz.metric_table import Samples, counters, merged
from extauthz.reload import Refused
from extauthz.standard_streams import dropped_lines
from extauthz.transport.choice import Name
from extauthz.transport.listening import ListenError
from extauthz.worker_link import Silent, WorkerLink, start_worker

PREPARE_TIME = 30.0
"""Seconds that a worker may take to build the parts of another configuration."""
HEARTBEAT = 3.0
"""Seconds between two times that a worker is asked whether or not anybody wants to know."""
FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0
"""Seconds before a worker that ended by itself is started again: the first time, and after several times in a row."""
STEADY = 60.0
"""Seconds of service after which earlier ends of a worker count no more."""
LAST_WORDS = 5.0
"""Seconds beyond the drain after which a worker that has not ended is killed."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seat:
    """One worker after the other at the same address, and the counts of those that are gone."""

    index: int
    running: WorkerLink | None = None
    last: Samples = field(default_factory=dict)
    readiness: dict[str, bool] = field(default_factory=dict)
    details: dict[str, bool] = field(default_factory=dict)
    gone: Samples = field(default_factory=dict)
    restarts: int = 0

    def is_served_after(self, gone: WorkerLink) -> bool:
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
                await _all(self._prepare(one, message) for one in running)
            except Refused:
                await asyncio.gather(*(one.ask({"do": "discard"}) for one in running), return_exceptions=True)
                raise
            self._configuration = configuration
            for one in running:
                try:
                    await one.ask({"do": "commit"})
                except Refused:
                    # It would go on with what no longer counts: its successor begins with what does.
                    _log.exception("a worker did not take the configuration and is restarted", extra={"pid": one.process.pid})
                    one.kill()

    async def reopen(self) -> None:
        """Let every worker open its logs anew."""
        running = [seat.running for seat in self._seats if seat.running is not None]
        await asyncio.gather(*(one.ask({"do": "reopen"}) for one in running), return_exceptions=True)

    async def tell(self) -> tuple[Samples, dict[str, bool], dict[str, bool]]:
        """Return figures, readiness and details of all workers; of one that does not answer the last figures."""
        await asyncio.gather(*map(self._refresh, self._seats))
        ours: Samples = {("extauthz_process_log_dropped_total", ()): float(dropped_lines())}
        samples = [ours, *(part for seat in self._seats for part in (seat.last, seat.gone, _seat_samples(seat)))]
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
                await self._end(running, "drain")
            while not self._stopping.is_set() and not seat.is_served_after(running):  # noqa: ASYNC110 - a handful of times
                await asyncio.sleep(0.02)
            await asyncio.sleep(self._configuration.settings.server.drain)

    async def stop(self) -> None:
        """Let every worker serve until its successor does, or for the time of the drain, and end."""
        self._stopping.set()
        running = [seat.running for seat in self._seats if seat.running is not None]
        await asyncio.gather(*(self._end(one, "hand_over") for one in running), return_exceptions=True)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def hurry(self) -> None:
        """End the drain of every worker."""
        running = [seat.running for seat in self._seats if seat.running is not None]
        await asyncio.gather(*(one.ask({"do": "hurry"}) for one in running), return_exceptions=True)

    async def _prepare(self, one: WorkerLink, message: Message) -> None:
        try:
            await one.ask(message, PREPARE_TIME)
        except Silent:
            # Its successor begins with what is served; this configuration is tried again.
            one.kill()
            raise

    async def _refresh(self, seat: _Seat) -> None:
        running = seat.running
        told: Message = {}
        if running is not None:
            with contextlib.suppress(Refused):
                told = await running.ask({"do": "tell"})
        if seat.running is not running:
            return
        if told:
            seat.last = unpacked_samples(told["samples"])
        seat.readiness, seat.details = told.get("readiness", {}), told.get("details", {})

    async def _start(self, seat: _Seat) -> None:
        """Start the worker of a seat and wait until it serves; raises ListenError."""
        while True:
            configuration = self._configuration
            first = {"index": seat.index, "log_decisions": self._log_decisions, **_files(configuration)}
            started = await start_worker(self._transport, first)
            async with self._changing:
                if configuration is self._configuration or self._stopping.is_set():
                    seat.running = started
                    break
            # Another configuration is served since it began.
            started.kill()
            await started.process.wait()
            started.bury()
        if self._stopping.is_set():
            await self._end(started, "hand_over")

    async def _keep(self, seat: _Seat) -> None:
        """Start the worker of a seat again whenever it has ended."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            running = seat.running
            if running is not None:
                code = await self._end_of(seat, running)
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
                await self._start(seat)
            except ListenError as error:
                _log.error("a worker does not start", extra={"worker": seat.index, "cause": str(error), "pause": pause})
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
            except Exception:  # noqa: BLE001 - whatever it is, the worker is started again
                _log.exception("a worker does not start")
                await asyncio.sleep(LAST_PAUSE)

    async def _end_of(self, seat: _Seat, running: WorkerLink) -> int:
        """Wait for the end of a worker, which is killed if it does not answer any more; return its exit code."""
        ending = asyncio.ensure_future(running.process.wait())
        while not (await asyncio.wait({ending}, timeout=HEARTBEAT))[0]:
            await self._refresh(seat)
            if running.is_hung:
                _log.error("a worker answers nothing and is killed", extra={"worker": seat.index, "pid": running.process.pid})
                running.kill()
        return ending.result()

    def _bury(self, seat: _Seat, running: WorkerLink) -> None:
        """Keep the last figures of a worker that has ended."""
        seat.gone = merged((seat.gone, counters(seat.last)))
        seat.running, seat.last, seat.readiness, seat.details = None, {}, {}, {}
        running.bury()

    async def _end(self, one: WorkerLink, manner: Literal["drain", "hand_over"]) -> None:
        """Let a worker drain, beside others that go on, or hand over, and kill it if it does not end."""
        with contextlib.suppress(Refused):
            await one.ask({"do": manner})
        seconds = self._configuration.settings.server.drain + LAST_WORDS
        try:
            await asyncio.wait_for(one.process.wait(), seconds)
        except TimeoutError:
            _log.error("a worker did not end and is killed", extra={"pid": one.process.pid})
            one.kill()
            await one.process.wait()


async def _all(asking: Iterable[Awaitable[Any]]) -> None:
    """Wait for all, then raise the first failure."""
    for result in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _seat_samples(seat: _Seat) -> Samples:
    labels = (str(seat.index),)
    return {
        ("extauthz_worker_up", labels): float(seat.running is not None and seat.readiness.get("serving", False)),
        ("extauthz_worker_restarts_total", labels): float(seat.restarts),
    }


def _files(configuration: Configuration) -> Message:
    configuration.read_secrets(os.environ)
    return {"file": str(configuration.file), "files": packed_files(configuration.files.contents)}
