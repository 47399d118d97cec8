"""A worker as a process of its own: it does what its parent says, and outlives it until there is a new one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys

from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.config.pacing import beside_the_loop
from extauthz.core.model import Reason
from extauthz.errors import ConfigurationError, ListenError, StoreError
from extauthz.process import early_signals
from extauthz.runtime.build import RuntimeParts
from extauthz.serve import orphanhood
from extauthz.serve.inspection import Inspector
from extauthz.serve.messages import (
    Answer,
    Begin,
    Channel,
    Commit,
    Discard,
    Done,
    Drain,
    Failed,
    HandOver,
    Hurry,
    Inspection,
    Message,
    Prepare,
    Reopen,
    Report,
    Serving,
)
from extauthz.serve.serving import serving
from extauthz.serve.worker import Worker
from extauthz.transport.address_claims import claim, first_of
from extauthz.transport.select import Name, Transport, choose

SWITCH_INTERVAL = 0.00005
"""Seconds that a thread waits for the interpreter's lock before it demands it.

The loop lets go of the lock for a moment whenever it has answered what came. A thread that waits longer than from one such moment
to the next is woken at each, comes too late, and starts to wait anew: for a tenth of a second, while every moment costs a call to
the kernel. And a thread that computes, as a reload does, holds the loop up for no longer than this.
"""
"""Seconds, in place of Python's 0.005: a thread that computes, such as a reload, gives the loop its turn back ten times as soon."""

_log = logging.getLogger(__name__)


def main(descriptor: int, transport: Name) -> None:
    """Serve what the parent sends over a socket that was inherited; raises ListenError."""
    implementation = choose(transport)
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=implementation.new_event_loop) as runner:
        runner.run(_Served(implementation).run(socket.socket(fileno=descriptor)))


class _Served:
    """A worker's side of the channel to its parent."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._prepared: tuple[Configuration, RuntimeParts] | None = None
        self._parent_ended = asyncio.Event()
        self._ending = asyncio.Event()
        self._ending_at_once = asyncio.Event()
        self._is_terminated = self._has_siblings = False
        self._preparing: asyncio.Task[None] | None = None
        self._inspector: Inspector | None = None

    async def run(self, connection: socket.socket) -> None:
        """Do what the first message says, then what the others ask for."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        if early_signals.take_signals():
            return
        channel = await Channel.over(connection)
        match await channel.receive():
            case _, Begin() as first:
                pass
            case _:
                return
        try:
            configuration = _configuration(first)
            address = configuration.settings.server.addresses[first.index]
            async with contextlib.AsyncExitStack() as stack:
                claimed = stack.enter_context(claim(address))
                served = serving(configuration, self._transport, claimed, log_decisions=first.log_decisions)
                worker = await stack.enter_async_context(served)
                await worker.begin()
                with contextlib.suppress(OSError):
                    await channel.send(Serving())
                self._inspector = Inspector(worker)
                listening = asyncio.create_task(self._listen(channel, worker))
                await first_of(self._ending.wait(), self._parent_ended.wait())
                if not self._ending.is_set():
                    # What the parent did not commit is not served.
                    worker.discard()
                    await orphanhood.live(worker, first.index, ending=self._ending, ending_at_once=self._ending_at_once)
                elif self._has_siblings:
                    await worker.drain(self._ending_at_once.wait())
                else:
                    await worker.hand_over(self._ending_at_once.wait())
            for task in (listening, self._preparing):
                if task is not None:
                    task.cancel()
        except (ConfigurationError, StoreError, ListenError) as error:
            with contextlib.suppress(OSError):
                await channel.send(Failed(str(error)))
        finally:
            channel.close()

    def _terminate(self) -> None:
        """Begin to end, or hurry at a second signal; that the parent asks to drain as well is none."""
        if self._is_terminated:
            self._ending_at_once.set()
        self._is_terminated = True
        self._ending.set()

    async def _listen(self, channel: Channel, worker: Worker) -> None:
        while (received := await channel.receive()) is not None:
            number, request = received
            if isinstance(request, Prepare | Discard) and self._preparing is not None:
                self._preparing.cancel()
                await asyncio.wait({self._preparing})
            if isinstance(request, Prepare):
                # It takes seconds, in which others are answered.
                self._preparing = asyncio.create_task(self._reply(channel, number, request, worker))
            else:
                await self._reply(channel, number, request, worker)
        # The parent has gone without a word.
        self._parent_ended.set()

    async def _reply(self, channel: Channel, number: int, request: Message, worker: Worker) -> None:
        answer: Answer
        try:
            answer = await self._answer(request, worker)
        except (ConfigurationError, StoreError) as error:
            answer = Failed(str(error))
        except Exception as error:  # noqa: BLE001 - the parent gets the cause, and the checks go on
            _log.exception("what the parent asked for failed")
            answer = Failed(repr(error))
        with contextlib.suppress(OSError):
            await channel.send(answer, number)

    async def _answer(self, request: Message, worker: Worker) -> Answer:
        match request:
            case Report():
                return worker.state()
            case _ if isinstance(request, Inspection) and self._inspector is not None:
                return await self._inspector.answer(request)
            case Prepare():
                self._prepared = None
                configuration = await asyncio.to_thread(_next_configuration, request)
                self._prepared = configuration, await worker.prepare(configuration)
            case Commit() if self._prepared is not None:
                worker.commit(*self._prepared)
                self._prepared = None
            case Discard():
                self._prepared = None
                worker.discard()
            case Reopen():
                worker.decisions.reopen()
            case Drain():
                self._has_siblings = True
                self._ending.set()
            case HandOver():
                self._ending.set()
            case Hurry():
                self._ending_at_once.set()
            case _:
                return Failed(f"unexpected request {request!r}")
        return Done()


def _configuration(request: Begin | Prepare) -> Configuration:
    """Load from what the parent read: every worker of it has the same."""
    return load(request.file, Files(request.files), saved=request.saved or Reason.STORE_UNAVAILABLE)


def _next_configuration(request: Prepare) -> Configuration:
    """Load in a thread, while the loop answers checks."""
    with beside_the_loop():
        return _configuration(request)
