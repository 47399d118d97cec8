"""The figures of docs/scaling.md are those that the model computes, and the model follows the code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fleet_model import EXAMPLES, MAX_LISTENING, USAGE_PERIOD, USED_AGAIN, Fleet, renewals, table
from extauthz.ports import RESOLUTION
from extauthz.telemetry import last_used
from tests.support.project import ROOT

DOCUMENT = ROOT / "docs" / "scaling.md"
ADVISED = EXAMPLES["10,000, as advised"]


def test_the_document_shows_what_the_model_computes() -> None:
    assert table() in DOCUMENT.read_text()


def test_uses_are_told_as_often_as_the_code_tells_them() -> None:
    assert pytest.approx(RESOLUTION * (1 + 1 / 6)) == USED_AGAIN
    assert last_used.INTERVAL == USAGE_PERIOD


def test_every_part_grows_with_the_fleet_and_none_with_the_checks_beyond_its_lifetime() -> None:
    double = replace(ADVISED, sidecars=2 * ADVISED.sidecars)
    assert double.statements == pytest.approx(2 * ADVISED.statements)
    busy = replace(ADVISED, checks=1e9)
    assert busy.read_again == pytest.approx(ADVISED.sidecars * ADVISED.tokens / ADVISED.verdict_ttl)


@pytest.mark.parametrize(("tokens", "checks", "expected"), [(100, 0.0, 0.0), (1, 1e9, 1 / 60), (60, 1.0, 0.5)])
def test_renewals(tokens: int, checks: float, expected: float) -> None:
    assert renewals(tokens, checks, 60.0) == pytest.approx(expected)


def test_a_listening_fleet_without_changes_only_polls() -> None:
    assert Fleet(sidecars=MAX_LISTENING, changes=0.0).feed_period == 2.0
