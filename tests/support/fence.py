"""An Authorizer with parts that break, raise, answer nonsense or answer late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy.codec import EnvoyCodec
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Decision, Identity, Reason, Request
from extauthz.ports import Clock, Codec, Evidence, Recorder, Verifier
from extauthz.service import Authorizer, Runtime
from tests.support.world import (
    DECISION_ID,
    NOW,
    ListRecorder,
    MakeWorld,
    StillClock,
    World,
    bearer,
    check_request,
)

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "GET /open", "public": True}]
SECRET = "glean_aVerySecretToken"
REQUEST = check_request("POST", "/search", bearer(SECRET).items())
ANA = Identity(AuthType.USER, "token:one", "ana@acme.com", frozenset({"SEARCH"}), NOW + 3600, token_id="one")
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


NONSENSE: list[Any] = [None, True, False, 0, 1, "allowed", b"", b"allow", object(), [], (ANA,), {}, Identity, Reason, Exception()]


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


async def reason_of(answer: bytes | Awaitable[bytes]) -> str:
    response = await finished(answer)
    if response.status.code:
        assert response.denied_response.status.code >= 400
    return response.dynamic_metadata.fields["reason"].string_value


class Awaited:
    """An awaitable that is neither a coroutine nor a future."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        return self.value
