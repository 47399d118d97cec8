"""What a process that answers checks is made of, and the block in which it does."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator

from extauthz.adapters.envoy import EnvoyCodec
from extauthz.adapters.metrics import Tallies
from extauthz.assembly import Assembly
from extauthz.config.loader import Configuration
from extauthz.core.model import Reason
from extauthz.decision_logging import DecisionLogs
from extauthz.opened_tracing import open_tracing
from extauthz.service import Authorizer
from extauthz.transport.choice import Transport
from extauthz.transport.claims import Claim
from extauthz.transport.limits import Limits
from extauthz.transport.tls import TlsFiles
from extauthz.uses import Uses
from extauthz.worker import Recorders, SystemClock, Worker, decision_id


@contextlib.asynccontextmanager
async def serving(
    configuration: Configuration, transport: Transport, claimed: Claim, *, log_decisions: bool
) -> AsyncIterator[Worker]:
    """Be able to answer at a claimed address inside the block, from `begin` on; raises StoreError and ConfigurationError."""
    settings, clock = configuration.settings.server, SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        tracing = open_tracing(configuration, os.environ, stack, clock=clock)
        assembly = Assembly(clock=clock, tracing=tracing)
        parts = await assembly.open(configuration, stack)
        decisions = DecisionLogs(configuration, enabled=log_decisions)
        stack.callback(decisions.close)
        tallies = Tallies(now=clock.now)
        uses = Uses(parts.usage, clock=clock, random=secrets.SystemRandom().random) if parts.usage else None
        if uses:
            stack.push_async_callback(uses.close)
        recorders = Recorders(tuple(recorder for recorder in (tallies, decisions.current, uses, tracing) if recorder))
        authorizer = Authorizer(parts.runtime, recorders, clock=clock, decision_ids=decision_id)
        named = configuration.tls_files(settings.tls)
        files = TlsFiles(*named) if named else None
        certificates = files.load() if files else None
        limits = Limits(**configuration.settings.grpc.model_dump())
        fallback = EnvoyCodec().fixed(Reason.INTERNAL, "0" * 32)  # a denial, whatever envoy.error_response says
        traced = tracing.handler(authorizer.check) if tracing else None
        server = transport.server(authorizer.check, fallback, limits=limits, certificates=certificates, traced=traced)
        worker = Worker(
            configuration,
            assembly,
            parts,
            authorizer,
            server,
            claimed,
            transport.name,
            tallies,
            recorders,
            decisions,
            uses,
            certificates,
            tracing,
        )

        async def stop() -> None:
            await server.stop(worker.grace)

        stack.push_async_callback(stop)
        watch = [files.watch(certificates, worker.use_certificates)] if files and certificates else []
        async with worker.background(*watch):
            yield worker
