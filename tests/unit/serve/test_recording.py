"""One recording in one process: what fits in it, when it ends by itself, and that nothing comes out of it once it is forbidden."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.config.loader import Configuration, load
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request
from extauthz.serve import recording as recordings
from extauthz.serve.messages import Recorded, StartRecording
from extauthz.serve.recording import Recording
from extauthz.telemetry.decision_record import RecordField
from tests.support.virtual_time import in_virtual_time

DENIED = Deny(Reason.ROUTE_UNKNOWN)
ANA = Identity(AuthType.GLOBAL, "token:one", None, frozenset({"SEARCH"}), 9e9, token_id="one")
ALLOWED = Allow(Reason.ALLOWED, "search", HeaderEdits((), ()), ANA, "ana@acme.com")


def configured(folder: Path, *, allows_it: bool = True, **more: Any) -> Configuration:
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH, name: search}]')
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001", "recording": allows_it},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
    } | more
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return load(folder / "extauthz.yaml")


@dataclass
class World:
    """A configuration that may change, and what a recording said when it had ended."""

    folder: Path
    configuration: Configuration = field(init=False)
    detached: list[Recording] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.configuration = configured(self.folder)

    def allow(self, is_allowed: bool) -> None:
        """Load the configuration anew."""
        self.configuration = configured(self.folder, allows_it=is_allowed)

    def start(self, wanted: Mapping[str, str] | None = None, **bounds: Any) -> Recording:
        """Begin a recording without bounds, or with these."""
        asked = replace(StartRecording("r", wanted or {}, 3600.0, 100, 10**9), **bounds)
        return Recording(asked, lambda: self.configuration, self.detached.append, now=lambda: 1_800_000_000.0)


def asked(path: str) -> Request:
    return Request("GET", path, "api.acme.com", {}, raw=True, decision_id="0" * 32)


def paths(recorded: Recorded) -> list[str]:
    return [request["path"] for request in recorded.requests]


def run(work: Callable[[], object]) -> None:
    """Do something where a loop runs."""

    async def inside() -> None:
        work()

    in_virtual_time(inside)


TOLD = ("method", "path", "route", "reason", "decision", "time", "user", "actor", "auth_type", "client_id", "token_id")


@pytest.mark.parametrize("field", [field.value for field in RecordField])
def test_what_the_log_may_not_have_no_recording_has(tmp_path: Path, field: str) -> None:
    """Whoever leaves out a field means to keep it from those who read the log; a recording would tell them."""
    fields = [each.value for each in RecordField if each.value != field]
    cause = recordings.forbidden(configured(tmp_path, decision_log={"fields": fields}))
    if field in TOLD:
        assert cause is not None
        assert cause.startswith(f"decision_log.fields leaves out {field}, which a recording would show")
    else:
        assert cause is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["/bob", "/allowed", "/unknown"]),
        ({"reason": "scope_missing"}, ["/bob"]),
        ({"route": "search"}, ["/bob", "/allowed"]),
        ({"user": "ana@acme.com"}, ["/allowed"]),
        ({"user": "bob@acme.com", "route": "search"}, ["/bob"]),
        ({"user": "bob@acme.com", "reason": "allowed"}, []),
        ({"route": "Search"}, []),
    ],
)
def test_what_is_wanted_has_to_fit_in_all_that_is_asked(tmp_path: Path, wanted: dict[str, str], expected: list[str]) -> None:
    world = World(tmp_path)
    decisions: dict[str, Decision] = {
        "/bob": Deny(Reason.SCOPE_MISSING, "search", ANA, "bob@acme.com"),
        "/allowed": ALLOWED,
        "/unknown": DENIED,
    }

    def work() -> None:
        made = world.start(wanted)
        for path, decision in decisions.items():
            made.record(asked(path), decision, 0.0)
        assert made.take() == Recorded(made_again(world, decisions, expected), 0, False)

    run(work)


def made_again(world: World, decisions: Mapping[str, Decision], chosen: list[str]) -> list[dict[str, Any]]:
    """Return what a recording without filters takes down of some decisions."""
    made = world.start()
    for path in chosen:
        made.record(asked(path), decisions[path], 0.0)
    taken = made.take()
    assert paths(taken) == chosen
    return taken.requests


@pytest.mark.parametrize(("spare", "expected", "is_over"), [(0, ["/a", "/b"], False), (-1, ["/a"], True), (1, ["/a", "/b"], False)])
def test_its_room_is_counted_in_bytes_of_its_file(tmp_path: Path, spare: int, expected: list[str], is_over: bool) -> None:
    world = World(tmp_path)

    def work() -> None:
        lines = made_again(world, {"/a": DENIED, "/b": DENIED}, ["/a", "/b"])
        size = sum(len(json.dumps(line)) + len("\n") for line in lines)
        made = world.start(most_bytes=size + spare)
        for path in ("/a", "/b"):
            made.record(asked(path), DENIED, 0.0)
        assert (made.is_over, made in world.detached) == (is_over, is_over)
        assert made.take() == Recorded(lines[: len(expected)], 0, is_over)

    run(work)


@pytest.mark.parametrize(("spare", "expected"), [(0, 2), (1, 3)])
def test_no_more_is_handed_out_at_once_than_goes_quickly(
    tmp_path: Path, spare: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)

    def work() -> None:
        decisions: dict[str, Decision] = {f"/{number}": DENIED for number in range(4)}
        lines = made_again(world, decisions, [*decisions])
        monkeypatch.setattr(recordings, "BYTES_AT_ONCE", 2 * (len(json.dumps(lines[0])) + 1) + spare)
        made = world.start(number=4)
        for path, decision in decisions.items():
            made.record(asked(path), decision, 0.0)
        assert made.take() == Recorded(lines[:expected], 0, False)
        assert made.take() == Recorded(lines[expected:], 0, True)

    run(work)


def test_a_recording_that_a_reload_forbids_ends_with_the_next_request_and_keeps_nothing(tmp_path: Path) -> None:
    """A later reload that allows it again brings nothing back: neither what was there before, nor what came meanwhile."""
    world = World(tmp_path)

    def work() -> None:
        made = world.start()
        made.record(asked("/before"), DENIED, 0.0)
        world.allow(False)
        made.record(asked("/meanwhile"), DENIED, 0.0)
        assert (made.is_over, world.detached) == (True, [made])
        world.allow(True)
        made.record(asked("/after"), DENIED, 0.0)
        assert made.take() == Recorded([], 0, True)

    run(work)


def test_nothing_is_told_of_a_recording_that_a_reload_forbids(tmp_path: Path) -> None:
    world = World(tmp_path)

    def work() -> None:
        made = world.start()
        made.record(asked("/before"), DENIED, 0.0)
        made.record(asked("/" + "a" * 20_000), DENIED, 0.0)
        world.allow(False)
        assert made.take() == Recorded([], 0, True)
        assert (made.is_over, world.detached) == (True, [made])
        world.allow(True)
        made.record(asked("/after"), DENIED, 0.0)
        assert paths(made.take()) == []

    run(work)


def test_who_never_asks_has_ten_seconds(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> None:
        made = world.start()
        made.record(asked("/a"), DENIED, 0.0)
        await asyncio.sleep(9.9)  # why: the time is made up
        assert not made.is_over
        await asyncio.sleep(0.2)  # why: the time is made up
        assert (made.is_over, world.detached, made.take()) == (True, [made], Recorded([], 0, True))

    in_virtual_time(work)


def test_what_ended_takes_down_nothing_more_and_says_so_once(tmp_path: Path) -> None:
    world = World(tmp_path)

    def work() -> None:
        made = world.start(number=2)
        for path in ("/a", "/b", "/c"):
            made.record(asked(path), DENIED, 0.0)
        made.end()
        assert (paths(made.take()), world.detached) == (["/a", "/b"], [made])

    run(work)
