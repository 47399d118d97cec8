"""Replay and the server decide alike: every vector, as a line of the decision log and as a recorded request."""

from __future__ import annotations

import json
import shlex

import pytest

from extauthz.adapters.decision_log.lines import Lines
from extauthz.core.credentials import AUTHORIZATION, Kind
from extauthz.core.decide import Plan, plan
from extauthz.core.model import AuthType, Decision, Reason, Request
from extauthz.core.policy import Policy
from extauthz.telemetry.decision_record import RecordField
from extauthz.tools.calls import decided_call, headers_for_upstream, request_of
from extauthz.tools.log_lines import LogLine, RecordedLine, Undecidable, read_line
from extauthz.tools.replay import Replay, outcome_of
from tests.support import vectors
from tests.support.vector_worlds import CHECKS, Worlds, prepared, worlds
from tests.support.vectors import VectorWorld

__all__ = ["worlds"]

LINES = Lines([field.value for field in RecordField], {})

LOG_LEAVES_OPEN = {
    Undecidable.NOT_BY_POLICY: {"internal"},
    Undecidable.ACT_AS: {"act_as_forbidden"},
    Undecidable.CUT: {"allowed", "identity_too_long"},
    Undecidable.PREFLIGHT: {"public", "credential_missing", "method_in_query", "method_not_allowed", "path_ambiguous"},
    Undecidable.SCOPES: {"allowed"},
    Undecidable.TOKEN_NOT_VERIFIED: {"credential_disabled", "token_malformed"},
}
"""What a line of the decision log does not say even to the configuration that wrote it, by the reasons of such lines."""
RECORDING_LEAVES_OPEN = {Undecidable.NOT_BY_POLICY: {"internal"}, Undecidable.TOKEN_NOT_VERIFIED: {"credential_disabled"}}


def replay_of(world: VectorWorld, host: str | None = None) -> Replay:
    """Return what replays lines with the configuration of a world, and knows its tokens."""
    configuration, store = world.world.configuration, world.world.store

    def scopes_of(token_id: str) -> frozenset[str] | None:
        record = store.get(token_id)
        return record.scopes if record else None

    scopes = configuration.settings.scopes
    return Replay(configuration.policy, configuration.providers, scopes, scopes_of=scopes_of, host=host)


def recorded(policy: Policy, request: Request, decision: Decision) -> bytes:
    """Return what `extauthz record` writes of a request: with its caller described in place of the credential."""
    line = {
        "version": 1,
        "method": request.method,
        "path": request.path,
        "host": request.host,
        "headers": {name: value for name, value in request.headers.items() if name != AUTHORIZATION},
        "caller": described(policy, request, decision),
        **dict(zip(("decision", "reason", "route"), outcome_of(decision), strict=True)),
        "time": 1.0,
    }
    return json.dumps(line).encode()


def described(policy: Policy, request: Request, decision: Decision) -> str:
    """Describe a caller as `tools/callers.py` reads it."""
    planned = plan(policy, request)
    if not isinstance(planned, Plan):
        return "nobody"
    identity = decision.identity
    if identity is None or decision.reason is Reason.TOKEN_EXPIRED:
        return f"{'oauth' if planned.credential.kind is Kind.OAUTH else 'GLOBAL'} reason={decision.reason}"
    words = {"scopes": ",".join(sorted(identity.scopes))} | ({"user": identity.user} if identity.user else {})
    if identity.auth_type is AuthType.OAUTH:
        _, provider, subject = identity.actor.split(":", 2)
        words |= {"provider": provider, "subject": subject, "client": identity.client_id or ""}
    else:
        words |= {"token": identity.token_id or ""}
    name = "oauth" if identity.auth_type is AuthType.OAUTH else identity.auth_type
    return " ".join((name, *(f"{key}={shlex.quote(value)}" for key, value in words.items() if value)))


GROUPS = {(case.file, case.group): [] for case in CHECKS}
for _case in CHECKS:
    GROUPS[_case.file, _case.group].append(_case)


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_vectors_are_decided_as_the_server_did(group: tuple[str, str], worlds: Worlds) -> None:
    for case in GROUPS[group]:
        world = worlds(case)
        for message in vectors.requests(world.fill(prepared(case, world))).values():
            world.ask(message)
            _is_decided_alike(world, world.world.recorder.requests[-1], world.world.recorder.decisions[-1], str(case))


def _is_decided_alike(world: VectorWorld, request: Request, decision: Decision, about: str) -> None:
    policy = world.world.configuration.policy
    expected, reason = outcome_of(decision), decision.reason.value
    replay = replay_of(world, request.host)

    line = read_line(LINES.line(world.world.clock.wall, request, decision, 0.0))
    assert isinstance(line, LogLine), about
    found = replay.decided(line)
    assert found == expected or (isinstance(found, Undecidable) and reason in LOG_LEAVES_OPEN[found]), (about, found)
    # Without its host a request is decided alike or not at all.
    without = replay_of(world).decided(line) if policy.hosts else found
    assert without in (found, Undecidable.HOST), (about, without)

    again = read_line(recorded(policy, request, decision))
    assert isinstance(again, RecordedLine), about
    found = replay.decided(again)
    assert found == expected or (isinstance(found, Undecidable) and reason in RECORDING_LEAVES_OPEN[found]), (about, found)
    calls = replay.calls(again)
    if found == expected and not isinstance(calls, Undecidable):
        for _, call in calls:
            headers = headers_for_upstream(request_of(policy, call), decided_call(policy, call, 1.0))
            assert _without_token(headers, policy) == _without_token(headers_for_upstream(request, decision), policy), about


def _without_token(headers: dict[str, str] | None, policy: Policy) -> dict[str, str] | None:
    """Return headers without those that stand for the token, where a configuration keeps them for the upstream."""
    return headers and {name: value for name, value in headers.items() if name not in (AUTHORIZATION, policy.auth_types.header)}
