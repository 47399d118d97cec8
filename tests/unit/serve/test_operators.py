"""What operators ask on the ops listener: recent decisions of all workers, and one recording at a time that ends by itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import pytest
import yaml

from extauthz.adapters.decision_log.ring import DecisionRing, FoundDecisions
from extauthz.config.loader import Configuration, load
from extauthz.core.model import Decision, Deny, Reason, Request
from extauthz.serve.inspection import Inspector
from extauthz.serve.messages import EndRecording, Failed, FindDecisions, Inspection, Message, StartRecording, TakeRecorded
from extauthz.serve.operators import MAX_NUMBER, MAX_SECONDS, WRITTEN_AT_ONCE, Operators
from extauthz.serve.recording import LEASE
from extauthz.serve.worker import Worker
from extauthz.telemetry.recorders import Recorders
from tests.support.virtual_time import in_virtual_time

SETTINGS: dict[str, Any] = {
    "version": 1,
    "server": {"listen": "127.0.0.1:9001", "recording": True},
    "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    "scopes": ["SEARCH"],
    "routes": ["routes.yaml"],
}
DENIED = Deny(Reason.ROUTE_UNKNOWN)


def configured(folder: Path, server: Mapping[str, Any] | None = None, **changes: Any) -> Configuration:
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    settings = SETTINGS | {"server": SETTINGS["server"] | (server or {})} | changes
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return load(folder / "extauthz.yaml")


@dataclass
class Process:
    """A process that answers checks, as far as it is asked."""

    configuration: Configuration
    recorders: Recorders = field(default_factory=lambda: Recorders(()))
    silent: bool = False
    decisions: Process = field(init=False)
    recent: DecisionRing = field(init=False)
    inspector: Inspector = field(init=False)

    def __post_init__(self) -> None:
        fields = self.configuration.settings.decision_log.written_fields
        self.decisions, self.recent = self, DecisionRing(100, 100, fields)
        self.inspector = Inspector(cast("Worker", self))

    def check(self, number: int, path: str = "/a", decision: Decision = DENIED, **headers: str) -> None:
        """Record one decision."""
        request = Request("GET", path, "api.acme.com", headers, raw=True, decision_id=f"{number:032x}")
        # The ring takes one in a millisecond where the log makes no line.
        self.recent.keep(number, request.decision_id, b'{"time": %d, "reason": "route_unknown"}\n' % number, decision)
        self.recorders.record(request, decision, 0.0)


@dataclass
class Fleet:
    """All processes of a sidecar, and its pages."""

    processes: list[Process]
    asked: list[Inspection] = field(default_factory=list)
    pages: Any = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew with the pages, as a parent does that was restarted and has forgotten everything."""
        self.pages = Operators(self, lambda: self.processes[0].configuration, started=7.0).pages

    async def ask_each(self, request: Inspection) -> Mapping[str, Message | None]:
        """Ask each process."""
        self.asked.append(request)
        answers: dict[str, Message | None] = {}
        for index, process in enumerate(self.processes):
            answer = None if process.silent else await process.inspector.answer(request)
            answers[f"worker {index}"] = None if isinstance(answer, Failed) else answer
        return answers

    def reload(self, configuration: Configuration) -> None:
        """Let every process serve another configuration."""
        for process in self.processes:
            process.configuration = configuration

    async def page(self, path: str, **query: object) -> tuple[int, Any]:
        """Ask for a page."""
        status, kind, body = await self.pages[path].answer(urlencode(query))
        return status, json.loads(body) if kind == "application/json" else body.decode()

    async def start(self, **query: object) -> str:
        """Start a recording."""
        status, answer = await self.page("/recording/start", **query)
        assert status == 200, answer
        return str(answer["recording"])

    @property
    def is_recording(self) -> bool:
        """Whether anything hears of decisions."""
        return any(process.recorders.recorders for process in self.processes)


@dataclass
class HeldFleet(Fleet):
    """A sidecar that answers each question when it is let."""

    held: asyncio.Queue[asyncio.Future[None]] = field(default_factory=asyncio.Queue)

    async def ask_each(self, request: Inspection) -> Mapping[str, Message | None]:
        """Ask each process, when the future that is put into the queue is done."""
        let = asyncio.get_running_loop().create_future()
        self.held.put_nowait(let)
        await let
        return await super().ask_each(request)


@dataclass
class ReadyFleet(Fleet):
    """A sidecar that has its answer without a turn of the loop."""

    found: FoundDecisions = field(default_factory=lambda: FoundDecisions([]))

    async def ask_each(self, request: Inspection) -> Mapping[str, Message | None]:
        """Answer as one worker."""
        return {"worker 0": self.found}


def fleet(folder: Path, count: int = 2, server: Mapping[str, Any] | None = None, **changes: Any) -> Fleet:
    return Fleet([Process(configured(folder, server, **changes)) for _ in range(count)])


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    in_virtual_time(work)


# --- recent decisions


def test_the_decisions_of_all_workers_are_merged_by_time(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        for number in range(10):
            made.processes[number % 2].check(number)
        status, answer = await made.page("/decisions")
        assert (status, answer["workers"]) == (200, {"asked": 2, "answered": 2})
        assert [record["time"] for record in answer["decisions"]] == list(range(9, -1, -1))
        assert answer["started"] == 7.0
        assert answer["decisions"][0]["decision_id"] == f"{9:032x}"
        _, answer = await made.page("/decisions", limit=3)
        assert [record["time"] for record in answer["decisions"]] == [9, 8, 7]
        _, answer = await made.page("/decisions", id=f"{4:032X}")
        assert [record["time"] for record in answer["decisions"]] == [4]

    run(work)


def test_a_worker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        for index in (0, 1):
            made.processes[index].check(index)
        made.processes[1].silent = True
        _, answer = await made.page("/decisions")
        assert answer["workers"] == {"asked": 2, "answered": 1, "silent": ["worker 1"]}
        assert [record["time"] for record in answer["decisions"]] == [0]

    run(work)


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ({"raison": "x"}, "unknown parameter 'raison', did you mean 'reason'?\n"),
        ({"zzz": "x"}, "unknown parameter 'zzz': write reason, route, user, id, limit\n"),
        ({"recording": "x"}, "unknown parameter 'recording': write reason, route, user, id, limit\n"),
        ({"reason": "scope_mising"}, "'scope_mising' is no reason, did you mean 'scope_missing'?\n"),
        ({"reason": "?"}, "'?' is no reason: docs/reference.md lists them\n"),
        ({"limit": "0"}, "limit=0: write a number from 1 to 1,000\n"),
        ({"limit": "1001"}, "limit=1001: write a number from 1 to 1,000\n"),
        ({"limit": "-1"}, "limit=-1: write a number from 1 to 1,000\n"),
        ({"limit": "٣"}, "limit=٣: write a number from 1 to 1,000\n"),
        ({"id": "abc"}, "id=abc: write the 32 hex digits of a decision id\n"),
        ({"user": ""}, "user has no value: write 1 to 512 characters\n"),
        ({"route": "a" * 513}, "route has a value that is too long: write 1 to 512 characters\n"),
        ({"route": "a" * 9000}, "the query is too long: at most 8,192 characters are read\n"),
        ({f"a{number}": 1 for number in range(20)}, "too many parameters: at most 16 are read\n"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_query_that_cannot_be_answered_is_400_with_a_hint(tmp_path: Path, query: dict[str, str], hint: str) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        assert await made.page("/decisions", **query) == (400, hint)

    run(work)


ANA = {"user": "ana@acme.com", "route": "POST /Search", "reason": "scope_missing"}


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("", True),
        ("user=ana@acme.com", True),
        ("user=ANA@Acme.com", True),  # an address is compared in lower case, as the log has it
        ("user=bob@acme.com", False),
        ("route=POST /Search", True),
        ("route=POST /search", False),
        ("route=post /Search", False),
        ("reason=scope_missing&user=ana@acme.com", True),
        ("reason=allowed&user=ana@acme.com", False),
        (f"id={0xABC:032x}", True),
        (f"id={0xABC:032X}", True),
        (f"id={0xABD:032x}", False),
        ("user=%ff", False),
        (f"user={'a' * 512}", False),
    ],
)
def test_a_query_is_answered_with_what_fits_all_of_it(tmp_path: Path, query: str, is_found: bool) -> None:
    made = fleet(tmp_path, 1)
    line = json.dumps({"time": 1.0} | ANA).encode()
    made.processes[0].recent.keep(1.0, f"{0xABC:032x}", line, DENIED)

    async def work() -> None:
        status, _, body = await made.pages["/decisions"].answer(query)
        assert (status, bool(json.loads(body)["decisions"])) == (200, is_found)

    run(work)


def test_a_query_has_a_bound_and_whatever_is_shorter_is_read(tmp_path: Path) -> None:
    made = fleet(tmp_path, 1)
    letter = "%F0%9F%98%80"
    longest = f"route={letter * 512}&user={letter * 169}{'a' * 8}"
    assert len(longest) == 8_192

    async def work() -> None:
        assert (await made.pages["/decisions"].answer(longest))[0] == 200
        status, _, body = await made.pages["/decisions"].answer(f"{longest}a")
        assert (status, body) == (400, b"the query is too long: at most 8,192 characters are read\n")

    run(work)


@pytest.mark.parametrize("query", ["limit=1&limit=2", "user=a&user=b", "user=a&user=a", "reason=allowed&limit=1&reason=allowed"])
def test_what_is_asked_for_twice_is_no_question(tmp_path: Path, query: str) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        status, _, body = await made.pages["/decisions"].answer(query)
        assert (status, body) == (400, f"{query.partition('=')[0]} is there twice: keep one\n".encode())

    run(work)


def test_a_hundred_are_shown_unless_more_are_asked_for(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        for number in range(150):
            made.processes[number % 2].check(number)
        shown = [len((await made.page("/decisions", **query))[1]["decisions"]) for query in ({}, {"limit": 120}, {"limit": 1000})]
        assert shown == [100, 120, 150]

    run(work)


@pytest.mark.parametrize("name", ["user", "route", "reason"])
def test_nobody_learns_by_asking_what_the_log_leaves_out(tmp_path: Path, name: str) -> None:
    """An empty answer would say that there is no such user, and another one that there is."""
    fields = [each for each in ("reason", "route", "user", "method") if each != name]
    made = fleet(tmp_path, decision_log={"fields": fields})
    value = "allowed" if name == "reason" else "x"

    async def work() -> None:
        hint = f"decision_log.fields leaves out {name}, so it is not shown here: ask without it\n"
        assert await made.page("/decisions", **{name: value}) == (400, hint)
        assert (await made.page("/decisions", id="0" * 32))[0] == 200

    run(work)


# --- many who ask at once

OTHERS_ASK = (429, "8 others ask for decisions just now: ask again in a second\n")


@pytest.mark.parametrize("end", ["answered", "failed", "gone"])
def test_eight_are_answered_at_a_time_and_the_next_when_one_has_ended(tmp_path: Path, end: str) -> None:
    made = HeldFleet(fleet(tmp_path).processes)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            asking = [loop.create_task(made.page("/decisions")) for _ in range(8)]
            held = [await made.held.get() for _ in asking]
            for task, let in zip(asking[:2], held[:2], strict=True):
                assert await made.page("/decisions") == OTHERS_ASK
                match end:
                    case "answered":
                        let.set_result(None)
                    case "failed":
                        let.set_exception(OSError("broken pipe"))
                    case _:
                        task.cancel()
                await asyncio.wait([task])
                asking.append(loop.create_task(made.page("/decisions")))
                held.append(await made.held.get())
            assert await made.page("/decisions") == OTHERS_ASK
            for let in held[2:]:
                let.set_result(None)
            assert [status for status, _ in await asyncio.gather(*asking[2:])] == [200] * 8

    run(work)


def test_a_question_that_cannot_be_answered_takes_nobodys_place(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        for _ in range(9):
            assert (await made.page("/decisions", limit=0))[0] == 400
        assert (await made.page("/decisions"))[0] == 200

    run(work)


@pytest.mark.parametrize("readers", [1, 8])
def test_others_get_their_turn_between_the_parts_of_an_answer_and_one_is_written_at_a_time(tmp_path: Path, readers: int) -> None:
    made = ReadyFleet(fleet(tmp_path, 1).processes, found=FoundDecisions([{"time": number} for number in range(1_000)]))
    parts = readers * -(-1_000 // WRITTEN_AT_ONCE)
    turns = 0

    async def work() -> None:
        loop = asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        before = loop.time()
        _, answer = await made.page("/decisions", limit=1_000)
        assert [record["time"] for record in answer["decisions"]] == list(range(999, -1, -1))
        assert loop.time() == before, "a turn is no wait"
        loop.call_soon(turn)
        answers = await asyncio.gather(*[made.page("/decisions", limit=1_000) for _ in range(readers)])
        assert parts <= turns <= parts + 4 * readers
        assert answers == [(200, answer)] * readers

    run(work)


# --- recordings


def test_a_recording_ends_with_its_number(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start(number=3, seconds=60)
        for number in range(4):
            made.processes[number % 2].check(number, f"/{number}")
        _, answer = await made.page("/recording/next", recording=name)
        assert [line["path"] for line in answer["requests"]] == ["/0", "/1", "/2"]
        assert (answer["over"], answer["left_out"], answer["workers"]) == (True, 0, {"asked": 2, "answered": 2})
        assert not made.is_recording
        assert (await made.page("/recording/next", recording=name))[0] == 404

    run(work)


def test_a_recording_takes_what_is_wanted_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start(reason="route_unknown")
        made.processes[0].check(1, "/kept")
        made.processes[0].check(2, "/other", Deny(Reason.CREDENTIAL_MISSING, "POST /search"))
        made.processes[1].check(3, "/" + "a" * 20_000)
        _, answer = await made.page("/recording/next", recording=name)
        assert ([line["path"] for line in answer["requests"]], answer["left_out"], answer["over"]) == (["/kept"], 1, False)
        _, answer = await made.page("/recording/next", recording=name)
        assert (answer["requests"], answer["left_out"]) == ([], 0)
        assert await made.page("/recording/end", recording=name) == (200, {})
        assert not made.is_recording

    run(work)


def test_what_is_left_out_counts_too(tmp_path: Path) -> None:
    """Else who sends what is left out would be looked at until the time is over."""
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start(number=3)
        for number in range(3):
            made.processes[0].check(number, "/" + "a" * 20_000)
        made.processes[0].check(4, "/late")
        _, answer = await made.page("/recording/next", recording=name)
        assert (answer["requests"], answer["left_out"]) == ([], 3)

    run(work)


def test_a_recording_goes_on_when_no_worker_answers_for_once(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start(number=3)
        for process in made.processes:
            process.silent = True
        _, answer = await made.page("/recording/next", recording=name)
        assert (answer["over"], answer["workers"]["answered"]) == (False, 0)
        for process in made.processes:
            process.silent = False
        made.processes[1].check(1, "/after")
        _, answer = await made.page("/recording/next", recording=name)
        assert [line["path"] for line in answer["requests"]] == ["/after"]

    run(work)


def test_a_recording_ends_when_its_time_is_over(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start(seconds=5)
        made.processes[0].check(1)
        assert made.is_recording
        await asyncio.sleep(5.1)  # why: the time is made up
        assert not made.is_recording
        made.processes[0].check(2)
        _, answer = await made.page("/recording/next", recording=name)
        assert (len(answer["requests"]), answer["over"]) == (1, True)

    run(work)


def test_a_recording_ends_when_its_client_goes_away(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start(seconds=3_600)
        for _ in range(3):
            await asyncio.sleep(LEASE - 1)  # why: the time is made up
            assert (await made.page("/recording/next", recording=name))[0] == 200
        assert made.is_recording
        await asyncio.sleep(LEASE + 1)  # why: the time is made up
        assert not made.is_recording
        assert await made.start() != name

    run(work)


def test_there_is_one_recording_at_a_time(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        await asyncio.sleep(5)  # why: the time is made up
        name = await made.start(seconds=15)
        for rest in (6, 0):
            await asyncio.sleep(9)  # why: the time is made up
            told = f"another recording goes on, for {rest} s at most: ask again when it has ended\n"
            assert await made.page("/recording/start") == (409, told)
            assert (await made.page("/recording/next", recording="0" * 16))[0] == 404
            if rest:
                assert (await made.page("/recording/next", recording=name))[0] == 200

    run(work)


def test_who_takes_nothing_for_ten_seconds_makes_room_for_another(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start(seconds=3_600)
        await asyncio.sleep(10)  # why: the time is made up
        assert await made.start(seconds=3_600) != name

    run(work)


@pytest.mark.parametrize(
    ("server", "changes", "hint"),
    [
        ({"recording": False}, {}, "recording is off: write server.recording: true in the configuration, which counts with"),
        ({}, {"decision_log": {"path": False}}, "decision_log.fields leaves out path, which a recording would show"),
        ({}, {"decision_log": {"fields": ["reason", "method"]}}, "decision_log.fields leaves out actor, auth_type, client_id,"),
    ],
    ids=str,
)
def test_what_may_not_be_shown_is_not_recorded(tmp_path: Path, server: dict[str, Any], changes: dict[str, Any], hint: str) -> None:
    made = fleet(tmp_path, server=server, **changes)

    async def work() -> None:
        status, text = await made.page("/recording/start")
        assert (status, text[: len(hint)]) == (403, hint)
        assert not made.is_recording

    run(work)


def test_recording_is_off_unless_somebody_allows_it(tmp_path: Path) -> None:
    settings = {name: value for name, value in SETTINGS["server"].items() if name != "recording"}
    assert configured(tmp_path, {"recording": False}) is not None
    (tmp_path / "extauthz.yaml").write_text(yaml.safe_dump(SETTINGS | {"server": settings}))
    assert load(tmp_path / "extauthz.yaml").settings.server.recording is False


def test_a_reload_that_forbids_it_ends_a_recording_and_nothing_more_is_handed_out(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        name = await made.start()
        made.processes[0].check(1)
        made.reload(configured(tmp_path, {"recording": False}))
        _, answer = await made.page("/recording/next", recording=name)
        assert (answer["requests"], answer["over"]) == ([], True)
        assert not made.is_recording

    run(work)


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ({"seconds": MAX_SECONDS + 1}, "seconds=3601: write a number from 1 to 3,600\n"),
        ({"number": MAX_NUMBER + 1}, "number=10001: write a number from 1 to 10,000\n"),
        ({"id": "0" * 32}, "unknown parameter 'id': write reason, route, user, seconds, number\n"),
    ],
    ids=str,
)
def test_a_recording_has_bounds(tmp_path: Path, query: dict[str, object], hint: str) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        assert await made.page("/recording/start", **query) == (400, hint)

    run(work)


def test_a_recording_has_a_bound_of_memory(tmp_path: Path) -> None:
    made = fleet(tmp_path, 1)

    async def work() -> None:
        name = await made.start(number=MAX_NUMBER)
        for number in range(MAX_NUMBER):
            made.processes[0].check(number, "/a" * 4_000)
        assert not made.is_recording
        size, is_over = 0, False
        while not is_over:
            _, answer = await made.page("/recording/next", recording=name)
            part = len(json.dumps(answer["requests"]))
            assert part < 300_000
            size, is_over = size + part, answer["over"]
        assert 8_000_000 < size < 9_000_000

    run(work)


def test_a_recording_that_fails_ends_and_no_decision_is_held_up(tmp_path: Path) -> None:
    made = fleet(tmp_path, 1)

    async def work() -> None:
        name = await made.start()
        made.processes[0].recorders.record(cast("Request", None), DENIED, 0.0)
        assert not made.is_recording
        _, answer = await made.page("/recording/next", recording=name)
        assert (answer["requests"], answer["over"]) == ([], True)

    run(work)


# --- what is asked of each process, and what it answers


@pytest.mark.parametrize(
    ("workers", "most_of_one", "room"), [(1, 1_048_576, 8_388_608), (3, 1_048_576, 2_796_202), (9, 932_067, 932_067)]
)
def test_all_workers_together_have_a_bound_of_memory(tmp_path: Path, workers: int, most_of_one: int, room: int) -> None:
    made = fleet(tmp_path, 1, server={"workers": workers})

    async def work() -> None:
        name = await made.start()
        await made.page("/decisions", limit=7, reason="allowed")
        assert made.asked == [
            StartRecording(name, {}, 60.0, 100, room),
            FindDecisions({"reason": "allowed"}, 7, most_of_one),
        ]
        assert re.fullmatch("[0-9a-f]{16}", name)
        assert [type(each.most_bytes) for each in made.asked if isinstance(each, StartRecording | FindDecisions)] == [int, int]

    run(work)


def test_what_does_not_fit_in_an_answer_is_said_to_be_cut(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        made.processes[0].check(1)
        assert "cut" not in (await made.page("/decisions"))[1]
        for number in range(100):
            line = json.dumps({"time": number, "path": "a" * 20_000}).encode()
            made.processes[1].recent.keep(number, f"{number:032x}", line, DENIED)
        _, answer = await made.page("/decisions")
        assert answer["cut"] is True
        assert 50 <= len(answer["decisions"]) < 100

    run(work)


def test_recordings_are_begun_and_ended_by_requests_that_change_something(tmp_path: Path) -> None:
    made = fleet(tmp_path)
    assert {path: page.method for path, page in made.pages.items()} == {
        "/decisions": "GET",
        "/recording/start": "POST",
        "/recording/next": "POST",
        "/recording/end": "POST",
    }


@pytest.mark.parametrize("path", ["/recording/next", "/recording/end"])
def test_a_recording_is_named_by_who_began_it(tmp_path: Path, path: str) -> None:
    made = fleet(tmp_path)
    gone = (404, "text/plain", b"no recording of this name goes on: it has ended, or the sidecar was restarted\n")
    wrong = (400, "text/plain", b"unknown parameter 'name': write recording\n")

    async def work() -> None:
        assert await made.pages[path].answer("recording=0123456789abcdef") == gone
        await made.start()
        for query in ("", "recording=0123456789abcdef"):
            assert await made.pages[path].answer(query) == gone
        assert await made.pages[path].answer("name=0123456789abcdef") == wrong
        assert [len(process.recorders.recorders) for process in made.processes] == [1, 1]

    run(work)


def test_where_no_worker_answers_nothing_is_recorded_and_one_can_ask_again(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        for process in made.processes:
            process.silent = True
        assert await made.page("/recording/start") == (503, "no worker answers: nothing is recorded\n")
        for process in made.processes:
            process.silent = False
        status, answer = await made.page("/recording/start")
        assert (status, answer["workers"]) == (200, {"asked": 2, "answered": 2})

    run(work)


def test_a_worker_records_nothing_where_its_own_configuration_forbids_it(tmp_path: Path) -> None:
    """One that did not take a reload, or took it first, may have another one than the parent."""
    made = fleet(tmp_path)
    made.processes[1].configuration = configured(tmp_path, {"recording": False})

    async def work() -> None:
        status, answer = await made.page("/recording/start")
        assert (status, answer["workers"]) == (200, {"asked": 2, "answered": 1, "silent": ["worker 1"]})
        assert [len(process.recorders.recorders) for process in made.processes] == [1, 0]
        refused = await made.processes[1].inspector.answer(made.asked[0])
        assert isinstance(refused, Failed)
        assert refused.message.startswith("recording is off")

    run(work)


def test_a_worker_has_one_recording_whatever_a_parent_has_forgotten(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        before = await made.start()
        made.processes[0].check(1, "/before")
        made.restart()
        name = await made.start()
        assert [len(process.recorders.recorders) for process in made.processes] == [1, 1]
        for request in (TakeRecorded(before), EndRecording(before)):
            assert await made.processes[0].inspector.answer(request) == Failed("no recording of this name")
        made.processes[0].check(2, "/after")
        _, answer = await made.page("/recording/next", recording=name)
        assert [line["path"] for line in answer["requests"]] == ["/after"]

    run(work)


def test_a_recording_that_was_ended_is_followed_by_another(tmp_path: Path) -> None:
    made = fleet(tmp_path)

    async def work() -> None:
        assert await made.processes[0].inspector.answer(TakeRecorded("x")) == Failed("no recording of this name")
        for _ in range(2):
            name = await made.start()
            assert await made.page("/recording/end", recording=name) == (200, {})
            assert await made.processes[0].inspector.answer(TakeRecorded(name)) == Failed("no recording of this name")
            assert not made.is_recording

    run(work)


def test_a_worker_answers_with_as_many_decisions_as_it_is_asked_for(tmp_path: Path) -> None:
    made = fleet(tmp_path, 1)

    async def work() -> None:
        for number in range(5):
            made.processes[0].check(number)
        found = await made.processes[0].inspector.answer(FindDecisions({}, 2, 100_000))
        assert isinstance(found, FoundDecisions)
        assert [record["time"] for record in found.records] == [4, 3]

    run(work)
