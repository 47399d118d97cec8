"""A worker that ends while others take a configuration: one that was told to is not taken for one that answers nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.config.loader import Configuration
from extauthz.serve.messages import Commit, Discard, Done, Message, Prepare
from extauthz.serve.reload import ReloadRefused
from extauthz.serve.supervisor import LAST_WORDS, Supervisor
from tests.support.virtual_time import in_virtual_time
from tests.support.worker_in_memory import WorkerInMemory, configured


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return configured(tmp_path, workers=2)


@pytest.mark.parametrize(
    ("told", "gone_at", "ends_after", "taken", "killed_at"),
    [
        (True, Prepare, 1.0, True, None),
        (True, Commit, 1.0, True, None),
        (True, Prepare, LAST_WORDS - 0.5, True, None),
        (True, Prepare, None, False, LAST_WORDS),
        (True, Commit, None, True, LAST_WORDS),
        (False, Prepare, 1.0, False, 0.0),
        (False, Commit, 1.0, True, 0.0),
    ],
)
def test_who_was_told_to_end_keeps_nobody_from_taking_a_configuration(
    configuration: Configuration, told: bool, gone_at: type[Message], ends_after: float | None, taken: bool, killed_at: float | None
) -> None:
    async def work() -> tuple[bool, WorkerInMemory, WorkerInMemory]:
        supervisor = Supervisor(configuration, "nghttp2", log_decisions=False)
        other, ending = WorkerInMemory(Done()), WorkerInMemory(Done(), gone_at=gone_at, ends_after=ends_after)
        for slot, worker in zip(supervisor._slots, (other, ending), strict=True):
            slot.running = worker.link
            slot.running.is_ending = told and worker is ending
        try:
            await supervisor.take(replace(configuration))
        except ReloadRefused:
            return False, other, ending
        return True, other, ending

    was_taken, other, ending = in_virtual_time(work)
    assert (was_taken, ending.killed, other.killed) == (taken, [] if killed_at is None else [killed_at], [])
    asked_other, asked_ending = ([type(message) for _, message in worker.asked] for worker in (other, ending))
    assert asked_other == [Prepare, Commit if taken else Discard]
    assert asked_ending.count(Commit) == (gone_at is Commit)
