"""How long a parent waits for its workers, in a loop whose time is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from extauthz.config.loader import Configuration
from extauthz.serve.messages import HandOver, Report, State
from extauthz.serve.supervisor import Supervisor
from extauthz.serve.worker_link import WorkerLink, WorkerSilent
from tests.support.virtual_time import elapse, in_virtual_time, now
from tests.support.worker_in_memory import WorkerInMemory, configured


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return configured(tmp_path, workers=1, drain="10s")


@pytest.fixture
def supervised(configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[WorkerInMemory]]:
    """Return what runs a supervisor for some seconds, and returns the workers."""

    def run(seconds: float, *, then: Callable[[Supervisor], Coroutine[Any, Any, None]], **more: Any) -> list[WorkerInMemory]:
        made: list[WorkerInMemory] = []

        async def start_worker(*_: object) -> WorkerLink:
            made.append(WorkerInMemory(**more))
            return made[-1].link

        async def work() -> None:
            supervisor = Supervisor(configuration, "nghttp2", log_decisions=False)
            await supervisor.start()
            await elapse(seconds)
            await then(supervisor)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        monkeypatch.setattr("extauthz.serve.supervisor.start_worker", start_worker)
        in_virtual_time(work)
        return made

    return run


async def nothing(_: Supervisor) -> None:
    """Leave it."""


def test_a_worker_that_answers_nothing_is_asked_every_three_seconds_and_killed_within_fifteen(
    supervised: Callable[..., list[WorkerInMemory]],
) -> None:
    first, second = supervised(20, then=nothing)
    # Each question is waited for two seconds; nothing was heard for more than ten when the third has come to nothing.
    assert first.asked == [(3, Report()), (8, Report()), (13, Report())]
    assert first.killed == [15]
    assert second.started == 15.1


def test_workers_that_end_at_once_are_started_again_after_pauses_that_grow_to_ten_seconds(
    supervised: Callable[..., list[WorkerInMemory]],
) -> None:
    workers = supervised(60, code=1, then=nothing)
    assert [worker.started for worker in workers] == [0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 22.7, 32.7, 42.7, 52.7]


def test_a_worker_that_does_not_end_is_killed_five_seconds_after_its_drain(supervised: Callable[..., list[WorkerInMemory]]) -> None:
    async def stop(supervisor: Supervisor) -> None:
        await supervisor.stop()
        assert now() == 1 + 10 + 5

    (worker,) = supervised(1, answer=State(), then=stop)
    assert worker.asked[0] == (1, HandOver())
    assert worker.killed == [16]


def test_what_needs_no_work_is_answered_within_two_seconds() -> None:
    async def work() -> float:
        link = WorkerInMemory().link
        with pytest.raises(WorkerSilent):
            await link.ask(Report())
        lasted = now()
        link.close()
        return lasted

    assert in_virtual_time(work) == 2
