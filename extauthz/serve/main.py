"""Composition root: settings to objects to running listeners; reload, and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from extauthz.config.loader import Configuration
from extauthz.errors import AddressInUseError
from extauthz.process import early_signals
from extauthz.process.clock import SystemClock
from extauthz.runtime.saved_settings import FollowedSettings
from extauthz.serve.inspection import Inspector
from extauthz.serve.ops import KeySet, ServedState, SingleProcess, serving_keys, serving_ops
from extauthz.serve.reload import Reloader
from extauthz.serve.rereading import served_first
from extauthz.serve.serving import serving
from extauthz.serve.supervisor import Supervisor
from extauthz.serve.worker import START_PRIME
from extauthz.serve.worker_process import SWITCH_INTERVAL
from extauthz.transport.address_claims import SUCCESSOR_LOOK, AddressClaim, claim, offer, take
from extauthz.transport.limits import descriptors_missing
from extauthz.transport.select import Transport, choose

_log = logging.getLogger(__name__)
_clock = SystemClock()


class ServedProcess(ServedState, Protocol):
    """A sidecar, whether it is this process or several others."""

    async def take(self, configuration: Configuration) -> None:
        """Serve another configuration; raises StoreError, ConfigurationError and Refused."""

    async def reopen(self) -> None:
        """Open the files of logs anew, after a rotation."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The addresses that this process listens on, as far as the configuration names them."""

    listen: AddressClaim | None
    ops: AddressClaim | None
    jwks: AddressClaim | None

    @property
    def others(self) -> tuple[AddressClaim, ...]:
        """Those that no checks come to."""
        return tuple(claimed for claimed in (self.ops, self.jwks) if claimed is not None)


@dataclass(frozen=True, slots=True)
class Signals:
    """The signals of the process: to stop, once or twice, to read its files again, and to replace its workers."""

    stop: asyncio.Queue[int]
    reload: asyncio.Event
    restart: asyncio.Event


def run(configuration: Configuration, *, log_decisions: bool = True, wait: float = 0.0) -> None:
    """Serve until SIGTERM or SIGINT, then drain; raises StoreError, ConfigurationError and ListenError at start.

    Waits so many seconds for an instance that listens on the addresses to leave them.
    """
    server = configuration.settings.server
    configuration.read_secrets(os.environ)
    connections = configuration.settings.grpc.connections
    if missing := descriptors_missing(connections):
        _log.warning("%d open files too few are allowed for grpc.connections: %d: raise ulimit -Hn", missing, connections)
    if server.workers > 1:
        asyncio.run(_serve_together(configuration, log_decisions=log_decisions, wait=wait))
        return
    transport = choose(server.transport)
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=transport.new_event_loop) as runner:
        runner.run(_serve_alone(configuration, transport, log_decisions=log_decisions, wait=wait))


async def _serve_alone(configuration: Configuration, transport: Transport, *, log_decisions: bool, wait: float) -> None:
    signals = _signals()
    async with contextlib.AsyncExitStack() as stack:
        claims = await _claim(configuration, stack, signals, wait)
        if claims is None or claims.listen is None:
            return
        configuration, settings = await _with_saved_settings(configuration, stack)
        worker = await stack.enter_async_context(serving(configuration, transport, claims.listen, log_decisions=log_decisions))
        served = SingleProcess(worker, Inspector(worker))
        reloader = _reloader(configuration, served, settings)
        await stack.enter_async_context(_pages(claims, served, reloader))
        await worker.begin()
        await stack.enter_async_context(_reloading(served, reloader, settings, signals))
        await signals.stop.get()
        await worker.hand_over(signals.stop.get(), *claims.others)
    _log.info("stopped")


async def _serve_together(configuration: Configuration, *, log_decisions: bool, wait: float) -> None:
    signals = _signals()
    async with contextlib.AsyncExitStack() as stack:
        claims = await _claim(configuration, stack, signals, wait)
        if claims is None:
            return
        configuration, settings = await _with_saved_settings(configuration, stack)
        supervisor = Supervisor(configuration, configuration.settings.server.transport, log_decisions=log_decisions)
        reloader = _reloader(configuration, supervisor, settings)
        await stack.enter_async_context(_pages(claims, supervisor, reloader))
        starting = asyncio.create_task(supervisor.start())
        stopping = asyncio.create_task(signals.stop.get())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done() and (not starting.done() or starting.exception()):
            # Workers that got the signal as well end before they serve: that is no failure then.
            starting.cancel()
            await asyncio.wait({starting})
            return
        stack.push_async_callback(supervisor.stop)
        await starting
        await stack.enter_async_context(_reloading(supervisor, reloader, settings, signals))
        restarting = asyncio.create_task(_when(signals.restart, supervisor.restart))
        addresses = [str(address) for address in configuration.settings.server.addresses]
        _log.info("serving with several workers", extra={"listen": addresses, "ops": str(configuration.settings.server.ops)})
        await stopping
        restarting.cancel()
        hurrying = asyncio.create_task(_hurry(signals, supervisor))
        async with offer(*claims.others):
            await supervisor.stop()
        hurrying.cancel()
    _log.info("stopped")


async def _hurry(signals: Signals, supervisor: Supervisor) -> None:
    await signals.stop.get()
    await supervisor.hurry()


async def _with_saved_settings(
    configuration: Configuration, stack: contextlib.AsyncExitStack
) -> tuple[Configuration, FollowedSettings | None]:
    """Follow the store for the OAuth settings in it, if the console manages them, and give it a moment to tell what they are.

    Raises ConfigurationError, and StoreError for an address that is none.
    """
    if configuration.settings_place is None:
        return configuration, None
    settings = FollowedSettings(configuration, os.environ, clock=_clock)
    following = asyncio.create_task(settings.run())

    async def stop() -> None:
        following.cancel()
        await asyncio.wait({following})

    stack.push_async_callback(stop)
    saved = await settings.first(START_PRIME)
    return await asyncio.to_thread(served_first, configuration, saved, os.environ), settings


def _reloader(configuration: Configuration, served: ServedProcess, settings: FollowedSettings | None) -> Reloader:
    async def take(configuration: Configuration) -> None:
        # What may fail comes before anything is served.
        renew = settings.renewal(configuration) if settings is not None else None
        await served.take(configuration)
        if renew is not None:
            renew()

    return Reloader(configuration, take, environment=os.environ, now=_clock.now)


@contextlib.asynccontextmanager
async def _pages(claims: Claims, served: ServedProcess, reloader: Reloader) -> AsyncIterator[None]:
    """Answer on the ops listener and on that of the keys of internal tokens; raises ListenError."""
    async with contextlib.AsyncExitStack() as stack:
        if claims.ops is not None:
            await stack.enter_async_context(serving_ops(claims.ops, served, reloader))
        if claims.jwks is not None:
            await stack.enter_async_context(serving_keys(claims.jwks, reloader))
        yield


@contextlib.asynccontextmanager
async def _reloading(
    served: ServedProcess, reloader: Reloader, settings: FollowedSettings | None, signals: Signals
) -> AsyncIterator[None]:
    """Watch the files and the saved settings, and reload at a signal."""

    async def renew() -> None:
        await served.reopen()
        await reloader.reload()

    tasks = [asyncio.create_task(reloader.run()), asyncio.create_task(_when(signals.reload, renew))]
    if settings is not None:
        tasks.append(asyncio.create_task(reloader.follow(settings)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _claim(configuration: Configuration, stack: contextlib.AsyncExitStack, signals: Signals, wait: float) -> Claims | None:
    """Take the addresses of this process within so many seconds; None at a signal to stop meanwhile.

    Raises ListenError, and ConfigurationError for keys of internal tokens that cannot be used.
    """
    server, section = configuration.settings.server, configuration.internal_token
    jwks = section.jwks if section is not None else None
    if jwks is not None:
        KeySet(lambda: configuration)()
    listen = server.listen if server.workers == 1 else None
    loop = asyncio.get_running_loop()
    until, is_logged = loop.time() + wait, False
    while signals.stop.empty():
        try:
            for address in server.addresses if server.workers > 1 else ():
                # Each worker claims its own; who waits does so before there are any.
                take(address).close()
            with contextlib.ExitStack() as new_stack:
                claims = Claims(*(new_stack.enter_context(claim(each)) if each else None for each in (listen, server.ops, jwks)))
                stack.enter_context(new_stack.pop_all())
                return claims
        except AddressInUseError as error:
            if loop.time() >= until:
                raise
            if not is_logged:
                _log.info("waiting until the address is left", extra={"cause": str(error), "seconds": wait})
            is_logged = True
        await asyncio.sleep(SUCCESSOR_LOOK)
    return None


def _signals() -> Signals:
    """SIGTERM and SIGINT stop, a second one ends the drain; SIGHUP reloads and opens logs anew; SIGUSR2 replaces the workers."""
    signals = Signals(asyncio.Queue(), asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.stop.put_nowait, number)
    loop.add_signal_handler(signal.SIGHUP, signals.reload.set)
    loop.add_signal_handler(signal.SIGUSR2, signals.restart.set)
    for early in early_signals.take_signals():
        match early:
            case signal.SIGHUP:
                signals.reload.set()
            case signal.SIGUSR2:
                # The workers are all new.
                pass
            case _:
                signals.stop.put_nowait(early)
    return signals


async def _when(event: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await event.wait()
        event.clear()
        try:
            await act()
        except Exception:  # noqa: BLE001 - the next signal is handled all the same
            _log.exception("a signal was not acted on")
