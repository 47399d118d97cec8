"""What a server does with answers, calls, addresses and unix sockets, over real connections."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from extauthz.adapters.envoy.codec import EnvoyCodec
from extauthz.addresses import Address
from extauthz.core.model import Reason
from extauthz.errors import ListenError
from extauthz.transport.address_claims import claim
from extauthz.transport.grpc.grpcio import SERVICE, GrpcioServer
from extauthz.transport.sockets import open_port, publish, restricted_umask
from tests.support.fence import (
    ANA,
    ERRORS,
    REQUEST,
    SECRET,
    Awaited,
    Fence,
    fence,
    named,
    raising,
    raising_later,
    reason_of,
    returning_later,
)
from tests.support.ports import free_port
from tests.support.transports import default_limits
from tests.support.waiting import settled
from tests.support.world import (
    DECISION_ID,
)

__all__ = ["fence"]


class Raising(Awaited):
    """The same, but waiting for it fails."""

    def __await__(self) -> Iterator[Any]:
        raise ValueError(SECRET)


FALLBACK = EnvoyCodec().fixed(Reason.INTERNAL, "0" * 32)
GOOD = EnvoyCodec().fixed(Reason.DRAINING, DECISION_ID)
Handler = Callable[[bytes], Any]


@asynccontextmanager
async def served(handler: Handler, address: Address | None = None) -> AsyncIterator[tuple[GrpcioServer, grpc.aio.Channel]]:
    """Serve a handler on a free port and connect to it."""
    server = GrpcioServer(handler, FALLBACK, limits=default_limits())
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


async def test_a_port_in_use_is_named(fence: Fence) -> None:
    address = Address(host="127.0.0.1", port=free_port())
    with open_port(address), pytest.raises(ListenError, match=f"127.0.0.1:{address.port} is in use"):
        open_port(address)
    open_port(address).close()


async def test_two_servers_never_share_a_port() -> None:
    first, second = (GrpcioServer(lambda _, text=text: text, FALLBACK, limits=default_limits()) for text in (GOOD, b"other"))
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
            server = GrpcioServer(lambda _: GOOD, FALLBACK, limits=default_limits())
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
