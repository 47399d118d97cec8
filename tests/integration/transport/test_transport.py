"""Both transports, asked by the official grpcio clients: one suite, with the same answers."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauthz.addresses import Address
from extauthz.errors import ListenError
from tests.support.h2_client import CHECK, GoneError, Peer, Target
from tests.support.transports import FALLBACK, Authority, Held, Loop, Served, default_limits, echo, only_nghttp2
from tests.support.waiting import eventually, until

SERVICE = "envoy.service.auth.v3.Authorization"
STATES = health_pb2.HealthCheckResponse
# Channels of one process share a connection otherwise, and Python's own proxy rules are no part of this.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 16 << 20)]


class Serve(Protocol):
    """Starts a server of the transport under test."""

    def __call__(self, handler: Callable[[bytes], Any], **options: Any) -> Served: ...


@pytest.fixture
def serve(loop: Loop) -> Iterator[Serve]:
    started: list[Served] = []

    def start(handler: Callable[[bytes], Any], **options: Any) -> Served:
        started.append(Served(loop, handler, **options))
        return started[-1]

    yield start
    for served in started:
        served.stop()
        assert (served.connections, served.streams) == (0, 0)


class Client(Protocol):
    """Makes one raw call and returns its answer; a gRPC error raises."""

    def __call__(self, served: Served, message: bytes = b"?", **options: Any) -> bytes: ...


def checks(channel: Any, method: str = CHECK) -> Any:
    """Return the raw method of a channel of either client."""
    return channel.unary_unary(method)


def call_blocking(served: Served, message: bytes = b"?", *, method: str = CHECK, **options: Any) -> bytes:
    """Call with the blocking client."""
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        return bytes(checks(channel, method)(message, **{"timeout": 10, **options}))


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Connect with the asyncio client, in the loop of the server."""
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        yield channel


def call_aio(served: Served, message: bytes = b"?", *, method: str = CHECK, **options: Any) -> bytes:
    """Call with the asyncio client."""

    async def call() -> bytes:
        async with connected(served.address) as channel:
            return bytes(await checks(channel, method)(message, **{"timeout": 10, **options}))

    return served.loop.run(call())


@pytest.fixture(params=[call_blocking, call_aio], ids=["blocking", "aio"])
def call(request: pytest.FixtureRequest) -> Client:
    return request.param  # type: ignore[no-any-return]


def status_of(function: Callable[..., bytes], *arguments: Any, **options: Any) -> grpc.StatusCode:
    """Return the status that a call fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        function(*arguments, **options)
    code = caught.value.code()
    # The traceback holds the call, and the call holds the connection open.
    del caught
    gc.collect()
    return code


# --- calls


class Awaited:
    """An awaitable that is neither a coroutine nor a future."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


async def later(value: Any) -> Any:
    """Give a value, or raise it, in another turn of the loop."""
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


ANSWERING: dict[str, Callable[[bytes], Any]] = {
    "bytes": echo,
    "a coroutine": lambda message: later(echo(message)),
    "a task": lambda message: asyncio.ensure_future(later(echo(message))),
    "an awaitable": lambda message: Awaited(echo(message)),
    "a coroutine that is done at once": lambda message: asyncio.wait_for(asyncio.sleep(0, echo(message)), 5),
}


@pytest.mark.parametrize("kind", ANSWERING)
def test_an_answer_goes_out_as_it_is(serve: Serve, call: Client, kind: str) -> None:
    served = serve(ANSWERING[kind])

    assert call(served, b"hello") == b"!hello"
    assert call(served, b"") == b"!"
    served.rests()


def test_a_done_future_is_an_answer(serve: Serve, call: Client) -> None:
    def done(message: bytes) -> Awaitable[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.set_result(echo(message))
        return future

    assert call(serve(done), b"hello") == b"!hello"


# Around the sizes of a frame and of a window, where one byte more is one frame or one WINDOW_UPDATE more.
SIZES = [1, 16379, 16380, 16384, 16385, 65530, 65531, 65536, 131_072, 1_000_000, 1 << 20]


def test_messages_of_any_size_go_both_ways(serve: Serve, call: Client) -> None:
    served = serve(echo)
    for size in SIZES:
        message = bytes(range(251)) * (size // 251 + 1)
        assert call(served, message[:size]) == b"!" + message[:size], size
    served.rests()


def test_a_small_question_may_have_a_large_answer(serve: Serve, call: Client) -> None:
    answer = bytes(range(256)) * 40_000
    served = serve(lambda message: answer if message == b"now" else later(answer))

    assert call(served, b"now") == answer
    assert call(served, b"later") == answer


@pytest.mark.parametrize("limit", [1024, 1 << 20], ids=["1 kB", "1 MB"])
def test_a_message_has_a_limit(serve: Serve, call: Client, limit: int) -> None:
    seen: list[int] = []

    def handler(message: bytes) -> bytes:
        seen.append(len(message))
        return b"ok"

    served = serve(handler, limits=default_limits(message_size=limit))

    assert call(served, b"x" * limit) == b"ok"
    assert status_of(call, served, b"x" * (limit + 1)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_of(call, served, b"x" * (2 * limit)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call(served, b"y") == b"ok"
    assert seen == [limit, 1]
    served.rests()


def test_the_default_limit_is_4_mb(serve: Serve) -> None:
    assert default_limits().message_size == 4 << 20
    assert status_of(call_blocking, serve(echo), bytes((4 << 20) + 1)) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.NoCompression], ids=["gzip", "identity"])
def test_a_compressed_request_is_decoded(serve: Serve, call: Client, compression: grpc.Compression) -> None:
    served = serve(echo)
    for message in (b"", b"x", b"hello " * 1000, bytes(1 << 20), gzip.compress(b"twice")):
        assert call(served, message, compression=compression) == b"!" + message


def test_a_compressed_request_is_limited_by_what_it_becomes(serve: Serve, call: Client) -> None:
    served = serve(lambda message: b"%d" % len(message), limits=default_limits(message_size=100_000))

    assert call(served, bytes(100_000), compression=grpc.Compression.Gzip) == b"100000"
    assert status_of(call, served, bytes(100_001), compression=grpc.Compression.Gzip) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_of(call, served, bytes(20 << 20), compression=grpc.Compression.Gzip) is grpc.StatusCode.RESOURCE_EXHAUSTED
    served.rests()


def test_deflate_is_not_taken_for_something_else(serve: Serve, call: Client) -> None:
    """Only one of the transports knows it; what neither may do is hand the handler bytes that are not the message."""
    served = serve(echo)
    try:
        assert call(served, bytes(1000), compression=grpc.Compression.Deflate) == b"!" + bytes(1000)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED  # noqa: PT017


METADATA: dict[str, list[tuple[str, str | bytes]]] = {
    "some": [("x-request-id", "7"), ("authorization", "Bearer nothing"), ("x-envoy-peer", "a,b")],
    "binary": [("trace-bin", bytes(range(256))), ("grpc-trace-bin", b"\x00")],
    "repeated": [("x-many", str(number)) for number in range(50)],
    "long": [("x-long", "v" * 4000)],
    "like pseudo fields": [("path", "/other"), ("method", "GET"), ("status", "500"), ("host", "elsewhere")],
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_changes_nothing(serve: Serve, call: Client, name: str) -> None:
    served = serve(echo, limits=default_limits(header_list_size=32 * 1024))

    assert call(served, b"hello", metadata=METADATA[name]) == b"!hello"


def test_too_much_metadata_ends_the_call_and_nothing_else(serve: Serve) -> None:
    served = serve(echo, limits=default_limits(header_list_size=8 * 1024))
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        check = checks(channel)
        assert check(b"1", timeout=20) == b"!1"
        with pytest.raises(grpc.RpcError):
            check(b"2", metadata=[("x-long", "v" * 20_000)], timeout=20)
        assert check(b"3", timeout=20) == b"!3"
    served.rests()


UNKNOWN = ["/envoy.service.auth.v3.Authorization/Chec", "/envoy.service.auth.v3.Authorization/Check/", "/Check", "/a/b"]
UNKNOWN += [
    "/envoy.service.auth.v2.Authorization/Check",
    "/envoy.service.auth.v3.authorization/Check",
    "/grpc.health.v1.Health/List2",
]


@pytest.mark.parametrize("method", UNKNOWN)
def test_an_unknown_method_is_unimplemented(serve: Serve, call: Client, method: str) -> None:
    called: list[bytes] = []
    served = serve(called.append)

    assert status_of(call, served, method=method) is grpc.StatusCode.UNIMPLEMENTED
    assert called == []
    served.rests()


@only_nghttp2
@pytest.mark.parametrize(
    ("count", "status"),
    [(0, grpc.StatusCode.INTERNAL), (2, grpc.StatusCode.UNIMPLEMENTED), (3, grpc.StatusCode.UNIMPLEMENTED)],
    ids=["0", "2", "3"],
)
def test_a_call_has_one_message(serve: Serve, count: int, status: grpc.StatusCode) -> None:
    """Said by a client that streams to a method which is not a stream; grpc.aio takes the first message, or waits for ever."""
    served = serve(echo)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        check: Any = channel.stream_unary(CHECK)
        assert check(iter([b"one"]), timeout=20) == b"!one"
        with pytest.raises(grpc.RpcError) as caught:
            check(iter([b"x"] * count), timeout=20)
    assert caught.value.code() is status
    served.rests()


# --- many


@pytest.mark.parametrize("kind", ["at once", "later"])
def test_a_thousand_calls_are_in_flight_on_one_connection(serve: Serve, kind: str) -> None:
    held = Held()
    served = serve(held if kind == "later" else echo)

    async def calls() -> list[bytes]:
        async with connected(served.address) as channel:
            check = checks(channel)
            asked = [asyncio.ensure_future(_answer_of(check(b"%d" % number, timeout=30))) for number in range(1000)]
            if kind == "later":
                await until(lambda: held.begun == 1000)
                assert served.server is not None
                assert (served.streams, served.connections) == served.told(1000, 1)
                held.go.set()
            return await asyncio.gather(*asked)

    assert served.loop.run(calls(), seconds=40) == [b"!%d" % number for number in range(1000)]
    served.rests()


async def _answer_of(running: Any) -> bytes:
    return bytes(await running)


def test_a_blocking_client_has_many_calls_in_flight(serve: Serve) -> None:
    served = serve(lambda message: later(echo(message)))
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        asked = [checks(channel).future(b"%d" % number, timeout=30) for number in range(200)]
        assert [one.result() for one in asked] == [b"!%d" % number for number in range(200)]
    served.rests()


def test_answers_come_in_the_order_in_which_they_are_ready(serve: Serve) -> None:
    """A slow call holds up no other one on its connection."""
    held = Held()
    served = serve(lambda message: held(message) if message == b"slow" else echo(message))
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        check = checks(channel)
        slow = check.future(b"slow", timeout=20)
        eventually(lambda: held.begun)
        assert [check(b"%d" % number, timeout=20) for number in range(20)] == [b"!%d" % number for number in range(20)]
        assert not slow.done()
        served.loop.soon(held.go.set)
        assert slow.result() == b"!slow"
    served.rests()


def test_many_connections_are_served(serve: Serve) -> None:
    served = serve(echo)
    channels = [grpc.insecure_channel(served.address, OPTIONS) for _ in range(30)]
    try:
        asked = [checks(channel).future(b"?", timeout=20) for channel in channels]
        assert [one.result() for one in asked] == [b"!?"] * 30
        assert (served.streams, served.connections) == served.told(0, 30)
    finally:
        for channel in channels:
            channel.close()
    served.rests()


# --- deadlines and cancellation


def outlasts_a_deadline(call: Client, served: Served, held: Held) -> None:
    """Call in vain; where the machine is busy a deadline may pass before the call has begun, and says nothing."""
    for seconds in (0.1, 0.5, 2.5, 12.5):
        assert status_of(call, served, timeout=seconds) is grpc.StatusCode.DEADLINE_EXCEEDED
        if held.begun:
            break
    eventually(lambda: held.cancelled == held.begun > 0)


def test_a_deadline_of_the_client_ends_the_call(serve: Serve, call: Client) -> None:
    held = Held()
    served = serve(held)

    outlasts_a_deadline(call, served, held)
    served.rests()
    served.loop.soon(held.go.set)
    assert call(served, b"next") == b"!next"


def test_work_that_others_wait_for_goes_on_after_a_deadline(serve: Serve) -> None:
    work: list[asyncio.Future[bytes]] = []

    def shared(_: bytes) -> Awaitable[bytes]:
        if not work:
            work.append(asyncio.get_running_loop().create_future())
        return asyncio.shield(work[0])

    served = serve(shared)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        check = checks(channel)
        other = check.future(b"?", timeout=20)
        eventually(lambda: work)
        with pytest.raises(grpc.RpcError):
            check(b"?", timeout=0.05)
        assert not work[0].done()
        served.loop.soon(lambda: work[0].set_result(b"shared"))
        assert other.result() == b"shared"
    served.rests()


def test_a_call_that_the_client_cancels_stops_waiting(serve: Serve) -> None:
    held = Held()
    served = serve(held)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        check = checks(channel)
        running = [check.future(b"%d" % number, timeout=20) for number in range(50)]
        eventually(lambda: held.begun == 50)
        for one in running[::2]:
            one.cancel()
        eventually(lambda: held.cancelled == 25)
        assert (served.streams, served.connections) == served.told(25, 1)
        served.loop.soon(held.go.set)
        assert [one.result() for one in running[1::2]] == [b"!%d" % number for number in range(1, 50, 2)]
    served.rests()


def test_an_aio_call_that_is_cancelled_stops_waiting(serve: Serve) -> None:
    held = Held()
    served = serve(held)

    async def cancel() -> None:
        async with connected(served.address) as channel:
            running = checks(channel)(b"?")
            await until(lambda: held.begun)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await until(lambda: held.cancelled == 1)
            held.go.set()
            assert await checks(channel)(b"next", timeout=20) == b"!next"

    served.loop.run(cancel())
    served.rests()


def test_a_client_that_leaves_takes_its_calls_with_it(serve: Serve) -> None:
    held = Held()
    served = serve(held)
    channel = grpc.insecure_channel(served.address, OPTIONS)
    running = [checks(channel).future(b"?") for _ in range(20)]
    eventually(lambda: held.begun == 20)
    channel.close()
    eventually(lambda: all(one.done() for one in running))
    eventually(lambda: held.cancelled == 20)
    served.rests()


def test_a_cancelled_call_does_not_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    served = serve(held)
    outlasts_a_deadline(call_blocking, served, held)
    served.rests()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("extauthz")] == []


# --- what breaks


def raises(error: BaseException) -> Callable[[bytes], Any]:
    def fail(_: bytes) -> Any:
        raise error

    return fail


def raises_later(error: BaseException) -> Callable[[bytes], Any]:
    return lambda _: later(error)


def two_arguments(_: bytes, *, more: bytes) -> bytes:
    return more


def gives(value: Any) -> Callable[[bytes], Any]:
    return lambda _: value


def gives_later(value: Any) -> Callable[[bytes], Any]:
    return lambda _: Awaited(value)


NONSENSE: dict[str, Any] = {
    "nothing": None,
    "an empty answer": b"",
    "a text": "allow",
    "a number": 7,
    "true": True,
    "a bytearray": bytearray(b"allow"),
    "a memoryview": memoryview(b"allow"),
    "a list": [b"allow"],
    "an exception": ValueError(),
    "a class": bytes,
}
ERRORS = [
    ValueError("one"),
    KeyError("two"),
    RecursionError(),
    MemoryError(),
    StopIteration(),
    StopAsyncIteration(),
    OSError(5, "io"),
]
ERRORS += [
    TimeoutError(),
    AssertionError(),
    ExceptionGroup("several", [ValueError()]),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
]
BROKEN: dict[str, Callable[..., Any]] = {
    **{f"gives {name}": gives(value) for name, value in NONSENSE.items()},
    **{f"gives {name} later": gives_later(value) for name, value in NONSENSE.items() if not isinstance(value, Exception)},
    **{f"raises {type(error).__name__}": raises(error) for error in ERRORS},
    **{f"raises {type(error).__name__} later": raises_later(error) for error in ERRORS},
    "an awaitable that raises": lambda _: Awaited(ValueError("awaited")),
    "raises CancelledError": raises(asyncio.CancelledError()),
    "raises CancelledError later": lambda _: later(asyncio.CancelledError()),
    "awaits what is cancelled": lambda _: _cancelled(),
    "is called with too much": two_arguments,
}


async def _cancelled() -> bytes:
    work: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    work.cancel()
    return await work


@only_nghttp2
def test_a_connection_that_comes_while_calls_are_counted_disturbs_nobody(serve: Serve) -> None:
    """Another thread may count: here a connection comes in the middle of it, each time."""
    server = serve(echo).server

    class Opening:
        @property
        def streams(self) -> tuple[str, ...]:
            server._open[Opening()] = None
            return ("a call",)

    server._open |= {Opening(): None, Opening(): None}
    try:
        assert server.streams == 2
    finally:
        server._open.clear()


def test_whatever_the_handler_does_the_answer_is_the_fallback(serve: Serve) -> None:
    """An empty message would be an allow for Envoy, and a gRPC error may be one too (failure_mode_allow)."""
    served = serve(lambda message: BROKEN[message.decode()](message) if message != b"good" else b"good")
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        check = checks(channel)
        answers = {name: check(name.encode(), timeout=20) for name in BROKEN}
        assert check(b"good", timeout=20) == b"good"
    assert {name: answer for name, answer in answers.items() if answer != FALLBACK} == {}
    assert (served.streams, served.connections) == served.told(0, 1)
    served.rests()


@pytest.mark.parametrize(
    ("name", "error"),
    [("raises KeyError", KeyError), ("raises KeyError later", KeyError), ("an awaitable that raises", ValueError)],
    ids=["at once", "later", "an awaitable"],
)
def test_what_the_handler_raises_is_logged_with_its_traceback(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str, error: type[Exception]
) -> None:
    assert call_blocking(serve(BROKEN[name])) == FALLBACK
    (record,) = [record for record in caplog.records if record.name.startswith("extauthz")]

    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is error
    assert record.exc_info[2] is not None


# --- health


def health(served: Served, service: str = "") -> int:
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status)


def test_health_is_told_for_the_server_and_for_the_service(serve: Serve) -> None:
    served = serve(echo)

    assert [health(served), health(served, SERVICE)] == [STATES.NOT_SERVING] * 2, "nothing is served before it is said"
    served.set_serving(True)
    assert [health(served), health(served, SERVICE)] == [STATES.SERVING] * 2
    served.set_serving(False)
    assert [health(served), health(served, SERVICE)] == [STATES.NOT_SERVING] * 2
    assert call_blocking(served) == b"!?", "a drain still answers"
    for unknown in ("other", SERVICE.lower(), f"{SERVICE} "):
        with pytest.raises(grpc.RpcError) as caught:
            health(served, unknown)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    served.rests()


@pytest.mark.parametrize("service", ["", SERVICE])
def test_who_watches_sees_every_change(serve: Serve, service: str) -> None:
    served = serve(echo)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)
        seen = [next(watching).status]
        for serving in (True, False, True):
            served.set_serving(serving)
            seen.append(next(watching).status)
        assert seen == [STATES.NOT_SERVING, STATES.SERVING, STATES.NOT_SERVING, STATES.SERVING]
        assert call_blocking(served) == b"!?"
        watching.cancel()
    served.rests()


def test_who_watches_an_unknown_service_is_told_so_and_waits(serve: Serve) -> None:
    """The health protocol: SERVICE_UNKNOWN, and not the end of the call."""
    served = serve(echo)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="other"), timeout=20)
        assert next(watching).status == STATES.SERVICE_UNKNOWN
        served.set_serving(True)
        assert call_blocking(served) == b"!?"
        assert watching.is_active()
        watching.cancel()
    served.rests()


def test_many_watch(serve: Serve) -> None:
    served = serve(echo)
    begun: set[int] = set()

    async def watch(stub: Any, number: int) -> list[int]:
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
        seen: list[int] = []
        async for answer in watching:
            begun.add(number)
            seen.append(answer.status)
            if len(seen) == 2:
                break
        watching.cancel()
        return seen

    async def all_of_them() -> list[list[int]]:
        async with connected(served.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watching = [asyncio.ensure_future(watch(stub, number)) for number in range(100)]
            first = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
            assert (await first.read()).status == STATES.NOT_SERVING
            await until(lambda: len(begun) == 100)
            await served.server.set_serving(serving=True)
            assert (await first.read()).status == STATES.SERVING
            first.cancel()
            return await asyncio.gather(*watching)

    assert served.loop.run(all_of_them()) == [[STATES.NOT_SERVING, STATES.SERVING]] * 100
    served.rests()


def test_who_watches_sees_the_stop(serve: Serve) -> None:
    """And it ends: a stream without an end would hold a stopped server open."""
    served = serve(echo)
    served.set_serving(True)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(watching).status == STATES.SERVING
        stopping = served.stopping(1.0)
        assert next(watching).status == STATES.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watching)
        assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        stopping.result(20)
    served.rests()


# --- the end of a server


def test_a_stop_lets_a_call_under_way_finish(serve: Serve, call: Client) -> None:
    held = Held()
    served = serve(held)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        running = [checks(channel).future(b"%d" % number, timeout=20) for number in range(10)]
        eventually(lambda: held.begun == 10)
        stopping = served.stopping(10.0)
        # Refused now: nobody listens, and nothing else serves.
        eventually(lambda: _refused(served.target))
        assert not stopping.done()
        served.loop.soon(held.go.set)
        assert [one.result() for one in running] == [b"!%d" % number for number in range(10)]
        stopping.result(20)
    assert held.cancelled == 0
    assert status_of(call, served) is grpc.StatusCode.UNAVAILABLE
    served.rests()


def _refused(target: Target) -> bool:
    assert isinstance(target, int)
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", target)) != 0


def test_a_stop_does_not_wait_longer_than_it_is_told(serve: Serve) -> None:
    held = Held()
    served = serve(held)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        running = checks(channel).future(b"?", timeout=20)
        eventually(lambda: held.begun == 1)
        served.stopping(0.3).result(20)
        with pytest.raises(grpc.RpcError) as caught:
            running.result()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: held.cancelled == 1)
    served.rests()


@pytest.mark.parametrize("grace", [0.0, 0.1, 60.0])
def test_a_stop_with_nothing_under_way_is_soon_done(serve: Serve, grace: float) -> None:
    served = serve(echo)
    with grpc.insecure_channel(served.address, OPTIONS) as channel:
        assert checks(channel)(b"?", timeout=20) == b"!?"
        served.stopping(grace).result(20)
        assert (served.connections, served.streams) == (0, 0)


def test_a_server_that_stops_twice_stops(serve: Serve) -> None:
    served = serve(echo)
    assert call_blocking(served) == b"!?"
    served.stopping(0.5).result(20)
    served.stopping(0.0).result(20)


def test_a_new_call_goes_elsewhere_while_a_server_drains(serve: Serve) -> None:
    held = Held()
    leaving = serve(held)
    staying = serve(lambda message: b"elsewhere " + message)
    target = f"ipv4:127.0.0.1:{leaving.target},127.0.0.1:{staying.target}"
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(target, OPTIONS) as channel:
        channel.subscribe(states.append)
        check = checks(channel)
        running = check.future(b"here", timeout=60)
        eventually(lambda: held.begun == 1)
        eventually(lambda: grpc.ChannelConnectivity.READY in states)
        stopping = leaving.stopping(60.0)
        eventually(lambda: _refused(leaving.target))
        # From then on the client has read that the connection ends.
        eventually(lambda: states[-1] is not grpc.ChannelConnectivity.READY)
        assert [check(b"%d" % number, timeout=40) for number in range(20)] == [b"elsewhere %d" % number for number in range(20)]
        assert held.begun == 1
        leaving.loop.soon(held.go.set)
        assert running.result() == b"!here"
        stopping.result(20)
    staying.rests()


@only_nghttp2
def test_a_call_that_is_on_its_way_when_a_server_begins_to_drain_is_answered(serve: Serve) -> None:
    """Until the client has read that the connection ends, it sends calls there. grpc.aio cancels those that it has not begun."""
    held = Held()
    leaving = serve(held)
    staying = serve(lambda message: b"elsewhere " + message)
    target = f"ipv4:127.0.0.1:{leaving.target},127.0.0.1:{staying.target}"
    with grpc.insecure_channel(target, OPTIONS) as channel:
        check = checks(channel)
        running = check.future(b"here", timeout=60)
        eventually(lambda: held.begun == 1)
        stopping = leaving.stopping(60.0)
        later_ones = [check.future(b"%d" % number, timeout=40) for number in range(20)]

        def goes_elsewhere() -> bool:
            later_ones.append(check.future(b"now", timeout=40))
            with suppress(grpc.FutureTimeoutError):
                return bool(later_ones[-1].result(timeout=0.5) == b"elsewhere now")
            return False

        eventually(goes_elsewhere)
        leaving.loop.soon(held.go.set)
        assert running.result() == b"!here"
        answers = [one.result() for one in later_ones]
        assert sum(answer.startswith(b"!") for answer in answers) == held.begun - 1
        stopping.result(20)
    staying.rests()


@only_nghttp2
def test_a_rolling_restart_loses_no_call(serve: Serve) -> None:
    """Two servers and a client without pause; each leaves once and is replaced. grpc.aio cancels calls that it has not begun."""
    handler = lambda message: later(echo(message))  # noqa: E731
    servers = [serve(handler), serve(handler)]
    target = ",".join(f"127.0.0.1:{served.target}" for served in servers)
    loop = servers[0].loop

    async def restart() -> int:
        ended, calls = asyncio.Event(), 0

        async def ask(channel: grpc.aio.Channel) -> None:
            nonlocal calls
            while not ended.is_set():
                calls += 1
                assert await checks(channel)(b"%d" % calls, timeout=20, wait_for_ready=True)

        options = [*OPTIONS, ("grpc.lb_policy_name", "round_robin"), ("grpc.initial_reconnect_backoff_ms", 100)]
        async with grpc.aio.insecure_channel(f"ipv4:{target}", options) as channel:
            asking = [asyncio.ensure_future(ask(channel)) for _ in range(8)]
            for served in servers:
                enough = calls + 100
                await until(lambda: calls > enough)  # noqa: B023
                await served.server.stop(5.0)
                again = loop.transport.server(handler, FALLBACK, limits=default_limits(), certificates=None)
                await again.start(Address(host="127.0.0.1", port=int(served.target)))
                served.server = again
            ended.set()
            await asyncio.gather(*asking)
        return calls

    assert loop.run(restart(), seconds=30) > 200


def test_a_port_is_free_after_a_stop(serve: Serve) -> None:
    first = serve(echo)
    assert call_blocking(first) == b"!?"
    first.stop()
    assert isinstance(first.target, int)
    second = serve(echo, address=Address(host="127.0.0.1", port=first.target))
    assert call_blocking(second) == b"!?"


# --- addresses


def test_a_unix_socket_is_served(serve: Serve, call: Client, tmp_path: Path) -> None:
    served = serve(echo, address=Address(path=str(tmp_path / "check.sock")))

    assert call(served, bytes(100_000)) == b"!" + bytes(100_000)
    assert health(served) == STATES.NOT_SERVING
    served.rests()


def test_ipv6_is_served(serve: Serve) -> None:
    served = serve(echo, address=Address(host="::1", port=0))
    with grpc.insecure_channel(f"[::1]:{served.target}", OPTIONS) as channel:
        assert checks(channel)(b"?", timeout=20) == b"!?"


def test_a_port_in_use_is_named(serve: Serve) -> None:
    first = serve(echo)
    assert isinstance(first.target, int)
    with pytest.raises(ListenError, match=f"127.0.0.1:{first.target}"):
        serve(lambda _: b"other", address=Address(host="127.0.0.1", port=first.target))
    assert [call_blocking(first) for _ in range(3)] == [b"!?"] * 3


@pytest.mark.parametrize("path", ["no/such/folder/check.sock", "x" * 200])
def test_a_socket_that_cannot_be_made_is_named(serve: Serve, tmp_path: Path, path: str) -> None:
    with pytest.raises(ListenError, match=r"check\.sock|xxx"):
        serve(echo, address=Address(path=str(tmp_path / path)))


# --- TLS


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"), "another authority")


def secured(served: Served, pki: Authority, client: tuple[Path, Path] | None = None) -> grpc.Channel:
    """Connect over TLS, with a client certificate if one is given."""
    chain, key = client or (None, None)
    credentials = grpc.ssl_channel_credentials(
        pki.file.read_bytes(), key.read_bytes() if key else None, chain.read_bytes() if chain else None
    )
    return grpc.secure_channel(f"localhost:{served.target}", credentials, OPTIONS)


def test_tls_is_served(serve: Serve, pki: Authority) -> None:
    served = serve(echo, certificates=pki.server())
    with secured(served, pki) as channel:
        for size in (1, 100_000, 1 << 20):
            assert checks(channel)(bytes(size), timeout=20) == b"!" + bytes(size)
        asked = [checks(channel).future(b"%d" % number, timeout=20) for number in range(100)]
        assert [one.result() for one in asked] == [b"!%d" % number for number in range(100)]
    served.rests()


def test_mtls_lets_in_whom_the_authority_knows(serve: Serve, pki: Authority) -> None:
    served = serve(echo, certificates=pki.server(clients_of=pki))
    with secured(served, pki, pki.issue("envoy")) as channel:
        assert checks(channel)(b"?", timeout=20) == b"!?"
    served.rests()


@pytest.mark.parametrize("who", ["nobody", "a stranger", "without TLS", "of another name of ours"])
def test_mtls_lets_in_nobody_else(serve: Serve, pki: Authority, strangers: Authority, who: str) -> None:
    calls: list[bytes] = []

    def handler(message: bytes) -> bytes:
        calls.append(message)
        return b"in"

    served = serve(handler, certificates=pki.server(clients_of=pki))
    client = {"a stranger": strangers.issue("envoy")}.get(who)
    if who == "of another name of ours":
        # An authority that calls itself like ours, with another key.
        client = Authority(_folder(strangers), "the authority").issue("envoy")
    channel = grpc.insecure_channel(f"localhost:{served.target}", OPTIONS) if who == "without TLS" else secured(served, pki, client)
    with channel, pytest.raises(grpc.RpcError) as caught:
        checks(channel)(b"?", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert calls == []
    served.rests()
    with secured(served, pki, pki.issue("envoy")) as channel:
        assert checks(channel)(b"?", timeout=20) == b"in"


ENVOY = x509.UniformResourceIdentifier("spiffe://acme.com/envoy")
NAMED: dict[str, tuple[tuple[x509.GeneralName, ...], bool]] = {
    "the name": ((ENVOY,), True),
    "the name among others": ((x509.DNSName("a.acme.com"), ENVOY), True),
    "another allowed name": ((x509.DNSName("envoy.acme.com"),), True),
    "another name": ((x509.DNSName("other.acme.com"),), False),
    "more than the name": ((x509.UniformResourceIdentifier("spiffe://acme.com/envoy/x"),), False),
    "the name of another kind": ((x509.DNSName("spiffe.acme.com"),), False),
}


def answer_or_code(channel: grpc.Channel) -> object:
    """Return what a check is answered with, or the code of its error."""
    try:
        return checks(channel)(b"?", timeout=20)
    except grpc.RpcError as error:
        return error.code()


@pytest.mark.parametrize("who", NAMED)
def test_only_clients_with_an_allowed_name_are_answered(serve: Serve, pki: Authority, who: str) -> None:
    """nghttp2 closes the connection of another, grpcio answers with the fixed denial; neither asks the handler."""
    calls: list[bytes] = []

    def handler(message: bytes) -> bytes:
        calls.append(message)
        return b"in"

    names, is_allowed = NAMED[who]
    allowed = frozenset({"spiffe://acme.com/envoy", "envoy.acme.com"})
    served = serve(handler, certificates=pki.server(clients_of=pki, allowed_names=allowed))
    with secured(served, pki, pki.issue("client", *names)) as channel:
        if is_allowed:
            assert checks(channel)(b"?", timeout=20) == b"in"
        else:
            expected = {"nghttp2": grpc.StatusCode.UNAVAILABLE, "grpcio": FALLBACK}
            assert answer_or_code(channel) == expected[served.loop.transport.name]
    assert bool(calls) == is_allowed
    served.rests()


def _folder(authority: Authority) -> Path:
    folder = authority.file.parent / "same name"
    folder.mkdir(exist_ok=True)
    return folder


def context_for(pki: Authority, protocols: list[str] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.file))
    if protocols is not None:
        context.set_alpn_protocols(protocols)
    return context


@only_nghttp2
@pytest.mark.parametrize("protocols", [None, ["h2"], ["http/1.1", "h2"]], ids=["none", "h2", "both"])
def test_alpn_is_h2_or_nothing(serve: Serve, pki: Authority, protocols: list[str] | None) -> None:
    """Envoy offers nothing unless it is told to; grpcio insists on h2."""
    served = serve(echo, certificates=pki.server())
    with Peer(served.target, tls=context_for(pki, protocols)) as peer:
        assert peer.ask(b"?").message == b"!?"
        assert isinstance(peer.socket, ssl.SSLSocket)
        assert peer.socket.selected_alpn_protocol() == ("h2" if protocols else None)
    served.rests()


def test_another_protocol_than_h2_is_not_spoken(serve: Serve, pki: Authority) -> None:
    served = serve(echo, certificates=pki.server())
    try:
        with Peer(served.target, tls=context_for(pki, ["http/1.1"]), hello=False) as peer:
            peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            peer.end()
            assert peer.answers == {}
    except (ssl.SSLError, GoneError, ConnectionError):
        pass
    served.rests()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(serve: Serve, pki: Authority, version: ssl.TLSVersion) -> None:
    served = serve(echo, certificates=pki.server())
    context = context_for(pki, ["h2"])
    context.minimum_version = context.maximum_version = version
    with Peer(served.target, tls=context) as peer:
        assert peer.ask(b"?").message == b"!?"
    served.rests()


def serial_seen(served: Served, pki: Authority) -> int:
    with Peer(served.target, tls=context_for(pki, ["h2"])) as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        told = peer.socket.getpeercert(binary_form=True)
        assert told is not None
        assert peer.ask(b"?").message == b"!?"
        return x509.load_der_x509_certificate(told).serial_number


def test_a_new_certificate_is_used_from_the_next_connection_on(serve: Serve, pki: Authority) -> None:
    served = serve(echo, certificates=pki.server("first"))
    with Peer(served.target, tls=context_for(pki, ["h2"])) as open_before:
        assert open_before.ask(b"1").message == b"!1"
        first = serial_seen(served, pki)
        served.loop.run(served.server.reload_tls(pki.server("second")))
        assert serial_seen(served, pki) != first
        assert open_before.ask(b"2").message == b"!2", "a connection lives on"
    served.rests()


def test_a_new_client_authority_is_used_from_the_next_connection_on(serve: Serve, pki: Authority, strangers: Authority) -> None:
    served = serve(echo, certificates=pki.server(clients_of=pki))
    with secured(served, pki, pki.issue("envoy")) as open_before:
        assert checks(open_before)(b"1", timeout=20) == b"!1"
        served.loop.run(served.server.reload_tls(pki.server(clients_of=strangers)))
        with secured(served, pki, strangers.issue("envoy")) as channel:
            assert checks(channel)(b"?", timeout=20) == b"!?"
        with secured(served, pki, pki.issue("envoy")) as channel, pytest.raises(grpc.RpcError):
            checks(channel)(b"?", timeout=2)
        assert checks(open_before)(b"2", timeout=20) == b"!2", "a connection lives on"
    served.rests()


def test_a_drain_is_graceful_over_tls_too(serve: Serve, pki: Authority) -> None:
    held = Held()
    served = serve(held, certificates=pki.server())
    with secured(served, pki) as channel:
        running = checks(channel).future(b"?", timeout=20)
        eventually(lambda: held.begun == 1)
        stopping = served.stopping(10.0)
        eventually(lambda: _refused(served.target))
        served.loop.soon(held.go.set)
        assert running.result() == b"!?"
        stopping.result(20)
    served.rests()


@only_nghttp2
def test_limits_beyond_what_the_protocol_can_say_are_the_largest_that_it_can(loop: Loop) -> None:
    """A setting has 32 bits (RFC 9113 6.5.1)."""
    served = Served(loop, echo, limits=default_limits(concurrent_streams=5_000_000_000, header_list_size=2**33))
    try:
        with Peer(served.target) as peer:
            assert peer.ask(b"hello").message == b"!hello"
    finally:
        served.stop()
