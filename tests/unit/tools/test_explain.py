"""Explanations: the same decision as the server's for every vector, one check for each reason, and no secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest

from extauthz.adapters.decision_log.lines import Lines
from extauthz.adapters.envoy.check_files import request_in
from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, plan
from extauthz.core.model import ALLOWING, Identity, Reason
from extauthz.ports import Verifier
from extauthz.telemetry.decision_record import RecordField
from extauthz.telemetry.recorded_requests import recorded_request
from extauthz.tools.described import described
from extauthz.tools.explain import explain, step_of
from extauthz.tools.explain_model import REASONS_OF, STEP_OF, CheckOutcome, Explanation, Step
from extauthz.tools.explain_view import DECISION_ID_SHOWN
from extauthz.tools.log_lines import line_in
from extauthz.tools.verifying import evidence_of
from tests.support import vectors
from tests.support.vector_worlds import CHECKS, NOT_RECORDED, Worlds, prepared, worlds
from tests.support.vectors import VectorWorld
from tests.support.world import DECISION_ID, NOW, Answer

__all__ = ["worlds"]

LOG = Lines(frozenset(field.value for field in RecordField), {})


@pytest.mark.parametrize("name", sorted({case.file for case in CHECKS}))
def test_every_vector_is_explained_as_it_is_answered(name: str, worlds: Worlds) -> None:
    verifiers: dict[int, Mapping[Kind, Verifier]] = {}
    cases = [case for case in CHECKS if case.file == name]
    assert len(cases) > 5
    for case in cases:
        world = worlds(case)
        data = world.fill(prepared(case, world))
        if id(world) not in verifiers:
            verifiers[id(world)] = world.world.build().runtime.verifiers
        for form, message in vectors.requests(data).items():
            answer = world.ask(message)
            found = _explained(world, verifiers[id(world)], message, answer)
            context = f"{case}: {case.rule}\n{form}: {case.data}\n{found}"
            assert found.decision is not None, context
            assert (found.decision.outcome, found.reason) == (answer.decision.outcome, answer.decision.reason), context
            if str(case) not in NOT_RECORDED:  # whoever is named there could be a token, and is hidden
                assert _sets(found) == (answer.headers if answer.allowed else {}), context
            assert set(found.removed) <= set(answer.removed), context
            _is_in_order(found, message)
        assert _of_the_log(world) == (found.outcome, found.reason), context


def _of_the_log(world: VectorWorld) -> tuple[str, Reason | None]:
    """Explain the line that the last decision becomes: what it does not keep is assumed so that its reason comes out again."""
    recorder, configuration = world.world.recorder, world.world.configuration
    line = LOG.line(NOW, recorder.requests[-1], recorder.decisions[-1], 0.0).decode()
    told = described(configuration, line_in(line))
    assert (told.reason, told.moment) == (recorder.decisions[-1].reason, NOW)
    found = explain(configuration, told.request, told.evidence, NOW)
    return found.outcome, found.reason


@pytest.mark.parametrize("name", ["routes", "order", "act_as"])
def test_what_was_recorded_is_explained_as_it_was_answered(name: str, worlds: Worlds) -> None:
    found, answered = [], []
    for case in [case for case in CHECKS if case.file == name][::3]:
        world = worlds(case)
        configuration, recorder = world.world.configuration, world.world.recorder
        world.ask(next(iter(vectors.requests(world.fill(prepared(case, world))).values())))
        request, decision = recorder.requests[-1], recorder.decisions[-1]
        now, scopes = world.world.clock.now(), configuration.settings.scopes
        made = recorded_request(configuration.policy, request, decision, now, scopes=scopes)
        if made is not None:
            told = described(configuration, line_in(json.dumps(made)))
            explained = explain(configuration, told.request, told.evidence, now)
            found.append((str(case), explained.outcome, explained.reason))
            answered.append((str(case), decision.outcome, decision.reason))
    assert len(found) > 20
    assert found == answered


def _explained(world: VectorWorld, verifiers: Mapping[Kind, Verifier], message: bytes, answer: Answer) -> Explanation:
    configuration, clock = world.world.configuration, world.world.clock
    request = request_in(message)
    planned = plan(configuration.policy, request) if request is not None else None
    evidence: Identity | Reason | None = None
    if isinstance(planned, Plan):
        if answer.decision.reason is Reason.OVERLOADED:  # which checks wait at the same time, no request tells
            evidence = Reason.OVERLOADED
        else:
            seconds = configuration.settings.server.check_timeout
            evidence = asyncio.run(evidence_of(verifiers, planned.credential, clock, seconds=seconds))
    return explain(configuration, request, evidence, clock.now())


def _sets(found: Explanation) -> dict[str, str]:
    return {
        header.name: DECISION_ID if header.value == DECISION_ID_SHOWN else header.value
        for header in found.headers
        if header.value is not None
    }


def _is_in_order(found: Explanation, message: bytes) -> None:
    """Whatever came before the check that decided was passed, and nothing behind it was reached."""
    assert [check.step for check in found.checks] == list(Step)
    request, decision = request_in(message), found.decision
    assert decision is not None
    last = Step.REQUEST if request is None else step_of(request, decision)
    place = list(Step).index(last)
    before, decided, behind = found.checks[:place], found.checks[place], found.checks[place + 1 :]
    assert {check.outcome for check in before} - {CheckOutcome.PASSED, CheckOutcome.NOT_NEEDED} == set()
    assert decided.outcome is (CheckOutcome.PASSED if decision.reason in ALLOWING else CheckOutcome.FAILED)
    assert {check.outcome for check in behind} - {CheckOutcome.NOT_REACHED, CheckOutcome.NOT_NEEDED} == set()
    assert bool(found.remedies) is (decision.reason not in ALLOWING)


def test_each_reason_belongs_to_one_check() -> None:
    listed = [reason for reasons in REASONS_OF.values() for reason in reasons]
    assert sorted(listed) == sorted(Reason)
    assert set(STEP_OF) == set(Reason)
    assert list(REASONS_OF) == list(Step)
