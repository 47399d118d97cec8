"""Replay and the server decide alike: every vector, as a line of the decision log and as a recorded request."""

from __future__ import annotations

import json

import pytest

from extauthz.adapters.decision_log.lines import Lines
from extauthz.core.model import Decision, Request
from extauthz.core.policy import Policy
from extauthz.telemetry.decision_record import RecordField
from extauthz.telemetry.recorded_requests import recorded_request
from extauthz.tools.calls import decided_call, headers_for_upstream, request_of
from extauthz.tools.log_lines import LogLine, RecordedLine, Undecidable, read_line
from extauthz.tools.replay import Replay, outcome_of
from tests.support import vectors
from tests.support.vector_worlds import CHECKS, NOT_RECORDED, Worlds, prepared, worlds
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
REASONS_NOT_RECORDED = {"internal", "request_malformed"}
"""Reasons with which no request is recorded; one whose token holds a scope beyond the vocabulary is not recorded either."""


def replay_of(world: VectorWorld, host: str | None = None) -> Replay:
    """Return what replays lines with the configuration of a world, and knows its tokens."""
    configuration, store = world.world.configuration, world.world.store

    def scopes_of(token_id: str) -> frozenset[str] | None:
        record = store.get(token_id)
        return record.scopes if record else None

    scopes = configuration.settings.scopes
    return Replay(configuration.policy, configuration.providers, scopes, scopes_of=scopes_of, host=host)


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
    if isinstance(found, Undecidable):
        assert reason in LOG_LEAVES_OPEN[found], (about, found)
    else:
        assert found == expected, (about, found)
    without = replay_of(world).decided(line)
    if without is not Undecidable.HOST:
        assert without == found, (about, without)
    else:
        assert policy.hosts, about

    scopes = world.world.configuration.settings.scopes
    recorded = recorded_request(policy, request, decision, world.world.clock.wall, scopes=scopes)
    if recorded is None:
        held = decision.identity.scopes if decision.identity else frozenset()
        assert (reason in REASONS_NOT_RECORDED) + bool(held - set(scopes)) + (about in NOT_RECORDED) == 1, (about, reason)
        return
    again = read_line(json.dumps(recorded).encode())
    assert isinstance(again, RecordedLine), about
    found = replay.decided(again)
    assert found == expected, (about, found)
    calls = replay.calls(again)
    if not isinstance(calls, Undecidable):
        for _, call in calls:
            now = decided_call(policy, call, world.world.clock.wall)
            headers = headers_for_upstream(request_of(policy, call), now)
            assert _identity(headers, policy) == _identity(headers_for_upstream(request, decision), policy), about


def _identity(headers: dict[str, str] | None, policy: Policy) -> dict[str, str] | None:
    """Return what the upstream is told of the decision: all other headers are the client's, of which a recording has a few."""
    return headers and {name: value for name, value in headers.items() if name.startswith(policy.identity.prefix)}
