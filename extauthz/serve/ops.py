"""The listeners for operators, and for upstreams: ops, and the keys of internal tokens."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from extauthz.adapters.metrics import render
from extauthz.addresses import Address
from extauthz.config import effective
from extauthz.config.loader import Configuration
from extauthz.process.clock import SystemClock
from extauthz.runtime.codec import build_internal_tokens
from extauthz.serve.inspection import Inspector
from extauthz.serve.messages import Failed, Inspection, Message, State
from extauthz.serve.operators import Inspected, Operators
from extauthz.serve.worker import Worker
from extauthz.telemetry.conditions import Condition, ConditionKey
from extauthz.telemetry.metric_table import Samples, merged
from extauthz.transport.address_claims import AddressClaim, keep
from extauthz.transport.http import key_set, ops
from extauthz.transport.sockets import open_listener, open_port, restricted_umask
from extauthz.transport.tls import TlsFiles


class ServedState(Inspected, Protocol):
    """What a sidecar reports of itself, whether it is this process or several others."""

    async def state(self) -> State:
        """Return figures, readiness and details."""


@dataclass(frozen=True, slots=True)
class SingleProcess:
    """The sidecar that is this process."""

    worker: Worker
    inspector: Inspector

    async def ask_each(self, request: Inspection) -> Mapping[str, Message | None]:
        """Ask this process."""
        answer = await self.inspector.answer(request)
        return {"worker 0": None if isinstance(answer, Failed) else answer}

    async def take(self, configuration: Configuration) -> None:
        """Serve another configuration; raises StoreError and ConfigurationError."""
        self.worker.commit(configuration, await self.worker.prepare(configuration))

    async def reopen(self) -> None:
        """Open the files of logs anew."""
        self.worker.decisions.reopen()

    async def state(self) -> State:
        """Return figures, readiness and details."""
        return self.worker.state()


class ConfigurationStatus(Protocol):
    """The configuration that is served, and whether it is what the files say."""

    @property
    def configuration(self) -> Configuration:
        """What is served."""

    @property
    def problem(self) -> str | None:
        """Why the files are not what is served."""

    @property
    def shown_problem(self) -> str | None:
        """Where, without what may be secret."""

    @property
    def replaced_as_a_whole(self) -> bool:
        """Return whether no file could have been taken half written."""

    def samples(self) -> Samples:
        """Return how reloads went."""


class KeySet:
    """The public keys of internal tokens that belong to the configuration of the moment; each document is made once."""

    def __init__(self, current: Callable[[], Configuration]) -> None:
        """Begin with no document."""
        self._current = current
        self._document: tuple[Configuration, bytes] | None = None

    def __call__(self) -> bytes:
        """Return the document; raises ConfigurationError for keys that cannot be used."""
        configuration = self._current()
        if self._document is None or self._document[0] is not configuration:
            tokens = build_internal_tokens(configuration, configuration.internal_token_keys(os.environ))
            self._document = configuration, tokens.key_set if tokens else b'{"keys": []}'
        return self._document[1]


@contextlib.asynccontextmanager
async def serving_keys(claimed: AddressClaim, files: ConfigurationStatus) -> AsyncIterator[None]:
    """Answer with the keys of internal tokens inside the block; raises ListenError."""
    with contextlib.closing(open_port(claimed.binding, shared=claimed.shared)) as listener:
        async with key_set.serving(listener, KeySet(lambda: files.configuration)):
            claimed.publish(mode="", group=None)
            yield


@contextlib.asynccontextmanager
async def serving_ops(claimed: AddressClaim, served: ServedState, files: ConfigurationStatus) -> AsyncIterator[None]:
    """Answer on the ops listener inside the block, with what its configuration says at the start of it; raises ListenError."""
    configuration, server = files.configuration, files.configuration.settings.server
    tls_paths = configuration.tls_files(server.ops_tls)
    certificate_files = TlsFiles(*tls_paths) if tls_paths else None
    certificates = certificate_files.load(protocol="http/1.1") if certificate_files else None
    asks_for_certificates = server.ops_tls is not None and server.ops_tls.client_ca is not None
    trusted = asks_for_certificates or bool(claimed.address.path)
    pages = _pages(served, files, trusted=trusted)
    http = ops.HttpServer(ops.application(pages), http=ops.BoundedConnection, tls=certificates.context if certificates else None)

    async def listen_again(address: Address) -> None:
        await http.listen_again(open_listener(address))

    with restricted_umask(server.socket_mode) if claimed.address.path else contextlib.nullcontext():
        listener = open_listener(claimed.binding, shared=claimed.shared)
    with contextlib.closing(listener):
        claimed.publish(mode=server.socket_mode, group=server.socket_group)
        tasks = [asyncio.create_task(http.run_on(listener)), asyncio.create_task(keep(claimed, listen_again))]
        if certificate_files and certificates:
            tasks.append(asyncio.create_task(certificate_files.renew(certificates)))
        try:
            yield
        finally:
            http.should_exit = True
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _pages(served: ServedState, files: ConfigurationStatus, *, trusted: bool) -> ops.Pages:
    async def metrics(openmetrics: bool) -> tuple[str, bytes]:
        state = await served.state()
        ready: Samples = {("extauthz_ready", ()): float(all(state.readiness.values()))}
        return render(merged((state.samples, ready, files.samples())), openmetrics=openmetrics)

    async def readiness() -> ops.Readiness:
        state = await served.state()
        conditions = (
            Condition(ConditionKey.CONFIGURATION_CURRENT, files.problem is None),
            Condition(ConditionKey.FILES_REPLACED, files.replaced_as_a_whole),
            Condition(ConditionKey.ENFORCED, not files.configuration.policy.monitored),
        )
        return ops.Readiness(state.readiness, tuple(one.document() for one in (*conditions, *state.details)))

    async def configuration() -> dict[str, object]:
        server = files.configuration.settings.server
        state = await served.state()
        running = {"addresses": [str(address) for address in server.addresses], "problem": files.shown_problem}
        return running | {"transport": state.transport} | effective.explained(files.configuration)

    operators = Operators(served, lambda: files.configuration, started=SystemClock().now())
    return ops.Pages(metrics, readiness, configuration, trusted=trusted, private=operators.pages)
