"""Whatever breaks inside, what leaves is a finished denial: never an empty message, never a gRPC error, never an exception."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from extauthz.adapters.envoy.codec import EnvoyCodec
from extauthz.core import jwt
from extauthz.core.credentials import Kind
from extauthz.core.model import Decision, Reason, Request
from extauthz.errors import Unavailable
from extauthz.ports import Evidence
from extauthz.service import Authorizer, Runtime
from extauthz.verifiers.oauth import Issuer, OAuthVerifier
from extauthz.verifiers.throttling import Budget
from extauthz.verifiers.verdicts import VerdictCache
from tests.support.fence import (
    ANA,
    BROKEN,
    ERRORS,
    NONSENSE,
    REQUEST,
    ROUTES,
    SECRET,
    Awaited,
    BrokenCodec,
    Fence,
    fence,
    finished,
    named,
    raising,
    raising_later,
    reason_of,
    returning_later,
)
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import settled
from tests.support.world import (
    DECISION_ID,
    MakeWorld,
    StillClock,
    check_request,
    claims,
    jwks,
    key_set,
    oauth,
    sign,
)

__all__ = ["fence"]


# --- what verifiers do


@pytest.mark.parametrize("error", ERRORS, ids=named)
async def test_a_verifier_that_raises_is_a_denial(fence: Fence, error: BaseException) -> None:
    for answer in (raising(error), raising_later(error)):
        response = await finished(fence.around(answer).check(REQUEST))

        assert (response.status.code, response.denied_response.status.code) == (13, 500)
    assert set(fence.recorded) == {"internal"}


@pytest.mark.parametrize("reason", BROKEN, ids=str)
async def test_what_cannot_be_reached_is_a_503(fence: Fence, reason: Reason) -> None:
    for answer in (raising(Unavailable(reason)), raising_later(Unavailable(reason))):
        response = await finished(fence.around(answer).check(REQUEST))

        assert (response.status.code, response.denied_response.status.code) == (14, 503)
        headers = {option.header.key: option.header.value for option in response.denied_response.headers}
        assert headers["retry-after"] == "1"
        assert response.dynamic_metadata.fields["route"].string_value == "POST /search"
    assert fence.recorded == [reason.value] * 2


async def test_endless_recursion_is_a_denial(fence: Fence) -> None:
    def deeper() -> Any:
        return deeper()

    assert await reason_of(fence.around(deeper).check(REQUEST)) == "internal"


NONSENSE += [Reason.ALLOWED, Reason.PUBLIC, replace(ANA, expires_at="later"), replace(ANA, scopes=None), replace(ANA, user=7)]


@pytest.mark.parametrize("value", NONSENSE, ids=[str(number) for number in range(len(NONSENSE))])
async def test_nonsense_from_a_verifier_is_a_denial(fence: Fence, value: Any) -> None:
    for answer in (lambda: value, returning_later(value), lambda: Awaited(value)):
        response = await finished(fence.around(answer).check(REQUEST))

        assert (response.status.code, response.denied_response.status.code) == (13, 500)
    assert fence.recorded == ["internal"] * 3


async def test_good_evidence_in_any_form_is_an_allow(fence: Fence) -> None:
    """The other side of the tests above: it is the nonsense that is refused, not the form."""
    for answer in (lambda: ANA, returning_later(ANA), lambda: Awaited(ANA)):
        assert await reason_of(fence.around(answer).check(REQUEST)) == "allowed"


# A CancelledError is no Exception: one that comes out of `verify` itself, before anybody waits, must not leave `check`.
async def test_a_cancelled_error_out_of_a_verifier_is_a_denial(fence: Fence) -> None:
    assert await reason_of(fence.around(raising(asyncio.CancelledError())).check(REQUEST)) == "internal"


async def test_work_that_is_cancelled_is_a_denial(fence: Fence) -> None:
    """Not this stream was cancelled but what it waits for: the process is ending."""
    work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(fence.around(lambda: work).check(REQUEST))  # type: ignore[arg-type]
    await settled()
    work.cancel()

    assert await reason_of(waiting) == "draining"
    assert await reason_of(fence.around(raising_later(asyncio.CancelledError())).check(REQUEST)) == "draining"
    assert fence.recorded == ["draining"] * 2


async def test_a_stream_that_is_cancelled_ends_and_takes_nothing_with_it(fence: Fence) -> None:
    work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
    authorizer = fence.around(lambda: work)
    mine, other = (asyncio.ensure_future(authorizer.check(REQUEST)) for _ in range(2))  # type: ignore[arg-type]
    await settled()
    assert authorizer.in_flight == 2
    mine.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mine
    assert authorizer.in_flight == 1
    assert not work.cancelled()
    work.set_result(ANA)

    assert await reason_of(other) == "allowed"
    assert authorizer.in_flight == 0


# --- what codecs, recorders and other ports do


@pytest.mark.parametrize("part", ["read", "write"])
@pytest.mark.parametrize("error", [ValueError(SECRET), RecursionError(), KeyError(SECRET)], ids=named)
async def test_a_codec_that_raises_is_a_denial(fence: Fence, part: str, error: Exception) -> None:
    public = check_request("GET", "/open")
    for data in (REQUEST, public, check_request("GET", "/none")):
        for answer in (lambda: ANA, returning_later(ANA)):
            assert await reason_of(fence.around(answer, codec=BrokenCodec(part, error)).check(data)) == "internal"
    assert set(fence.recorded) == {"internal"}, "what is recorded is what was answered"


async def test_a_denial_that_cannot_be_written_is_the_fixed_one_of_this_check(fence: Fence) -> None:
    work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
    authorizer = fence.around(lambda: work, codec=BrokenCodec("write", ValueError()))
    waiting = asyncio.ensure_future(authorizer.check(REQUEST))  # type: ignore[arg-type]
    await settled()
    work.set_exception(asyncio.CancelledError())
    response = await finished(await waiting)

    assert response.denied_response.status.code == 503
    assert response.dynamic_metadata.fields["decision_id"].string_value == DECISION_ID


async def test_what_is_no_request_is_recorded_as_one_of_nothing(fence: Fence) -> None:
    await finished(fence.around(lambda: ANA).check(b"\xff"))

    assert fence.recorder.requests == [Request(method="", path="", host="", headers={}, raw=False, decision_id=DECISION_ID)]


async def test_an_allow_that_cannot_be_written_is_recorded_as_what_was_answered(fence: Fence) -> None:
    authorizer = fence.around(lambda: ANA, codec=BrokenCodec("write", ValueError()))
    await finished(authorizer.check(REQUEST))

    assert fence.recorded == ["internal"]


class BrokenRecorder:
    """A recorder that always fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def record(self, request: Request | None, decision: Decision, seconds: float) -> None:
        raise self.error


@pytest.mark.parametrize("error", [ValueError(SECRET), RecursionError(), OSError()], ids=named)
async def test_a_recorder_that_raises_changes_no_answer(fence: Fence, error: Exception) -> None:
    cases = [
        (lambda: ANA, REQUEST),
        (returning_later(ANA), REQUEST),
        (lambda: Reason.TOKEN_REVOKED, REQUEST),
        (raising(ValueError()), REQUEST),
        (lambda: ANA, check_request("GET", "/open")),
        (lambda: ANA, b"\xff"),
    ]
    for answer, data in cases:
        quiet = await finished(fence.around(answer).check(data))
        loud = await finished(fence.around(answer, recorder=BrokenRecorder(error)).check(data))

        assert loud == quiet


async def test_a_decision_id_that_cannot_be_drawn_is_a_denial(fence: Fence) -> None:
    response = await finished(fence.around(lambda: ANA, decision_ids=raising(OSError())).check(REQUEST))

    assert response.denied_response.status.code == 500


class StoppingClock(StillClock):
    """A clock whose wall part fails."""

    def now(self) -> float:
        raise OSError


async def test_a_clock_that_cannot_be_read_is_a_denial(fence: Fence) -> None:
    assert await reason_of(fence.around(lambda: ANA, clock=StoppingClock()).check(REQUEST)) == "internal"


async def test_a_kind_without_a_verifier_is_a_denial(fence: Fence) -> None:
    authorizer = Authorizer(
        Runtime(fence.policy, {}, EnvoyCodec(), check_timeout=5.0, max_in_flight=10),
        fence.recorder,
        clock=fence.clock,
        decision_ids=lambda: DECISION_ID,
    )

    assert await reason_of(authorizer.check(REQUEST)) == "internal"


async def test_a_fault_is_logged_with_its_traceback_and_without_the_token(fence: Fence, caplog: pytest.LogCaptureFixture) -> None:
    for answer in (raising(KeyError("a fault")), raising_later(KeyError("a fault"))):
        caplog.clear()
        await finished(fence.around(answer).check(REQUEST))
        (record,) = caplog.records

        assert record.levelno == logging.ERROR
        assert record.__dict__["decision_id"] == DECISION_ID
        assert record.exc_info is not None
        assert record.exc_info[0] is KeyError
        assert SECRET not in caplog.text


# --- time and number


async def test_a_check_waits_for_a_limited_time(fence: Fence) -> None:
    work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
    authorizer = fence.around(lambda: work, check_timeout=0.05)
    started = asyncio.get_running_loop().time()
    response = await finished(authorizer.check(REQUEST))

    assert 0.04 < asyncio.get_running_loop().time() - started < 20
    assert (response.status.code, response.denied_response.status.code) == (14, 503)
    assert fence.recorded == ["check_timeout"]
    assert authorizer.in_flight == 0
    assert not work.cancelled(), "what comes too late for this check serves the next one"


async def test_time_that_passed_before_the_wait_counts(fence: Fence) -> None:
    """The limit is one for the whole check, not for the wait alone."""
    work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()

    def slow() -> Any:
        fence.clock.advance(60)
        return work

    answer = await asyncio.wait_for(reason_of(fence.around(slow, check_timeout=30.0).check(REQUEST)), 5)
    assert answer == "check_timeout"


def test_a_limit_that_is_over_before_the_wait_is_not_waited_for(make_world: MakeWorld) -> None:
    fence = Fence(make_world(ROUTES))

    async def asked() -> tuple[str, float]:
        work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()

        def slow() -> Any:
            fence.clock.advance(60)
            return work

        return await reason_of(fence.around(slow, check_timeout=30.0).check(REQUEST)), asyncio.get_running_loop().time()

    assert in_virtual_time(asked) == ("check_timeout", 0.0)


class SlowKeys:
    """A key source whose first fetch ends when a test says so."""

    fetched_at = 0.0

    def __init__(self) -> None:
        self.held: jwt.KeySet | None = None
        self.fetch: asyncio.Future[jwt.KeySet] = asyncio.get_running_loop().create_future()

    def keys(self) -> jwt.KeySet | None:
        return self.held

    def load(self) -> Awaitable[jwt.KeySet]:
        return asyncio.shield(self.fetch)

    def reload_for_unknown_key(self) -> None:
        return None


async def test_a_result_that_comes_too_late_serves_the_next_check(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    fence, source = Fence(world), SlowKeys()
    verdicts = VerdictCache(Kind.OAUTH, bytes(32), lifetime=60.0, clock=fence.clock)
    issuers = [Issuer(rules, source) for rules in world.configuration.providers]
    verifier = OAuthVerifier(issuers, verdicts, clock=fence.clock, signatures=Budget(1000, clock=fence.clock))
    authorizer = fence.around(verifier, check_timeout=0.05)
    data = check_request("POST", "/search", oauth(sign(claims())).items())
    assert await reason_of(authorizer.check(data)) == "check_timeout"
    source.held = key_set(jwks(), ("RS256",))
    source.fetch.set_result(source.held)
    await settled()

    assert len(verdicts) == 1, "the verdict landed"
    answer = authorizer.check(data)
    assert isinstance(answer, bytes)
    assert await reason_of(answer) == "allowed"


async def test_more_checks_than_may_wait_are_refused_at_once(fence: Fence) -> None:
    work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
    answers: list[Any] = []

    def answer() -> Any:
        return answers.pop() if answers else work

    authorizer = fence.around(answer, max_in_flight=3)
    waiting = [asyncio.ensure_future(authorizer.check(REQUEST)) for _ in range(3)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert authorizer.in_flight == 3
    for _ in range(5):
        refused = authorizer.check(REQUEST)
        assert isinstance(refused, bytes), "it does not wait for its refusal"
        response = await finished(refused)
        assert (response.status.code, response.denied_response.status.code) == (14, 503)
    assert fence.recorded == ["overloaded"] * 5

    # What memory knows needs no room.
    answers.append(ANA)
    assert await reason_of(authorizer.check(REQUEST)) == "allowed"
    assert await reason_of(authorizer.check(check_request("GET", "/open"))) == "public"
    assert authorizer.in_flight == 3

    work.set_result(ANA)
    assert [await reason_of(one) for one in waiting] == ["allowed"] * 3
    assert authorizer.in_flight == 0
    assert await reason_of(authorizer.check(REQUEST)) == "allowed"


@pytest.mark.parametrize("error", [ValueError(), Unavailable(Reason.STORE_UNAVAILABLE), asyncio.CancelledError()], ids=named)
async def test_a_check_that_fails_leaves_its_place(fence: Fence, error: BaseException) -> None:
    authorizer = fence.around(raising_later(error), max_in_flight=1)
    for _ in range(3):
        assert await reason_of(authorizer.check(REQUEST)) != "overloaded"
    assert authorizer.in_flight == 0


async def test_a_check_keeps_the_snapshot_it_began_with(make_world: MakeWorld) -> None:
    fence = Fence(make_world(ROUTES))
    other = make_world([{"match": "POST /search", "deny": True}])
    work: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
    authorizer = fence.around(lambda: work)
    waiting = asyncio.ensure_future(authorizer.check(REQUEST))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    authorizer.swap(Runtime(other.configuration.policy, {}, EnvoyCodec(), check_timeout=5.0, max_in_flight=10))
    assert await reason_of(authorizer.check(REQUEST)) == "route_denied"
    work.set_result(ANA)

    assert await reason_of(waiting) == "allowed"


# --- the transport


# --- addresses
