"""One process that answers checks: everything from the listener to the store, and the change to another configuration."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from extauthz import __version__
from extauthz.adapters.metrics import DecisionCounters
from extauthz.adapters.oauth.jwks import JwksSource
from extauthz.config.loader import Configuration
from extauthz.errors import Unavailable
from extauthz.process import memory
from extauthz.runtime.build import RuntimeBuilder, RuntimeParts
from extauthz.runtime.decision_log import DecisionLogs
from extauthz.serve import figures
from extauthz.serve.messages import State
from extauthz.service import Authorizer
from extauthz.telemetry.conditions import Condition, ConditionKey
from extauthz.telemetry.last_used import LastUsedTimes
from extauthz.telemetry.metric_table import Histogram, Samples, counters, merged
from extauthz.telemetry.recorders import Recorders
from extauthz.transport.address_claims import AddressClaim, first_of, keep, offer
from extauthz.transport.select import Server
from extauthz.transport.sockets import restricted_umask
from extauthz.transport.tls import Certificates
from extauthz.verifiers.change_feed import UNKNOWN, Feed

if TYPE_CHECKING:
    from extauthz.adapters.tracing.checks import Tracing

LATELY = 10.0
"""Seconds since the store was last read, after which it counts as lost."""
START_PRIME, RELOAD_PRIME, SETTINGS_PRIME = 2.0, 5.0, 0.5
"""Seconds that a start and a reload wait for the keys of new issuers, and a reload where settings are saved in the store.

The start waits as long for the first word of the token store. Settings that were saved count within two seconds, whatever an issuer
does: they may take away what somebody may do.
"""
STOP_GRACE = 1.0
"""Seconds of the drain, at most, for the checks under way at its end."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Worker:
    """A sidecar that serves one configuration after the other; `retired` are the counts of parts that have ended.

    `orphaned` is one whose parent has gone, so that nobody reads its files again.
    """

    configuration: Configuration
    builder: RuntimeBuilder
    parts: RuntimeParts
    authorizer: Authorizer
    server: Server
    claimed: AddressClaim
    transport: str
    decision_counters: DecisionCounters
    recorders: Recorders
    decisions: DecisionLogs
    uses: LastUsedTimes | None
    certificates: Certificates | None
    tracing: Tracing | None = None
    lag: figures.LoopLag = field(default_factory=figures.LoopLag)
    serving: bool = False
    orphaned: bool = False
    retired: Samples = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _fetching: dict[JwksSource, asyncio.Task[None]] = field(default_factory=dict)

    def samples(self) -> Samples:
        """Return every figure of this process."""
        process = figures.of_process(self.configuration, self.parts, self.authorizer, self.lag, self.uses)
        process |= figures.of_transport(self.server, self.transport)
        process["extauthz_decision_log_written_total", ()] = float(self.decisions.written)
        process["extauthz_decision_log_dropped_total", ()] = float(self.decisions.dropped)
        if self.tracing is not None:
            for outcome, count in self.tracing.spans.items():
                process["extauthz_spans_total", (outcome,)] = float(count)
        if self.certificates is not None:
            process["extauthz_tls_certificate_expiry_timestamp_seconds", ()] = self.certificates.expires_at
        return merged((self.decision_counters.samples(), process, figures.of_parts(self.parts), self.retired))

    def state(self) -> State:
        """Return everything that this process reports."""
        return State(self.samples(), self.readiness(), tuple(self.details()), self.transport)

    def readiness(self) -> dict[str, bool]:
        """Name every part that has to be in order; an issuer that is down stops its own tokens only.

        The store is in order as long as the tokens in memory are answered without it.
        """
        feed, tokens = self.parts.feed, self.configuration.settings.tokens
        if feed is None or tokens is None:
            return {"serving": self.serving}
        is_followed = not feed.rewound and feed.age <= max(tokens.max_staleness, LATELY)
        return {"serving": self.serving, "store": is_followed}

    def details(self) -> Iterator[Condition]:
        """Yield what is worth knowing besides."""
        if feed := self.parts.feed:
            yield Condition(ConditionKey.STORE_FOLLOWED, feed.age <= LATELY)
        if self.orphaned:
            yield Condition(ConditionKey.PARENT_RUNNING, met=False)
        yield from figures.of_issuers(self.parts)

    async def prepare(self, configuration: Configuration) -> RuntimeParts:
        """Build the parts of another configuration and wait a moment for new keys; raises StoreError and ConfigurationError."""
        self.decisions.prepare(configuration)
        try:
            parts = await self.builder.prepare(configuration, self.parts)
        except BaseException:
            self.decisions.discard()
            raise
        new = [source for source in parts.key_sources if source not in self._fetching]
        self._fetch(parts.key_sources)
        await _primed(new, None, RELOAD_PRIME if configuration.saved is None else SETTINGS_PRIME)
        return parts

    def commit(self, configuration: Configuration, parts: RuntimeParts) -> None:
        """Serve prepared parts from the next check on; what of the old ones they do not share is void before that."""
        before = self.parts
        at_swap = counters(figures.of_parts(parts))
        for series, value in counters(figures.of_parts(before)).items():
            rest, retired = at_swap.get(series, 0.0), self.retired.get(series, 0.0)
            if not isinstance(value, Histogram) and not isinstance(rest, Histogram) and not isinstance(retired, Histogram):
                self.retired[series] = retired + value - rest
        self.builder.adopt(configuration, before, parts)
        self.authorizer.swap(parts.runtime)
        recorder = self.decisions.recorder
        closing = self.decisions.commit()
        self.recorders.replace(recorder, self.decisions.recorder)
        if closing is not None:
            self._begin(closing)
        self.parts, self.configuration = parts, configuration
        self.discard()
        self._begin(self.builder.retire(configuration, parts))

    def discard(self) -> None:
        """Let go of what was prepared and is not served."""
        self.decisions.discard()
        for source in self._fetching.keys() - set(self.parts.key_sources):
            self._fetching.pop(source).cancel()

    async def use_certificates(self, certificates: Certificates) -> None:
        """Show other certificates from the next connection on."""
        await self.server.reload_tls(certificates)
        self.certificates = certificates

    async def begin(self) -> None:
        """Listen and answer, as soon as store and issuers had a moment; raises ListenError.

        The process that leaves the address, if there is one, serves until then.
        """
        await _primed(self.parts.key_sources, self.parts.feed, START_PRIME)
        settings, claimed = self.configuration.settings.server, self.claimed
        with restricted_umask(settings.socket_mode) if claimed.address.path else contextlib.nullcontext():
            port = await self.server.start(claimed.binding, shared=claimed.shared)
        await self.server.set_serving(serving=True)
        self.serving = True
        claimed.publish(mode=settings.socket_mode, group=settings.socket_group)
        self._begin(keep(claimed, self.server.listen_again))
        listen = claimed.address if claimed.address.path else replace(claimed.address, port=port)
        extra = {"listen": str(listen), "ops": str(settings.ops), "transport": self.transport, "tls": self.certificates is not None}
        _log.info("serving", extra=extra | {"version": __version__})
        # What is alive now lives as long as the process: no later collection has to look at it.
        gc.collect()
        gc.freeze()
        memory.give_back()

    async def drain(self, second: Coroutine[None, None, object]) -> None:
        """Say that this process goes, and go on answering for the time of the drain, or until a `second` request to stop.

        So the peers turn to other processes that answer them.
        """
        await self.turn_away()
        seconds = self.configuration.settings.server.drain
        _log.info("draining", extra={"seconds": seconds})
        await first_of(second, seconds=seconds - self.grace)

    async def turn_away(self) -> None:
        """Say that this process goes; checks that come are answered."""
        self.serving = False
        await self.server.set_serving(serving=False)

    async def hand_over(self, second: Coroutine[None, None, object], *others: AddressClaim) -> None:
        """Go on as before until a successor serves, for the time of the drain, or until a `second` request to stop.

        There is no other process that the peers could turn to. `others` are further addresses that the successor needs.
        """
        self.serving = False
        seconds = self.configuration.settings.server.drain
        _log.info("draining until a successor serves", extra={"seconds": seconds})
        async with offer(self.claimed, *others) as wait_for_successor:
            await first_of(second, wait_for_successor(), seconds=seconds - self.grace)

    @property
    def grace(self) -> float:
        """Seconds of the drain for the checks that are under way at its end."""
        return min(STOP_GRACE, self.configuration.settings.server.drain / 2)

    def _fetch(self, sources: Iterable[JwksSource]) -> None:
        for source in sources:
            if source not in self._fetching:
                self._fetching[source] = asyncio.create_task(source.run())

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.asynccontextmanager
    async def background(self, *more: Coroutine[None, None, None]) -> AsyncIterator[None]:
        """Keep looking at the store, at the issuers and at what else there is."""
        self._fetch(self.parts.key_sources)
        for work in (self.lag.run(), *more):
            self._begin(work)
        if self.parts.follower:
            self._begin(self.parts.follower.run())
        if self.uses:
            self._begin(self.uses.run())
        try:
            yield
        finally:
            tasks = [*self._tasks, *self._fetching.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _primed(sources: Iterable[JwksSource], feed: Feed | None, seconds: float) -> None:
    """Give store and issuers a moment, so that the first checks find them; one that is down delays nothing for long."""

    async def prime(source: JwksSource) -> None:
        with contextlib.suppress(Unavailable):
            await source.load()

    async def first_contact(feed: Feed) -> None:
        while feed.position == UNKNOWN:  # noqa: ASYNC110 - looked at once, at start
            await asyncio.sleep(0.01)

    waiting = [*map(prime, sources), *([first_contact(feed)] if feed else [])]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*waiting), seconds)
