"""The decisions that a sidecar remembers: which, how many, in which order, and what of them is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.decision_log.hints import Hints
from extauthz.adapters.decision_log.lines import MAX_LINE
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.ring import LISTED_AT_ONCE, DecisionRing
from extauthz.core.credentials import Kind
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.telemetry.decision_record import RecordField
from tests.support import fuzz
from tests.support.world import World

ALL = frozenset(RecordField)
EDITS = HeaderEdits((), ())
ANA = Identity(AuthType.GLOBAL, "token:one", None, frozenset({"S"}), 9e9, token_id="one")
ALLOWED = Allow(Reason.ALLOWED, "search", EDITS, ANA, "ana@acme.com")
DENIED = Deny(Reason.SCOPE_MISSING, "chat", ANA, "ana@acme.com", ("CHAT",))


class Nowhere:
    """A place that takes every line and keeps it."""

    name = "nowhere"

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, lines: Collection[bytes]) -> int:
        """Take all lines."""
        self.lines += lines
        return len(lines)

    def reopen(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Clock:
    """Seconds since the epoch, each reading a second later."""

    def __init__(self, step: float = 1.0) -> None:
        self.now = 1_800_000_000.0
        self.step = step

    def __call__(self) -> float:
        """Return the next moment."""
        self.now += self.step
        return self.now


def request(number: int, path: str = "/search", **headers: str) -> Request:
    return Request("POST", path, "api.acme.com", headers, raw=True, decision_id=f"{number:032x}")


async def listed(recent: DecisionRing, limit: int = 10_000, **wanted: str) -> list[dict[str, Any]]:
    return [dict(record) for record in (await recent.find(wanted, limit=limit, most_bytes=10**9)).records]


async def ids(recent: DecisionRing, **wanted: str) -> list[int]:
    return [int(record["decision_id"], 16) for record in (await recent.find(wanted, limit=10_000, most_bytes=10**9)).records]


def filled(recent: DecisionRing, decisions: Mapping[int, Decision]) -> None:
    for number, decision in decisions.items():
        recent.record(request(number), decision, 0.000_1)


async def test_the_newest_are_kept_of_each_kind_and_come_first() -> None:
    recent = DecisionRing(3, 2, ALL, clock=Clock())
    would = WouldDeny(Reason.SCOPE_MISSING, "chat", EDITS)
    filled(recent, {1: DENIED, 2: ALLOWED, 3: DENIED, 4: would, 5: ALLOWED, 6: DENIED, 7: ALLOWED})
    assert await ids(recent) == [7, 6, 5, 4, 3]
    assert [record["decision_id"] for record in await listed(recent, limit=2)] == [f"{7:032x}", f"{6:032x}"]


async def test_a_record_is_the_line_of_the_decision_log() -> None:
    recent, sink = DecisionRing(10, 10, ALL), Nowhere()
    log = DecisionLog(sink, interval=60, recent=recent)
    both: tuple[Decision, ...] = (ALLOWED, DENIED)
    for number, decision in enumerate(both):
        log.record(request(number, "/a%2Fb?q=1", **{"x-request-id": "r"}), decision, 0.001)
    log.close()
    assert await listed(recent) == [json.loads(line) for line in reversed(sink.lines)]
    assert len(sink.lines) == 2


@pytest.mark.parametrize("sizes", [(0, 2), (2, 0), (0, 0)])
async def test_what_is_switched_off_keeps_nothing(sizes: tuple[int, int]) -> None:
    recent = DecisionRing(*sizes, ALL, clock=Clock())
    filled(recent, {1: DENIED, 2: ALLOWED})
    assert await ids(recent) == [number for number, size in zip((1, 2), sizes, strict=True) if size]
    assert recent.keeps_any == any(sizes)


async def test_filters_have_to_fit_all() -> None:
    recent = DecisionRing(10, 10, ALL, clock=Clock())
    other = replace(DENIED, user="bob@acme.com")
    filled(recent, {1: DENIED, 2: other, 3: ALLOWED, 4: Deny(Reason.ROUTE_UNKNOWN)})
    assert await ids(recent, reason="scope_missing") == [2, 1]
    assert await ids(recent, reason="scope_missing", user="ana@acme.com") == [1]
    assert await ids(recent, user="ana@acme.com") == [3, 1]
    assert await ids(recent, route="chat", user="ANA@acme.com") == []
    assert await ids(recent, decision_id=f"{3:032x}") == [3]
    assert await ids(recent, decision_id="3") == []


async def test_a_value_in_another_field_fits_nothing() -> None:
    recent = DecisionRing(10, 10, ALL, clock=Clock())
    path = '/", "user": "ana@acme.com'
    recent.record(request(1, path), Deny(Reason.ROUTE_UNKNOWN), 0.0)
    assert await ids(recent, user="ana@acme.com") == []
    assert (await listed(recent))[0]["path"] == path


async def test_fields_that_the_log_leaves_out_are_not_shown_nor_looked_for() -> None:
    recent = DecisionRing(10, 10, ALL, clock=Clock())
    filled(recent, {1: DENIED})
    fields = frozenset({RecordField.REASON, RecordField.METHOD})
    recent.use(10, 10, fields)
    filled(recent, {2: DENIED})
    for record in await listed(recent):
        assert set(record) == {"time", "decision_id", "reason", "method"}
    assert [record["time"] for record in await listed(recent)] == [1_800_000_002.0, 1_800_000_001.0]
    assert await ids(recent, user="ana@acme.com") == []


async def test_other_sizes_keep_the_newest() -> None:
    recent = DecisionRing(4, 4, ALL, clock=Clock())
    filled(recent, {1: DENIED, 2: DENIED, 3: ALLOWED, 4: ALLOWED})
    recent.use(1, 2, ALL)
    assert await ids(recent) == [4, 3, 2]
    recent.use(3, 2, ALL)
    filled(recent, {5: DENIED})
    assert await ids(recent) == [5, 4, 3, 2]


async def test_an_answer_has_a_bound_of_bytes() -> None:
    recent = DecisionRing(100, 0, ALL, clock=Clock())
    filled(recent, dict.fromkeys(range(100), DENIED))
    found = await recent.find({}, limit=100, most_bytes=2_000)
    assert found.is_cut
    assert 2 <= len(found.records) < 100
    assert len(json.dumps([dict(record) for record in found.records])) <= 2_000
    assert not (await recent.find({}, limit=3, most_bytes=100_000)).is_cut


async def test_decisions_that_the_log_does_not_write_are_kept_and_no_more_of_them_than_cost_little() -> None:
    """A log that is off, or writes a sample, makes no line: one is made, a bounded number of times a second."""
    recent = DecisionRing(1_000, 200, ALL, clock=Clock(0.0001))
    filled(recent, dict.fromkeys(range(1_000), DENIED))
    kept = await ids(recent)
    assert 90 <= len(kept) <= 110
    filled(recent, dict.fromkeys(range(1_000), ALLOWED))
    assert 9 <= len(await ids(recent, reason="allowed")) <= 11
    recent.clock = Clock(-3600)
    filled(recent, {5_001: DENIED})
    assert 5_001 in await ids(recent)


async def test_a_sample_of_the_log_is_none_of_what_is_remembered() -> None:
    recent = DecisionRing(10, 10, ALL, clock=Clock())
    log = DecisionLog(Nowhere(), sample={Reason.SCOPE_MISSING: 0.0}, interval=60, recent=recent)
    log.record(request(1), DENIED, 0.0)
    log.close()
    assert (log.written, await ids(recent)) == (0, [1])


async def test_the_nearest_route_is_shown_as_soon_as_the_log_has_it(tmp_path: Path) -> None:
    policy = World(tmp_path, [{"match": "POST /search", "scope": "SEARCH"}]).configuration.policy
    recent = DecisionRing(10, 10, ALL)
    log = DecisionLog(Nowhere(), interval=60, hints=Hints(policy), recent=recent)
    log.record(request(1, "/serch"), Deny(Reason.ROUTE_UNKNOWN), 0.0)
    assert "nearest_route" not in (await listed(recent))[0]
    log.close()
    assert (await listed(recent))[0]["nearest_route"] == "POST /search"


@pytest.mark.parametrize("wanted", [{}, {"user": "nobody@acme.com"}, {"decision_id": "0" * 32}], ids=str)
async def test_a_list_gives_others_their_turn(wanted: dict[str, str]) -> None:
    """A thousand records take milliseconds, in which checks would wait; those that are passed by take their time too."""
    recent = DecisionRing(1_000, 0, ALL, clock=Clock())
    filled(recent, dict.fromkeys(range(1, 1001), DENIED))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)  # why: it counts the turns of the loop

    counting = asyncio.create_task(count())
    assert len(await listed(recent, 10_000, **wanted)) == (0 if wanted else 1_000)
    counting.cancel()
    assert 1_000 // LISTED_AT_ONCE <= turns <= 1_000 // LISTED_AT_ONCE + 5


async def test_the_newest_come_first_whatever_their_ids_and_of_one_moment_those_that_came_last() -> None:
    recent = DecisionRing(10, 10, ALL)
    for moment, number, decision in ((1.0, 9, DENIED), (2.0, 5, ALLOWED), (3.0, 1, DENIED), (3.0, 0, DENIED), (2.5, 7, DENIED)):
        recent.keep(moment, f"{number:032x}", b"{}\n", decision)
    assert await ids(recent) == [0, 1, 7, 5, 9]


async def test_a_line_without_a_time_has_that_of_its_decision_in_milliseconds() -> None:
    recent = DecisionRing(10, 10, ALL)
    recent.keep(1_800_000_000.123_456, "0" * 32, b'{"reason": "allowed"}\n', ALLOWED)
    assert await listed(recent) == [{"time": 1_800_000_000.123, "decision_id": "0" * 32, "reason": "allowed"}]


async def test_of_decisions_of_one_moment_one_line_is_made() -> None:
    recent = DecisionRing(10, 10, ALL, clock=Clock(0.0))
    filled(recent, {1: DENIED, 2: DENIED, 3: ALLOWED, 4: ALLOWED})
    assert sorted(await ids(recent)) == [1, 3]


@settings(max_examples=100, deadline=None)
@given(
    path=st.text(max_size=700),
    query=st.text(max_size=50),
    value=st.text(st.characters(codec="latin-1"), max_size=50),
    reason=st.sampled_from(Reason),
    kind=st.sampled_from(Kind),
)
async def test_no_token_whatever_is_sent(path: str, query: str, value: str, reason: Reason, kind: Kind) -> None:
    token = fuzz.MARKER
    headers = {
        "authorization": f"Bearer {token}{value}",
        "cookie": token,
        "x-scio-actas": token + value,
        "x-extauthz-user": token,
        "x-request-id": value,
    }
    recent = DecisionRing(10, 10, ALL, clock=Clock())
    log = DecisionLog(Nowhere(), interval=60, recent=recent)
    try:
        for keeper in (log, recent):
            keeper.record(request(1, f"{path.replace('?', '')}?{query}{token}", **headers), Deny(reason, kind=kind), 0.0)
    finally:
        log.close()
    shown = await listed(recent)
    assert len(shown) == 2
    assert token not in json.dumps(shown)
    assert token not in repr(list(recent._denials))
    assert all(len(line) <= MAX_LINE for _, _, line in recent._denials)
