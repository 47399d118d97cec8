"""Many who ask for recent decisions at once: the checks of the same loop go on, by the order in which things happen."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

from extauthz.adapters.decision_log.ring import LISTED_AT_ONCE, DecisionRing
from extauthz.addresses import Address
from extauthz.config.loader import Configuration
from extauthz.core.model import Deny, Reason
from extauthz.serve.messages import FindDecisions, Inspection, Message
from extauthz.serve.operators import MOST_READERS, Operators
from extauthz.transport.http.ops import BoundedConnection, HttpServer, Pages, Readiness, application
from extauthz.transport.select import choose
from extauthz.transport.sockets import open_port
from tests.support.compared import configuration as compiled
from tests.support.h2_client import Peer
from tests.support.transports import FALLBACK, default_limits

READERS, KEPT = 100, 1_000
LINE = b'{"time": %d, "decision": "deny", "reason": "route_unknown", "path": "/' + b"a" * 100 + b'"}\n'
ASKED = b"GET /decisions?limit=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n"


class WatchedRing(DecisionRing):
    """A ring that says when it reads a line."""

    def __init__(self, events: list[str]) -> None:
        super().__init__(KEPT, 0, {"time", "decision", "reason", "path", "decision_id"})
        self.events = events
        for number in range(KEPT):
            self.keep(number, f"{number:032x}", LINE % number, Deny(Reason.ROUTE_UNKNOWN))

    def _records(self, entries: Collection[Any], wanted: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        for each in super()._records(entries, wanted):
            self.events.append("line")
            yield each


class OneProcess:
    """A sidecar that is this process, as far as it is asked for decisions."""

    def __init__(self, ring: DecisionRing) -> None:
        self.ring = ring

    async def ask_each(self, request: Inspection) -> Mapping[str, Message | None]:
        assert isinstance(request, FindDecisions)
        return {"worker 0": await self.ring.find(request.wanted, limit=request.limit, most_bytes=request.most_bytes)}


@contextlib.asynccontextmanager
async def serving(ring: DecisionRing, configuration: Configuration) -> AsyncIterator[tuple[str, int]]:
    """Serve the ops listener in this loop; yield its address."""

    async def readiness() -> Readiness:
        return Readiness({}, ())

    async def metrics(_: bool) -> tuple[str, bytes]:
        return "text/plain", b""

    pages = Operators(OneProcess(ring), lambda: configuration, started=7.0).pages
    opened = open_port(Address(host="127.0.0.1", port=0))
    server = HttpServer(application(Pages(metrics, readiness, trusted=True, private=pages)), http=BoundedConnection)
    task = asyncio.create_task(server.run_on(opened))
    try:
        yield opened.getsockname()[:2]
    finally:
        server.should_exit = True
        await task


async def answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def checked(peer: Peer) -> None:
    """Make a check and wait for its answer, in the loop that gives it."""
    loop, number = asyncio.get_running_loop(), peer.stream()
    peer.send(peer.request(number))
    while number not in peer.answers or not peer.answers[number].done:
        came = asyncio.Event()
        loop.add_reader(peer.socket, came.set)
        await came.wait()
        loop.remove_reader(peer.socket)
        peer._receive()


async def test_checks_go_on_while_a_hundred_ask_for_decisions_and_read_slowly() -> None:
    events: list[str] = []

    def check(message: bytes) -> bytes:
        events.append("check")
        return message

    server = choose("nghttp2").server(check, FALLBACK, limits=default_limits(), certificates=None)
    port = await server.start(Address(host="127.0.0.1", port=0))
    await server.set_serving(serving=True)
    try:
        async with serving(WatchedRing(events), compiled([])) as where:
            with Peer(port) as peer:
                await checked(peer)
                clients = [await asyncio.open_connection(*where) for _ in range(READERS)]
                for _, writer in clients:
                    writer.write(ASKED)
                while events.count("line") < MOST_READERS * KEPT:
                    await checked(peer)
                answers = [await answered(reader) for reader, _ in clients]
                for _, writer in clients:
                    writer.close()
    finally:
        await server.stop(0)
    longest = max(len(lines) for lines in "".join("l" if event == "line" else "|" for event in events).split("|"))
    # As many as those who are answered would read in one turn of the loop, if each did its part in it; a check takes some turns.
    assert longest < MOST_READERS * LISTED_AT_ONCE, longest
    statuses = [status for status, _, _ in answers]
    assert (statuses.count(200), statuses.count(429)) == (MOST_READERS, READERS - MOST_READERS)
    for status, headers, body in answers:
        if status == 200:
            assert len(json.loads(body)["decisions"]) == KEPT
        else:
            assert (headers["retry-after"], body.startswith(b"8 others ask")) == ("1", True)


async def test_whoever_comes_later_is_answered() -> None:
    ring = WatchedRing([])
    async with serving(ring, compiled([])) as where:
        for _ in range(MOST_READERS + 1):
            reader, writer = await asyncio.open_connection(*where)
            writer.write(ASKED)
            assert (await answered(reader))[0] == 200
            writer.close()
