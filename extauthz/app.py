"""Composition root: settings to objects to running listeners, and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from functools import partial
from math import nan

from extauthz import __version__
from extauthz.adapters.introspection import Introspection
from extauthz.adapters.jwks import JwksSource
from extauthz.adapters.logs import DecisionLog
from extauthz.adapters.metrics import CONTENT_TYPE, Metrics
from extauthz.adapters.verdicts import VerdictCache
from extauthz.addresses import Address
from extauthz.assembly import Parts, open_parts
from extauthz.config.loader import Configuration
from extauthz.core.credentials import Kind
from extauthz.core.model import Decision, Reason, Request
from extauthz.feed import UNKNOWN, Feed
from extauthz.ports import Recorder, Unavailable
from extauthz.service import Authorizer
from extauthz.transport import ops
from extauthz.transport.choice import Transport, choose
from extauthz.transport.limits import Limits
from extauthz.transport.listening import claim, open_port, publish, restricted_umask
from extauthz.transport.tls import TlsFiles
from extauthz.uses import Uses

LATELY = 10.0
"""Seconds since the store was last heard, after which it is called lost."""
PRIME = 2.0
"""Seconds that the start waits for the keys of the issuers and for the first word of the token store."""
SWITCH_INTERVAL = 0.0005
"""Seconds, in place of Python's 0.005."""
STOP_GRACE = 1.0
"""Seconds for the checks under way when the drain is over."""

_log = logging.getLogger(__name__)


class SystemClock:
    """The clocks of this machine."""

    now = staticmethod(time.time)  # noqa: TID251 - the one reading of the wall clock
    monotonic = staticmethod(time.monotonic)


def decision_id() -> str:
    """Return 128 random bits in hex."""
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True)
class Recorders:
    """Several recorders as one."""

    recorders: tuple[Recorder, ...]

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Hand the decision to each."""
        for recorder in self.recorders:
            recorder.record(request, decision, seconds)


def run(configuration: Configuration, *, log_decisions: bool = True) -> None:
    """Serve until SIGTERM or SIGINT, then drain; raises StoreError, ConfigurationError and ListenError at start."""
    transport = choose(configuration.settings.server.transport)
    # A thread that computes, such as a reload, gives the loop its turn back ten times as soon.
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=transport.new_event_loop) as runner:
        runner.run(_serve(configuration, transport, log_decisions=log_decisions))


async def _serve(configuration: Configuration, transport: Transport, *, log_decisions: bool) -> None:
    settings = configuration.settings.server
    address = settings.listen
    clock = SystemClock()
    stopping = _on_signals()
    async with contextlib.AsyncExitStack() as stack:
        if address.path:
            stack.enter_context(claim(address))
        else:
            open_port(address).close()
        ops_socket = stack.enter_context(contextlib.closing(open_port(settings.ops))) if settings.ops else None
        parts = await open_parts(configuration, stack, clock=clock)
        tokens = configuration.settings.tokens
        health = Health(parts, tokens.max_staleness if tokens else 0.0)
        decisions = DecisionLog(sys.stdout) if log_decisions else None
        if decisions:
            stack.callback(decisions.close)
        metrics = Metrics(__version__, transport=transport.name)
        uses = Uses(parts.usage, clock=clock, random=secrets.SystemRandom().random) if parts.usage else None
        if uses:
            stack.push_async_callback(uses.close)
        recorders = Recorders(tuple(recorder for recorder in (metrics, decisions, uses) if recorder))
        authorizer = Authorizer(
            parts.runtime, recorders, clock=clock, decision_ids=decision_id, max_in_flight=settings.max_in_flight
        )
        _add_readings(metrics, parts, health, authorizer, decisions)
        if uses:
            _add_use_readings(metrics, uses)
        files = TlsFiles(*configuration.tls_files) if configuration.tls_files else None
        certificates = files.load() if files else None
        limits = Limits(**configuration.settings.grpc.model_dump())
        fallback = parts.runtime.codec.fixed(Reason.INTERNAL, "0" * 32)
        server = transport.server(authorizer.check, fallback, limits=limits, certificates=certificates)
        with restricted_umask(settings.socket_mode) if address.path else contextlib.nullcontext():
            port = await server.start(address)
        stack.push_async_callback(server.stop, STOP_GRACE)
        if address.path:
            publish(address, mode=settings.socket_mode, group=settings.socket_group)
        watch = [files.watch(certificates, server.reload_tls)] if files and certificates else []
        if uses:
            watch.append(uses.run())
        async with _background(parts, *watch):
            if ops_socket:
                await stack.enter_async_context(_ops(ops_socket, metrics, health))
            await _primed(parts)
            await server.set_serving(serving=True)
            health.serving = True
            where = address if address.path else Address(host=address.host, port=port)
            served = {"listen": str(where), "ops": str(settings.ops), "transport": transport.name, "tls": certificates is not None}
            _log.info("serving", extra=served | {"version": __version__})
            # What is alive now lives as long as the process: no later collection has to look at it.
            gc.collect()
            gc.freeze()
            await stopping.get()
            health.serving = False
            await server.set_serving(serving=False)
            _log.info("draining", extra={"seconds": settings.drain})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.get(), settings.drain)
    _log.info("stopped")


def _add_readings(metrics: Metrics, parts: Parts, health: Health, authorizer: Authorizer, decisions: DecisionLog | None) -> None:
    """Name what is read from the running parts at each scrape."""
    metrics.add_gauge("extauthz_checks_waiting", "Checks that wait for a store or an issuer.", lambda: authorizer.in_flight)
    metrics.add_gauge("extauthz_ready", "1 when /readyz answers 200.", lambda: float(all(health.readiness().values())))
    if decisions:
        text = "Decision lines that nobody read in time."
        metrics.add_counter("extauthz_decision_log_dropped", text, lambda: decisions.dropped)
    for kind, cache in parts.verdicts.items():
        _add_verdict_readings(metrics, kind, cache)
    for source in parts.key_sources:
        _add_key_readings(metrics, source)
    if parts.feed:
        _add_feed_readings(metrics, parts.feed)
    for asked in parts.introspections:
        _add_remote_readings(metrics, asked)


def _add_verdict_readings(metrics: Metrics, kind: Kind, cache: VerdictCache) -> None:
    text = "Look-ups of verified tokens in memory."
    metrics.add_counter("extauthz_verdict_lookups", text, lambda: cache.hits, kind=kind.value, outcome="hit")
    metrics.add_counter("extauthz_verdict_lookups", text, lambda: cache.misses, kind=kind.value, outcome="miss")
    metrics.add_counter("extauthz_verdict_lookups", text, lambda: cache.refusals, kind=kind.value, outcome="refusal")
    metrics.add_gauge("extauthz_verdicts", "Verified tokens in memory.", cache.__len__, kind=kind.value)


def _add_key_readings(metrics: Metrics, source: JwksSource) -> None:
    text = "Keys of the issuer that may be used."
    metrics.add_gauge("extauthz_keys", text, lambda: len(source.keys() or ()), issuer=source.issuer)
    text = "Seconds since the last good fetch of the issuer's keys."
    metrics.add_gauge("extauthz_keys_age_seconds", text, lambda: source.age, issuer=source.issuer)


def _add_feed_readings(metrics: Metrics, feed: Feed) -> None:
    metrics.add_gauge("extauthz_feed_age_seconds", "Seconds since the token store was last heard.", lambda: feed.age)
    metrics.add_gauge("extauthz_feed_rewound", "1 while the token store is an older one than it was.", lambda: float(feed.rewound))

    def last_row() -> dict[str, str]:
        return {"number": str(feed.audit[0]), "mac": feed.audit[1]} if feed.audit else {}

    text = "Number of the last row of the audit."
    metrics.add_gauge("extauthz_audit_position", text, lambda: feed.audit[0] if feed.audit else nan)
    metrics.add_info("extauthz_audit_head", "Number and MAC of the last row of the audit.", last_row)


def _add_use_readings(metrics: Metrics, uses: Uses) -> None:
    metrics.add_gauge("extauthz_token_uses_waiting", "Last uses of tokens that are not written yet.", lambda: uses.waiting)
    metrics.add_counter("extauthz_token_uses_written", "Last uses of tokens that were written.", lambda: uses.written)
    metrics.add_counter("extauthz_token_uses_dropped", "Last uses of tokens that were too many to wait.", lambda: uses.dropped)


def _add_remote_readings(metrics: Metrics, asked: Introspection) -> None:
    labels = {"issuer": asked.issuer, "method": asked.method.value}
    text = "Questions to an issuer about a token: answered, failed, or shed because of a limit or after failures."
    for outcome in asked.outcomes:
        count = partial(asked.outcomes.__getitem__, outcome)
        metrics.add_counter("extauthz_remote_verifications", text, count, **labels, outcome=outcome)
    metrics.add_counter("extauthz_remote_verification_seconds", "Time that these questions took.", lambda: asked.seconds, **labels)


@dataclass(slots=True)
class Health:
    """What /readyz tells; `max_staleness` is in seconds."""

    parts: Parts
    max_staleness: float
    serving: bool = False

    def readiness(self) -> dict[str, bool]:
        """Name every part that has to be in order; an issuer that is down stops its own tokens only.

        The store is in order as long as the tokens in memory are answered without it.
        """
        feed = self.parts.feed
        heard = feed is not None and not feed.rewound and feed.age <= max(self.max_staleness, LATELY)
        return {"serving": self.serving} | ({"store": heard} if feed else {})

    def details(self) -> dict[str, bool]:
        """Name what is worth knowing besides."""
        feed = self.parts.feed
        heard = {"change feed of the token store": feed.age <= LATELY} if feed else {}
        keys = {f"keys of {source.issuer}": source.keys() is not None for source in self.parts.key_sources}
        return heard | keys | {f"{asked.method} of {asked.issuer}": asked.answers for asked in self.parts.introspections}


def _on_signals() -> asyncio.Queue[int]:
    """Return a queue that gets SIGTERM and SIGINT; a second one ends the drain."""
    arrived: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, arrived.put_nowait, number)
    return arrived


@contextlib.asynccontextmanager
async def _background(parts: Parts, *more: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Keep looking at the store, at the issuers and at what else there is."""
    tasks = [asyncio.create_task(work) for work in (*(source.run() for source in parts.key_sources), *more)]
    if parts.follower:
        tasks.append(asyncio.create_task(parts.follower.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _primed(parts: Parts) -> None:
    """Give store and issuers a moment, so that the first checks find them; one that is down delays nothing for long."""

    async def prime(source: JwksSource) -> None:
        with contextlib.suppress(Unavailable):
            await source.load()

    async def heard(feed: Feed) -> None:
        while feed.position == UNKNOWN:  # noqa: ASYNC110 - looked at once, at start
            await asyncio.sleep(0.01)

    waiting = [*map(prime, parts.key_sources), *([heard(parts.feed)] if parts.feed else [])]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*waiting), PRIME)


@contextlib.asynccontextmanager
async def _ops(opened: socket.socket, metrics: Metrics, health: Health) -> AsyncIterator[None]:
    server = ops.HttpServer(ops.application(metrics.render, CONTENT_TYPE, health.readiness, health.details))
    task = asyncio.create_task(server.run_on(opened))
    try:
        yield
    finally:
        server.should_exit = True
        await task
