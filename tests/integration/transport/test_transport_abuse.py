"""Both transports, asked by clients that break rules: nothing is left of them, and the next client gets its answer."""

from __future__ import annotations

import gc
import gzip
import socket
import ssl
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar

import pytest
from grpc_health.v1 import health_pb2

from extauthz.addresses import Address
from extauthz.transport.grpc import _session, connection, messages
from tests.support.h2_client import (
    ACK,
    CANCEL,
    CHECK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FIELDS,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    MAX_FRAME_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    UNKNOWN,
    WINDOW_UPDATE,
    Client,
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
from tests.support.transports import Authority, Held, Loop, Name, Served, default_limits, echo, only_nghttp2
from tests.support.waiting import eventually

pytestmark = pytest.mark.long

LIMITS = default_limits(
    message_size=64 * 1024,
    concurrent_streams=50,
    connections=20,
    half_open_timeout=0.3,
    resets=100,
    resets_per_second=10,
    outbound_acknowledgements=100,
    empty_frames=100,
    empty_frames_per_second=10,
    output_buffer=64 * 1024,
)
Argument = TypeVar("Argument")
SOON = 15.0
"""Seconds within which something ends that would not end by itself, or not for a minute; long enough for a busy machine."""
WIDE = {INITIAL_WINDOW_SIZE: 2**31 - 1}
LARGE = 100_000


class Handler:
    """Answers at once, with much, or not before a test says so: the first word of the message decides."""

    def __init__(self) -> None:
        self.calls = 0
        self.held = Held()

    def __call__(self, message: bytes) -> Any:
        self.calls += 1
        if message.startswith(b"wait"):
            return self.held(message)
        return bytes(LARGE) if message.startswith(b"large") else echo(message)


class Serve(Protocol):
    """Starts a server of the transport under test, with small limits."""

    def __call__(self, handler: Callable[[bytes], Any] | None = None, **options: Any) -> Served: ...


@pytest.fixture
def serve(loop: Loop) -> Iterator[Serve]:
    started: list[Served] = []

    def start(handler: Callable[[bytes], Any] | None = None, **options: Any) -> Served:
        started.append(Served(loop, handler or Handler(), **{"limits": LIMITS, **options}))
        return started[-1]

    yield start
    for served in started:
        served.stop()
        assert (served.connections, served.streams) == (0, 0)


def is_nghttp2(served: Served) -> bool:
    return served.loop.transport.name == "nghttp2"


# --- odd, but within the rules: each is one call that says hello on stream 1


def padded(peer: Peer, size: int) -> list[bytes]:
    """Pad both frames."""
    pad, zeros = bytes([size]), bytes(size)
    return [
        frame(HEADERS, pad + peer.block() + zeros, flags=END_HEADERS | PADDED, stream=1),
        frame(DATA, pad + framed(b"hello") + zeros, flags=END_STREAM | PADDED, stream=1),
    ]


def continued(peer: Peer, count: int, *, entries: Fields = FIELDS, huffman: bool = True) -> list[bytes]:
    """Cut the headers into HEADERS and `count` CONTINUATION frames, which may be empty."""
    block = peer.block(entries, huffman=huffman)
    size = len(block) // (count + 1) + 1
    parts = [block[start : start + size] for start in range(0, size * (count + 1), size)]
    kinds = [HEADERS] + [CONTINUATION] * count
    return [
        frame(kind, part, flags=END_HEADERS if number == count else 0, stream=1)
        for number, (kind, part) in enumerate(zip(kinds, parts, strict=True))
    ]


def hello(peer: Peer, *between: bytes) -> list[bytes]:
    """Make a call with other frames between its two."""
    return [peer.headers(1), *between, data(1, framed(b"hello"), end=True)]


def in_parts(peer: Peer, size: int, *between: bytes) -> list[bytes]:
    """Cut the message into DATA frames, with others between them, and end with an empty one."""
    message = framed(b"hello")
    parts = [data(1, message[start : start + size]) for start in range(0, len(message), size)]
    return [peer.headers(1), *(piece for part in parts for piece in (part, *between)), data(1, end=True)]


def trailing(peer: Peer) -> list[bytes]:
    """End the request with trailers."""
    trailers = peer.headers(1, (("x-trailer", "yes"), ("grpc-status", "7")), flags=END_STREAM)
    return [trailers]


ODD: dict[str, Callable[[Peer], Sequence[bytes]]] = {
    "nothing odd": hello,
    "no padding": lambda peer: padded(peer, 0),
    "a byte of padding": lambda peer: padded(peer, 1),
    "much padding": lambda peer: padded(peer, 255),
    "nothing but padding": lambda peer: hello(peer, *[frame(DATA, b"\x09" + bytes(9), flags=PADDED, stream=1)] * 3),
    "one CONTINUATION": lambda peer: [*continued(peer, 1), data(1, framed(b"hello"), end=True)],
    "eight CONTINUATION": lambda peer: [*continued(peer, 8), data(1, framed(b"hello"), end=True)],
    "an empty HEADERS before its CONTINUATION": lambda peer: [
        frame(HEADERS, stream=1),
        frame(CONTINUATION, peer.block(), flags=END_HEADERS, stream=1),
        data(1, framed(b"hello"), end=True),
    ],
    "an empty CONTINUATION": lambda peer: [
        frame(HEADERS, peer.block(), stream=1),
        frame(CONTINUATION, flags=END_HEADERS, stream=1),
        data(1, framed(b"hello"), end=True),
    ],
    "trailers": lambda peer: [peer.headers(1), data(1, framed(b"hello")), *trailing(peer)],
    "trailers in CONTINUATION": lambda peer: [
        peer.headers(1),
        data(1, framed(b"hello")),
        frame(HEADERS, flags=END_STREAM, stream=1),
        frame(CONTINUATION, peer.block((("x-trailer", "yes"),)), flags=END_HEADERS, stream=1),
    ],
    "DATA byte by byte": lambda peer: in_parts(peer, 1),
    "empty DATA between": lambda peer: in_parts(peer, 4, data(1)),
    "PRIORITY before and between": lambda peer: [priority(1), priority(3), *hello(peer, priority(1, on=3), priority(7, on=1))],
    "HEADERS with priority": lambda peer: [
        frame(HEADERS, b"\x80\x00\x00\x03\xff" + peer.block(), flags=END_HEADERS | PRIORITIZED, stream=1),
        data(1, framed(b"hello"), end=True),
    ],
    "PRIORITY_UPDATE": lambda peer: [frame(PRIORITY_UPDATE, b"\x00\x00\x00\x01u=0"), *hello(peer)],
    "unknown frames": lambda peer: [
        frame(UNKNOWN, b"anything", flags=0xFF),
        *hello(peer, frame(UNKNOWN, stream=1), frame(UNKNOWN + 1, bytes(16384), stream=1, flags=0xFF), frame(UNKNOWN, stream=9)),
    ],
    "ALTSVC and ORIGIN": lambda peer: [frame(0xA, b"\x00\x01ah2", stream=0), frame(0xC, b"\x00\x01a"), *hello(peer)],
    "PING between": lambda peer: [ping(1), *hello(peer, ping(2), ping(3)), ping(4)],
    "SETTINGS between": lambda peer: hello(
        peer, settings({HEADER_TABLE_SIZE: 0}), settings({HEADER_TABLE_SIZE: 65536}), settings({0xFF: 1, 0x4A4A: 2}), settings()
    ),
    "SETTINGS at their ends": lambda peer: [
        settings({INITIAL_WINDOW_SIZE: 2**31 - 1, MAX_FRAME_SIZE: 2**24 - 1, ENABLE_PUSH: 0}),
        settings({INITIAL_WINDOW_SIZE: 0, MAX_FRAME_SIZE: 2**14}),
        *hello(peer),
        settings({INITIAL_WINDOW_SIZE: 65535}),
    ],
    "one identifier many times": lambda peer: [settings([(INITIAL_WINDOW_SIZE, size) for size in range(1000, 1020)]), *hello(peer)],
    "windows at their ends": lambda peer: [window_update(0, 2**31 - 1 - 65535), *hello(peer, window_update(1, 2**31 - 1 - 65535))],
    "no Huffman code": lambda peer: [
        frame(HEADERS, peer.block(huffman=False), flags=END_HEADERS, stream=1),
        data(1, framed(b"hello"), end=True),
    ],
    "a smaller dynamic table": lambda peer: [
        frame(HEADERS, b"\x20" + b"\x3f\xe1\x01" + peer.block(), flags=END_HEADERS, stream=1),
        data(1, framed(b"hello"), end=True),
    ],
    "fields that are never indexed": lambda peer: [
        frame(HEADERS, peer.block() + b"\x10\x08x-secret\x05value", flags=END_HEADERS, stream=1),
        data(1, framed(b"hello"), end=True),
    ],
    "the reserved bit": lambda peer: [
        frame(HEADERS, peer.block(), flags=END_HEADERS, stream=0x80000001),
        frame(DATA, framed(b"hello"), flags=END_STREAM, stream=0x80000001),
    ],
    "flags without a meaning": lambda peer: [
        frame(HEADERS, peer.block(), flags=END_HEADERS | 0xD2, stream=1),
        frame(DATA, framed(b"hello"), flags=END_STREAM | 0xF6, stream=1),
        frame(PING, bytes(8), flags=0xFE),
    ],
    "host for :authority": lambda peer: [
        peer.headers(1, fields(("host", "localhost"), authority=None)),
        data(1, framed(b"hello"), end=True),
    ],
    "no te": lambda peer: [peer.headers(1, fields(te=None)), data(1, framed(b"hello"), end=True)],
    "a user agent, cookies and a length": lambda peer: [
        peer.headers(1, fields(("user-agent", "odd"), ("cookie", "a=1"), ("cookie", "b=2"), ("content-length", "10"))),
        data(1, framed(b"hello"), end=True),
    ],
    "application/grpc+proto": lambda peer: [
        peer.headers(1, fields(("content-type", "application/grpc+proto"))),
        data(1, framed(b"hello"), end=True),
    ],
    "grpc-encoding that is not used": lambda peer: [
        peer.headers(1, fields(("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity,gzip"))),
        data(1, framed(b"hello"), end=True),
    ],
    "a long time": lambda peer: [
        peer.headers(1, fields(("grpc-timeout", "99999999H"))),
        data(1, framed(b"hello"), end=True),
    ],
}
# grpc's core takes these for errors.
ODD_FOR_GRPCIO = {name for name in ODD if "padding" in name} | {
    "no te",
    "an empty HEADERS before its CONTINUATION",
    "flags without a meaning",
}


def odd(served: Served, name: str, send: Callable[[Peer, bytes], None] = Peer.send) -> None:
    """Play one odd call, and then another on the same connection."""
    with Peer(served.target) as peer:
        send(peer, b"".join(ODD[name](peer)))
        assert peer.answer(1).message == b"!hello"
        if is_nghttp2(served):
            peer.next = 9
            assert peer.ask(b"again").message == b"!again"
            assert peer.goaways == []


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_but_allowed_is_answered(serve: Serve, transport: Name, name: str) -> None:
    served = serve()
    if transport == "nghttp2" or name not in ODD_FOR_GRPCIO:
        odd(served, name)
    served.serves()


@only_nghttp2
@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_answered_byte_by_byte(serve: Serve, name: str) -> None:
    # libnghttp2 counts a CONTINUATION again for every read in which its nine bytes of header come.
    served = serve(limits=default_limits(continuations=8 * 9))

    def slowly(peer: Peer, content: bytes) -> None:
        # Long runs of padding teach nothing.
        step = max(1, len(content) // 600)
        for start in range(0, len(content), step):
            peer.send(content[start : start + step])
            served.loop.turn()

    odd(served, name, slowly)
    served.serves()


def whole_call(target: int | str) -> bytes:
    """Return every byte of a connection with one call."""
    with Peer(target, hello=False) as peer:
        return PREFACE + settings({HEADER_TABLE_SIZE: 4096}) + b"".join(ODD["trailers"](peer))


def test_a_call_comes_in_two_pieces_wherever_it_is_cut(serve: Serve) -> None:
    served = serve()
    content = whole_call(served.target)
    for cut in range(1, len(content)):
        with Peer(served.target, hello=False) as peer:
            peer.send(content[:cut])
            served.loop.turn()
            peer.send(content[cut:])
            assert peer.answer(1).message == b"!hello", cut
    served.serves()


def test_a_call_comes_byte_by_byte(serve: Serve) -> None:
    served = serve(limits=replace(LIMITS, half_open_timeout=30.0))
    content = whole_call(served.target)
    with Peer(served.target, hello=False) as peer:
        for start in range(len(content)):
            peer.send(content[start : start + 1])
            served.loop.turn()
        assert peer.answer(1).message == b"!hello"
    served.serves()


def test_calls_that_come_in_one_piece_are_all_answered(serve: Serve) -> None:
    served = serve()
    with Peer(served.target) as peer:
        numbers = [peer.stream() for _ in range(40)]
        peer.send(b"".join(peer.request(number, b"%d" % number) for number in numbers))
        assert [peer.answer(number).message for number in numbers] == [b"!%d" % number for number in numbers]
    served.serves()


def test_calls_that_are_interleaved_do_not_mix(serve: Serve) -> None:
    served = serve()
    with Peer(served.target) as peer:
        numbers = [peer.stream() for _ in range(20)]
        messages = {number: framed(b"%d " % number * 10) for number in numbers}
        peer.send(*(peer.headers(number) for number in numbers))
        for start in range(0, 40, 3):
            peer.send(*(data(number, messages[number][start : start + 3]) for number in reversed(numbers)))
        peer.send(*(data(number, messages[number][42:], end=True) for number in numbers))
        assert [peer.answer(number).message for number in numbers] == [b"!" + messages[number][5:] for number in numbers]
    served.serves()


@pytest.mark.parametrize("number", [3, 4001, 2**31 - 1])
def test_stream_numbers_may_have_gaps(serve: Serve, number: int) -> None:
    served = serve()
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"first"))
        assert peer.answer(1).message == b"!first"
        peer.send(peer.request(number, b"later"))
        assert peer.answer(number).message == b"!later"
    served.serves()


LATE = [reset(1), window_update(1, 1), priority(1), frame(UNKNOWN, stream=1)]


def test_what_comes_for_a_call_that_is_over_changes_nothing(serve: Serve) -> None:
    served = serve()
    with Peer(served.target) as peer:
        assert peer.ask(b"1").message == b"!1"
        peer.send(*LATE, *LATE)
        peer.ping()
        assert peer.ask(b"2").message == b"!2"
        assert peer.goaways == []
    served.serves()


@only_nghttp2
def test_a_stream_below_an_earlier_one_is_not_begun(serve: Serve) -> None:
    served = serve()
    with Peer(served.target) as peer:
        peer.send(peer.request(5, b"5"), peer.request(3, b"3"), peer.request(7, b"7"))
        assert [peer.answer(number).message for number in (5, 7)] == [b"!5", b"!7"]
        peer.ping()
        assert set(peer.answers) == {5, 7}
        assert (served.streams, served.handler.calls) == (0, 2)
    served.serves()


@only_nghttp2
def test_a_client_that_says_goodbye_gets_its_answers(serve: Serve) -> None:
    served = serve()
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"wait"), peer.request(3, b"now"), frame(GOAWAY, bytes(8)))
        assert peer.answer(3).message == b"!now"
        served.loop.soon(served.handler.held.go.set)
        assert peer.answer(1).message == b"!wait"
        peer.end()
    served.serves()


# --- windows


@pytest.mark.parametrize("window", [0, 1, 2, 5, 6, 7])
@pytest.mark.parametrize("grant", [1, 3])
def test_an_answer_trickles_through_a_small_window(serve: Serve, window: int, grant: int) -> None:
    """h2 raises where a server sends more than it may."""
    served = serve()
    with Client(served.target, window=window, grant=grant) as client:
        number = client.begin(b"a message of some length")
        if not window:
            client.widen(number, 1)
        answer = client.answer(number)
        assert answer.message == b"!a message of some length"
        assert max(answer.chunks[1:]) <= max(window, grant)
    served.serves()


def test_an_answer_waits_for_a_window(serve: Serve) -> None:
    served = serve()
    with Peer(served.target, own_settings={INITIAL_WINDOW_SIZE: 0}, polite=False) as peer:
        peer.send(settings(flags=ACK), *(peer.request(number, b"hello") for number in (1, 3)))
        peer.ping()
        peer.read(lambda: {1, 3} <= set(peer.answers))
        assert (peer.answers[1].http, peer.answers[1].body, peer.answers[1].done) == (200, b"", False)
        peer.send(window_update(3, 100))
        assert peer.answer(3).message == b"!hello"
        peer.send(settings({INITIAL_WINDOW_SIZE: 4}))
        peer.read(lambda: len(peer.answers[1].body) == 4)
        peer.send(settings({INITIAL_WINDOW_SIZE: 0}), window_update(1, 4))
        peer.ping()
        assert len(peer.answers[1].body) == 4, "less than nothing is left"
        peer.send(settings({INITIAL_WINDOW_SIZE: 65535}))
        assert peer.answer(1).message == b"!hello"
    served.serves()


def test_many_answers_share_the_window_of_a_connection(serve: Serve) -> None:
    served = serve()
    with Peer(served.target, own_settings=WIDE, polite=False) as peer:
        numbers = [peer.stream() for _ in range(10)]
        peer.send(settings(flags=ACK), *(peer.request(number, b"large") for number in numbers))
        peer.read(lambda: sum(len(answer.body) for answer in peer.answers.values()) == 65535)
        peer.ping()
        assert sum(len(answer.body) for answer in peer.answers.values()) == 65535
        peer.send(window_update(0, 2**30))
        assert [peer.answer(number).message for number in numbers] == [bytes(LARGE)] * 10
    served.serves()


@pytest.mark.parametrize("stage", ["headers", "body", "nothing"])
def test_an_answer_that_cannot_be_sent_ends_with_its_stream(serve: Serve, stage: str) -> None:
    served = serve()
    with Peer(served.target, own_settings={INITIAL_WINDOW_SIZE: 0 if stage == "headers" else 100}, polite=False) as peer:
        peer.send(settings(flags=ACK))
        for _ in range(3):
            numbers = [peer.stream() for _ in range(30)]
            peer.send(*(peer.request(number, b"large") for number in numbers))
            if stage != "nothing":
                peer.read(lambda: all(number in peer.answers for number in numbers))  # noqa: B023
            peer.send(*(reset(number) for number in numbers))
            peer.ping()
            eventually(lambda: served.streams == 0)
        peer.send(settings({INITIAL_WINDOW_SIZE: 1000}))
        eventually(lambda: peer.ask(b"small").reset != REFUSED_STREAM)
        assert peer.ask(b"small").message == b"!small"
    served.serves()


# --- requests that are no calls


@dataclass(frozen=True)
class Refused:
    """A request, and what it is told; a `status` of None is not looked at."""

    entries: Fields
    statuses: tuple[int, ...] = ()
    http: int = 200
    body: bytes | None = None
    also_grpcio: bool = False


GZIPPED = gzip.compress(b"hello")
BOMB = zlib.compressobj(9, wbits=31)
BOMBED = BOMB.compress(bytes(50 << 20)) + BOMB.flush()
GZIP: Fields = fields(("grpc-encoding", "gzip"))
HELLO = framed(b"hello")

REFUSED: dict[str, Refused] = {
    "an unknown method": Refused(fields(path=CHECK + "s"), (12,), also_grpcio=True),
    "an unknown service": Refused(fields(path="/other.Service/Check"), (12,), also_grpcio=True),
    "a query": Refused(fields(path=CHECK + "?a=1"), (12,), also_grpcio=True),
    "the root": Refused(fields(path="/"), (12,), also_grpcio=True),
    "a path in another case": Refused(fields(path=CHECK.lower()), (12,), also_grpcio=True),
    "a path with an escape": Refused(fields(path=CHECK.replace("C", "%43")), (12,), also_grpcio=True),
    "a path in two bytes": Refused(fields(path="/\xe9/Check"), (12,)),
    "GET": Refused(fields(method="GET"), http=405),
    "HEAD": Refused(fields(method="HEAD"), http=405),
    "PUT": Refused(fields(method="PUT"), http=405),
    "post": Refused(fields(method="post"), http=405),
    "OPTIONS *": Refused(fields(method="OPTIONS", path="*"), http=405),
    "CONNECT": Refused(fields(method="CONNECT", scheme=None, path=None), http=405),
    "no content type": Refused(fields(content_type=None), http=415),
    "text/plain": Refused(fields(content_type="text/plain"), http=415),
    "application/json": Refused(fields(content_type="application/json"), http=415),
    "application/grpc-web": Refused(fields(content_type="application/grpc-web"), http=415),
    "application/grpcs": Refused(fields(content_type="application/grpcs"), http=415),
    "no message": Refused(FIELDS, (13,), body=b""),
    "a prefix without its message": Refused(FIELDS, (13,), body=HELLO[:5]),
    "less than a prefix": Refused(FIELDS, (13,), body=HELLO[:4]),
    "less than a message": Refused(FIELDS, (13,), body=HELLO[:-1]),
    "more than a message": Refused(FIELDS, (12,), body=HELLO + b"x"),
    "two messages": Refused(FIELDS, (12,), body=HELLO * 2),
    "a length beyond the limit": Refused(FIELDS, (8,), body=b"\x00\xff\xff\xff\xff", also_grpcio=True),
    "a length beyond the limit, and bytes": Refused(FIELDS, (8,), body=b"\x00\x00\x01\x00\x01" + bytes(30), also_grpcio=True),
    "a message beyond the limit": Refused(FIELDS, (8,), body=framed(bytes(LIMITS.message_size + 1))),
    "a flag of 2": Refused(FIELDS, (13,), body=framed(b"hello", flag=2)),
    "a flag of 255": Refused(GZIP, (13,), body=framed(GZIPPED, flag=255)),
    "compressed, without an encoding": Refused(FIELDS, (13,), body=framed(GZIPPED, flag=1)),
    "compressed as identity": Refused(fields(("grpc-encoding", "identity")), (13,), body=framed(GZIPPED, flag=1)),
    "compressed as snappy": Refused(fields(("grpc-encoding", "snappy")), (12,), body=framed(b"snap", flag=1)),
    "an encoding that nobody knows": Refused(fields(("grpc-encoding", "zap")), (12,)),
    "two encodings": Refused(fields(("grpc-encoding", "gzip,gzip")), (12,), body=framed(GZIPPED, flag=1)),
    "GZIP": Refused(fields(("grpc-encoding", "GZIP")), (12,), body=framed(GZIPPED, flag=1)),
    "gzip that is none": Refused(GZIP, (13,), body=framed(b"not gzip", flag=1)),
    "nothing as gzip": Refused(GZIP, (13,), body=framed(b"", flag=1)),
    "gzip that is cut": Refused(GZIP, (13,), body=framed(GZIPPED[:-1], flag=1)),
    "gzip that is changed": Refused(GZIP, (13,), body=framed(GZIPPED[:-5] + b"\x00" + GZIPPED[-4:], flag=1)),
    "gzip with more behind it": Refused(GZIP, (13,), body=framed(GZIPPED + b"more", flag=1)),
    "gzip twice": Refused(GZIP, (13,), body=framed(GZIPPED * 2, flag=1)),
    "zlib as gzip": Refused(GZIP, (13,), body=framed(zlib.compress(b"hello"), flag=1)),
    "a gzip bomb": Refused(GZIP, (8,), body=framed(BOMBED[:60_000], flag=1)),
    "a small gzip bomb": Refused(GZIP, (8,), body=framed(gzip.compress(bytes(LIMITS.message_size + 1)), flag=1), also_grpcio=True),
    "no time": Refused(fields(("grpc-timeout", "0n")), (4,)),
    "no second": Refused(fields(("grpc-timeout", "00000000S")), (4,)),
    **{
        f"grpc-timeout {text!r}": Refused(fields(("grpc-timeout", text)), (13,))
        for text in ["1", "S", "1s", "1 S", "-1S", "+1S", "1.5S", "123456789S", "1SS", "S1", "0x1S", "1S,1S", "\u00b2S"]
    },
}


def refused(served: Served, case: Refused) -> None:
    """Play one request that is refused; its connection lives."""
    calls = served.handler.calls
    with Peer(served.target) as peer:
        answer = peer.ask(b"hello", entries=case.entries, body=case.body)
        assert (answer.http, answer.reset, answer.body) == (case.http, None, b"")
        assert answer.status in (case.statuses or range(1, 17)), answer
        assert answer.headers is not None
        assert "grpc-message" in (answer.headers | (answer.trailers or {}))
        assert served.handler.calls == calls, "it was handed on"
        assert peer.ask(b"again").message == b"!again"


@pytest.mark.parametrize("name", REFUSED)
@only_nghttp2
def test_what_is_no_call_is_refused(serve: Serve, name: str) -> None:
    served = serve()
    refused(served, REFUSED[name])
    served.serves()


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
def test_grpcio_refuses_the_same(serve: Serve) -> None:
    served = serve()
    for name, case in REFUSED.items():
        with Peer(served.target) as peer:
            if case.also_grpcio:
                assert peer.ask(b"hello", entries=case.entries, body=case.body).status in case.statuses, name
    assert served.handler.calls == 0
    served.serves()


@only_nghttp2
@pytest.mark.parametrize("name", ["compressed as snappy", "an encoding that nobody knows"])
def test_an_unknown_encoding_is_told_the_known_ones(serve: Serve, name: str) -> None:
    served = serve()
    with Peer(served.target) as peer:
        answer = peer.ask(entries=REFUSED[name].entries, body=REFUSED[name].body)
        told = (answer.headers or {}).get("grpc-accept-encoding", "").replace(" ", "").split(",")
        assert {"identity", "gzip"} <= set(told)
    served.serves()


@only_nghttp2
def test_a_gzip_bomb_costs_little(serve: Serve) -> None:
    """50 MB of zeros in 50 kB: as much of it as the limit allows is unpacked."""
    assert 40_000 < len(BOMBED) < 64_000
    served = serve(limits=default_limits())
    started = monotonic()
    with Peer(served.target) as peer:
        for _ in range(20):
            assert peer.ask(entries=GZIP, body=framed(BOMBED, flag=1)).status == 8
    assert monotonic() - started < SOON
    served.serves()


@only_nghttp2
def test_a_message_of_gzip_has_room_up_to_the_limit(serve: Serve) -> None:
    served = serve(lambda message: b"%d" % len(message))
    with Peer(served.target) as peer:
        answer = peer.ask(entries=GZIP, body=framed(gzip.compress(bytes(LIMITS.message_size)), flag=1))
        assert answer.message == b"%d" % LIMITS.message_size
    served.rests()


@only_nghttp2
@pytest.mark.parametrize("unit", ["50m", "50000u", "50000000n"])
def test_a_check_whose_time_is_over_is_not_begun(serve: Serve, unit: str) -> None:
    served = serve(limits=default_limits())
    with Peer(served.target) as peer:
        number = peer.stream()
        peer.send(peer.headers(number, fields(("grpc-timeout", unit))))
        peer.ping()
        sleep(0.06)  # why: the time-out of 50 ms that the client asked for has to pass
        peer.send(data(number, HELLO, end=True))
        assert peer.answer(number).status == 4
        assert served.handler.calls == 0
        assert peer.ask(entries=fields(("grpc-timeout", unit))).message == b"!?"
    served.serves()


@only_nghttp2
@pytest.mark.parametrize(("body", "status"), [(b"", 13), (b"\xff\xff", 13), (framed(b"\xff\xff"), 3), (framed(b"\x0a\x05ab"), 3)])
@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_question_for_health_that_is_none_is_refused(serve: Serve, method: str, body: bytes, status: int) -> None:
    served = serve()
    with Peer(served.target) as peer:
        answer = peer.ask(entries=fields(path=f"/grpc.health.v1.Health/{method}"), body=body)
        assert answer.status == status
        good = health_pb2.HealthCheckRequest().SerializeToString()
        answer = peer.ask(good, entries=fields(path="/grpc.health.v1.Health/Check"))
        assert health_pb2.HealthCheckResponse.FromString(answer.message).status == health_pb2.HealthCheckResponse.NOT_SERVING
    served.serves()


# --- streams that break rules: they are reset, and their connection lives


def with_block(peer: Peer, added: bytes) -> bytes:
    """Write HEADERS with bytes of HPACK behind the block."""
    return frame(HEADERS, peer.block() + added, flags=END_HEADERS, stream=1)


def literal(name: bytes, value: bytes) -> bytes:
    """Write a field as it is, without the encoder's help."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def malformed(*entries: tuple[str, str]) -> Callable[[Peer], Sequence[bytes]]:
    """Make a call with exactly these fields."""
    return lambda peer: [peer.headers(1, entries), data(1, HELLO, end=True)]


M, S, P, A, T = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CHECK),
    (":authority", "a"),
    ("content-type", "application/grpc"),
)
STREAM_ERRORS: dict[str, tuple[Callable[[Peer], Sequence[bytes]], tuple[int, ...]]] = {
    "no method": (malformed(S, P, A, T), (PROTOCOL_ERROR,)),
    "no scheme": (malformed(M, P, A, T), (PROTOCOL_ERROR,)),
    "no path": (malformed(M, S, A, T), (PROTOCOL_ERROR,)),
    "an empty path": (malformed(M, S, (":path", ""), A, T), (PROTOCOL_ERROR,)),
    "a relative path": (malformed(M, S, (":path", CHECK[1:]), A, T), (PROTOCOL_ERROR,)),
    "two methods": (malformed(M, M, S, P, A, T), (PROTOCOL_ERROR,)),
    "two paths": (malformed(M, S, P, P, A, T), (PROTOCOL_ERROR,)),
    "pseudo fields behind others": (malformed(M, S, T, P, A), (PROTOCOL_ERROR,)),
    "a pseudo field of answers": (malformed(M, S, P, A, (":status", "200"), T), (PROTOCOL_ERROR,)),
    "a pseudo field that nobody knows": (malformed(M, S, P, A, (":other", "1"), T), (PROTOCOL_ERROR,)),
    ":protocol": (malformed((":method", "CONNECT"), (":protocol", "websocket"), S, P, A, T), (PROTOCOL_ERROR,)),
    "connection": (malformed(M, S, P, A, T, ("connection", "close")), (PROTOCOL_ERROR,)),
    "transfer-encoding": (malformed(M, S, P, A, T, ("transfer-encoding", "chunked")), (PROTOCOL_ERROR,)),
    "upgrade": (malformed(M, S, P, A, T, ("upgrade", "h2c")), (PROTOCOL_ERROR,)),
    "another te": (malformed(M, S, P, A, T, ("te", "gzip")), (PROTOCOL_ERROR,)),
    "a length that is less": (malformed(M, S, P, A, T, ("content-length", "9")), (PROTOCOL_ERROR,)),
    "a length that is more": (malformed(M, S, P, A, T, ("content-length", "11")), (PROTOCOL_ERROR,)),
    "a length that is none": (malformed(M, S, P, A, T, ("content-length", "-1")), (PROTOCOL_ERROR,)),
    "two lengths": (malformed(M, S, P, A, T, ("content-length", "10"), ("content-length", "11")), (PROTOCOL_ERROR,)),
    "trailers with pseudo fields": (
        lambda peer: [peer.headers(1), data(1, HELLO), peer.headers(1, (P,), flags=END_STREAM)],
        (PROTOCOL_ERROR,),
    ),
    "trailers without an end": (
        lambda peer: [peer.headers(1), data(1, HELLO), peer.headers(1, (("a", "b"),))],
        (PROTOCOL_ERROR,),
    ),
    **{
        f"trailers with {field!r}": (
            lambda peer, field=field: [peer.headers(1), data(1, HELLO), peer.headers(1, (field,), flags=END_STREAM)],  # type: ignore[misc]
            (PROTOCOL_ERROR,),
        )
        for field in (
            (b"X-Upper", b"a"),
            (b"x y", b"a"),
            (b"", b"a"),
            (b"x\0", b"a"),
            (b"x", b"a\0"),
            (b"x", b"a\r\nb"),
            (b"x", b"\n"),
        )
    },
    "an absolute address": (malformed(M, S, (":path", "http://localhost" + CHECK), A, T), (PROTOCOL_ERROR,)),
    "a window beyond its end": (lambda peer: [peer.headers(1), window_update(1, 2**31 - 1)], (FLOW_CONTROL_ERROR,)),
    "more DATA than the window": (lambda peer: [peer.headers(1), *[data(1, bytes(16384))] * 100], (FLOW_CONTROL_ERROR,)),
    "settings that push a window over its end": (
        lambda peer: [peer.headers(1), window_update(1, 2**31 - 1 - 65535), settings({INITIAL_WINDOW_SIZE: 65536})],
        (FLOW_CONTROL_ERROR,),
    ),
    "more headers than the limit": (
        lambda peer: [peer.headers(1, fields(*((f"x-{number}", "a" * 1000) for number in range(20))))],
        (INTERNAL_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR),
    ),
    "many small headers": (
        lambda peer: [peer.headers(1, fields(*((f"x{number}", "") for number in range(500))))],
        (INTERNAL_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR),
    ),
    "more trailers than the limit": (
        lambda peer: [
            peer.headers(1),
            data(1, HELLO),
            peer.headers(1, [(f"y-{number}", "v" * 1000) for number in range(16)], flags=END_STREAM),
        ],
        (INTERNAL_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR),
    ),
}


AT_ONCE = 11
"""Frames that fit into the buffers of a connection although nobody reads."""


def stream_error(served: Served, name: str) -> None:
    """Play it."""
    play, codes = STREAM_ERRORS[name]
    calls = served.handler.calls
    with Peer(served.target) as peer:
        frames = play(peer)
        # The window is what may come before the server had a turn to make it larger.
        with served.loop.standing_still():
            peer.send(*frames[:AT_ONCE])
        peer.send(*frames[AT_ONCE:])
        if is_nghttp2(served):
            assert peer.answer(1).reset in codes
            assert served.handler.calls == calls, "it was handed on"
            peer.stream()
            assert peer.ask(b"again").message == b"!again"
            assert peer.goaways == []
        else:
            with suppress(GoneError):
                peer.ping()


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_a_stream_that_breaks_a_rule_is_reset_and_its_connection_lives(serve: Serve, name: str) -> None:
    served = serve()
    stream_error(served, name)
    served.serves()


# --- connections that break rules: they end

Break = Callable[[Peer], Sequence[bytes]]
GREETING = PREFACE + settings()
BAD_GREETINGS: dict[str, bytes] = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.1 asking for h2c": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
    "HTTP/1.1 POST": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000),
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "zeros": bytes(1000),
    "a preface of another version": PREFACE.replace(b"2.0", b"3.0") + settings(),
    "the last byte of the preface is wrong": PREFACE[:-1] + b"x" + settings(),
    "no SETTINGS": PREFACE + ping(1),
    "HEADERS for SETTINGS": PREFACE + frame(HEADERS, b"\x82", flags=END_HEADERS, stream=1),
    "an unknown frame for SETTINGS": PREFACE + frame(UNKNOWN),
    "an acknowledgement for SETTINGS": PREFACE + settings(flags=ACK),
    "frames without a preface": settings() + ping(1),
    "SSH": b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    "PROXY": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + GREETING,
}
RULES: dict[str, tuple[Break, tuple[int, ...]]] = {
    "a frame that is too long": (lambda _: [frame(DATA, bytes(16385), stream=1)], (FRAME_SIZE_ERROR,)),
    "a header that says 16 MB": (lambda _: [frame(DATA, stream=1, length=2**24 - 1)], (FRAME_SIZE_ERROR,)),
    "an unknown frame that is too long": (lambda _: [frame(UNKNOWN, length=2**24 - 1)], (FRAME_SIZE_ERROR,)),
    "DATA on stream 0": (lambda _: [data(0, b"x")], (PROTOCOL_ERROR,)),
    "DATA on a stream that is not open": (lambda _: [data(1, b"x")], (PROTOCOL_ERROR, STREAM_CLOSED)),
    "DATA that is all padding and more": (
        lambda peer: [peer.headers(1), frame(DATA, b"\x05abc", flags=PADDED, stream=1)],
        (PROTOCOL_ERROR,),
    ),
    "DATA with padding and no length": (
        lambda peer: [peer.headers(1), frame(DATA, flags=PADDED, stream=1)],
        (FRAME_SIZE_ERROR, PROTOCOL_ERROR),
    ),
    "HEADERS on stream 0": (lambda peer: [peer.headers(0)], (PROTOCOL_ERROR,)),
    "HEADERS on a stream of the server": (lambda peer: [peer.headers(2)], (PROTOCOL_ERROR,)),
    "HEADERS behind the end": (
        lambda peer: [peer.headers(1, flags=END_STREAM), peer.headers(1, flags=END_STREAM)],
        (PROTOCOL_ERROR, STREAM_CLOSED),
    ),
    "DATA behind the end": (lambda peer: [peer.request(1, b"wait"), data(1, b"more")], (PROTOCOL_ERROR, STREAM_CLOSED)),
    "HEADERS that are cut": (lambda _: [frame(HEADERS, b"\x00", flags=END_HEADERS | PRIORITIZED, stream=1)], (FRAME_SIZE_ERROR,)),
    "HEADERS with more padding than there is": (
        lambda peer: [frame(HEADERS, b"\xff" + peer.block(), flags=END_HEADERS | PADDED, stream=1)],
        (PROTOCOL_ERROR,),
    ),
    "a frame between HEADERS and CONTINUATION": (
        lambda peer: [frame(HEADERS, peer.block(), stream=1), ping(1)],
        (PROTOCOL_ERROR,),
    ),
    "an unknown frame between them": (
        lambda peer: [frame(HEADERS, peer.block(), stream=1), frame(UNKNOWN)],
        (PROTOCOL_ERROR,),
    ),
    "CONTINUATION of another stream": (
        lambda peer: [frame(HEADERS, peer.block(), stream=1), frame(CONTINUATION, flags=END_HEADERS, stream=3)],
        (PROTOCOL_ERROR,),
    ),
    "CONTINUATION of nothing": (lambda peer: [frame(CONTINUATION, peer.block(), flags=END_HEADERS, stream=1)], (PROTOCOL_ERROR,)),
    "PUSH_PROMISE": (
        lambda peer: [peer.headers(1), frame(PUSH_PROMISE, b"\x00\x00\x00\x02" + peer.block(), flags=END_HEADERS, stream=1)],
        (PROTOCOL_ERROR,),
    ),
    "PRIORITY on stream 0": (lambda _: [priority(0)], (PROTOCOL_ERROR,)),
    "PRIORITY of 4 bytes": (lambda _: [frame(PRIORITY, bytes(4), stream=1)], (FRAME_SIZE_ERROR,)),
    "RST_STREAM on stream 0": (lambda _: [reset(0)], (PROTOCOL_ERROR,)),
    "RST_STREAM of a stream that is not open": (lambda _: [reset(1)], (PROTOCOL_ERROR,)),
    "RST_STREAM of 3 bytes": (lambda peer: [peer.headers(1), frame(RST_STREAM, bytes(3), stream=1)], (FRAME_SIZE_ERROR,)),
    "SETTINGS of 5 bytes": (lambda _: [frame(SETTINGS, bytes(5))], (FRAME_SIZE_ERROR,)),
    "SETTINGS on a stream": (lambda _: [frame(SETTINGS, stream=1)], (PROTOCOL_ERROR,)),
    "an acknowledgement with values": (lambda _: [settings({HEADER_TABLE_SIZE: 1}, flags=ACK)], (FRAME_SIZE_ERROR,)),
    "acknowledgements of nothing": (lambda _: [settings(flags=ACK)] * 3, (PROTOCOL_ERROR,)),
    "ENABLE_PUSH of 2": (lambda _: [settings({ENABLE_PUSH: 2})], (PROTOCOL_ERROR,)),
    "a window of 2 GB": (lambda _: [settings({INITIAL_WINDOW_SIZE: 2**31})], (FLOW_CONTROL_ERROR,)),
    "frames of 1 byte": (lambda _: [settings({MAX_FRAME_SIZE: 1})], (PROTOCOL_ERROR,)),
    "frames of 16 MB": (lambda _: [settings({MAX_FRAME_SIZE: 2**24})], (PROTOCOL_ERROR,)),
    "33 settings": (lambda _: [settings([(0xFF, number) for number in range(33)])], (ENHANCE_YOUR_CALM,)),
    "PING of 7 bytes": (lambda _: [frame(PING, bytes(7))], (FRAME_SIZE_ERROR,)),
    "PING on a stream": (lambda _: [frame(PING, bytes(8), stream=1)], (PROTOCOL_ERROR,)),
    "GOAWAY on a stream": (lambda _: [frame(GOAWAY, bytes(8), stream=1)], (PROTOCOL_ERROR,)),
    "GOAWAY of 7 bytes": (lambda _: [frame(GOAWAY, bytes(7))], (FRAME_SIZE_ERROR,)),
    "WINDOW_UPDATE of nothing": (lambda _: [window_update(0, 0)], (PROTOCOL_ERROR,)),
    "WINDOW_UPDATE of nothing on a stream": (lambda peer: [peer.headers(1), window_update(1, 0)], (PROTOCOL_ERROR,)),
    "WINDOW_UPDATE beyond the end": (lambda _: [window_update(0, 2**31 - 1)], (FLOW_CONTROL_ERROR,)),
    "WINDOW_UPDATE of a stream that is not open": (lambda _: [window_update(1, 1)], (PROTOCOL_ERROR,)),
    "WINDOW_UPDATE of 3 bytes": (lambda _: [frame(WINDOW_UPDATE, bytes(3))], (FRAME_SIZE_ERROR,)),
    "index 0": (lambda peer: [with_block(peer, b"\x80")], (COMPRESSION_ERROR,)),
    "an index that is not there": (lambda peer: [with_block(peer, b"\xff\x00")], (COMPRESSION_ERROR,)),
    "an integer without an end": (lambda peer: [with_block(peer, b"\xff" + b"\xff" * 30)], (COMPRESSION_ERROR,)),
    "a string that is longer than its block": (lambda peer: [with_block(peer, b"\x00\x7e")], (COMPRESSION_ERROR,)),
    "a string of 4 GB": (lambda peer: [with_block(peer, b"\x00\x7f\x80\xff\xff\xff\x0f")], (COMPRESSION_ERROR,)),
    "a Huffman code that is none": (lambda peer: [with_block(peer, b"\x00\x84\xff\xff\xff\xff")], (COMPRESSION_ERROR,)),
    "a table size in the middle": (lambda peer: [with_block(peer, b"\x20")], (COMPRESSION_ERROR,)),
    "a table that is too large": (
        lambda peer: [frame(HEADERS, b"\x3f\xe1\xff\x03" + peer.block(), flags=END_HEADERS, stream=1)],
        (COMPRESSION_ERROR,),
    ),
}


def bad_greeting(served: Served, name: str) -> None:
    """Play it: the end comes, whether or not with a word."""
    with Peer(served.target, hello=False) as peer:
        try:
            peer.send(BAD_GREETINGS[name])
        except GoneError:
            return
        if is_nghttp2(served):
            peer.end()
            assert not any(answer.headers for answer in peer.answers.values())  # why: most of them have no answer of any kind


def broken_rule(served: Served, name: str) -> None:
    """Play it: the end comes with a GOAWAY that says why."""
    play, codes = RULES[name]
    with Peer(served.target) as peer:
        try:
            peer.send(*play(peer))
        except GoneError:
            return
        if is_nghttp2(served):
            assert peer.end() in codes, peer.goaways


@pytest.mark.parametrize("name", BAD_GREETINGS)
def test_who_does_not_greet_in_http2_is_cut_off(serve: Serve, name: str) -> None:
    served = serve()
    bad_greeting(served, name)
    served.serves()


@pytest.mark.parametrize("name", RULES)
def test_a_connection_that_breaks_a_rule_ends_with_the_reason(serve: Serve, name: str) -> None:
    served = serve()
    broken_rule(served, name)
    served.serves()


# --- floods


def nothing_counts(peer: Peer, flood: bytes) -> None:
    """Send a flood, and see the connection end."""
    peer.push(flood)
    peer.end()


def rapid_resets(served: Served) -> None:
    """CVE-2023-44487: what is reset in the same read is never begun, and it goes on for a while only."""
    calls = served.handler.calls
    with Peer(served.target) as peer:
        numbers = range(1, 4001, 2)
        peer.push(b"".join(peer.request(number, b"wait") + reset(number) for number in numbers))
        # why: what the library says of a flood depends on where in it the kernel cut one read from the next
        assert peer.end() in (INTERNAL_ERROR, ENHANCE_YOUR_CALM, NO_ERROR, None)  # why: see the line above
    assert served.handler.calls - calls < 2 * served.limits.resets


def resets_of_what_waits(served: Served) -> None:
    """The same, after each call has begun."""
    held: Held = served.handler.held
    with Peer(served.target) as peer:
        for _ in range(50):
            before = held.begun
            numbers = [peer.stream() for _ in range(20)]
            try:
                peer.send(*(peer.request(number, b"wait") for number in numbers))
                peer.ping()
                eventually(lambda: held.begun == before + 20)  # noqa: B023
                peer.send(*(reset(number) for number in numbers))
                peer.ping()
            except GoneError:
                break
        else:
            raise AssertionError("a thousand resets were borne")
    eventually(lambda: held.cancelled == held.begun)


def resets_that_are_provoked(served: Served) -> None:
    """CVE-2025-8671: the client lets the server reset its streams; what waits for an answer must end with them."""
    held: Held = served.handler.held
    with Peer(served.target) as peer:
        for _ in range(20):
            before = held.begun
            numbers = [peer.stream() for _ in range(20)]
            try:
                peer.send(*(peer.request(number, b"wait") for number in numbers))
                peer.ping()
                eventually(lambda: held.begun == before + 20)  # noqa: B023
                peer.send(*(window_update(number, 2**31 - 1) for number in numbers))
                peer.read(lambda: all(number in peer.answers and peer.answers[number].done for number in numbers))  # noqa: B023
            except GoneError:
                break
            eventually(lambda: served.streams == 0)
    eventually(lambda: held.cancelled == held.begun)


def pings_that_nobody_reads(served: Served) -> None:
    """The answers pile up: the peer is cut off, or no longer read."""
    with Peer(served.target, polite=False) as peer:
        flood = b"".join(ping(number) for number in range(50)) * 40_000
        assert peer.push(flood, reading=False) < len(flood)


def settings_that_nobody_reads(served: Served) -> None:
    """The same with acknowledgements of SETTINGS."""
    with Peer(served.target, polite=False) as peer:
        flood = settings({HEADER_TABLE_SIZE: 4096}) * 1_500_000
        assert peer.push(flood, reading=False) < len(flood)


def header_bomb(served: Served) -> None:
    """12,000 fields of 4 kB in 12 kB: that stream is reset, at once, and its connection lives."""
    with Peer(served.target) as peer:
        started = monotonic()
        for _ in range(20):
            number = peer.stream()
            bomb = b"\x40\x01x\x7f\xa1\x1e" + bytes([0x61]) * 4000 + b"\xbe" * 12_000
            peer.send(frame(HEADERS, peer.block() + bomb, flags=END_HEADERS, stream=number))
            peer._encoder.header_table.add(b"x", b"a" * 4000)
            assert peer.answer(number).reset is not None
        assert monotonic() - started < SOON
        assert peer.ask(b"next").message == b"!next"


def header_bomb_in_pieces(served: Served) -> None:
    """The same in CONTINUATION frames, 100 kB of indices."""
    with Peer(served.target) as peer:
        bomb = b"\x40\x01x\x7f\xa1\x1e" + bytes([0x61]) * 4000
        pieces = [b"\xbe" * 16_000] * 6
        started = monotonic()
        peer.send(frame(HEADERS, peer.block() + bomb, stream=1))
        peer.send(*(frame(CONTINUATION, piece, stream=1) for piece in pieces))
        peer.send(frame(CONTINUATION, b"\xbe", flags=END_HEADERS, stream=1))
        assert peer.answer(1).reset is not None
        assert monotonic() - started < SOON
        peer._encoder.header_table.add(b"x", b"a" * 4000)
        peer.stream()
        assert peer.ask(b"next").message == b"!next"


def trailer_bomb(served: Served) -> None:
    """And in trailers."""
    with Peer(served.target) as peer:
        peer.send(peer.headers(1), data(1, HELLO))
        bomb = b"\x40\x01x\x7f\xa1\x1e" + bytes([0x61]) * 4000 + b"\xbe" * 12_000
        peer.send(frame(HEADERS, bomb, flags=END_HEADERS | END_STREAM, stream=1))
        assert peer.answer(1).reset is not None
        peer._encoder.header_table.add(b"x", b"a" * 4000)
        peer.stream()
        assert peer.ask(b"next").message == b"!next"


def continuation_flood(served: Served) -> None:
    """CVE-2024-27316: a header block without an end."""
    with Peer(served.target) as peer:
        peer.push(frame(HEADERS, peer.block(), stream=1) + frame(CONTINUATION, b"\x00\x01a\x01b", stream=1) * 100_000)
        peer.end()


def empty_continuation_flood(served: Served) -> None:
    """The same with nothing in it."""
    with Peer(served.target) as peer:
        peer.push(frame(HEADERS, peer.block(), stream=1) + frame(CONTINUATION, stream=1) * 100_000)
        peer.end()


def empty_data_flood(served: Served) -> None:
    """CVE-2019-9518."""
    with Peer(served.target) as peer:
        nothing_counts(peer, peer.headers(1) + data(1) * 100_000)


def padding_flood(served: Served) -> None:
    """DATA that is padding alone."""
    with Peer(served.target) as peer:
        nothing_counts(peer, peer.headers(1) + frame(DATA, b"\x01\x00", flags=PADDED, stream=1) * 20_000)


def priority_flood(served: Served) -> None:
    """CVE-2019-9513."""
    with Peer(served.target) as peer:
        nothing_counts(peer, b"".join(priority(2 * number + 1) for number in range(20_000)))


def priority_flood_on_one_stream(served: Served) -> None:
    """The same without streams."""
    with Peer(served.target) as peer:
        nothing_counts(peer, (priority(5, on=3) + priority(5)) * 10_000)


def header_flood(served: Served) -> None:
    """A thousand requests that never come completely: those beyond the limit are refused, the others are given up."""
    with Peer(served.target) as peer:
        numbers = range(1, 2001, 2)
        peer.push(b"".join(peer.headers(number) for number in numbers))
        try:
            peer.read(lambda: sum(answer.done for answer in peer.answers.values()) == 1000)
        except GoneError:
            return
        assert {answer.reset for answer in peer.answers.values()} <= {REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM}


FLOODS: dict[str, Callable[[Served], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        rapid_resets,
        resets_of_what_waits,
        resets_that_are_provoked,
        pings_that_nobody_reads,
        settings_that_nobody_reads,
        header_bomb,
        header_bomb_in_pieces,
        trailer_bomb,
        continuation_flood,
        empty_continuation_flood,
        empty_data_flood,
        padding_flood,
        priority_flood,
        priority_flood_on_one_stream,
        header_flood,
    )
}


@only_nghttp2
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends(serve: Serve, name: str) -> None:
    served = serve()
    started = monotonic()
    FLOODS[name](served)
    assert monotonic() - started < SOON
    served.serves()


@only_nghttp2
@pytest.mark.parametrize("name", ["pings that nobody reads", "settings that nobody reads"])
def test_a_flood_on_a_unix_socket_ends(serve: Serve, name: str, tmp_path: Path) -> None:
    served = serve(address=Address(path=str(tmp_path / "check.sock")))
    FLOODS[name](served)
    served.serves()


# Frames that cost next to nothing: real clients send some of them often, and a flood of them is only slow.
BORNE: dict[str, bytes] = {
    "unknown frames": frame(UNKNOWN),
    "unknown frames with something in them": frame(UNKNOWN, bytes(1000)),
    "PRIORITY_UPDATE": frame(PRIORITY_UPDATE, b"\x00\x00\x00\x01u=0"),
    "WINDOW_UPDATE of the connection": window_update(0, 1),
    "WINDOW_UPDATE of a stream that is over": window_update(1, 1),
    "RST_STREAM of a stream that is over": reset(1),
    "answers to PINGs that nobody sent": frame(PING, bytes(8), flags=ACK),
}


@pytest.mark.parametrize("name", BORNE)
def test_a_flood_of_frames_that_mean_nothing_keeps_nobody_waiting(serve: Serve, name: str) -> None:
    served = serve(limits=default_limits())
    with Peer(served.target) as peer, Client(served.target) as good:
        assert peer.ask(b"first").message == b"!first"
        flood = BORNE[name] * (5_000_000 // len(BORNE[name]) // 20)
        for _ in range(20):
            peer.push(flood)
            started = monotonic()
            assert good.ask(b"and me?") == b"!and me?"
            assert monotonic() - started < SOON
    served.serves()


def few_pings(peer: Peer) -> None:
    peer.ping()
    peer.send(*(ping(number) for number in range(1000)))
    peer.read(lambda: len(peer.pongs) == 1001)
    assert peer.pongs[1:] == [struct.pack(">Q", number) for number in range(1000)]


def few_settings(peer: Peer) -> None:
    for _ in range(10):
        peer.send(settings({HEADER_TABLE_SIZE: 4096}) * 100)
        peer.ping()
    assert peer.acknowledged == 1001


def few_empty_data(peer: Peer) -> None:
    number = peer.stream()
    peer.send(peer.headers(number), data(number) * 2000, data(number, HELLO, end=True))
    assert peer.answer(number).message == b"!hello"


def few_priorities(peer: Peer) -> None:
    peer.send(priority(9) * 2000)


def few_resets(peer: Peer) -> None:
    for _ in range(20):
        numbers = [peer.stream() for _ in range(100)]
        peer.send(*(peer.request(number, b"wait") + reset(number) for number in numbers))
        peer.ping()


@pytest.mark.parametrize(
    ("transport", "play"),
    [*(("nghttp2", play) for play in (few_pings, few_settings, few_empty_data, few_priorities, few_resets)), ("grpcio", few_pings)],
    indirect=["transport"],
)
def test_what_would_be_a_flood_is_fine_in_small_numbers(serve: Serve, play: Callable[[Peer], None]) -> None:
    served = serve(limits=default_limits())
    with Peer(served.target) as peer:
        play(peer)
        assert peer.ask(b"well?").message == b"!well?"
        assert peer.goaways == []
    served.serves()


@only_nghttp2
def test_the_allowance_of_empty_frames_comes_back(serve: Serve) -> None:
    """A client that stays below the rate may send what counts for ever."""
    served = serve(limits=default_limits(empty_frames=50, empty_frames_per_second=2000))
    with Peer(served.target) as peer:
        for _ in range(20):
            peer.send(priority(1) * 45)
            peer.ping()
            sleep(0.03)  # why: the allowance grows with time, and this client stays below its rate
        peer.push(priority(1) * 500)
        peer.end()
    served.serves()


@only_nghttp2
def test_the_allowance_of_resets_comes_back(serve: Serve) -> None:
    """libnghttp2 counts in whole seconds."""
    served = serve(limits=default_limits(resets=50, resets_per_second=1000))
    with Peer(served.target) as peer:
        for _ in range(2):
            numbers = [peer.stream() for _ in range(40)]
            peer.send(*(peer.request(number, b"wait") + reset(number) for number in numbers))
            peer.ping()
            sleep(1.1)  # why: libnghttp2 counts in whole seconds of its own clock
        assert peer.ask(b"well?").message == b"!well?"
    served.serves()


# --- peers that are slow


def waits_for_its_end(peer: Peer) -> None:
    """The server closes, soon after it may."""
    peer.end()


def is_reset(peer: Peer) -> None:
    """The stream is given up; the connection lives."""
    assert peer.answer(1).reset == CANCEL


def is_reset_and_goes_on(peer: Peer) -> None:
    """And another call is answered."""
    is_reset(peer)
    peer.stream()
    assert peer.ask(b"next").message == b"!next"


SLOW: dict[str, tuple[Callable[[Peer], Sequence[bytes]], Callable[[Peer], None]]] = {
    "says nothing": (lambda _: [], waits_for_its_end),
    "half a preface": (lambda _: [PREFACE[:10]], waits_for_its_end),
    "a preface": (lambda _: [PREFACE], waits_for_its_end),
    "half of SETTINGS": (lambda _: [PREFACE, settings({1: 4096})[:-1]], waits_for_its_end),
    "HEADERS without an end": (lambda peer: [GREETING, peer.headers(1)], is_reset_and_goes_on),
    "DATA without an end": (lambda peer: [GREETING, peer.headers(1), data(1, HELLO)], is_reset_and_goes_on),
    "half a message": (lambda peer: [GREETING, peer.headers(1), data(1, HELLO[:7])], is_reset_and_goes_on),
    "half a frame of DATA": (lambda peer: [GREETING, peer.headers(1), data(1, HELLO, end=True)[:-1]], is_reset),
    "no END_HEADERS": (lambda peer: [GREETING, frame(HEADERS, peer.block(), stream=1)], is_reset),
}


def slow(served: Served, name: str) -> None:
    """Play it."""
    play, ends = SLOW[name]
    # One that is polite would acknowledge SETTINGS, in the middle of what it has not finished.
    with Peer(served.target, hello=False, polite=False) as peer:
        peer.send(*play(peer))
        ends(peer)


@only_nghttp2
@pytest.mark.parametrize("name", SLOW)
def test_who_does_not_finish_is_not_waited_for(serve: Serve, name: str) -> None:
    served = serve()
    started = monotonic()
    slow(served, name)
    assert 0.25 < monotonic() - started < SOON
    assert served.handler.calls <= 1
    served.serves()


@only_nghttp2
def test_a_request_that_trickles_is_not_waited_for(serve: Serve) -> None:
    served = serve()
    with Peer(served.target) as peer:
        peer.send(peer.headers(1))
        for _ in range(100):
            peer.send(data(1, b"\x00"))
            try:
                peer.read(lambda: 1 in peer.answers, seconds=0.02)
                break
            except AssertionError:  # why: it is read as long as nothing comes, and what must come is asserted below
                continue
        assert peer.answers[1].reset is not None
    served.serves()


def test_a_call_that_is_complete_may_take_longer(serve: Serve) -> None:
    """Half-open is what the client has not finished, not what the handler has not."""
    served = serve()
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"wait"))
        with pytest.raises(AssertionError):
            peer.answer(1, seconds=0.8)
        served.loop.soon(served.handler.held.go.set)
        assert peer.answer(1).message == b"!wait"
    served.serves()


@only_nghttp2
def test_a_handshake_that_does_not_finish_is_not_waited_for(serve: Serve, tmp_path: Path) -> None:
    served = serve(certificates=Authority(tmp_path).server())
    hello_of_client = client_hello()
    for start in (b"", hello_of_client[:1], hello_of_client[:-1], hello_of_client, GREETING):
        with Peer(served.target, hello=False) as peer:
            peer.send(start)
            started = monotonic()
            peer.end()
            assert monotonic() - started < SOON
    served.rests()


def client_hello() -> bytes:
    """Return the first bytes of a client that speaks TLS."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


# --- peers that do not read


def demanding(peer: Peer, count: int) -> bytes:
    """Ask for 100 kB with 8 kB, many times: no single read takes all of it."""
    return b"".join(peer.request(peer.stream(), b"large" + bytes(8000)) for _ in range(count))


def reads_nothing(served: Served, *, then: Callable[[Peer], None]) -> None:
    """Ask for much more than fits into every buffer between, and read none of it."""
    with Peer(served.target, own_settings=WIDE, polite=False, receive_buffer=4096) as peer:
        peer.send(settings(flags=ACK), window_update(0, 2**30))
        peer.push(demanding(peer, 1500), reading=False)
        then(peer)


@only_nghttp2
def test_who_does_not_read_is_no_longer_read(serve: Serve) -> None:
    """What a connection may have unsent is bounded; others are served meanwhile."""
    served = serve(limits=default_limits(output_buffer=64 * 1024))

    def then(peer: Peer) -> None:
        with Client(served.target) as good:
            assert good.ask(b"and me?") == b"!and me?"
            before = served.handler.calls
            assert before < 400, "it is read without an end"
            peer.push(demanding(peer, 500), reading=False)
            assert good.ask(b"and me?") == b"!and me?"
            assert served.handler.calls == before + 1

    reads_nothing(served, then=then)
    served.serves()


def test_who_reads_late_gets_everything(serve: Serve) -> None:
    served = serve(limits=default_limits(output_buffer=64 * 1024))
    with Peer(served.target, own_settings=WIDE, polite=False, receive_buffer=4096) as peer:
        peer.send(settings(flags=ACK), window_update(0, 2**30))
        requests = b"".join(peer.request(peer.stream(), b"large") for _ in range(100))
        sent = peer.push(requests, reading=False)
        peer.push(requests[sent:])
        assert all(peer.answer(number).message == bytes(LARGE) for number in range(1, 200, 2))
    served.serves()


@pytest.mark.parametrize("how", ["leaves", "aborts"])
def test_who_does_not_read_may_leave(serve: Serve, how: str) -> None:
    served = serve()
    reads_nothing(served, then=lambda peer: peer.abort() if how == "aborts" else None)
    served.serves()


@only_nghttp2
def test_who_does_not_read_its_goodbye_is_cut_off(serve: Serve) -> None:
    """The end of a connection does not wait for a peer that does not read."""
    served = serve(
        limits=default_limits(output_buffer=64 << 20, half_open_timeout=1.0, max_connection_age_grace=0.2, idle_timeout=0.4)
    )
    with Peer(served.target, own_settings=WIDE, polite=False, receive_buffer=4096) as peer:
        peer.send(settings(flags=ACK), window_update(0, 2**30), demanding(peer, 100), frame(PING, bytes(7)))
        eventually(lambda: served.handler.calls == 100)
        eventually(lambda: served.connections == 0, what=lambda: f"open: {served.connections}, {served.streams}")
    served.serves()


@only_nghttp2
def test_who_does_not_read_cannot_pile_up_resets(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open streams of a peer that does not read: each is given up once, not again and again."""
    served = serve(limits=default_limits(output_buffer=16 * 1024, half_open_timeout=0.04))

    def then(peer: Peer) -> None:
        (open_one,) = served.server._open
        eventually(lambda: open_one.paused)
        submitted: list[int] = []
        reset = connection.Connection.reset

        def counted(self: connection.Connection, stream: _session.Stream, *arguments: Any) -> None:
            submitted.append(stream.id)
            reset(self, stream, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(connection.Connection, "reset", counted)
            eventually(lambda: not served.connections or len(submitted) > 500 or monotonic() > deadline)
        assert len(submitted) == len(set(submitted)), f"{len(submitted)} resets of {len(set(submitted))} streams"

    with Peer(served.target, own_settings=WIDE, polite=False, receive_buffer=4096) as peer:
        peer.send(settings(flags=ACK), window_update(0, 2**30))
        peer.send(*(peer.headers(peer.stream()) for _ in range(100)))
        deadline = monotonic() + 1
        peer.push(demanding(peer, 1500), reading=False)
        then(peer)
    served.serves()


# --- connections that are cut


def hangs_up(peer: Peer, number: int) -> None:
    """End a connection in one of three ways."""
    if number % 3 == 0:
        peer.abort()
    elif number % 3 == 1:
        peer.socket.shutdown(socket.SHUT_WR)


def cut_request(served: Served) -> None:
    """Cut at every byte of a call, by turns with FIN, with half of it, and with RST."""
    content = whole_call(served.target)
    for cut in range(len(content) + 1):
        with Peer(served.target, hello=False) as peer:
            peer.send(content[:cut])
            hangs_up(peer, cut)


def cut_answer(served: Served) -> None:
    """Cut while the answer is on its way."""
    for window in (0, 1, 5, 6, 1000, 65535):
        for number in range(3):
            with Peer(served.target, own_settings={INITIAL_WINDOW_SIZE: window}, polite=False) as peer:
                peer.send(settings(flags=ACK), peer.request(1, b"large"))
                peer.read(lambda: len(peer.answers[1].body) >= window if 1 in peer.answers else False)  # noqa: B023
                hangs_up(peer, number)


def cut_wait(served: Served) -> None:
    """Cut while the handler waits: nobody waits any longer."""
    held: Held = served.handler.held
    for number in range(6):
        before = held.begun
        with Peer(served.target) as peer:
            peer.send(*(peer.request(peer.stream(), b"wait") for _ in range(10)))
            eventually(lambda: held.begun == before + 10)  # noqa: B023
            hangs_up(peer, number)
    eventually(lambda: held.cancelled == held.begun)


def cut_watch(served: Served) -> None:
    """Cut while somebody watches."""
    for number in range(6):
        with Peer(served.target) as peer:
            peer.send(peer.headers(1, fields(path="/grpc.health.v1.Health/Watch")), data(1, framed(b""), end=True))
            peer.read(lambda: 1 in peer.answers and peer.answers[1].body)
            hangs_up(peer, number)


CUTS: dict[str, Callable[[Served], None]] = {
    "the request": cut_request,
    "the answer": cut_answer,
    "the wait": cut_wait,
    "a watch": cut_watch,
}


@pytest.mark.parametrize("name", CUTS)
def test_a_connection_may_be_cut_at_any_time(serve: Serve, name: str) -> None:
    served = serve(limits=default_limits())
    CUTS[name](served)
    served.serves()


def test_a_tls_connection_may_be_cut_at_any_time(serve: Serve, loop: Loop, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = serve(certificates=authority.server(), limits=replace(LIMITS, connections=500))
    content = client_hello()
    # gRPC 1.85 can abort the whole process of these tests where a handshake is cut: see docs/reference.md.
    for cut in range(0, len(content) + 1, 7) if loop.transport.name == "nghttp2" else ():
        with Peer(served.target, hello=False) as peer:
            peer.send(content[:cut])
            hangs_up(peer, cut)
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    for number in range(3):
        with Peer(served.target, tls=context) as peer:
            peer.send(peer.request(1, b"wait"), peer.request(3, b"now"))
            assert peer.answer(3).message == b"!now"
            hangs_up(peer, number)
    with Peer(served.target, tls=context) as peer:
        assert peer.ask(b"next").message == b"!next"
    served.rests()


@only_nghttp2
@pytest.mark.parametrize("mask", [0x01, 0x08, 0x80, 0xFF])
def test_a_call_with_one_wrong_byte_harms_nobody(serve: Serve, mask: int) -> None:
    served = serve(limits=default_limits())
    content = whole_call(served.target)
    for place in range(len(content)):
        with Peer(served.target, hello=False) as peer:
            peer.push(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
            peer.push(ping(1))
    served.serves()


# --- limits


@only_nghttp2
def test_streams_beyond_the_limit_are_refused_and_the_others_served(serve: Serve) -> None:
    """By a client that has not heard of the limit yet."""
    served = serve()
    with Peer(served.target, polite=False) as peer:
        assert peer.ask(b"first").message == b"!first"
        assert peer.settings is not None
        assert peer.settings[3] == LIMITS.concurrent_streams
        numbers = [peer.stream() for _ in range(LIMITS.concurrent_streams)]
        peer.send(*(peer.request(number, b"wait") for number in numbers))
        beyond = [peer.stream() for _ in range(10)]
        peer.send(*(peer.request(number, b"now") for number in beyond))
        assert {peer.answer(number).reset for number in beyond} == {REFUSED_STREAM}
        served.loop.soon(served.handler.held.go.set)
        assert [peer.answer(number).message for number in numbers] == [b"!wait"] * len(numbers)
        assert peer.ask(b"again").message == b"!again"
    served.serves()


def test_who_breaks_the_limit_of_streams_gets_no_more_of_them(serve: Serve) -> None:
    """Libraries differ: the stream may be refused, or the whole connection."""
    served = serve()
    with Peer(served.target) as peer:
        assert peer.ask(b"first").message == b"!first"
        peer.send(*(peer.request(peer.stream(), b"wait") for _ in range(LIMITS.concurrent_streams)))
        beyond = peer.stream()
        peer.send(peer.request(beyond, b"now"))
        try:
            assert peer.answer(beyond).reset == REFUSED_STREAM
        except GoneError:
            assert peer.goaways[-1][1] == PROTOCOL_ERROR
    eventually(lambda: served.handler.held.cancelled == served.handler.held.begun)
    served.serves()


@only_nghttp2
def test_connections_beyond_the_limit_are_closed_at_once(serve: Serve) -> None:
    """When the calls of all others are under way."""
    served = serve(limits=default_limits(connections=5))
    peers = [Peer(served.target) for _ in range(5)]
    try:
        for peer in peers:
            peer.send(peer.request(peer.stream(), b"wait"))
        eventually(lambda: served.handler.held.begun == 5)
        for _ in range(20):
            with Peer(served.target, hello=False) as beyond:
                beyond.end()
                assert beyond.settings is None
        assert served.connections == 5
        assert [peer.ask(b"still").message for peer in peers] == [b"!still"] * 5
        peers.pop().socket.close()
        eventually(lambda: served.connections == 4)
        with Peer(served.target) as next_one:
            assert next_one.ask(b"in").message == b"!in"
        served.loop.soon(served.handler.held.go.set)
        assert [peer.answer(1).message for peer in peers] == [b"!wait"] * 4
    finally:
        for peer in peers:
            peer.socket.close()
    served.serves()


@only_nghttp2
def test_silent_connections_leave_room_again(serve: Serve) -> None:
    served = serve(limits=default_limits(connections=5, half_open_timeout=0.2))
    silent = [Peer(served.target, hello=False) for _ in range(5)]
    try:
        eventually(lambda: served.connections == 5)
        eventually(lambda: served.connections == 0)
        served.serves()
    finally:
        for peer in silent:
            peer.socket.close()


def test_an_idle_connection_is_told_to_go(serve: Serve) -> None:
    served = serve(limits=default_limits(idle_timeout=0.3))
    with Peer(served.target) as peer:
        assert peer.ask(b"1").message == b"!1"
        started = monotonic()
        code = peer.end()
        if is_nghttp2(served):
            assert code == NO_ERROR
        assert 0.2 < monotonic() - started < SOON
    served.serves()


def test_a_connection_with_a_call_is_not_idle(serve: Serve) -> None:
    served = serve(limits=default_limits(idle_timeout=0.2))
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"wait"))
        with pytest.raises(AssertionError):
            peer.answer(1, seconds=0.8)
        assert peer.goaways == []
        served.loop.soon(served.handler.held.go.set)
        assert peer.answer(1).message == b"!wait"
        code = peer.end()
        if is_nghttp2(served):
            assert code == NO_ERROR
    served.serves()


@only_nghttp2
def test_an_old_connection_goes_and_its_calls_finish(serve: Serve) -> None:
    served = serve(limits=default_limits(max_connection_age=0.3, max_connection_age_grace=5.0))
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"wait"))
        peer.read(lambda: peer.goaways)
        assert peer.goaways[0] == (2**31 - 1, NO_ERROR), "first an announcement: what is on its way still comes"
        peer.send(peer.request(3, b"on its way"))
        assert peer.answer(3).message == b"!on its way"
        peer.read(lambda: peer.goaways[-1][0] < 2**31 - 1)
        assert peer.goaways[-1] == (3, NO_ERROR)
        peer.send(peer.request(5, b"too late"))
        peer.ping()
        if 5 in peer.answers:
            assert peer.answers[5].reset == REFUSED_STREAM
        served.loop.soon(served.handler.held.go.set)
        assert peer.answer(1).message == b"!wait"
        assert peer.end() == NO_ERROR
        assert len(peer.goaways) < 10
    served.serves()


def test_an_old_connection_is_not_waited_for_without_end(serve: Serve) -> None:
    served = serve(limits=default_limits(max_connection_age=0.2, max_connection_age_grace=0.3))
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"wait"))
        started = monotonic()
        peer.end()
        assert 0.3 < monotonic() - started < SOON
    eventually(lambda: served.handler.held.cancelled == 1)
    served.serves()


@only_nghttp2
def test_half_open_bodies_are_limited_together(serve: Serve) -> None:
    """Many uploads at once that never end: the process holds `requests_size` of them, and refuses the rest."""
    served = serve(limits=default_limits(message_size=64 * 1024, requests_size=256 * 1024, half_open_timeout=2.0))
    with Peer(served.target) as peer:
        numbers = [peer.stream() for _ in range(20)]
        for number in numbers:
            peer.send(peer.headers(number), data(number, b"\x00\x00\x01\x00\x00" + bytes(10_000)), data(number, bytes(16_000)))
            peer.ping()
        refused_now = [number for number in numbers if number in peer.answers]
        assert 8 <= len(refused_now) <= 14
        assert {peer.answers[number].status for number in refused_now} == {8}
        peer.read(lambda: all(number in peer.answers for number in numbers))
        eventually(lambda: served.streams == 0)
        assert served.server._counters.unfinished == 0
        assert peer.ask(b"small").message == b"!small"
    served.serves()


# --- the end of a server, with such peers


def quiet(peer: Peer) -> None:
    peer.send(b"")


def waiting(peer: Peer) -> None:
    peer.send(GREETING, peer.request(1, b"wait"))


def watching(peer: Peer) -> None:
    peer.send(PREFACE, settings({INITIAL_WINDOW_SIZE: 0}))
    peer.send(peer.headers(1, fields(path="/grpc.health.v1.Health/Watch")), data(1, framed(b""), end=True))


def not_reading(peer: Peer) -> None:
    peer.polite = False
    peer.send(PREFACE, settings(WIDE), settings(flags=ACK), window_update(0, 2**30))
    peer.push(demanding(peer, 500), reading=False, stall=0.1)


STATES: dict[str, Callable[[Peer], None]] = {
    "that says nothing": quiet,
    "in the middle of its greeting": lambda peer: peer.send(PREFACE[:7]),
    "that is idle": lambda peer: peer.send(GREETING),
    "in the middle of its headers": lambda peer: peer.send(GREETING, frame(HEADERS, peer.block(), stream=1)),
    "in the middle of its message": lambda peer: peer.send(GREETING, peer.headers(1), data(1, HELLO[:6])),
    "that waits for its answer": waiting,
    "that watches and reads nothing": watching,
    "that does not read": not_reading,
    "that broke a rule": lambda peer: peer.send(GREETING, frame(PING, bytes(7))),
}


@only_nghttp2
@pytest.mark.parametrize("grace", [0.0, 0.3])
@pytest.mark.parametrize("name", STATES)
def test_a_stop_waits_for_no_peer(serve: Serve, name: str, grace: float) -> None:
    served = serve(limits=default_limits(output_buffer=64 * 1024))
    with Peer(served.target, hello=False) as peer:
        STATES[name](peer)
        served.loop.turn()
        served.stopping(grace).result(SOON)
        assert (served.connections, served.streams) == (0, 0)


@only_nghttp2
def test_a_stop_waits_as_long_as_it_is_told(serve: Serve) -> None:
    """The grace of a connection that has grown old is another one."""
    served = serve(limits=default_limits(max_connection_age_grace=0.1))
    with Peer(served.target) as peer:
        peer.send(peer.request(1, b"wait"))
        eventually(lambda: served.handler.held.begun)
        stopping = served.stopping(5.0)
        with pytest.raises(AssertionError):
            peer.answer(1, seconds=1.0)
        served.loop.soon(served.handler.held.go.set)
        assert peer.answer(1).message == b"!wait"
        stopping.result(SOON)


@only_nghttp2
def test_a_handshake_under_way_ends_with_a_stop(serve: Serve, tmp_path: Path) -> None:
    served = serve(certificates=Authority(tmp_path).server())
    with Peer(served.target, hello=False) as peer:
        peer.send(client_hello())
        served.loop.turn()
        served.stopping(0.2).result(SOON)
        peer.end()


@only_nghttp2
def test_a_handshake_that_ends_after_a_stop_is_not_served(serve: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = serve(certificates=authority.server(), limits=default_limits())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=str(authority.file)).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with Peer(served.target, hello=False) as peer:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                peer.send(outgoing.read())
                incoming.write(peer.socket.recv(65536))
        # The last words of the handshake, and a call.
        client.write(GREETING + peer.request(1, b"hello"))
        served.stopping(0.1).result(SOON)
        with suppress(GoneError):
            peer.send(outgoing.read())
            peer.socket.settimeout(SOON)
            with suppress(OSError):
                while received := peer.socket.recv(65536):
                    incoming.write(received)
        assert served.handler.calls == 0
        assert (served.connections, served.streams) == (0, 0)


@only_nghttp2
def test_a_stop_ends_a_load_without_an_answer_that_is_cut(serve: Serve) -> None:
    """Every answer that began is whole, and what was not answered was refused or never begun."""
    served = serve(limits=default_limits())
    with Peer(served.target) as peer:
        stopping = None
        for round_ in range(400):
            number = peer.stream()
            try:
                peer.send(peer.request(number, b"large" if round_ % 5 == 0 else b"small"))
                peer.push(b"", stall=0)
            except GoneError:
                break
            if round_ == 100:
                stopping = served.stopping(3.0)
        assert stopping is not None
        peer.end()
        last = peer.goaways[-1][0] if peer.goaways else 2**31 - 1
        for number, answer in peer.answers.items():
            if number <= last and answer.reset in (None, NO_ERROR):
                assert answer.message == (bytes(LARGE) if number % 10 == 1 else b"!small")
        assert len(peer.answers) >= 100
        stopping.result(SOON)


# --- callbacks that raise


def raising(*_: Any, **__: Any) -> Any:
    raise ValueError("made to fail")


@only_nghttp2
@pytest.mark.parametrize("place", ["refusal", "fields", "trailers", "data", "end"])
def test_a_callback_that_raises_ends_its_stream_and_is_logged(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """Whatever of Python a callback reaches: the rules for fields, the answer to a message that is too large, the counts."""
    served = serve(limits=replace(LIMITS, message_size=1000, header_list_size=4000))
    code, error = INTERNAL_ERROR, ValueError
    with Peer(served.target) as peer:
        assert peer.ask(b"before").message == b"!before"
        number = peer.stream()
        with monkeypatch.context() as patched:
            match place:
                case "refusal":
                    patched.setattr(connection.Connection, "count_refusal", raising)
                    sent = peer.request(number, entries=(*FIELDS, ("x-long", "a" * 5000)))
                case "fields":
                    patched.setattr(_session, "judge", raising)
                    sent = peer.request(number, entries=(*FIELDS, ("x-new", "new")))
                case "trailers":
                    patched.setattr(_session, "are_trailers", raising)
                    body = data(number, framed(b"hello"))
                    sent = peer.headers(number) + body + peer.headers(number, (("x-last", "1"),), flags=END_STREAM)
                case "data":
                    patched.delattr(messages, "TOO_LARGE")
                    error = AttributeError
                    sent = peer.request(number, b"a" * 2000)
                case "end":
                    patched.setattr(connection.Connection, "count_refusal", raising)
                    code = FLOW_CONTROL_ERROR
                    sent = peer.headers(number) + window_update(number, 2**31 - 1)
            peer.send(sent)
            assert peer.answer(number).reset == code
        (record, *_) = [record for record in caplog.records if record.name.startswith("extauthz")]
        assert record.exc_info is not None
        assert record.exc_info[0] is error
        assert peer.ask(b"after").message == b"!after"
    served.serves()


@only_nghttp2
@pytest.mark.parametrize("method", ["call", "settle"])
def test_an_answer_that_the_transport_cannot_make_ends_one_stream(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """Whatever raises between the request and its answer, outside of every callback."""
    served = serve(lambda message: b"" if message == b"nothing" else echo(message))
    with Peer(served.target) as peer:
        assert peer.ask(b"before").message == b"!before"
        with monkeypatch.context() as patched:
            patched.setattr(type(served.server), method, raising)
            # A request with its length is no usual check; what is no message is not sent at once.
            odd = (*FIELDS, ("content-length", "10"))
            answer = peer.ask(b"hello", entries=odd) if method == "call" else peer.ask(b"nothing")
            assert answer.reset == INTERNAL_ERROR
        assert any(record.exc_info for record in caplog.records)
        assert peer.ask(b"after").message == b"!after"
    served.serves()


# --- nothing leaks


def resident() -> int:
    """Return the resident memory of this process in kilobytes."""
    gc.collect()
    text = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * 4


@only_nghttp2
def test_long_paths_are_not_kept(serve: Serve) -> None:
    """Nor is anything else of a request, when it is over."""
    served = serve(limits=default_limits())

    def ask(numbers: range) -> None:
        with Peer(served.target) as peer:
            for number in numbers:
                block = peer.block(fields(path=f"/{number}/{'x' * 14_000}"), huffman=False)
                stream = peer.stream()
                peer.send(frame(HEADERS, block, flags=END_HEADERS | END_STREAM, stream=stream))
                assert peer.answer(stream).status == 12
        served.rests()

    ask(range(100))
    before = resident()
    ask(range(100, 1300))
    assert resident() - before < 4096


def on(play: Callable[[Served, Argument], None], argument: Argument) -> Callable[[Served], None]:
    """Leave one argument open."""
    return lambda served: play(served, argument)


ABUSES: list[Callable[[Served], None]] = [
    *(on(odd, name) for name in ODD),
    *(on(refused, case) for case in REFUSED.values()),
    *(on(stream_error, name) for name in STREAM_ERRORS),
    *(on(bad_greeting, name) for name in BAD_GREETINGS),
    *(on(broken_rule, name) for name in RULES),
    *FLOODS.values(),
    *CUTS.values(),
]


def alive() -> int:
    """Count the connections and streams that are still objects."""
    gc.collect()
    return sum(isinstance(one, connection.Connection | _session.Stream) for one in gc.get_objects())


@only_nghttp2
def test_nothing_leaks(serve: Serve) -> None:
    """All of it, again and again: memory comes to rest, and no connection or stream lives on as an object."""
    served = serve(limits=replace(LIMITS, connections=500))
    before, seen = alive(), []
    for _ in range(7):
        for play in ABUSES:
            play(served)
        served.serves()
        # The one that the server looked at last is a variable of its loop.
        assert alive() <= before + 1
        seen.append(resident())
    # What is loaded and remembered for the first time comes with the first of them.
    assert min(seen[4:]) - min(seen[1:4]) < 2048, seen
