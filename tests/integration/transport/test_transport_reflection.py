"""For tools at the port: server reflection in both versions and the list of health states, of both transports."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse

from extauthz.transport.grpc.bidirectional import MAX_UNSENT
from extauthz.transport.grpc.reflection import MAX_REQUEST_SIZE, MAX_REQUESTS, MAX_STREAMS, answer
from tests.support.h2_client import ACK, INITIAL_WINDOW_SIZE, GoneError, Peer, data, fields, framed, reset, settings, window_update
from tests.support.transports import Loop, Served, default_limits, echo, only_nghttp2
from tests.support.waiting import eventually

SERVICE = "envoy.service.auth.v3.Authorization"
SERVICES = [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
PATHS = [f"/{service}/ServerReflectionInfo" for service in SERVICES[2:]]
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
LIST = ServerReflectionRequest(list_services="").SerializeToString()
LARGE = ServerReflectionRequest(file_containing_symbol=SERVICE).SerializeToString()


@pytest.fixture
def served(loop: Loop, caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    made = Served(loop, echo)
    yield made
    made.rests()
    if loop.transport.name == "nghttp2":
        assert made.server._counters.streams == made.server._counters.unfinished == 0
    made.stop()
    assert [record for record in caplog.records if record.exc_info] == []


def connected(served: Served) -> Any:
    return grpc.insecure_channel(served.address, OPTIONS)


def called(channel: Any, path: str, *requests: bytes) -> list[Any]:
    """Send requests on one stream, and return the responses."""
    return [ServerReflectionResponse.FromString(each) for each in channel.stream_stream(path)(iter(requests), timeout=20)]


# --- reflection


@pytest.mark.parametrize("path", PATHS)
def test_services_are_listed(served: Served, path: str) -> None:
    with connected(served) as channel:
        (response,) = called(channel, path, LIST)
    assert [each.name for each in response.list_services_response.service] == SERVICES


def test_the_client_of_the_library_finds_what_is_served(served: Served) -> None:
    with connected(served) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert sorted(database.get_services()) == SERVICES
        pool = DescriptorPool(database)
        check = pool.FindServiceByName(SERVICE).methods_by_name["Check"]
        assert check.input_type.fields_by_name["attributes"].message_type.full_name == "envoy.service.auth.v3.AttributeContext"
        for service, method in zip(SERVICES[1:], ("List", "ServerReflectionInfo", "ServerReflectionInfo"), strict=True):
            assert method in pool.FindServiceByName(service).methods_by_name
        assert pool.FindServiceByName(SERVICES[2]).methods_by_name["ServerReflectionInfo"].input_type.full_name == (
            "grpc.reflection.v1.ServerReflectionRequest"
        )


REQUESTS: dict[str, tuple[ServerReflectionRequest, str]] = {
    "a file": (ServerReflectionRequest(file_by_filename="google/protobuf/struct.proto"), "file_descriptor_response"),
    "a message": (ServerReflectionRequest(file_containing_symbol="envoy.service.auth.v3.CheckRequest"), "file_descriptor_response"),
    "a method": (ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.Check"), "file_descriptor_response"),
    "a host": (ServerReflectionRequest(host="elsewhere", list_services="*"), "list_services_response"),
    "extensions": (
        ServerReflectionRequest(all_extension_numbers_of_type="envoy.service.auth.v3.CheckRequest"),
        "all_extension_numbers_response",
    ),
    "an unknown file": (ServerReflectionRequest(file_by_filename="/etc/passwd"), "error_response"),
    "an unknown symbol": (ServerReflectionRequest(file_containing_symbol="no.such\0Thing\r\n"), "error_response"),
    "a method that is not there": (ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.Other"), "error_response"),
    "no symbol": (ServerReflectionRequest(file_containing_symbol=""), "error_response"),
    "what is not served": (ServerReflectionRequest(file_containing_symbol="google.protobuf.FileDescriptorProto"), "error_response"),
    "an extension": (
        ServerReflectionRequest(file_containing_extension=ExtensionRequest(containing_type="x.Y", extension_number=1)),
        "error_response",
    ),
    "extensions of nothing": (ServerReflectionRequest(all_extension_numbers_of_type="x.Y"), "error_response"),
    "nothing": (ServerReflectionRequest(), "error_response"),
}


def test_each_request_gets_its_answer_in_turn(served: Served) -> None:
    requests = [request.SerializeToString() for request, _ in REQUESTS.values()]
    with connected(served) as channel:
        at_once = called(channel, PATHS[0], *requests)
        assert [each.WhichOneof("message_response") for each in at_once] == [kind for _, kind in REQUESTS.values()]
        assert [each.original_request for each in at_once] == [request for request, _ in REQUESTS.values()]
        assert called(channel, PATHS[1], *requests) == at_once
        assert {each.error_response.error_code for each in at_once if each.HasField("error_response")} == {3, 5}
        # One after the other: the second request is sent when the first has been answered.
        sent = iter(requests)
        answers = channel.stream_stream(PATHS[0])(iterating := _Turns(sent), timeout=20)
        for expected in at_once:
            iterating.go()
            assert ServerReflectionResponse.FromString(next(answers)) == expected
        iterating.end()
        assert list(answers) == []


class _Turns:
    """Questions that a test releases one by one."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._queue: queue.Queue[bytes | None] = queue.Queue()

    def go(self) -> None:
        self._queue.put(next(self._requests))

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        response = self._queue.get(timeout=20)
        if response is None:
            raise StopIteration
        return response


def test_no_request_gets_no_response(served: Served) -> None:
    with connected(served) as channel:
        assert called(channel, PATHS[0]) == []


@pytest.mark.parametrize(
    ("requests", "status", "answered"),
    [
        ([b"\xff\xff"], grpc.StatusCode.INVALID_ARGUMENT, 0),
        ([LIST, b"\xff\xff", LIST], grpc.StatusCode.INVALID_ARGUMENT, 1),
        ([LIST, bytes(MAX_REQUEST_SIZE + 1)], grpc.StatusCode.RESOURCE_EXHAUSTED, 1),
        ([LIST] * (MAX_REQUESTS + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, MAX_REQUESTS),
    ],
    ids=["not readable", "the second is not readable", "too large", "too many"],
)
def test_a_limit_ends_a_stream(served: Served, requests: list[bytes], status: grpc.StatusCode, answered: int) -> None:
    got: list[bytes] = []
    with connected(served) as channel:
        call = channel.stream_stream(PATHS[0])(iter(requests), timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            got.extend(call)
        # What was answered before may be lost to a client that hears of the end first.
        assert caught.value.code() is status
        assert len(got) == answered
        del caught, call
        assert len(called(channel, PATHS[0], LIST)) == 1
    assert sum(served.server.refusals.values()) == 1


def test_a_call_that_stays_open_ends(loop: Loop) -> None:
    served = Served(loop, echo, limits=default_limits(half_open_timeout=0.3))
    turns = _Turns(iter([LIST]))
    with connected(served) as channel:
        call = channel.stream_stream(PATHS[0])(turns, timeout=20)
        turns.go()
        assert next(call)
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        turns.end()
    served.rests()
    served.stop()


def test_a_stop_ends_a_call_that_stays_open(loop: Loop) -> None:
    served = Served(loop, echo)
    turns = _Turns(iter([LIST]))
    with connected(served) as channel:
        call = channel.stream_stream(PATHS[0])(turns, timeout=20)
        turns.go()
        assert next(call)
        stopping = served.stopping(1.0)
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        turns.end()
        stopping.result(20)
    served.rests()


def test_calls_are_few_and_leave_room_again(served: Served) -> None:
    def one_more() -> grpc.StatusCode:
        with connected(served) as channel, pytest.raises(grpc.RpcError) as caught:
            called(channel, PATHS[0], LIST)
        return caught.value.code()

    async def many() -> tuple[grpc.StatusCode, grpc.StatusCode]:
        async with grpc.aio.insecure_channel(served.address, OPTIONS) as channel:
            calls = [channel.stream_stream(PATHS[0])() for _ in range(MAX_STREAMS)]
            for call in calls:
                await call.write(LIST)
                assert await call.read() != grpc.aio.EOF
            # grpc.aio makes an error of its own of a stream that ends while it writes.
            refused = await asyncio.to_thread(one_more)
            check = await channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")(b"?", timeout=20)
            assert check == b"!?"
            for call in calls:
                await call.done_writing()
                assert await call.code() is grpc.StatusCode.OK
            again = channel.stream_stream(PATHS[0])()
            await again.write(LIST)
            assert await again.read() != grpc.aio.EOF
            await again.done_writing()
            return refused, await again.code()

    assert asyncio.run(many()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK)


# --- bytes, to the transport of our own


def opened(peer: Peer, path: str = PATHS[0]) -> int:
    number = peer.stream()
    peer.send(peer.headers(number, fields(path=path)))
    return number


@only_nghttp2
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_requests_may_come_in_any_pieces(served: Served, size: int) -> None:
    content = framed(LIST) * 3
    with Peer(served.target) as peer:
        number = opened(peer)
        for start in range(0, len(content), size):
            peer.send(data(number, content[start : start + size]))
            served.loop.turn()
        peer.read(lambda: number in peer.answers and peer.answers[number].body.count(framed(answer(LIST) or b"")) == 3)
        assert not peer.answers[number].done
        peer.send(data(number, end=True))
        response = peer.answer(number)
        assert (response.messages, response.status) == ([answer(LIST)] * 3, 0)


@only_nghttp2
@pytest.mark.parametrize(
    ("tail", "status"),
    [(b"\0", 13), (framed(LIST)[:-1], 13), (framed(LIST, flag=1), 13), (framed(LIST, flag=2), 13), (b"\0\xff\xff\xff\xff", 8)],
)
@pytest.mark.parametrize("before", [b"", framed(LIST)], ids=["alone", "behind another"])
def test_what_is_no_request_ends_the_call(served: Served, before: bytes, tail: bytes, status: int) -> None:
    with Peer(served.target) as peer:
        number = opened(peer)
        peer.send(data(number, before + tail, end=True))
        response = peer.answer(number)
        assert (response.status, len(response.messages)) == (status, bool(before))
        # The same without an end: it is not waited for.
        number = opened(peer)
        peer.send(data(number, before + b"\0\xff\xff\xff\xff"))
        assert peer.answer(number).status == 8
        peer.send(data(number, framed(LIST)), reset(number))
        assert peer.ask(b"well?").message == b"!well?"


@only_nghttp2
def test_answers_that_nobody_takes_are_bounded(served: Served) -> None:
    with Peer(served.target, own_settings={INITIAL_WINDOW_SIZE: 0}, polite=False) as peer:
        peer.send(settings(flags=ACK), window_update(0, 2**30))
        number = opened(peer)
        peer.send(data(number, framed(LARGE) * MAX_REQUESTS))
        peer.ping()
        (connection,) = served.server._open
        assert 0 < len(connection.streams[number].answer) <= MAX_UNSENT + 5
        peer.send(settings({INITIAL_WINDOW_SIZE: 2**30}))
        response = peer.answer(number)
        assert response.status == 8
        assert 10 < len(response.messages) < MAX_REQUESTS
        peer.send(reset(number))
        assert peer.ask(b"well?").message == b"!well?"


@only_nghttp2
@pytest.mark.parametrize("how", ["reset", "abort", "trailers", "bad trailers", "bad trailers at once"])
def test_a_call_may_end_in_any_way(served: Served, how: str) -> None:
    with suppress(GoneError), Peer(served.target) as peer:
        number = opened(peer)
        if how != "bad trailers at once":
            peer.send(data(number, framed(LIST)))
            peer.read(lambda: peer.answers.get(number))
        match how:
            case "reset":
                peer.send(reset(number))
            case "abort":
                peer.abort()
            case "trailers":
                peer.send(peer.headers(number, (("x-trailer", "1"),), flags=1))
                assert peer.answer(number).status == 0
            case "bad trailers" | "bad trailers at once":
                peer.send(data(number, framed(LIST)), peer.headers(number, ((":path", "/"),), flags=1))
                assert peer.answer(number).reset == 1
        if how != "abort":
            assert peer.ask(b"well?").message == b"!well?"


@only_nghttp2
def test_a_call_without_a_request_is_given_up(loop: Loop) -> None:
    served = Served(loop, echo, limits=replace(default_limits(), half_open_timeout=0.2))
    with Peer(served.target) as peer:
        assert peer.answer(opened(peer)).reset is not None
        number = opened(peer)
        peer.send(data(number, framed(LIST)))
        assert peer.answer(number).status == 14
        # The client has not ended its side, which is given up after a while too.
        eventually(lambda: served.streams == 0)
    served.rests()
    served.stop()


# --- health


@pytest.mark.parametrize("serving", [True, False])
def test_health_is_listed(served: Served, serving: bool) -> None:
    served.set_serving(serving)
    with connected(served) as channel:
        response = health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=20)
    state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    assert {name: each.status for name, each in response.statuses.items()} == {"": state, SERVICE: state}


@only_nghttp2
def test_a_list_that_is_not_readable_is_refused(served: Served) -> None:
    with Peer(served.target) as peer:
        assert peer.ask(b"\xff\xff", entries=fields(path="/grpc.health.v1.Health/List")).status == 3
