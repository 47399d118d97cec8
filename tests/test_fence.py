"""Whatever breaks inside, what leaves is a finished denial: never an empty message, never a gRPC error, never an exception."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy import EnvoyCodec
from extauthz.adapters.verdicts import VerdictCache
from extauthz.addresses import Address
from extauthz.budgets import Budget
from extauthz.core import jwt
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Decision, Identity, Reason, Request
from extauthz.oauth_verifier import Issuer, OAuthVerifier
from extauthz.ports import Clock, Codec, Evidence, Recorder, Unavailable, Verifier
from extauthz.service import Authorizer, Runtime
from extauthz.transport.claims import claim
from extauthz.transport.grpcio import SERVICE, GrpcioServer
from extauthz.transport.listening import ListenError, open_port, publish, restricted_umask
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import settled
from tests.support.world import (
    DECISION_ID,
    NOW,
    ListRecorder,
    MakeWorld,
    StillClock,
    World,
    bearer,
    check_request,
    claims,
    jwks,
    key_set,
    oauth,
    sign,
)

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "GET /open", "public": True}]
SECRET = "glean_aVerySecretToken"
REQUEST = check_request("POST", "/search", bearer(SECRET).items())
ANA = Identity(AuthType.USER, "token:one", "ana@acme.com", frozenset({"SEARCH"}), NOW + 3600)

ERRORS: list[BaseException] = [
    *(Exception(), RuntimeError(SECRET), ValueError(SECRET), KeyError(SECRET), TypeError(), AttributeError(), OSError(5, "io")),
    *(RecursionError(), MemoryError(), AssertionError(), StopIteration(), StopAsyncIteration(), TimeoutError(), LookupError()),
    *(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ExceptionGroup("several", [ValueError(), KeyError()]), BufferError()),
]
BROKEN = [Reason.STORE_UNAVAILABLE, Reason.STORE_STALE, Reason.ISSUER_UNAVAILABLE, Reason.KEY_SET_UNAVAILABLE, Reason.OVERLOADED]


def named(value: object) -> str:
    return type(value).__name__ if isinstance(value, BaseException) else str(value)[:40]


class Answering:
    """A verifier that does what it is told."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def verify(self, token: str, now: float) -> Evidence | Awaitable[Evidence]:
        return self.answer()  # type: ignore[no-any-return]


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def raising_later(error: BaseException) -> Callable[[], Any]:
    async def fail() -> Evidence:
        await asyncio.sleep(0)
        raise error

    return fail


def returning_later(value: Any) -> Callable[[], Any]:
    async def give() -> Any:
        await asyncio.sleep(0)
        return value

    return give


class Fence:
    """An authorizer around one verifier, and what is recorded."""

    def __init__(self, world: World) -> None:
        self.policy = world.configuration.policy
        self.clock = StillClock()
        self.recorder = ListRecorder()

    def around(
        self,
        answer: Callable[[], Any] | Verifier,
        *,
        codec: Codec | None = None,
        recorder: Recorder | None = None,
        clock: Clock | None = None,
        decision_ids: Callable[[], str] = lambda: DECISION_ID,
        check_timeout: float = 5.0,
        max_in_flight: int = 1000,
    ) -> Authorizer:
        verifier = Answering(answer) if callable(answer) else answer
        runtime = Runtime(
            self.policy,
            {Kind.ISSUED: verifier, Kind.OAUTH: verifier},
            codec or EnvoyCodec(),
            check_timeout=check_timeout,
            max_in_flight=max_in_flight,
        )
        return Authorizer(
            runtime,
            recorder or self.recorder,
            clock=clock or self.clock,
            decision_ids=decision_ids,
        )

    @property
    def recorded(self) -> list[str]:
        return [decision.reason.value for decision in self.recorder.decisions]


@pytest.fixture
def fence(make_world: MakeWorld) -> Fence:
    return Fence(make_world(ROUTES))


async def finished(answer: bytes | Awaitable[bytes]) -> pb.CheckResponse:
    """Wait for an answer, which must be one that Envoy can read in one way only."""
    data = answer if isinstance(answer, bytes) else await answer
    assert isinstance(data, bytes)
    assert data
    assert SECRET.encode() not in data
    return pb.CheckResponse.FromString(data)


async def reason_of(answer: bytes | Awaitable[bytes]) -> str:
    response = await finished(answer)
    if response.status.code:
        assert response.denied_response.status.code >= 400
    return response.dynamic_metadata.fields["reason"].string_value


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


class Awaited:
    """An awaitable that is neither a coroutine nor a future."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        return self.value


class Raising(Awaited):
    """The same, but waiting for it fails."""

    def __await__(self) -> Iterator[Any]:
        raise ValueError(SECRET)


NONSENSE: list[Any] = [None, True, False, 0, 1, "allowed", b"", b"allow", object(), [], (ANA,), {}, Identity, Reason, Exception()]
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


class BrokenCodec(EnvoyCodec):
    """A codec of which one part fails."""

    def __init__(self, part: str, error: Exception) -> None:
        super().__init__()
        self.part, self.error = part, error

    def read(self, data: bytes, decision_id: str) -> Request | None:
        if self.part == "read":
            raise self.error
        return super().read(data, decision_id)

    def write(self, request: Request, decision: Decision) -> bytes:
        if getattr(self, "part", "") == "write":
            raise self.error
        return super().write(request, decision)


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

FALLBACK = EnvoyCodec().fixed(Reason.INTERNAL, "0" * 32)
GOOD = EnvoyCodec().fixed(Reason.DRAINING, DECISION_ID)
Handler = Callable[[bytes], Any]


@asynccontextmanager
async def served(handler: Handler, address: Address | None = None) -> AsyncIterator[tuple[GrpcioServer, grpc.aio.Channel]]:
    """Serve a handler on a free port and connect to it."""
    server = GrpcioServer(handler, FALLBACK)
    port = await server.start(address or Address(host="127.0.0.1", port=0))
    target = f"unix:{address.path}" if address else f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            yield server, channel
        finally:
            await server.stop(0)


async def call(channel: grpc.aio.Channel, data: bytes = REQUEST) -> bytes:
    """Make one raw call; a gRPC error fails the test."""
    answer = await channel.unary_unary(f"/{SERVICE}/Check")(data, timeout=3)
    assert isinstance(answer, bytes)
    return answer


async def test_answers_go_out_as_they_are() -> None:
    seen: list[bytes] = []

    def at_once(data: bytes) -> bytes:
        seen.append(data)
        return GOOD

    def later(data: bytes) -> Awaitable[bytes]:
        return asyncio.ensure_future(asyncio.sleep(0, GOOD))

    async with served(at_once) as (_, channel):
        assert await call(channel) == GOOD
        assert await call(channel, b"") == GOOD
        assert await call(channel, bytes(range(256)) * 4000) == GOOD
    assert seen == [REQUEST, b"", bytes(range(256)) * 4000]
    async with served(later) as (_, channel):
        assert await asyncio.gather(*(call(channel) for _ in range(50))) == [GOOD] * 50


FAULTS: dict[str, Callable[[], Any]] = {
    "an empty answer": lambda: b"",
    "an empty answer later": returning_later(b""),
    "nothing": lambda: None,
    "nothing later": returning_later(None),
    "zero": lambda: 0,
    "a text": lambda: "allow",
    "a list": lambda: [GOOD],
    **{f"raises {named(error)}": raising(error) for error in ERRORS},
    **{f"raises {named(error)} later": raising_later(error) for error in ERRORS},
    "an awaitable that raises": lambda: Raising(None),
    # Whatever else than bytes reaches gRPC ends the call with an error of its own.
    "a text later": returning_later("allow"),
    "a number later": returning_later(1),
    "a list later": returning_later([GOOD]),
    # Raised on, a cancellation that is not the stream's own leaves the caller without any answer until its time is over.
    "raises CancelledError": raising(asyncio.CancelledError()),
    "raises CancelledError later": raising_later(asyncio.CancelledError()),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_handler_is_a_denial(name: str) -> None:
    async with served(lambda _: FAULTS[name]()) as (_, channel):
        assert await call(channel) == FALLBACK
        assert await call(channel) == FALLBACK


async def test_a_call_that_the_client_ends_harms_no_other() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return GOOD

    slow = [True]
    async with served(lambda _: wait() if slow[0] else GOOD) as (_, channel):
        running = channel.unary_unary(f"/{SERVICE}/Check")(REQUEST)
        await asyncio.wait_for(begun.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(ended.wait(), 5)
        slow[0] = False
        assert await call(channel) == GOOD


async def test_the_whole_fence_over_a_connection(fence: Fence) -> None:
    for answer, expected in (
        (raising(RecursionError()), "internal"),
        (raising_later(ValueError()), "internal"),
        (lambda: ANA, "allowed"),
    ):
        async with served(fence.around(answer).check) as (_, channel):
            assert await reason_of(await call(channel)) == expected
            assert await reason_of(await call(channel, b"\xff")) == "request_malformed"


async def test_health_is_told_for_the_server_and_for_the_service() -> None:
    states = health_pb2.HealthCheckResponse
    async with served(lambda _: GOOD) as (server, channel):
        stub = health_pb2_grpc.HealthStub(channel)

        async def told() -> list[int]:
            return [
                (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)).status
                for name in ("", "envoy.service.auth.v3.Authorization")
            ]

        assert await told() == [states.NOT_SERVING] * 2, "nothing is served before it is said"
        await server.set_serving(serving=True)
        assert await told() == [states.SERVING] * 2
        await server.set_serving(serving=False)
        assert await told() == [states.NOT_SERVING] * 2
        assert await call(channel) == GOOD, "a drain still answers"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_service() -> None:
    async with served(lambda _: GOOD) as (_, channel):
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed, found = [answer async for answer in stub.ServerReflectionInfo(iter(requests), timeout=10)]

    names = {service.name for service in listed.list_services_response.service}
    assert {"envoy.service.auth.v3.Authorization", "grpc.health.v1.Health"} <= names
    assert b"Check" in found.file_descriptor_response.file_descriptor_proto[0]


async def test_stopping_lets_a_call_under_way_finish() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait() -> bytes:
        begun.set()
        await go.wait()
        return GOOD

    async with served(lambda _: wait()) as (server, channel):
        running = asyncio.ensure_future(call(channel))
        await begun.wait()
        stopping = asyncio.ensure_future(server.stop(5))
        await settled()
        assert not stopping.done()
        go.set()
        assert await running == GOOD
        await stopping


# --- addresses


async def test_a_port_in_use_is_named(fence: Fence) -> None:
    with open_port(Address(host="127.0.0.1", port=0)) as taken:
        address = Address(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(ListenError, match=f"127.0.0.1:{address.port} is in use"):
            open_port(address)
    open_port(address).close()


async def test_two_servers_never_share_a_port() -> None:
    first, second = GrpcioServer(lambda _: GOOD, FALLBACK), GrpcioServer(lambda _: b"other", FALLBACK)
    port = await first.start(Address(host="127.0.0.1", port=0))
    with pytest.raises(ListenError, match=f"127.0.0.1:{port} cannot be listened on"):
        await second.start(Address(host="127.0.0.1", port=port))
    with pytest.raises(ListenError):
        open_port(Address(host="127.0.0.1", port=port))
    await second.stop(0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert [await call(channel) for _ in range(5)] == [GOOD] * 5
    await first.stop(0)


def test_a_unix_socket_is_no_port(path: Path) -> None:
    """Bound as one it would be every interface of the machine, on a port of chance."""
    with pytest.raises(ListenError, match=r"check\.sock"):
        open_port(Address(path=str(path)))


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1|2001:db8"):
        open_port(Address(host=host, port=9001))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "check.sock"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_unix_socket_is_served_to_its_group_alone(path: Path) -> None:
    address = Address(path=str(path))
    previous = os.umask(0)
    try:
        with claim(address):
            server = GrpcioServer(lambda _: GOOD, FALLBACK)
            with restricted_umask("0660"):
                assert await server.start(address) == 0
            assert mode_of(path) & ~0o660 == 0, "not for a moment is it open to others"
            assert os.umask(0) == 0
            publish(address, mode="0660", group=None)
            assert mode_of(path) == 0o660
            async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
                assert await call(channel) == GOOD
            await server.stop(0)
    finally:
        os.umask(previous)

    assert os.listdir(address.path.rpartition("/")[0]) == ["check.sock.lock"]


@pytest.mark.parametrize("mode", ["0600", "0660", "0666"])
def test_the_mode_is_the_one_that_is_asked_for(path: Path, mode: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        publish(Address(path=str(path)), mode=mode, group=None)
        assert mode_of(path) == int(mode, 8)


def test_the_umask_comes_back_after_an_error() -> None:
    before = os.umask(0o022)
    try:
        with suppress(KeyError), restricted_umask("0660"):
            raise KeyError
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_group_that_does_not_exist_is_named(path: Path) -> None:
    path.touch()
    with pytest.raises(ListenError, match="no-such-group"):
        publish(Address(path=str(path)), mode="0660", group="no-such-group")


def test_a_second_claim_is_refused_while_the_first_is_held(path: Path) -> None:
    address = Address(path=str(path))
    with claim(address), pytest.raises(ListenError, match=r"unix://.*check\.sock is in use"), claim(address):
        pass
    with claim(address):
        pass


def test_a_claim_ends_with_an_error_inside(path: Path) -> None:
    address = Address(path=str(path))
    with suppress(KeyError), claim(address) as claimed:
        Path(claimed.binding.path).touch()
        raise KeyError
    assert [file.name for file in path.parent.iterdir()] == ["check.sock.lock"]
    with claim(address):
        pass


def test_a_socket_that_nobody_serves_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert path.is_socket()
    with claim(Address(path=str(path))):
        assert not path.exists()


def test_a_socket_that_somebody_serves_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen(5)
        with pytest.raises(ListenError, match="in use"), claim(Address(path=str(path))):
            pass
        assert path.is_socket()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("important")
    with pytest.raises(ListenError, match="no socket"), claim(Address(path=str(path))):
        pass
    assert path.read_text() == "important"


def test_a_folder_in_the_place_of_the_socket_is_left_alone(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ListenError, match="no socket"), claim(Address(path=str(path))):
        pass
    assert path.is_dir()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="nowhere"), claim(Address(path=str(tmp_path / "nowhere" / "check.sock"))):
        pass


# A folder that cannot be written to ends the same way.
def test_a_lock_file_that_cannot_be_made_is_named(path: Path) -> None:
    Path(f"{path}.lock").mkdir()
    with pytest.raises(ListenError, match=r"check\.sock"), claim(Address(path=str(path))):
        pass


def test_a_lock_file_is_not_made_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "check.sock.lock").symlink_to(victim)
    with pytest.raises(ListenError, match="lock"), claim(Address(path=f"{tmp_path}/check.sock")):
        pass
    assert victim.read_text() == "kept"
