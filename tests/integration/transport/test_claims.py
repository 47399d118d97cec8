"""Addresses that are ours alone, until the process that has them leaves them to one successor."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from extauthz.addresses import Address
from extauthz.cli import main
from extauthz.errors import AddressInUseError
from extauthz.serve.orphanhood import time_of
from extauthz.transport.address_claims import AddressClaim, SuccessorWait, claim, offer, take
from extauthz.transport.select import Server, choose
from extauthz.transport.sockets import open_listener
from tests.support.ports import free_port
from tests.support.transports import FALLBACK, NAMES, Name, default_limits
from tests.support.waiting import until

CHECK = "/envoy.service.auth.v3.Authorization/Check"
PATIENCE = 20.0


@pytest.fixture(params=["port", "path"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """An address of each kind."""
    return Address(path=str(tmp_path / "check.sock")) if request.param == "path" else Address(host="127.0.0.1", port=free_port())


@pytest.fixture(params=NAMES)
def transport(request: pytest.FixtureRequest) -> Name:
    """Each transport."""
    name: Name = request.param
    return name


@asynccontextmanager
async def bound(transport: Name, claimed: AddressClaim, answer: bytes) -> AsyncIterator[Server]:
    """Serve at a claimed address that is not published."""
    server = choose(transport).server(lambda _: answer, FALLBACK, limits=default_limits(), certificates=None)
    await server.start(claimed.binding, shared=claimed.shared)
    await server.set_serving(serving=True)
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def served(transport: Name, claimed: AddressClaim, answer: bytes) -> AsyncIterator[Server]:
    """Serve at a claimed address."""
    async with bound(transport, claimed, answer) as server:
        claimed.publish(mode="0600", group=None)
        yield server


async def answers(address: Address, count: int = 4) -> set[bytes]:
    """Ask on connections of their own."""
    target = f"unix:{address.path}" if address.path else str(address)
    found = set()
    for _ in range(count):
        async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            found.add(await channel.unary_unary(CHECK)(b"", timeout=PATIENCE))
    return found


async def claimed_beside(address: Address, *, take_over: bool = True) -> AddressClaim:
    """AddressClaim as another process would: the loop of the one that leaves goes on meanwhile."""
    return await asyncio.to_thread(take, address, take_over=take_over)


async def refused(address: Address, *, take_over: bool = True) -> bool:
    """Tell whether another instance would be refused."""
    try:
        (await claimed_beside(address, take_over=take_over)).close()
    except AddressInUseError:
        return True
    return False


def has_file(address: Address) -> bool:
    """Tell whether there is a socket file."""
    return bool(address.path) and Path(address.path).exists()


async def has_come(taken: SuccessorWait) -> bool:
    """Tell whether a successor serves, which is known soon or never."""
    waiting = asyncio.ensure_future(taken())
    done, _ = await asyncio.wait({waiting}, timeout=0.15)
    waiting.cancel()
    return bool(done)


async def test_a_second_instance_is_refused_while_the_first_stays(address: Address, transport: Name) -> None:
    with claim(address) as claimed:
        async with served(transport, claimed, b"first"):
            assert await refused(address)
            assert await answers(address) == {b"first"}


async def test_one_successor_takes_the_address_over(address: Address, transport: Name) -> None:
    other: Name = "grpcio" if transport == "nghttp2" else "nghttp2"
    async with AsyncExitStack() as later:
        with claim(address) as first:
            async with served(transport, first, b"first"), offer(first) as taken:
                second = later.enter_context(closing(await claimed_beside(address)))
                assert await refused(address), "there is room for one"
                assert await answers(address) == {b"first"}
                assert not await has_come(taken)
                await later.enter_async_context(served(other, second, b"second"))
                await asyncio.wait_for(taken(), PATIENCE)
                assert await refused(address), "nor for one that comes behind it"
        assert await answers(address) == {b"second"}
        assert await refused(address)
        async with offer(second):
            assert not await refused(address), "it can be handed over again"


async def test_a_successor_that_ends_before_it_serves_makes_room_for_the_next(address: Address, transport: Name) -> None:
    with claim(address) as first:
        async with served(transport, first, b"first"), offer(first) as taken:
            with closing(await claimed_beside(address)) as second:
                async with bound(transport, second, b"second"):
                    pass
            assert not await has_come(taken)
            assert await answers(address) == {b"first"}

            async def is_free() -> bool:
                return not await refused(address)

            # The end of a connection is on its way.
            await until(is_free, seconds=PATIENCE)


async def test_who_may_not_take_over_is_refused(address: Address) -> None:
    with claim(address) as first:
        async with served("nghttp2", first, b"first"), offer(first):
            assert await refused(address, take_over=False)


async def test_an_address_that_nobody_takes_is_free_at_the_end(address: Address) -> None:
    with claim(address) as first:
        async with served("nghttp2", first, b"first"), offer(first):
            pass
    assert not await refused(address)
    assert not has_file(address)
    with closing(open_listener(address)):
        assert await refused(address), "what was left before says nothing of another program"


async def test_a_process_of_another_user_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can take the name on which a successor asks."""
    address = Address(host="127.0.0.1", port=free_port())
    with claim(address) as first:
        async with served("nghttp2", first, b"first"), offer(first) as taken:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            assert await refused(address)
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(f"\0extauthz {address}")
                stranger.setblocking(False)
                async with asyncio.timeout(PATIENCE):
                    assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
            assert not await has_come(taken)


async def test_an_address_that_cannot_be_offered_is_told(caplog: pytest.LogCaptureFixture) -> None:
    address = Address(host="127.0.0.1", port=free_port())
    with claim(address) as first, socket.socket(socket.AF_UNIX) as taken:
        taken.bind(f"\0extauthz {address}")
        async with served("nghttp2", first, b"first"), offer(first) as successor:
            assert not await has_come(successor)
            assert await answers(address) == {b"first"}
    assert [record.getMessage() for record in caplog.records] == ["an address cannot be handed over"]


@pytest.mark.parametrize(("orphan_time", "drain"), [(300.0, 10.0), (0.0, 0.0), (60.0, 0.5)])
def test_orphans_end_one_by_one(orphan_time: float, drain: float) -> None:
    """The next one turns its peers away when the one before it has ended."""
    begins = [time_of(index, orphan_time=orphan_time, drain=drain) for index in range(4)]
    assert begins[0] == orphan_time
    assert min(later - earlier for earlier, later in itertools.pairwise(begins)) > drain


def test_a_time_to_wait_is_a_duration(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["serve", "--config", str(tmp_path / "none.yaml"), "--wait", "10"])
    assert done.exit_code == 2
    assert "'10' is not a duration" in done.output
