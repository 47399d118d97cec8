"""Strangers who hold connections and ask nothing, against every listener: probes, scrapers and checks go on."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from time import monotonic
from typing import Any

import hpack
import pytest

from extauthz.addresses import Address
from extauthz.transport import tls_listening
from extauthz.transport.grpc.nghttp2 import Nghttp2Server
from extauthz.transport.http import key_set
from extauthz.transport.http.ops import BoundedConnection, HttpServer, Pages, Readiness, application
from extauthz.transport.limits import Limits
from extauthz.transport.sockets import open_listener
from extauthz.transport.tls_listening import MAX_HANDSHAKES, TlsListener
from tests.support.h2_client import (
    END_HEADERS,
    FIELDS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    Client,
    Peer,
    Target,
    connect,
    data,
    fields,
    frame,
    framed,
    settings,
)
from tests.support.silence import Silence
from tests.support.transports import NAMES, Authority, Held, Loop, Served, default_limits, echo
from tests.support.waiting import eventually

GREETING = PREFACE + settings()
HALF_A_HEADER = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
PROBES = 10
PATIENCE = 5.0
"""Seconds within which a probe must be answered: the shortest that the manifests give one is one second, tried more than once."""


async def _ready() -> Readiness:
    return Readiness({}, ())


async def _metrics(_: bool) -> tuple[str, bytes]:
    return "text/plain", b"figures\n"


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


@dataclass
class Listener:
    """A listener for HTTP: how to make a connection to it that is not opened yet, and what may be asked."""

    target: Target
    connection: Callable[[], HTTPConnection]
    page: str
    limit: int
    loop: Loop

    def probe(self) -> int:
        """Ask as a probe does, on a connection of its own."""
        connection = self.connection()
        try:
            return self.ask(connection)
        finally:
            connection.close()

    def ask(self, connection: HTTPConnection) -> int:
        """Ask on a connection that is kept."""
        connection.request("GET", self.page)
        response = connection.getresponse()
        response.read()
        return response.status


LISTENERS = ("ops", "ops of the parent", "ops over TLS", "ops over TLS of the parent", "ops on a socket", "keys")


@contextmanager
def listening(name: str, folder: Path, **options: Any) -> Iterator[Listener]:
    """Run one of the listeners with the limits of the product."""
    loop = Loop("grpcio" if "parent" in name else "nghttp2")
    address = Address(path=str(folder / "ops.sock")) if "socket" in name else Address(host="127.0.0.1", port=0)
    opened = open_listener(address)
    tls = client = None
    if "TLS" in name:
        authority = Authority(folder)
        tls = authority.server().context
        client = ssl.create_default_context(cafile=str(authority.file))
    ending: asyncio.Event = asyncio.Event()

    async def run() -> None:
        if name == "keys":
            async with key_set.serving(opened, lambda: b"{}"):
                await ending.wait()
            return
        server = HttpServer(application(Pages(_metrics, _ready, dict)), http=BoundedConnection, tls=tls, **options)
        serving = asyncio.create_task(server.run_on(opened))
        await ending.wait()
        server.should_exit = True
        await serving

    running = asyncio.run_coroutine_threadsafe(run(), loop.loop)
    target: Target = address.path or opened.getsockname()[1]

    def connection() -> HTTPConnection:
        if isinstance(target, str):
            return _UnixConnection(target)
        if client is not None:
            return HTTPSConnection("localhost", target, timeout=PATIENCE, context=client)
        return HTTPConnection("127.0.0.1", target, timeout=PATIENCE)

    page, kind = (key_set.PATH, key_set.BriefConnection) if name == "keys" else ("/healthz", BoundedConnection)
    try:
        yield Listener(target, connection, page, kind.most, loop)
    finally:
        loop.soon(ending.set)
        running.result(20)
        loop.close()
        opened.close()
    assert loop.complaints == []


@pytest.mark.parametrize("name", LISTENERS)
def test_probes_are_answered_and_scrapers_stay(name: str, tmp_path: Path) -> None:
    """110 connections, opened anew as soon as they end, as against the product."""
    with listening(name, tmp_path) as listener:
        scraper = listener.connection()
        assert listener.ask(scraper) == 200
        mine = scraper.sock
        assert listener.limit == 100
        with Silence(listener.target, 110):
            for _ in range(PROBES):
                assert listener.probe() == 200
                assert listener.ask(scraper) == 200
            assert scraper.sock is mine, "it was connected anew"
        scraper.close()


@pytest.mark.parametrize("name", ["ops", "ops of the parent", "keys"])
def test_who_has_asked_is_not_taken_for_silent(name: str, tmp_path: Path) -> None:
    """More come within one turn of the loop than there are places, and the first of them has sent its request."""
    with listening(name, tmp_path) as listener, ExitStack() as stack:
        with listener.loop.standing_still():
            probe = stack.enter_context(_closing(listener.connection()))
            probe.request("GET", listener.page)
            for _ in range(2 * listener.limit):
                stack.enter_context(connect(listener.target))
        assert probe.getresponse().status == 200


@pytest.mark.parametrize("words", [b"", HALF_A_HEADER], ids=["nothing", "half a header"])
@pytest.mark.parametrize("name", ["ops", "ops over TLS", "ops over TLS of the parent", "keys"])
def test_a_header_has_seconds_to_come(name: str, words: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the end of a connection that has asked."""
    monkeypatch.setattr(BoundedConnection, "header_timeout", 0.1)
    monkeypatch.setattr(BoundedConnection, "lifetime", 600.0)
    monkeypatch.setattr(key_set.BriefConnection, "lifetime", 600.0)
    with (
        listening(name, tmp_path, handshake_timeout=0.1) as listener,
        Silence(listener.target, 3, words, reopens=False) as silence,
    ):
        scraper = listener.connection()
        assert listener.ask(scraper) == 200
        mine = scraper.sock
        eventually(lambda: silence.held == 0, seconds=PATIENCE)
        assert listener.ask(scraper) == 200
        assert scraper.sock is mine
        scraper.close()


def test_a_header_that_trickles_in_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "header_timeout", 0.1)
    with listening("ops", tmp_path) as listener, socket.create_connection(("127.0.0.1", listener.target)) as slow:
        slow.settimeout(0.01)
        slow.sendall(b"GET /healthz HTTP/1.1\r\n")
        deadline = monotonic() + PATIENCE
        with pytest.raises(ConnectionError):
            _trickle(slow, until=deadline)


def _trickle(slow: socket.socket, *, until: float) -> None:
    """Send byte after byte; raises ConnectionError when the other side has had enough."""
    while monotonic() < until:
        slow.sendall(b"x")
        with suppress(TimeoutError):
            if not slow.recv(1):
                raise ConnectionResetError


@pytest.mark.parametrize("name", ["ops", "keys"])
def test_of_those_who_asked_the_one_goes_that_rested_longest(name: str, tmp_path: Path) -> None:
    with listening(name, tmp_path) as listener, ExitStack() as stack:
        held = [stack.enter_context(_closing(listener.connection())) for _ in range(listener.limit)]
        assert {listener.ask(one) for one in held} == {200}
        assert listener.ask(held[0]) == 200
        sockets = [one.sock for one in held]
        assert listener.probe() == 200
        assert sockets[1].recv(1) == b"", "the longest rest"
        for index in (0, 2, 50):
            assert (listener.ask(held[index]), held[index].sock is sockets[index]) == (200, True)


@pytest.mark.parametrize("name", ["ops over TLS", "ops over TLS of the parent"])
def test_handshakes_that_never_end_are_counted(name: str, tmp_path: Path) -> None:
    with listening(name, tmp_path) as listener, Silence(listener.target, 400, reopens=False) as silence:
        eventually(lambda: silence.held <= 200, seconds=PATIENCE)
        assert listener.probe() == 200


async def test_a_system_that_refuses_to_accept_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_listening, "PAUSE", 0.01)
    refusals = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]

    class Refusing(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            if refusals:
                raise refusals.pop()
            return super().accept()

    authority, plain = Authority(tmp_path), open_listener(Address(host="127.0.0.1", port=0))
    opened = Refusing(fileno=plain.detach())
    connected = asyncio.Event()

    class Greeted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connected.set()

    listener = TlsListener(opened, authority.server().context, Greeted, handshake_timeout=PATIENCE)
    client = ssl.create_default_context(cafile=str(authority.file))
    _, writer = await asyncio.open_connection(*opened.getsockname()[:2], ssl=client, server_hostname="localhost")
    async with asyncio.timeout(PATIENCE):
        await connected.wait()
    assert "Too many open files" in caplog.text
    writer.close()
    listener.abort()


TURNS = pytest.mark.parametrize("turns", range(6))
"""Turns of the loop between a connection and the end."""


@TURNS
async def test_a_handshake_that_comes_with_the_end_leaves_no_socket(tmp_path: Path, turns: int) -> None:
    opened = open_listener(Address(host="127.0.0.1", port=0))
    address = opened.getsockname()[:2]
    listener = TlsListener(opened, Authority(tmp_path).server().context, asyncio.Protocol, handshake_timeout=PATIENCE)
    with socket.create_connection(address, timeout=PATIENCE) as client:
        for _ in range(turns):
            await asyncio.sleep(0)  # why: one turn of the loop, as the case says
        listener.abort()
        assert await asyncio.to_thread(_is_ended, client)
    gc.collect()


@TURNS
async def test_a_connection_that_comes_with_the_end_leaves_no_socket(turns: int) -> None:
    server = Nghttp2Server(lambda message: message, b"x", limits=default_limits())
    port = await server.start(Address(host="127.0.0.1", port=0))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        for _ in range(turns):
            await asyncio.sleep(0)  # why: one turn of the loop, as the case says
        await server.stop(0.05)
        assert await asyncio.to_thread(_is_ended, client)
    gc.collect()


def _is_ended(client: socket.socket) -> bool:
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


@contextmanager
def _closing(connection: HTTPConnection) -> Iterator[HTTPConnection]:
    try:
        yield connection
    finally:
        connection.close()


# --- the checks


@pytest.fixture(params=NAMES)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    made = Loop(request.param)
    yield made
    made.close()
    assert made.complaints == []


only_nghttp2 = pytest.mark.parametrize("loop", ["nghttp2"], indirect=True)
only_grpcio = pytest.mark.parametrize("loop", ["grpcio"], indirect=True)


class Handler:
    """Answers at once, and what begins with "wait" when a test says so."""

    def __init__(self) -> None:
        self.held = Held()

    def __call__(self, message: bytes) -> Any:
        return self.held(message) if message.startswith(b"wait") else echo(message)


@contextmanager
def serving(loop: Loop, limits: Limits, **more: Any) -> Iterator[Served]:
    """Serve checks, and leave nothing behind."""
    served = Served(loop, Handler(), limits=limits, **more)
    try:
        yield served
    finally:
        served.stop()
    assert (served.connections, served.streams) == (0, 0)


BEGUN = frame(HEADERS, hpack.Encoder().encode(list(FIELDS)), flags=END_HEADERS, stream=1) + data(1, framed(b"hello")[:6])
WORDS = {"nothing": b"", "half a greeting": PREFACE[:9], "a greeting": GREETING, "half a request": GREETING + BEGUN}


@only_nghttp2
@pytest.mark.parametrize("place", ["port", "socket"])
@pytest.mark.parametrize("words", WORDS)
def test_checks_go_on(loop: Loop, words: str, place: str, tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "check.sock")) if place == "socket" else None
    with serving(loop, default_limits(connections=40), address=address) as served, Peer(served.target) as mine:
        assert mine.ask(b"before").message == b"!before"
        with Silence(served.target, 60, WORDS[words]):
            for _ in range(PROBES):
                with Client(served.target) as new:
                    assert new.ask(b"new") == b"!new"
                assert mine.ask(b"mine").message == b"!mine"
        assert served.connections <= 40


@only_nghttp2
def test_who_has_asked_for_a_check_is_not_taken_for_silent(loop: Loop) -> None:
    with serving(loop, default_limits(connections=40)) as served, ExitStack() as stack:
        with loop.standing_still():
            peer = stack.enter_context(Peer(served.target))
            peer.send(peer.request(1, b"first"))
            for _ in range(80):
                stack.enter_context(connect(served.target))
        assert peer.answer(1).message == b"!first"


@only_nghttp2
def test_checks_go_on_over_tls(loop: Loop, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = ssl.create_default_context(cafile=str(authority.file))
    client.set_alpn_protocols(["h2"])
    with (
        serving(loop, default_limits(connections=40), certificates=authority.server()) as served,
        Peer(served.target, tls=client) as mine,
    ):
        assert mine.ask(b"before").message == b"!before"
        with Silence(served.target, 2 * MAX_HANDSHAKES) as silence:
            assert silence.opened >= 2 * MAX_HANDSHAKES
            for _ in range(5):
                with Client(served.target, tls=client) as new:
                    assert new.ask(b"new") == b"!new"
                assert mine.ask(b"mine").message == b"!mine"


@only_nghttp2
def test_a_greeted_connection_may_rest_while_there_is_room(loop: Loop) -> None:
    """Envoy opens connections before it has anything to ask."""
    limits = default_limits(connections=3, half_open_timeout=0.1)
    with serving(loop, limits) as served, Peer(served.target) as rests, Peer(served.target, hello=False) as silent:
        assert silent.end() is None
        assert rests.ask(b"late").message == b"!late"


def waits_for_its_answer(peer: Peer) -> None:
    peer.send(peer.request(peer.stream(), b"wait"))


def watches(peer: Peer) -> None:
    number = peer.stream()
    entries = fields(path="/grpc.health.v1.Health/Watch")
    peer.send(peer.headers(number, entries), data(number, framed(b""), end=True))
    peer.read(lambda: number in peer.answers and peer.answers[number].body)


def takes_no_answer(peer: Peer) -> None:
    peer.send(settings({INITIAL_WINDOW_SIZE: 0}), peer.request(peer.stream()))
    peer.ping()


@only_nghttp2
@pytest.mark.parametrize("does", [watches, takes_no_answer], ids=lambda does: does.__name__)
def test_what_only_looks_busy_makes_room(loop: Loop, does: Callable[[Peer], None]) -> None:
    """A call that waits for its peer, and not for us, holds no place."""
    with serving(loop, default_limits(connections=3)) as served, ExitStack() as stack:
        peers = [stack.enter_context(Peer(served.target)) for _ in range(3)]
        for peer in peers:
            does(peer)
        with Client(served.target) as new:
            assert new.ask(b"new") == b"!new"
        peers[0].end()
        peers[1].ping()


@only_nghttp2
def test_the_one_goes_that_rested_longest_and_none_whose_call_is_under_way(loop: Loop) -> None:
    with serving(loop, default_limits(connections=3)) as served, ExitStack() as stack:
        busy, rested, mine = (stack.enter_context(Peer(served.target)) for _ in range(3))
        waits_for_its_answer(busy)
        eventually(lambda: served.handler.held.begun == 1)
        assert rested.ask(b"1").message == b"!1"
        assert mine.ask(b"2").message == b"!2"
        with Peer(served.target) as new:
            assert new.ask(b"3").message == b"!3"
            rested.end()
            waits_for_its_answer(mine)
            waits_for_its_answer(new)
            eventually(lambda: served.handler.held.begun == 3)
            with Peer(served.target, hello=False) as beyond:
                beyond.end()
                assert beyond.settings is None, "all three are busy"
            served.loop.soon(served.handler.held.go.set)
            assert [peer.answer(number).message for peer, number in ((busy, 1), (mine, 3), (new, 3))] == [b"!wait"] * 3


@only_grpcio
@pytest.mark.parametrize("place", ["port", "socket"])
@pytest.mark.parametrize("words", ["nothing", "half a greeting"])
def test_grpcio_waits_seconds_for_a_greeting(loop: Loop, words: str, place: str, tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "check.sock")) if place == "socket" else None
    limits = default_limits(connections=40, half_open_timeout=0.3)
    with serving(loop, limits, address=address) as served, Peer(served.target) as mine:
        assert mine.ask(b"before").message == b"!before"
        with Silence(served.target, 60, WORDS[words], reopens=False) as silence:
            assert mine.ask(b"mine").message == b"!mine"
            eventually(lambda: silence.held == 0, seconds=PATIENCE)
            with Client(served.target) as new:
                assert new.ask(b"new") == b"!new"
            assert mine.ask(b"mine").message == b"!mine"


@only_grpcio
def test_grpcio_holds_no_more_than_its_limit(loop: Loop) -> None:
    """It cannot choose whom to end: who has a connection keeps it, and what rests for long makes room."""
    with serving(loop, default_limits(connections=40, idle_timeout=1.0)) as served, Peer(served.target) as mine:
        assert mine.ask(b"before").message == b"!before"
        with Silence(served.target, 60, GREETING, reopens=False) as silence:
            eventually(lambda: silence.held < 40)
            assert mine.ask(b"mine").message == b"!mine"
            eventually(lambda: silence.held == 0, seconds=PATIENCE)
            with Client(served.target) as new:
                assert new.ask(b"new") == b"!new"
