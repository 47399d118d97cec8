"""Which connections the console keeps: strangers make room for each other, and a request that came is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from extauthz.console.connections import ConsoleConnection
from tests.support.virtual_time import elapse, in_virtual_time

WHOLE = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
HALF = b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60000\r\n\r\nemail="
POST = b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx"
MOST, OF_CLIENT = ConsoleConnection.most, ConsoleConnection.most_of_client


class Behind(ConsoleConnection):
    """Behind a proxy."""

    shared = (ip_network("10.0.0.0/8"),)


class Line(asyncio.Transport):
    """The side of the server: from whom it comes, and when it was closed, politely or not."""

    def __init__(self, client: str) -> None:
        super().__init__()
        self._client = client
        self.closed: tuple[str, float] | None = None
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": (self._client, 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed is not None

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if self.closed is None:
            self.closed = (how, round(asyncio.get_running_loop().time(), 3))
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


async def answer(scope: Any, _: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def hang(scope: Any, _: Any, send: Any) -> None:
    await asyncio.Event().wait()


def lines(
    work: Callable[[Callable[..., Line]], Any], application: Any = hang, kind: type[ConsoleConnection] = ConsoleConnection
) -> Any:
    """Let `work` make lines to one server, by the address of the client and what it sends."""

    async def inside() -> Any:
        settings = uvicorn.Config(application, http=kind, ws="none", lifespan="off", log_config=None, timeout_keep_alive=75)
        settings.load()
        state = ServerState()

        def connect(client: str, words: bytes = b"") -> Line:
            line = Line(client)
            line.protocol = kind(settings, state, {}, asyncio.get_running_loop())
            line.protocol.connection_made(line)
            if words and line.closed is None:
                line.protocol.data_received(words)
            return line

        try:
            return await work(connect)
        finally:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    return in_virtual_time(inside)


def distinct(number: int) -> str:
    return f"203.0.{number // 250}.{number % 250 + 1}"


CASES = {
    "nothing": ((), hang, ("aborted", 5.0)),
    "half a header": ((WHOLE[:-2],), hang, ("aborted", 5.0)),
    "half a body": ((HALF,), hang, ("aborted", 310.0)),
    "answered": ((WHOLE,), answer, ("closed", 75.0)),
    "half of the next header": ((WHOLE, WHOLE[:-2]), answer, ("closed", 300.0)),
    "answered for long": ((WHOLE,), hang, None),
    "a form answered for long": ((POST,), hang, None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_connection_ends_by_itself_and_not_while_it_is_answered(name: str) -> None:
    words, application, end = CASES[name]

    async def work(connect: Callable[..., Line]) -> Any:
        line = connect("203.0.113.7")
        for part in words:
            line.protocol.data_received(part)
            await elapse(0)
        await elapse(5000.0)
        return line.closed

    assert lines(work, application) == end


@pytest.mark.parametrize("words", [b"", WHOLE[:-2], HALF], ids=["nothing", "half a header", "half a body"])
@pytest.mark.parametrize(
    "client", [lambda number: "203.0.113.7", lambda number: f"2001:db8:1:2::{number + 1:x}"], ids=["IPv4", "one /64"]
)
def test_one_client_takes_no_place_of_others(words: bytes, client: Callable[[int], str]) -> None:
    async def work(connect: Callable[..., Line]) -> tuple[int, Line]:
        mine = connect("198.51.100.1")
        theirs = [connect(client(number), words) for number in range(300)]
        return sum(line.closed is None for line in theirs), mine

    held, mine = lines(work)
    assert (held, mine.closed) == (OF_CLIENT, None)


@pytest.mark.parametrize("words", [b"", HALF], ids=["nothing", "half a body"])
def test_many_clients_that_send_no_request_make_room_for_one_that_does(words: bytes) -> None:
    async def work(connect: Callable[..., Line]) -> tuple[int, Line, Line]:
        busy = connect("198.51.100.1", WHOLE)
        theirs = [connect(distinct(number), words) for number in range(2 * MOST)]
        mine = connect("198.51.100.2", WHOLE)
        return sum(line.closed is None for line in theirs), busy, mine

    held, busy, mine = lines(work)
    assert (held, busy.closed, mine.closed) == (MOST - 2, None, None)


def test_a_request_that_came_makes_no_room() -> None:
    async def work(connect: Callable[..., Line]) -> tuple[list[Line], list[Line]]:
        busy = [connect(distinct(number), POST) for number in range(MOST)]
        return busy, [connect("198.51.100.2", WHOLE) for _ in range(3)]

    busy, late = lines(work)
    assert ({line.closed for line in busy}, {line.closed for line in late}) == ({None}, {("aborted", 0.0)})


def test_an_answer_that_its_client_does_not_take_makes_room_when_nothing_else_does() -> None:
    async def work(connect: Callable[..., Line]) -> tuple[Line, Line, Line]:
        stalled = connect("198.51.100.1", WHOLE)
        stalled.protocol.pause_writing()
        for number in range(MOST - 1):
            connect(distinct(number), WHOLE if number else HALF)
        first = connect("198.51.100.2", WHOLE)
        assert stalled.closed is None
        return stalled, first, connect("198.51.100.3", WHOLE)

    stalled, first, second = lines(work)
    assert (stalled.closed, first.closed, second.closed) == (("aborted", 0.0), None, None)


def test_a_proxy_that_is_trusted_has_the_places_of_all() -> None:
    async def work(connect: Callable[..., Line]) -> list[int]:
        return [
            sum(line.closed is None for line in [connect(client, WHOLE) for _ in range(60)]) for client in ("10.1.2.3", "192.0.2.1")
        ]

    assert lines(work, kind=Behind) == [60, OF_CLIENT]
