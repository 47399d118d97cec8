"""A worker that runs, as its parent knows it: what it is asked, and what becomes of it when it does not answer."""

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
    """The process of a worker, and the conversation with it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        """Begin to listen; a worker that was just started counts as heard."""
        self.process = process
        self.started_at = self._heard_at = asyncio.get_running_loop().time()
        self._channel = channel
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._listening = asyncio.create_task(self._listen())

    @property
    def is_hung(self) -> bool:
        """Return whether nothing was heard for so long that nothing will be."""
        return asyncio.get_running_loop().time() - self._heard_at > HUNG

    async def ask(self, request: Command, seconds: float = ANSWER_TIME) -> Message:
        """Ask and return the answer; raises ReloadRefused when it is a refusal, WorkerSilent when there is none in time."""
        number = next(self._numbers)
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        try:
            async with asyncio.timeout(seconds):
                # A worker that hangs does not even read.
                await self._channel.send(request, number)
                answer = await answered
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
        """End the process at once; whoever waits for its end hears of it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        """Let go of a worker that has ended: nobody waits for its answers any more."""
        self._listening.cancel()
        self._channel.close()
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(WorkerSilent(f"the worker with process id {self.process.pid} has ended"))

    async def _listen(self) -> None:
        while (received := await self._channel.receive()) is not None:
            self._heard_at = asyncio.get_running_loop().time()
            number, answer = received
            answered = self._waiting.get(number)
            if answered is not None and not answered.done():
                answered.set_result(answer)


async def start_worker(transport: Name, first: Begin) -> WorkerLink:
    """Start a worker, hand it what it begins with, and wait until it serves; raises ListenError, and then it has ended."""
    ours, theirs = Channel.pair()
    command = (sys.executable, "-m", "extauthz", "worker", str(theirs.fileno()), transport)
    try:
        with held_for_child():
            # It is born before the first wait.
            process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
    except OSError as error:
        ours.close()
        raise ListenError(f"a worker cannot be started: {error}") from error
    finally:
        theirs.close()
    try:
        channel = await Channel.over(ours)
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
