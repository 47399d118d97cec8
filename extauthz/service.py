"""From bytes to bytes: one snapshot, plan, evidence, decide, record; and the fence around all of it.

An empty CheckResponse, or one without a status, is an ALLOW for Envoy, and a gRPC error can become one. So nothing leaves this
module but a finished answer, or one of the denials that the codec serialised and checked at start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, decide, monitored, plan
from extauthz.core.model import Decision, Deny, Identity, Reason, Request
from extauthz.core.policy import Policy
from extauthz.errors import Unavailable
from extauthz.ports import Clock, Codec, Evidence, Recorder, Verifier

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """One immutable snapshot of all that decides. `check_timeout` is in seconds, `max_in_flight` bounds the checks that wait."""

    policy: Policy
    verifiers: Mapping[Kind, Verifier]
    codec: Codec
    check_timeout: float
    max_in_flight: int


class Authorizer:
    """Answers checks; `check` is what every transport serves."""

    def __init__(
        self,
        runtime: Runtime,
        recorder: Recorder,
        *,
        clock: Clock,
        decision_ids: Callable[[], str],
    ) -> None:
        """Take the snapshot and the ports."""
        self._runtime = runtime
        self._recorder = recorder
        self._clock = clock
        self._decision_ids = decision_ids
        self.in_flight = 0
        self.shed = 0

    def swap(self, runtime: Runtime) -> None:
        """Serve another snapshot from the next check on."""
        self._runtime = runtime

    def check(self, data: bytes) -> bytes | Awaitable[bytes]:
        """Answer one serialised CheckRequest: at once from memory, else as an awaitable. Never raises."""
        runtime = self._runtime
        started = self._clock.monotonic()
        decision_id = "0" * 32
        request = None
        try:
            decision_id = self._decision_ids()
            request = runtime.codec.read(data, decision_id)
            if request is None:
                return self._refuse(runtime, None, Reason.REQUEST_MALFORMED, decision_id, started)
            planned = plan(runtime.policy, request)
            if not isinstance(planned, Plan):
                return self._answer(runtime, request, planned, started)
            credential = planned.credential
            try:
                evidence = runtime.verifiers[credential.kind].verify(credential.token, self._clock.now())
            except Unavailable as unavailable:
                evidence = unavailable.reason
            if not isinstance(evidence, (Identity, Reason)):
                if self.in_flight >= runtime.max_in_flight:
                    self.shed += 1
                    return self._answer(
                        runtime, request, Deny(Reason.OVERLOADED, planned.route.name, kind=credential.kind), started
                    )
                return self._wait(runtime, planned, evidence, started)
            return self._answer(runtime, request, decide(planned, evidence, self._clock.now()), started)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - the fence; nothing here waits, so no cancellation is the stream's
            return self._refuse(runtime, request, Reason.INTERNAL, decision_id, started)

    async def _wait(self, runtime: Runtime, planned: Plan, pending: Awaitable[Evidence], started: float) -> bytes:
        request = planned.request
        self.in_flight += 1
        try:
            evidence = await self._bounded(pending, started + runtime.check_timeout)
            return self._answer(runtime, request, decide(planned, evidence, self._clock.now()), started)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this stream was cancelled but something of ours.
            return self._refuse(runtime, request, Reason.DRAINING, request.decision_id, started, planned.credential.kind)
        except Exception:  # noqa: BLE001 - the fence
            return self._refuse(runtime, request, Reason.INTERNAL, request.decision_id, started)
        finally:
            self.in_flight -= 1

    async def _bounded(self, pending: Awaitable[Evidence], deadline: float) -> Evidence:
        """Wait without cancelling: what comes too late for this check still serves the next one."""
        work = asyncio.ensure_future(pending)
        done, _ = await asyncio.wait({work}, timeout=max(0.0, deadline - self._clock.monotonic()))
        if not done:
            return Reason.CHECK_TIMEOUT
        if work.cancelled():
            return Reason.DRAINING  # the process is ending
        try:
            return work.result()
        except Unavailable as unavailable:
            return unavailable.reason

    def _answer(self, runtime: Runtime, request: Request, decision: Decision, started: float) -> bytes:
        if runtime.policy.monitored:
            decision = monitored(runtime.policy, request, decision)
        answer = runtime.codec.write(request, decision)
        self._record(request, decision, started)
        return answer

    def _refuse(
        self,
        runtime: Runtime,
        request: Request | None,
        reason: Reason,
        decision_id: str,
        started: float,
        kind: Kind | None = None,
    ) -> bytes:
        if reason is Reason.INTERNAL:
            _log.exception("check failed", extra={"decision_id": decision_id})
        unreadable = Request(method="", path="", host="", headers={}, raw=False, decision_id=decision_id)
        self._record(request or unreadable, Deny(reason, kind=kind), started)
        if request is not None:
            try:
                return runtime.codec.write(request, Deny(reason))
            except Exception:  # noqa: BLE001 - the fixed denial needs nothing
                _log.exception("denial not written", extra={"decision_id": decision_id})
        return runtime.codec.fixed(reason, decision_id)

    def _record(self, request: Request, decision: Decision, started: float) -> None:
        try:
            self._recorder.record(request, decision, self._clock.monotonic() - started)
        except Exception:  # noqa: BLE001 - a decision that is made stands
            _log.exception("decision not recorded")
