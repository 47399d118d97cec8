"""A worker that runs, as its parent sees it: requests to it, and what becomes of it when it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys

from extauthz.errors import ListenError
from extauthz.process.early_signals import held_for_child
from extauthz.serve.messages import Begin, Channel, Command, Failed, Message, Serving
from extauthz.serve.reload import ReloadRefused
from extauthz.transport.select import Name

START_TIME = 60.0
"""Seconds that a worker may take until it serves."""
ANSWER_TIME = 2.0
"""Seconds that a worker may take to answer what needs no work."""
HUNG = 10.0
"""Seconds after which a worker that answers nothing counts as hung."""


class WorkerSilent(ReloadRefused):
    """A worker does not answer, or has ended."""


class WorkerLink:
    """The process of a worker, and the channel to it; one that `is_ending` was told to end."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        """Begin to listen; the start counts as a first message."""
        self.process = process
        self.is_ending = False
        self.started_at = self._last_message_at = asyncio.get_running_loop().time()
        self._channel = channel
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._listening = asyncio.create_task(self._listen())

    @property
    def is_hung(self) -> bool:
        """Return whether no message came for so long that none will."""
        return asyncio.get_running_loop().time() - self._last_message_at > HUNG

    async def ask(self, request: Command, seconds: float = ANSWER_TIME) -> Message:
        """Ask and return the answer; raises ReloadRefused when it is a refusal, WorkerSilent when there is none in time."""
        number = next(self._numbers)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(seconds):
                # A worker that hangs does not even read.
                await self._channel.send(request, number)
                answer = await future
        except (OSError, TimeoutError) as error:
            raise WorkerSilent(f"the worker with process id {self.process.pid} does not answer") from error
        except ValueError as error:
            raise ReloadRefused(str(error)) from error
        finally:
            self._waiting.pop(number, None)
        if isinstance(answer, Failed):
            raise ReloadRefused(answer.message)
        return answer

    def kill(self) -> None:
        """End the process at once; a task that waits for its end goes on."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        """Let go of a worker that has ended: nobody waits for its answers any more."""
        self._listening.cancel()
        self._channel.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(WorkerSilent(f"the worker with process id {self.process.pid} has ended"))

    async def _listen(self) -> None:
        while (received := await self._channel.receive()) is not None:
            self._last_message_at = asyncio.get_running_loop().time()
            number, answer = received
            future = self._waiting.get(number)
            if future is not None and not future.done():
                future.set_result(answer)


async def start_worker(transport: Name, first: Begin) -> WorkerLink:
    """Start a worker, hand it what it begins with, and wait until it serves; raises ListenError, and then it has ended."""
    parent_end, child_end = Channel.pair()
    command = (sys.executable, "-m", "extauthz", "worker", str(child_end.fileno()), transport)
    try:
        with held_for_child():
            # It is born before the first wait.
            process = await asyncio.create_subprocess_exec(*command, pass_fds=[child_end.fileno()])
    except OSError as error:
        parent_end.close()
        raise ListenError(f"a worker cannot be started: {error}") from error
    finally:
        child_end.close()
    try:
        channel = await Channel.over(parent_end)
        try:
            async with asyncio.timeout(START_TIME):
                await channel.send(first)
                _, answer = await channel.receive() or (0, Failed("a worker ended at its start"))
        except (OSError, TimeoutError, ValueError) as error:
            answer = Failed(f"a worker does not serve after {START_TIME:g} s, or cannot be told with what ({error})")
        if not isinstance(answer, Serving):
            channel.close()
            raise ListenError(answer.message if isinstance(answer, Failed) else f"a worker begins with {answer}")
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return WorkerLink(process, channel)
