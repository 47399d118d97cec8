"""What is read beside the loop is read with rests, and the same comes of it."""

from __future__ import annotations

import gc
import threading

import pytest

from extauthz.config.files import Files
from extauthz.config.loader import Configuration
from extauthz.config.pacing import REST, beside_the_loop, paced
from extauthz.process import memory
from extauthz.serve.messages import Prepare
from extauthz.serve.reload import Reloader
from extauthz.serve.worker_process import _next_configuration
from tests.support.watched_files import FAILURES, MORE, ROUTES, Watched, files

__all__ = ["files"]

USUAL = gc.get_threshold()


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, threading.Thread]]:
    """Each rest, its seconds and its thread: there is one behind each item."""
    found: list[tuple[float, threading.Thread]] = []
    monkeypatch.setattr("extauthz.config.pacing.RUN", 0.0)
    monkeypatch.setattr("extauthz.config.pacing.sleep", lambda seconds: found.append((seconds, threading.current_thread())))
    return found


def test_a_rest_comes_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.0004, 0.0005, 2.0, 2.0001, 2.0004, 2.0006, 3.0])
    found: list[float] = []
    monkeypatch.setattr("extauthz.config.pacing.monotonic", lambda: next(moments))
    monkeypatch.setattr("extauthz.config.pacing.sleep", found.append)
    rested = []
    with beside_the_loop():
        for _ in paced(range(5)):
            rested.append(len(found))
    assert rested == [0, 0, 1, 1, 1]
    assert found == [REST, REST]


def test_nothing_rests_elsewhere(rests: list[tuple[float, threading.Thread]], files: Watched) -> None:
    """At the start and on the command line nobody waits for a turn."""
    with beside_the_loop():
        pass
    items = [1, 2]
    assert paced(items) is items
    assert files.reloader.configuration.route_places
    assert rests == []


async def test_a_reload_rests_in_its_thread_in_all_that_grows_with_the_routes(
    rests: list[tuple[float, threading.Thread]], files: Watched
) -> None:
    reloader, lengths = files.reloader, []
    for count in (100, 200):
        files.write(routes=ROUTES + "".join(f'  - {{match: "GET /v{count}/{n}/{{id}}", scope: CHAT}}\n' for n in range(count)))
        await reloader.reload()
        lengths.append(len(rests))
        rests.clear()
        await reloader.reload()
        assert threading.main_thread() not in {thread for _, thread in rests}
        rests.clear()
    # Six events of YAML for each line, the line itself, and eight looks at all routes.
    assert (lengths[1] - lengths[0]) / 100 >= 12
    assert len(files.taken[-1].route_places) == 201


def test_a_worker_rests_too(rests: list[tuple[float, threading.Thread]], files: Watched) -> None:
    contents = files.reloader.configuration.files.contents
    configuration = _next_configuration(Prepare(files.folder / "extauthz.yaml", contents))
    assert configuration.route_places
    assert rests


class Observed(Reloader):
    """A reloader that looks how memory is looked through while it reads."""

    thresholds: tuple[int, ...] = ()

    def _load(self, files: Files) -> Configuration:
        self.thresholds = gc.get_threshold()
        return super()._load(files)


@pytest.mark.parametrize("error", [None, *FAILURES], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("routes", [MORE, "routes: ["], ids=["right", "wrong"])
async def test_no_full_collection_holds_the_loop_up_while_files_are_read(
    files: Watched, routes: str, error: Exception | None
) -> None:
    observed = Observed(files.reloader.configuration, files.take, environment={}, now=lambda: 1_000.0)
    files.error = error
    files.write(routes=routes)
    await observed.reload()
    assert observed.thresholds == (*USUAL[:2], 2**31 - 1)
    assert gc.get_threshold() == USUAL


def test_blocks_that_overlap_leave_the_usual_thresholds() -> None:
    """A worker may be told to prepare something else while it still reads."""
    first, second = memory.without_full_collections(), memory.without_full_collections()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == USUAL


def test_what_was_made_beside_the_loop_is_not_looked_through_later() -> None:
    """A full collection of 10,000 routes would hold the loop up for 15 ms, some time after the reload."""
    made, frozen = [], gc.get_freeze_count()
    with memory.without_full_collections():
        made = [[number] for number in range(1000)]
    assert not any(one is each for one in gc.get_objects() for each in made[:1])
    gc.unfreeze()
    try:
        assert any(one is made[0] for one in gc.get_objects())
    finally:
        # What the whole session has put aside, or every later collection looks through all tests.
        if frozen:
            gc.freeze()


def test_a_configuration_goes_when_nobody_holds_it(files: Watched) -> None:
    """No collection looks at it any more, so that a circle in it would stay for ever."""
    gc.collect()
    configuration = files.reloader._load(Files())
    assert configuration.policy.act_as.permits("ana@acme.com")
    gc.disable()
    try:
        del configuration
        assert gc.collect() == 0
    finally:
        gc.enable()
