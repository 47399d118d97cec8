"""The parent of several workers: it starts them, restarts those that end, and is one sidecar from outside."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from extauthz.config.loader import Configuration
from extauthz.errors import ListenError
from extauthz.process.standard_streams import dropped_lines
from extauthz.serve.messages import (
    Begin,
    Commit,
    Discard,
    Drain,
    HandOver,
    Hurry,
    Inspection,
    Message,
    Prepare,
    Reopen,
    Report,
    State,
)
from extauthz.serve.reload import ReloadRefused
from extauthz.serve.worker_link import WorkerLink, WorkerSilent, start_worker
from extauthz.telemetry.metric_table import Samples, counters, merged
from extauthz.transport.select import Name

T = TypeVar("T")

PREPARE_TIME = 30.0
"""Seconds that a worker may take to build the parts of another configuration."""
HEARTBEAT = 3.0
"""Seconds between two times that a worker is asked for its state, whether or not it is needed."""
FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0
"""Seconds before a worker that ended by itself is started again: the first time, and after several times in a row."""
STEADY = 60.0
"""Seconds of service after which earlier ends of a worker count no more."""
LAST_WORDS = 5.0
"""Seconds beyond the drain after which a worker that has not ended is killed."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _WorkerSlot:
    """One worker after the other at the same address, and the counts of those that have ended."""

    index: int
    running: WorkerLink | None = None
    state: State = field(default_factory=State)
    ended: Samples = field(default_factory=dict)
    restarts: int = 0

    @property
    def is_ready(self) -> bool:
        """Return whether its worker has everything in order."""
        return bool(self.state.readiness) and all(self.state.readiness.values())

    def is_served_after(self, previous: WorkerLink) -> bool:
        """Return whether another worker serves in the place of one that was asked to end."""
        return self.running is not None and self.running is not previous


class Supervisor:
    """Keeps as many workers as the configuration wants, each at an address of its own."""

    def __init__(self, configuration: Configuration, transport: Name, *, log_decisions: bool) -> None:
        """Begin with none running."""
        self._configuration = configuration
        self._transport = transport
        self._log_decisions = log_decisions
        self._slots = [_WorkerSlot(index) for index in range(configuration.settings.server.workers)]
        self._changing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every worker and wait until each serves; raises ListenError with what the first says that cannot."""
        try:
            await asyncio.gather(*map(self._start, self._slots))
        except BaseException:
            await self.stop()
            raise
        self._keepers = [asyncio.create_task(self._keep(slot)) for slot in self._slots]

    async def take(self, configuration: Configuration) -> None:
        """Let every worker serve another configuration, all of them or none; raises ReloadRefused."""
        request = Prepare(configuration.file, _files(configuration), configuration.saved)
        async with self._changing:
            running = [slot.running for slot in self._slots if slot.running is not None]
            try:
                prepared = await _all(self._prepare(one, request) for one in running)
            except ReloadRefused:
                await asyncio.gather(*(one.ask(Discard()) for one in running), return_exceptions=True)
                raise
            self._configuration = configuration
            for one in itertools.compress(running, prepared):
                try:
                    await one.ask(Commit())
                except ReloadRefused:
                    if await _has_ended(one):
                        continue
                    # It would go on with what no longer counts: its successor begins with what does.
                    _log.exception("a worker did not take the configuration and is restarted", extra={"pid": one.process.pid})
                    one.kill()

    async def reopen(self) -> None:
        """Let every worker open its logs anew."""
        running = [slot.running for slot in self._slots if slot.running is not None]
        await asyncio.gather(*(one.ask(Reopen()) for one in running), return_exceptions=True)

    async def state(self) -> State:
        """Return the state of all workers as one; of one that does not answer the last figures."""
        await asyncio.gather(*map(self._refresh, self._slots))
        own: Samples = {("extauthz_process_log_dropped_total", ()): float(dropped_lines())}
        samples = [own, *(part for slot in self._slots for part in (slot.state.samples, slot.ended, _slot_samples(slot)))]
        readiness = {f"worker {slot.index}": slot.is_ready for slot in self._slots}
        details = tuple(replace(each, worker=slot.index) for slot in self._slots for each in slot.state.details)
        # `auto` is settled by each worker, and by all of one machine alike.
        transports = sorted({slot.state.transport for slot in self._slots if slot.state.transport})
        return State(merged(samples), readiness, details, ", ".join(transports) or None)

    async def ask_each(self, request: Inspection) -> Mapping[str, Message | None]:
        """Ask every worker at the same time; one that is being started answers nothing."""
        answers = await asyncio.gather(*(_answer(slot.running, request) for slot in self._slots))
        return {f"worker {slot.index}": answer for slot, answer in zip(self._slots, answers, strict=True)}

    async def restart(self) -> None:
        """Replace one worker after the other, each with a drain; between two, Envoy gets the time to see the first one back."""
        for slot in self._slots:
            async with self._changing:
                if self._stopping.is_set() or slot.running is None:
                    continue
                running = slot.running
            _log.info("restarting a worker", extra={"worker": slot.index, "pid": running.process.pid})
            # It answers checks meanwhile, with whatever configuration comes.
            await self._end(running, Drain())
            while not self._stopping.is_set() and not slot.is_served_after(running):  # noqa: ASYNC110 - a handful of times
                await asyncio.sleep(0.02)
            await asyncio.sleep(self._configuration.settings.server.drain)

    async def stop(self) -> None:
        """Let every worker serve until its successor does, or for the time of the drain, and end."""
        self._stopping.set()
        running = [slot.running for slot in self._slots if slot.running is not None]
        await asyncio.gather(*(self._end(one, HandOver()) for one in running), return_exceptions=True)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def hurry(self) -> None:
        """End the drain of every worker."""
        running = [slot.running for slot in self._slots if slot.running is not None]
        await asyncio.gather(*(one.ask(Hurry()) for one in running), return_exceptions=True)

    async def _prepare(self, one: WorkerLink, request: Prepare) -> bool:
        """Let a worker prepare, and return whether it did; one that was told to end may do so instead."""
        try:
            await one.ask(request, PREPARE_TIME)
        except WorkerSilent:
            if await _has_ended(one):
                return False
            # Its successor begins with what is served; this configuration is tried again.
            one.kill()
            raise
        return True

    async def _refresh(self, slot: _WorkerSlot) -> None:
        running = slot.running
        answer: Message | None = None
        if running is not None:
            with contextlib.suppress(ReloadRefused):
                answer = await running.ask(Report())
        if slot.running is running:
            slot.state = answer if isinstance(answer, State) else State(slot.state.samples, transport=slot.state.transport)

    async def _start(self, slot: _WorkerSlot) -> None:
        """Start the worker of a slot and wait until it serves; raises ListenError."""
        while True:
            configuration = self._configuration
            first = Begin(slot.index, self._log_decisions, configuration.file, _files(configuration), configuration.saved)
            started = await start_worker(self._transport, first)
            async with self._changing:
                if configuration is self._configuration or self._stopping.is_set():
                    slot.running = started
                    break
            # Another configuration is served since it began.
            started.kill()
            await started.process.wait()
            started.close()
        if self._stopping.is_set():
            await self._end(started, HandOver())

    async def _keep(self, slot: _WorkerSlot) -> None:
        """Start the worker of a slot again whenever it has ended."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            running = slot.running
            if running is not None:
                code = await self._end_of(slot, running)
                self._remove(slot, running)
                if self._stopping.is_set():
                    return
                if asyncio.get_running_loop().time() - running.started_at > STEADY:
                    pause = FIRST_PAUSE
                if code:
                    slot.restarts += 1
                    _log.error("a worker ended by itself", extra={"worker": slot.index, "exit_code": code, "pause": pause})
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LAST_PAUSE)
            try:
                await self._start(slot)
            except ListenError as error:
                _log.error("a worker does not start", extra={"worker": slot.index, "cause": str(error), "pause": pause})
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
            except Exception:  # noqa: BLE001 - whatever it is, the worker is started again
                _log.exception("a worker does not start")
                await asyncio.sleep(LAST_PAUSE)

    async def _end_of(self, slot: _WorkerSlot, running: WorkerLink) -> int:
        """Wait for the end of a worker, which is killed if it does not answer any more; return its exit code."""
        ending = asyncio.ensure_future(running.process.wait())
        while not (await asyncio.wait({ending}, timeout=HEARTBEAT))[0]:
            await self._refresh(slot)
            if running.is_hung:
                _log.error("a worker answers nothing and is killed", extra={"worker": slot.index, "pid": running.process.pid})
                running.kill()
        return ending.result()

    def _remove(self, slot: _WorkerSlot, running: WorkerLink) -> None:
        """Keep the last figures of a worker that has ended."""
        slot.ended = merged((slot.ended, counters(slot.state.samples)))
        slot.running, slot.state = None, State()
        running.close()

    async def _end(self, one: WorkerLink, manner: Drain | HandOver) -> None:
        """Let a worker drain, beside others that go on, or hand over, and kill it if it does not end."""
        one.is_ending = True
        with contextlib.suppress(ReloadRefused):
            await one.ask(manner)
        seconds = self._configuration.settings.server.drain + LAST_WORDS
        try:
            await asyncio.wait_for(one.process.wait(), seconds)
        except TimeoutError:
            _log.error("a worker did not end and is killed", extra={"pid": one.process.pid})
            one.kill()
            await one.process.wait()


async def _answer(one: WorkerLink | None, request: Inspection) -> Message | None:
    with contextlib.suppress(ReloadRefused):
        return await one.ask(request) if one is not None else None
    return None


async def _has_ended(one: WorkerLink) -> bool:
    """Tell whether a worker that was told to end does: its last words may have been said before it is gone."""
    if one.is_ending:
        await asyncio.wait({asyncio.ensure_future(one.process.wait())}, timeout=LAST_WORDS)
    return one.process.returncode is not None


async def _all(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all and return their results, or raise the first failure."""
    results = []
    for result in await asyncio.gather(*awaitables, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


def _slot_samples(slot: _WorkerSlot) -> Samples:
    labels = (str(slot.index),)
    return {
        ("extauthz_worker_up", labels): float(slot.running is not None and slot.state.readiness.get("serving", False)),
        ("extauthz_worker_restarts_total", labels): float(slot.restarts),
    }


def _files(configuration: Configuration) -> Mapping[Path, bytes]:
    configuration.read_secrets(os.environ)
    return configuration.files.contents
