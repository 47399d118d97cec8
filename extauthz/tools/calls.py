"""Described requests, decided by the steps that serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from extauthz.core.credentials import AUTHORIZATION, Credential, Kind
from extauthz.core.decide import Plan, decide, monitored, plan
from extauthz.core.model import DECISION_ID, Allow, Decision, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.core.policy import Policy
from extauthz.tools.callers import NOBODY, Caller
from extauthz.tools.masking import PLACEHOLDER


@dataclass(frozen=True, slots=True)
class Call:
    """A request that somebody describes: `path` with its query as a client sends it, header names in lower case."""

    method: str
    path: str
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    caller: Caller = NOBODY


def request_of(policy: Policy, call: Call) -> Request:
    """Return the request as Envoy would describe it; a described caller sends a placeholder as its token."""
    types = policy.auth_types
    headers = dict(call.headers)
    if call.caller.kind is not None:
        prefix = types.issued[0] if call.caller.kind is Kind.ISSUED and not types.header and types.issued else ""
        headers[AUTHORIZATION] = f"Bearer {prefix}{PLACEHOLDER}"
        if types.header:
            headers |= {types.header: types.oauth} if call.caller.kind is Kind.OAUTH else {}
    return Request(call.method, call.path, call.host, headers, raw=True, decision_id=DECISION_ID)


def sent_by(policy: Policy, request: Request, who: Caller) -> Request:
    """Return a request as a described caller sends it, in place of the token that it has."""
    own = {AUTHORIZATION, policy.auth_types.header}
    kept = {name: value for name, value in request.headers.items() if name not in own}
    return replace(request, headers=request_of(policy, Call(request.method, request.path, request.host, kept, who)).headers)


def decided(policy: Policy, request: Request, evidence: Callable[[Credential], Identity | Reason], now: float) -> Decision:
    """Decide a request; `evidence` says what verifying a credential comes to, `now` is in seconds since the epoch."""
    planned = plan(policy, request)
    decision = decide(planned, evidence(planned.credential), now) if isinstance(planned, Plan) else planned
    return monitored(policy, request, decision) if policy.monitored else decision


def decided_call(policy: Policy, call: Call, now: float) -> Decision:
    """Decide a described request."""
    evidence = call.caller.evidence

    def described(_: Credential) -> Identity | Reason:
        return Reason.TOKEN_UNKNOWN if evidence is None else evidence

    return decided(policy, request_of(policy, call), described, now)


def headers_for_upstream(request: Request, decision: Decision) -> dict[str, str] | None:
    """Return the headers that the upstream gets, by lower-case names, in the order of the request; None for a refusal.

    What Envoy and other filters add is not in it, nor an internal token. The id of the decision is DECISION_ID.
    """
    if not isinstance(decision, (Allow, WouldDeny)):
        return None
    edits: HeaderEdits = decision.edits
    kept = {name: value for name, value in request.headers.items() if name not in edits.remove}
    return kept | dict(edits.set)
