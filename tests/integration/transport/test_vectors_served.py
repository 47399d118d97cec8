"""Every case of the decision page once more, over the wire of both transports: the same bytes come out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass

import grpc
import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.addresses import Address
from extauthz.transport.select import Transport, choose
from tests.support import vectors
from tests.support.transports import default_limits
from tests.support.vector_worlds import CHECKS, Worlds, prepared, worlds
from tests.support.vectors import Case, VectorWorld

__all__ = ["worlds"]

METHOD = "/envoy.service.auth.v3.Authorization/Check"
FALLBACK = b"must not be sent"


@dataclass
class Served:
    """Both transports in one loop of its own, in front of whichever world is under test."""

    channels: dict[str, grpc.Channel]
    world: VectorWorld | None = None

    def check(self, data: bytes) -> bytes | Awaitable[bytes]:
        """Answer with the world of the case."""
        assert self.world is not None
        return self.world.world.authorizer.check(data)

    def ask(self, name: str, data: bytes) -> bytes:
        """Send a check through a transport."""
        return bytes(self.channels[name].unary_unary(METHOD)(data, timeout=10))


async def _serve(served: Served, started: threading.Event, ending: asyncio.Event, chosen: list[Transport]) -> None:
    servers = [transport.server(served.check, FALLBACK, limits=default_limits(), certificates=None) for transport in chosen]
    ports = [await server.start(Address(host="127.0.0.1", port=0)) for server in servers]
    for transport, port in zip(chosen, ports, strict=True):
        # A header of the vectors may be as long as a message may be, and both transports take the same messages.
        served.channels[transport.name] = grpc.insecure_channel(f"127.0.0.1:{port}")
    started.set()
    await ending.wait()
    for server in servers:
        await server.stop(0)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Serve until the module is done."""
    found, started, state = Served({}), threading.Event(), {}

    async def run() -> None:
        state["ending"], state["loop"] = asyncio.Event(), asyncio.get_running_loop()
        await _serve(found, started, state["ending"], [choose("nghttp2"), choose("grpcio")])

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(10)
    try:
        yield found
    finally:
        for channel in found.channels.values():
            channel.close()
        state["loop"].call_soon_threadsafe(state["ending"].set)
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("case", CHECKS, ids=str)
def test_both_transports_give_the_same_bytes(case: Case, worlds: Worlds, served: Served) -> None:
    served.world = worlds(case)
    requests = vectors.requests(served.world.fill(prepared(case, served.world)))
    assert requests != {}
    for form, data in requests.items():
        direct = served.world.ask(data)
        fast, slow = served.ask("nghttp2", data), served.ask("grpcio", data)
        assert fast == slow, f"{case.rule}\n{form}: {direct.message}"
        assert pb.CheckResponse.FromString(fast) == direct.message, f"{case.rule}\n{form}"
