"""What a process that answers checks is made of, and the block in which it does."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator

from extauthz.adapters.envoy.codec import EnvoyCodec
from extauthz.adapters.metrics import DecisionCounters
from extauthz.config.loader import Configuration
from extauthz.core.model import Reason
from extauthz.process.clock import SystemClock
from extauthz.runtime.build import RuntimeBuilder
from extauthz.runtime.decision_log import DecisionLogs
from extauthz.runtime.tracing import open_tracing
from extauthz.serve.decision_ids import decision_id
from extauthz.serve.worker import Worker
from extauthz.service import Authorizer
from extauthz.telemetry.last_used import LastUsedTimes
from extauthz.telemetry.recorders import Recorders
from extauthz.transport.address_claims import AddressClaim
from extauthz.transport.limits import Limits
from extauthz.transport.select import Transport
from extauthz.transport.tls import TlsFiles


@contextlib.asynccontextmanager
async def serving(
    configuration: Configuration, transport: Transport, claimed: AddressClaim, *, log_decisions: bool
) -> AsyncIterator[Worker]:
    """Be able to answer at a claimed address inside the block, from `begin` on; raises StoreError and ConfigurationError."""
    settings, clock = configuration.settings.server, SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        tracing = open_tracing(configuration, configuration.tracing_headers(os.environ), stack, clock=clock)
        builder = RuntimeBuilder(clock=clock, tracing=tracing)
        parts = await builder.open(configuration, stack)
        decisions = DecisionLogs(configuration, enabled=log_decisions)
        stack.callback(decisions.close)
        decision_counters = DecisionCounters(now=clock.now)
        uses = LastUsedTimes(parts.usage, clock=clock, random=secrets.SystemRandom().random) if parts.usage else None
        if uses:
            stack.push_async_callback(uses.close)
        recorders = Recorders(tuple(recorder for recorder in (decision_counters, decisions.recorder, uses, tracing) if recorder))
        authorizer = Authorizer(parts.runtime, recorders, clock=clock, decision_ids=decision_id)
        tls_paths = configuration.tls_files(settings.tls)
        files = TlsFiles(*tls_paths) if tls_paths else None
        certificates = files.load() if files else None
        limits = Limits(**configuration.settings.grpc.model_dump())
        fallback = EnvoyCodec().fixed(Reason.INTERNAL, "0" * 32)  # a denial, whatever envoy.error_response says
        traced = tracing.handler(authorizer.check) if tracing else None
        server = transport.server(authorizer.check, fallback, limits=limits, certificates=certificates, traced=traced)
        worker = Worker(
            configuration=configuration,
            builder=builder,
            parts=parts,
            authorizer=authorizer,
            server=server,
            claimed=claimed,
            transport=transport.name,
            decision_counters=decision_counters,
            recorders=recorders,
            decisions=decisions,
            uses=uses,
            certificates=certificates,
            tracing=tracing,
        )

        async def stop() -> None:
            await server.stop(worker.grace)

        stack.push_async_callback(stop)
        watch = [files.watch(certificates, worker.use_certificates)] if files and certificates else []
        async with worker.background(*watch):
            yield worker
