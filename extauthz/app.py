"""Composition root: settings to objects to running listeners; reload, and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from extauthz import early_signals
from extauthz.adapters.metrics import render
from extauthz.addresses import Address
from extauthz.codec import build_internal_tokens
from extauthz.config import effective
from extauthz.config.loader import Configuration
from extauthz.metric_table import Samples, merged
from extauthz.reload import Reloader
from extauthz.supervisor import Supervisor
from extauthz.transport import key_set, ops
from extauthz.transport.choice import Transport, choose
from extauthz.transport.limits import descriptors_missing
from extauthz.transport.listening import Claim, claim, keep, open_listener, open_port, restricted_umask
from extauthz.transport.tls import TlsFiles
from extauthz.worker import SystemClock, Worker, serving
from extauthz.worker_process import SWITCH_INTERVAL

OpsSocket = tuple[socket.socket, Claim | None]
"""The socket of the ops listener, and the claim to its path when it is a unix socket."""

_log = logging.getLogger(__name__)
_clock = SystemClock()


class Served(Protocol):
    """A sidecar, whether it is this process or several others."""

    async def take(self, configuration: Configuration) -> None:
        """Serve another configuration; raises StoreError, ConfigurationError and Refused."""

    async def reopen(self) -> None:
        """Open the files of logs anew, after a rotation."""

    async def tell(self) -> tuple[Samples, dict[str, bool], dict[str, bool]]:
        """Return figures, readiness and details."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The sidecar that is this process."""

    worker: Worker

    async def take(self, configuration: Configuration) -> None:
        """Serve another configuration; raises StoreError and ConfigurationError."""
        self.worker.commit(configuration, await self.worker.prepare(configuration))

    async def reopen(self) -> None:
        """Open the files of logs anew."""
        self.worker.decisions.reopen()

    async def tell(self) -> tuple[Samples, dict[str, bool], dict[str, bool]]:
        """Return figures, readiness and details."""
        return self.worker.samples(), self.worker.readiness(), self.worker.details()


class KeySet:
    """The public keys of internal tokens that belong to the configuration of the moment; each document is made once."""

    def __init__(self, current: Callable[[], Configuration]) -> None:
        """Begin with none made."""
        self._current = current
        self._made: tuple[Configuration, bytes] | None = None

    def __call__(self) -> bytes:
        """Return the document; raises ConfigurationError for keys that cannot be used."""
        configuration = self._current()
        if self._made is None or self._made[0] is not configuration:
            tokens = build_internal_tokens(configuration, configuration.internal_token_keys(os.environ))
            self._made = configuration, tokens.key_set if tokens else b'{"keys": []}'
        return self._made[1]


@dataclass(frozen=True, slots=True)
class Signals:
    """What the process was told: to stop, once or twice, to read its files again, and to replace its workers."""

    stop: asyncio.Queue[int]
    reload: asyncio.Event
    restart: asyncio.Event


def run(configuration: Configuration, *, log_decisions: bool = True) -> None:
    """Serve until SIGTERM or SIGINT, then drain; raises StoreError, ConfigurationError and ListenError at start."""
    server = configuration.settings.server
    configuration.read_secrets(os.environ)
    connections = configuration.settings.grpc.connections
    if missing := descriptors_missing(connections):
        _log.warning("%d open files too few are allowed for grpc.connections: %d: raise ulimit -Hn", missing, connections)
    if server.workers > 1:
        asyncio.run(_serve_together(configuration, log_decisions=log_decisions))
        return
    transport = choose(server.transport)
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=transport.new_event_loop) as runner:
        runner.run(_serve_alone(configuration, transport, log_decisions=log_decisions))


async def _serve_alone(configuration: Configuration, transport: Transport, *, log_decisions: bool) -> None:
    signals = _signals()
    if not signals.stop.empty():
        return
    listen = configuration.settings.server.listen
    async with contextlib.AsyncExitStack() as stack:
        opened, published = _open_ops(configuration, stack), _open_jwks(configuration, stack)
        worker = await stack.enter_async_context(serving(configuration, transport, listen, log_decisions=log_decisions))
        await stack.enter_async_context(_managed(Alone(worker), configuration, opened, published, signals))
        await signals.stop.get()
        await worker.drain(signals.stop.get())
    _log.info("stopped")


async def _serve_together(configuration: Configuration, *, log_decisions: bool) -> None:
    signals = _signals()
    if not signals.stop.empty():
        return
    async with contextlib.AsyncExitStack() as stack:
        opened, published = _open_ops(configuration, stack), _open_jwks(configuration, stack)
        supervisor = Supervisor(configuration, configuration.settings.server.transport, log_decisions=log_decisions)
        starting = asyncio.create_task(supervisor.start())
        stopping = asyncio.create_task(signals.stop.get())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done() and (not starting.done() or starting.exception()):
            # Workers that were told to stop as well end before they serve: that is no failure then.
            starting.cancel()
            await asyncio.wait({starting})
            return
        stack.push_async_callback(supervisor.stop)
        await starting
        await stack.enter_async_context(_managed(supervisor, configuration, opened, published, signals))
        restarting = asyncio.create_task(_when(signals.restart, supervisor.restart))
        addresses = [str(address) for address in configuration.settings.server.addresses]
        _log.info("serving with several workers", extra={"listen": addresses, "ops": str(configuration.settings.server.ops)})
        await stopping
        restarting.cancel()
        hurrying = asyncio.create_task(_hurry(signals, supervisor))
        await supervisor.stop()
        hurrying.cancel()
    _log.info("stopped")


async def _hurry(signals: Signals, supervisor: Supervisor) -> None:
    await signals.stop.get()
    await supervisor.hurry()


@contextlib.asynccontextmanager
async def _managed(
    served: Served,
    configuration: Configuration,
    opened: OpsSocket | None,
    published: socket.socket | None,
    signals: Signals,
) -> AsyncIterator[None]:
    """Watch the files and answer on the ops listener and on that of the keys of internal tokens."""
    reloader = Reloader(configuration, served.take, environment=os.environ, now=_clock.now)

    async def renew() -> None:
        await served.reopen()
        await reloader.reload()

    tasks = [asyncio.create_task(reloader.run()), asyncio.create_task(_when(signals.reload, renew))]
    async with contextlib.AsyncExitStack() as stack:
        if opened is not None:
            await stack.enter_async_context(_ops(opened, served, reloader, configuration))
        if published is not None:
            await stack.enter_async_context(key_set.serving(published, KeySet(lambda: reloader.configuration)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _ops(listening: OpsSocket, served: Served, reloader: Reloader, configuration: Configuration) -> AsyncIterator[None]:
    async def metrics(openmetrics: bool) -> tuple[str, bytes]:
        samples, readiness, _ = await served.tell()
        samples["extauthz_ready", ()] = float(all(readiness.values()))
        return render(merged((samples, reloader.samples())), openmetrics=openmetrics)

    async def readiness() -> ops.Readiness:
        _, parts, details = await served.tell()
        enforced = not reloader.configuration.policy.monitored
        ours = {
            "configuration is that of the files": reloader.problem is None,
            "configuration files are replaced as a whole": reloader.replaced_as_a_whole,
            "every refusal is enforced": enforced,
        }
        return ops.Readiness(parts, ours | details)

    async def shown() -> dict[str, object]:
        server = reloader.configuration.settings.server
        samples, _, _ = await served.tell()
        # `auto` is settled by each worker, and by all of one machine alike.
        transports = {labels[1] for name, labels in samples if name == "extauthz_build_info"}
        running = {"addresses": [str(address) for address in server.addresses], "problem": reloader.shown_problem}
        return running | {"transport": ", ".join(sorted(transports)) or None} | effective.explained(reloader.configuration)

    server = configuration.settings.server
    named = configuration.tls_files(server.ops_tls)
    files = TlsFiles(*named) if named else None
    certificates = files.load(protocol="http/1.1") if files else None
    asks_for_certificates = server.ops_tls is not None and server.ops_tls.client_ca is not None
    trusted = asks_for_certificates or bool(server.ops and server.ops.path)
    pages = ops.Pages(metrics, readiness, shown, trusted=trusted)
    http = ops.HttpServer(ops.application(pages), http=ops.BoundedConnection, tls=certificates.context if certificates else None)
    opened, claimed = listening
    tasks = [asyncio.create_task(http.run_on(opened))]
    if files and certificates:
        tasks.append(asyncio.create_task(files.renew(certificates)))
    if claimed:

        async def listen_again(address: Address) -> None:
            await http.listen_again(open_listener(address))

        tasks.append(asyncio.create_task(keep(claimed, listen_again)))
    try:
        yield
    finally:
        http.should_exit = True
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _open_ops(configuration: Configuration, stack: contextlib.AsyncExitStack) -> OpsSocket | None:
    """Listen on the ops address; raises ListenError."""
    server = configuration.settings.server
    address: Address | None = server.ops
    if address is None:
        return None
    if not address.path:
        return stack.enter_context(contextlib.closing(open_port(address))), None
    claimed = stack.enter_context(claim(address))
    with restricted_umask(server.socket_mode):
        opened = stack.enter_context(contextlib.closing(open_listener(address)))
    claimed.publish(mode=server.socket_mode, group=server.socket_group)
    return opened, claimed


def _open_jwks(configuration: Configuration, stack: contextlib.AsyncExitStack) -> socket.socket | None:
    """Listen on the address of the keys of internal tokens, once these can be used; raises ListenError and ConfigurationError."""
    section = configuration.internal_token
    if section is None or section.jwks is None:
        return None
    KeySet(lambda: configuration)()
    return stack.enter_context(contextlib.closing(open_port(section.jwks)))


def _signals() -> Signals:
    """SIGTERM and SIGINT stop, a second one ends the drain; SIGHUP reloads and opens logs anew; SIGUSR2 replaces the workers."""
    signals = Signals(asyncio.Queue(), asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.stop.put_nowait, number)
    loop.add_signal_handler(signal.SIGHUP, signals.reload.set)
    loop.add_signal_handler(signal.SIGUSR2, signals.restart.set)
    for early in early_signals.noted():
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
        except Exception:  # noqa: BLE001 - the next signal is heard all the same
            _log.exception("a signal was not acted on")
