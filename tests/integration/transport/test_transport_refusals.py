"""What is refused before a decision is counted by reason, and logged now and then, without a byte of the peer's."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauthz.transport import tls_listening
from extauthz.transport.grpc import refusals
from extauthz.transport.grpc.grpcio import VISIBLE
from extauthz.transport.grpc.reflection import MAX_REQUESTS
from extauthz.transport.grpc.refusals import RefusalReason, Refusals
from extauthz.transport.limits import Limits
from tests.support.h2_client import (
    ACK,
    CHECK,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    Fields,
    GoneError,
    Peer,
    data,
    fields,
    frame,
    framed,
    ping,
    priority,
    reset,
    settings,
    window_update,
)
from tests.support.transports import Authority, Loop, Name, Served, default_limits, echo
from tests.support.waiting import eventually

MARKER = "zzMARKERzz"
LIMITS = default_limits(
    message_size=64 * 1024,
    requests_size=100_000,
    header_list_size=4 * 1024,
    concurrent_streams=5,
    half_open_timeout=0.2,
    resets=10,
    resets_per_second=1,
    empty_frames=10,
    empty_frames_per_second=1,
)
PATIENT = replace(LIMITS, half_open_timeout=30.0)


class Handler:
    """Answers, but for what says "wait"."""

    def __call__(self, message: bytes) -> Any:
        return self._waits() if message.startswith(b"wait") else echo(message)

    async def _waits(self) -> bytes:
        await asyncio.Event().wait()
        return b""


@dataclass(frozen=True)
class Played:
    """How a peer is refused, with which limits; `hello` says whether it greets before."""

    play: Callable[[Peer], object]
    limits: Limits = PATIENT
    hello: bool = True


def asks(entries: Fields, *, body: bytes | None = None) -> Played:
    """Make one call."""
    return Played(lambda peer: peer.ask(b"hello", entries=entries, body=body))


def sends(*parts: bytes, hello: bool = True) -> Played:
    """Send bytes, and wait for the end."""

    def play(peer: Peer) -> None:
        peer.send(*parts)
        peer.end()

    return Played(play, hello=hello)


def beyond_the_streams(peer: Peer) -> None:
    peer.polite = False
    peer.send(*(peer.request(peer.stream(), b"wait") for _ in range(LIMITS.concurrent_streams + 1)))
    peer.answer(2 * LIMITS.concurrent_streams + 1)


def without_an_end(peer: Peer) -> None:
    peer.send(peer.headers(1))
    peer.answer(1)


def together_too_large(peer: Peer) -> None:
    for _ in range(4):
        number = peer.stream()
        peer.send(peer.headers(number), data(number, b"\0\0\0\xff\xff" + bytes(16_000)), data(number, bytes(16_000)))
    peer.read(lambda: peer.answers)


def beyond_its_window(peer: Peer) -> None:
    peer.send(peer.headers(1), window_update(1, 2**31 - 1))
    peer.answer(1)


def too_late(peer: Peer) -> None:
    peer.ask(entries=fields(("grpc-timeout", "1n")))


REFLECTION = fields(path="/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
HEALTH = fields(path="/grpc.health.v1.Health/Check")
PLAYED: dict[RefusalReason, list[Played]] = {
    RefusalReason.PREFACE: [
        sends(b"GET /" + MARKER.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n", hello=False),
        sends(PREFACE + ping(1), hello=False),
        sends(PREFACE + settings(flags=ACK), hello=False),
    ],
    RefusalReason.TLS_NOT_CONFIGURED: [sends(bytes.fromhex("16030100c8010000c40303") + bytes(200), hello=False)],
    RefusalReason.GREETING_TIMEOUT: [Played(lambda peer: peer.end(), LIMITS, hello=False)],
    RefusalReason.PROTOCOL_ERROR: [
        sends(frame(6, bytes(7))),
        sends(data(0, b"x")),
        sends(frame(0, length=2**24 - 1, stream=1)),
        sends(window_update(0, 2**31 - 1)),
        sends(settings(flags=ACK) * 3),
    ],
    RefusalReason.FLOOD: [
        sends(priority(1) * 100),
        Played(lambda peer: (peer.push(b"".join(peer.request(each) + reset(each) for each in range(1, 101, 2))), peer.end())),
        sends(settings([(0xFF, number) for number in range(33)])),
    ],
    RefusalReason.STREAM_ERROR: [Played(beyond_its_window)],
    RefusalReason.STREAM_LIMIT: [Played(beyond_the_streams)],
    RefusalReason.FIELDS_TOO_LARGE: [asks(fields(("x-long", MARKER * 500)))],
    RefusalReason.FIELDS_MALFORMED: [
        asks(fields(("X-" + MARKER, "a"))),
        asks(fields(("x-marker", MARKER + "\r\nforged: line"))),
        asks([*fields(), ("content-type", "application/grpc")]),
        asks(fields(("content-length", "9"))),
    ],
    RefusalReason.REQUEST_TIMEOUT: [Played(without_an_end, LIMITS)],
    RefusalReason.NOT_GRPC: [asks(fields(content_type=MARKER)), asks(fields(method="GET"))],
    RefusalReason.METHOD_UNKNOWN: [asks(fields(path=f"/envoy.service.auth.v2.Authorization/{MARKER}"))],
    RefusalReason.SERVICE_UNKNOWN: [
        Played(
            lambda peer: peer.ask(
                health_pb2.HealthCheckRequest(service=MARKER).SerializeToString(),
                entries=fields(path="/grpc.health.v1.Health/Check"),
            )
        )
    ],
    RefusalReason.REFLECTION: [asks(REFLECTION, body=framed(b"\x3a\x00") * (MAX_REQUESTS + 1))],
    RefusalReason.MESSAGE_TOO_LARGE: [asks(fields(), body=framed(bytes(LIMITS.message_size + 1)))],
    RefusalReason.REQUESTS_TOO_LARGE: [Played(together_too_large)],
    RefusalReason.MESSAGE_MALFORMED: [
        asks(fields(), body=b"\0\0"),
        asks(fields(), body=framed(MARKER.encode(), flag=1)),
        asks(HEALTH, body=framed(b"\xff\xff")),
    ],
    RefusalReason.ENCODING_UNKNOWN: [asks(fields(("grpc-encoding", MARKER)))],
    RefusalReason.TIMEOUT_MALFORMED: [asks(fields(("grpc-timeout", MARKER)))],
    RefusalReason.DEADLINE_EXCEEDED: [Played(too_late)],
}
# Played below: what needs a certificate, many connections, a stop, or a fault of our own.
ELSEWHERE = {
    *(RefusalReason.TLS_HANDSHAKE, RefusalReason.TLS_PROTOCOL, RefusalReason.TLS_NAME),
    *(RefusalReason.CONNECTION_LIMIT, RefusalReason.EVICTED, RefusalReason.STOPPING, RefusalReason.INTERNAL),
}


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Name:
    """Refusals are nghttp2's to see; a test of the other one says so."""
    return getattr(request, "param", "nghttp2")


@pytest.fixture
def serve(loop: Loop) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(**options: Any) -> Served:
            served = Served(loop, Handler(), **{"limits": PATIENT, **options})
            stack.callback(served.stop)
            return served

        yield start


def counted(served: Served) -> dict[str, int]:
    """Return what was refused, without what was not."""
    return {reason.value: count for reason, count in served.server.refusals.items() if count}


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the lines about refusals."""
    return [record for record in caplog.records if record.name == refusals.__name__]


def test_each_reason_is_played() -> None:
    assert PLAYED.keys() | ELSEWHERE == set(RefusalReason)
    assert PLAYED.keys() & ELSEWHERE == set()


@pytest.mark.parametrize("reason", PLAYED)
def test_a_refusal_is_counted_once_and_logged(
    serve: Callable[..., Served], caplog: pytest.LogCaptureFixture, reason: RefusalReason
) -> None:
    for played in PLAYED[reason]:
        served = serve(limits=played.limits)
        assert set(served.server.refusals) == set(RefusalReason)
        assert counted(served) == {}
        with Peer(served.target, hello=played.hello, polite=played.hello) as peer, suppress(GoneError):
            played.play(peer)
        eventually(lambda: counted(served), seconds=5)  # noqa: B023
        served.stop()
        assert counted(served) == {reason.value: 1}, played
        (record, *more) = logged(caplog)
        assert (record.levelno, record.getMessage(), more) == (logging.WARNING, reason.hint, [])
        assert record.__dict__["reason"] == reason.value
        assert record.__dict__["peer"].startswith("127.0.0.1:")
        assert not [text for text in map(str, record.__dict__.values()) if MARKER in text or "\r" in text or "\n" in text]
        caplog.clear()


def test_what_a_client_ends_itself_is_no_refusal(serve: Callable[..., Served], caplog: pytest.LogCaptureFixture) -> None:
    served = serve(limits=replace(PATIENT, resets=1000))
    with Peer(served.target) as peer:
        assert peer.ask(b"1").message == b"!1"
        peer.send(peer.request(3, b"wait"), peer.headers(5), reset(3), reset(5, 1), frame(7, bytes(8)))
        peer.end()
    with Peer(served.target, hello=False):
        pass
    with Peer(served.target) as peer:
        peer.send(peer.headers(1, flags=END_STREAM)[:20])
    served.rests()
    assert (counted(served), logged(caplog)) == ({}, [])


def test_an_idle_or_old_connection_is_no_refusal(serve: Callable[..., Served]) -> None:
    for limits in (default_limits(idle_timeout=0.1), default_limits(max_connection_age=0.1, max_connection_age_grace=0.1)):
        served = serve(limits=limits)
        with Peer(served.target) as peer:
            assert peer.ask(b"1").message == b"!1"
            peer.end()
        assert counted(served) == {}


def test_a_connection_beyond_the_limit_is_counted(serve: Callable[..., Served], caplog: pytest.LogCaptureFixture) -> None:
    served = serve(limits=replace(PATIENT, connections=1))
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"wait"))
        peer.ping()
        for _ in range(3):
            with Peer(served.target, hello=False) as beyond:
                beyond.end()
    assert counted(served) == {"connection_limit": 3}
    assert [record.getMessage() for record in logged(caplog)] == [RefusalReason.CONNECTION_LIMIT.hint]


def test_a_connection_that_makes_room_is_counted(serve: Callable[..., Served]) -> None:
    served = serve(limits=replace(PATIENT, connections=1))
    with Peer(served.target) as peer:
        assert peer.ask(b"1").message == b"!1"
        with Peer(served.target) as other:
            assert other.ask(b"2").message == b"!2"
            peer.end()
    assert counted(served) == {"evicted": 1}


def test_an_error_of_ours_is_counted(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()

    def raising(*_: object) -> None:
        raise ValueError

    with Peer(served.target) as peer, monkeypatch.context() as patched:
        patched.setattr(type(served.server), "call", raising)
        assert peer.ask(b"hello", entries=fields(("content-length", "10"))).reset is not None
    eventually(lambda: counted(served) == {"internal": 1}, what=lambda: counted(served))


# --- TLS


def connects(served: Served, context: ssl.SSLContext) -> None:
    """Shake hands, and greet: a client of TLS 1.3 hears of a refusal when it reads."""
    with suppress(OSError, GoneError, ssl.SSLError), Peer(served.target, tls=context) as peer:
        peer.ask(b"?")


@dataclass
class Secured:
    """An authority, clients, and those of another one."""

    authority: Authority
    stranger: Authority

    def context(self, *names: x509.GeneralName, of: Authority | None = None, trusts: Authority | None = None) -> ssl.SSLContext:
        """Return what a client speaks with, which shows a certificate of an authority if one is given."""
        context = ssl.create_default_context(cafile=str((trusts or self.authority).file))
        context.set_alpn_protocols(["h2"])
        if of is not None:
            context.load_cert_chain(*of.issue("client", *names))
        return context


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return Secured(Authority(tmp_path_factory.mktemp("own")), Authority(tmp_path_factory.mktemp("other"), "another"))


HANDSHAKES: dict[str, Callable[[Served, Secured], None]] = {
    "no certificate": lambda served, secured: connects(served, secured.context()),
    "a stranger's certificate": lambda served, secured: connects(served, secured.context(of=secured.stranger)),
    "a client that does not trust us": lambda served, secured: connects(
        served, secured.context(of=secured.authority, trusts=secured.stranger)
    ),
    "no TLS": lambda served, _: connects_plainly(served),
}


def connects_plainly(served: Served) -> None:
    with suppress(GoneError), Peer(served.target) as peer:
        peer.end()


@pytest.mark.parametrize("who", HANDSHAKES)
def test_a_handshake_that_fails_is_counted(
    serve: Callable[..., Served], secured: Secured, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    served = serve(certificates=secured.authority.server(clients_of=secured.authority))
    HANDSHAKES[who](served, secured)
    eventually(lambda: counted(served) == {"tls_handshake": 1}, what=lambda: counted(served))
    (record,) = logged(caplog)
    assert record.getMessage() == RefusalReason.TLS_HANDSHAKE.hint
    assert record.__dict__["detail"].replace("_", "").isalnum()
    connects(served, secured.context(of=secured.authority))
    served.loop.run(served.server.reload_tls(secured.authority.server(clients_of=secured.authority)))
    HANDSHAKES[who](served, secured)
    eventually(lambda: counted(served) == {"tls_handshake": 2}, what=lambda: counted(served))


@pytest.mark.parametrize("leaves", [True, False])
def test_a_handshake_that_does_not_end_is_counted_unless_the_client_leaves(
    serve: Callable[..., Served], secured: Secured, leaves: bool
) -> None:
    served = serve(certificates=secured.authority.server(), limits=PATIENT if leaves else LIMITS)
    with Peer(served.target, hello=False) as peer:
        if not leaves:
            peer.end()
    connects(served, secured.context())
    eventually(lambda: served.connections == 0)
    assert counted(served) == ({} if leaves else {"greeting_timeout": 1})


def test_a_handshake_that_makes_room_is_counted(
    serve: Callable[..., Served], secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_listening, "MAX_HANDSHAKES", 1)
    served = serve(certificates=secured.authority.server())
    with Peer(served.target, hello=False) as silent:
        with Peer(served.target, tls=secured.context()) as peer:
            assert peer.ask(b"?").message == b"!?"
        silent.end()
    assert counted(served) == {"evicted": 1}


def test_a_certificate_without_an_allowed_name_is_counted(serve: Callable[..., Served], secured: Secured) -> None:
    served = serve(
        certificates=secured.authority.server(clients_of=secured.authority, allowed_names=frozenset({"envoy.example.com"}))
    )
    connects(served, secured.context(x509.DNSName("other.example.com"), of=secured.authority))
    eventually(lambda: counted(served) == {"tls_name": 1}, what=lambda: counted(served))


def test_another_protocol_of_tls_is_counted(serve: Callable[..., Served], secured: Secured) -> None:
    certificates = secured.authority.server()
    # Whatever a library makes of a client that does not offer h2.
    certificates.context.set_alpn_protocols(["h2", "http/1.1"])
    served = serve(certificates=certificates)
    context = secured.context()
    context.set_alpn_protocols(["http/1.1"])
    connects(served, context)
    eventually(lambda: counted(served) == {"tls_protocol": 1}, what=lambda: counted(served))


def test_a_connection_that_comes_with_the_stop_is_counted(loop: Loop) -> None:
    served = Served(loop, Handler())

    async def admitted() -> bool:
        server = served.server
        await server.stop(0.0)
        return bool(server.admit(server._connection(), None))

    assert not loop.run(admitted())
    served._stopped = True
    assert counted(served) == {"stopping": 1}


class Pausing(asyncio.Transport):
    """A transport in memory, on which every write fills the buffer."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take it, and say that it was too much."""
        self.protocol.pause_writing()

    def close(self) -> None:
        """Note the end."""
        self.is_closed = True

    def is_closing(self) -> bool:
        """Return whether it came to its end."""
        return self.is_closed

    def abort(self) -> None:
        """End at once."""
        self.is_closed = True

    def pause_reading(self) -> None:
        """Read on."""

    def resume_reading(self) -> None:
        """Read on."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep none."""


def test_an_end_is_counted_and_carried_out_although_its_last_write_was_too_much(loop: Loop) -> None:
    """A stream with an even number is an error of the peer's (RFC 9113 5.1.1), which has been told before that it is over."""
    served = Served(loop, Handler())

    async def ended() -> bool:
        connection = served.server._connection()
        transport = Pausing(connection)
        connection.connection_made(transport)
        connection.resume_writing()
        connection.data_received(PREFACE + settings())
        connection.resume_writing()
        connection.leave()
        connection.resume_writing()
        connection.data_received(frame(HEADERS, b"", stream=2, flags=END_HEADERS | END_STREAM))
        closed = transport.is_closed
        connection.connection_lost(None)
        return closed

    try:
        assert loop.run(ended())
        assert counted(served) == {"protocol_error": 1}
    finally:
        served.stop()


# --- the log


def test_a_reason_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    counting = Refusals([RefusalReason.PREFACE])
    for moment in (0.0, 1.0, 59.9, 60.0, 61.0, 180.0):
        counting.count(RefusalReason.PREFACE, now=1000.0 + moment, peer="127.0.0.1:1")
    counting.count(RefusalReason.FLOOD, now=1000.0)

    assert counting.counts == {RefusalReason.PREFACE: 6, RefusalReason.FLOOD: 1}
    lines = [(record.__dict__["reason"], record.__dict__["refused"]) for record in logged(caplog)]
    assert lines == [("preface", 1), ("preface", 3), ("preface", 2), ("flood", 1)]


@pytest.mark.parametrize("reason", RefusalReason)
def test_a_hint_is_a_sentence_of_our_own(reason: RefusalReason) -> None:
    assert reason.value.replace("_", "").isalnum()
    assert reason.hint.isascii()
    assert len(reason.hint) > 30


# --- grpcio


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
def test_grpcio_counts_what_it_can_see(loop: Loop, secured: Secured, caplog: pytest.LogCaptureFixture) -> None:
    served = Served(loop, echo)
    with grpc.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for call in (
            lambda: channel.unary_unary(f"/envoy.service.auth.v2.Authorization/{MARKER}")(b"", timeout=20),  # type: ignore[call-overload]
            lambda: stub.Check(health_pb2.HealthCheckRequest(service=MARKER), timeout=20),
        ):
            with pytest.raises(grpc.RpcError):
                call()
        assert channel.unary_unary(CHECK)(b"?", timeout=20) == b"!?"  # type: ignore[call-overload]
    assert set(served.server.refusals) == set(VISIBLE)
    assert counted(served) == {"method_unknown": 1, "service_unknown": 1}
    served.stop()
    names = frozenset({"envoy.example.com"})
    served = Served(loop, echo, certificates=secured.authority.server(clients_of=secured.authority, allowed_names=names))
    connects(served, secured.context(x509.DNSName("other.example.com"), of=secured.authority))
    assert counted(served) == {"tls_name": 1}
    served.stop()
    assert [record.getMessage() for record in logged(caplog)] == [
        reason.hint for reason in (RefusalReason.METHOD_UNKNOWN, RefusalReason.SERVICE_UNKNOWN, RefusalReason.TLS_NAME)
    ]
    assert MARKER not in caplog.text
