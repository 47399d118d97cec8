"""A worker whose parent was killed: it serves on until a new parent takes its address, and serves the ops listener meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Any

from extauthz.config.loader import Configuration
from extauthz.core.model import Reason
from extauthz.errors import ConfigurationError, ListenError
from extauthz.runtime.saved_settings import max_age_of
from extauthz.serve.inspection import Inspector
from extauthz.serve.ops import SingleProcess, serving_ops
from extauthz.serve.rereading import with_other_settings
from extauthz.serve.worker import STOP_GRACE, Worker
from extauthz.telemetry.metric_table import Samples
from extauthz.transport.address_claims import claim, offer

OPS_LOOK = 1.0
"""Seconds between two attempts to listen on the ops address, which another worker may have until it ends."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unwatched:
    """The configuration of a worker, whose files nobody reads again."""

    worker: Worker
    problem: str = "the parent process has gone: files are read again by the next one"
    shown_problem: str = problem
    replaced_as_a_whole: bool = True

    @property
    def configuration(self) -> Configuration:
        """What is served."""
        return self.worker.configuration

    def samples(self) -> Samples:
        """Return nothing: there are no reloads."""
        return {}


def time_of(index: int, *, orphan_time: float, drain: float) -> float:
    """Return for how many seconds a worker goes on; each begins to drain when the one before it has ended."""
    return orphan_time + index * (drain + STOP_GRACE)


async def live(worker: Worker, index: int, *, ending: asyncio.Event, ending_at_once: asyncio.Event) -> None:
    """Serve until a new parent has a worker at this address, the time is over, or the process is to end."""
    server = worker.configuration.settings.server
    seconds = time_of(index, orphan_time=server.orphan_time, drain=server.drain)
    worker.orphaned = True
    _log.error("the parent has gone: serving on until a new one takes the address", extra={"seconds": seconds})
    end, at_once, ops_task = map(asyncio.ensure_future, (ending.wait(), ending_at_once.wait(), _serve_ops(worker)))
    tasks: list[asyncio.Future[Any]] = [end, at_once, ops_task, asyncio.create_task(forget_settings(worker, ending))]
    try:
        async with offer(worker.claimed) as wait_for_successor:
            successor = asyncio.ensure_future(wait_for_successor())
            tasks.append(successor)
            await asyncio.wait({successor, end}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if successor.done():
                _log.info("a new parent has taken the address")
                return
            if not end.done():
                _log.error("no new parent has come: draining", extra={"seconds": server.drain})
                # The workers behind this one go on for longer.
                await worker.turn_away()
            await asyncio.wait({successor, at_once}, timeout=server.drain - worker.grace, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def forget_settings(worker: Worker, ending: asyncio.Event) -> None:
    """Answer OAuth tokens with 503 when the saved settings are too old: nobody tells this process of others."""
    before = worker.configuration
    if before.saved is None:
        return
    await asyncio.sleep(max_age_of(before))
    try:
        files = before.files.again()
        configuration = await asyncio.to_thread(with_other_settings, before, files, Reason.STORE_STALE, os.environ)
        worker.commit(configuration, await worker.prepare(configuration))
        _log.error("the OAuth settings are too old: OAuth tokens get 503")
    except Exception:  # noqa: BLE001 - what is too old is not served, whatever is wrong
        _log.exception("the OAuth settings are too old, and cannot be given up: draining")
        ending.set()


async def _serve_ops(worker: Worker) -> None:
    """Answer on the ops listener while no other worker does, and no new parent."""
    address = worker.configuration.settings.server.ops
    while address is not None:
        try:
            # Another orphan offers it to a new parent, not to this process.
            with claim(address, take_over=False) as claimed:
                served = SingleProcess(worker, Inspector(worker))
                async with serving_ops(claimed, served, Unwatched(worker)), offer(claimed) as wait_for_successor:
                    _log.info("answering on the ops listener in place of the parent", extra={"ops": str(address)})
                    await wait_for_successor()
        except (ListenError, OSError, ConfigurationError) as error:
            _log.debug("not on the ops listener: %s", error)
        except Exception:  # noqa: BLE001 - checks go on without it
            _log.exception("the ops listener failed")
        await asyncio.sleep(OPS_LOOK)
