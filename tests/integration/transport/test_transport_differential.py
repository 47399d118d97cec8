"""Both transports, sent the same odd header fields: answers are alike, and where only one answers the table says why."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauthz.telemetry.traceparent import read
from extauthz.transport.grpc import fields
from tests.support.h2_client import CHECK, Fields, GoneError, Peer
from tests.support.transports import NAMES, Loop, Served

METHOD, SCHEME, PATH, AUTHORITY, TE, TYPE = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CHECK),
    (":authority", "authz"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
OTHER = (":path", "/other.Service/Method")
TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


@dataclass(frozen=True)
class Case:
    """Header fields, which transports answer a call with them, and why not both of them do."""

    entries: Fields
    grpcio: bool = True
    nghttp2: bool = True
    why: str = ""

    def __post_init__(self) -> None:
        assert bool(self.why) == (self.grpcio != self.nghttp2), "a difference has a reason"


def called(*entries: tuple[str | bytes, str | bytes]) -> Fields:
    """Return a call with more fields."""
    return [METHOD, SCHEME, PATH, AUTHORITY, TE, TYPE, *entries]


def authority(value: str | bytes) -> Fields:
    """Return a call to an authority."""
    return [METHOD, SCHEME, PATH, (":authority", value), TE, TYPE]


MALFORMED = "RFC 9113 8.2, 8.3: malformed, which grpc's core does not look at"
ONCE = "what is read comes once; grpc's core takes the last one"
STRICT = "grpc's core wants te, knows http and https alone, reads -bin values, or takes no empty time"

CASES: dict[str, Case] = {
    "nothing odd": Case(called()),
    # The cluster's name is the authority of a check, unless Envoy is told another one.
    **{
        f"authority {value!r}": Case(authority(value))
        for value in (
            *("outbound|9001||x", "extension/ns/x", "securitypolicy/ns/x/0", "authz service", "authéz", "", " ", " a ", "\ta\t"),
            *('<>"{}', "a@b", "a,b", "[::1]:9001", "x" * 300, b"\xff\xfe", b"caf\xe9", b"a\x01b", b"a\x7fb"),
        )
    },
    **{
        f"authority {value!r}": Case(authority(value), nghttp2=False, why=MALFORMED)
        for value in (b"a\x00b", b"a\rb", b"a\nb", b"a\r\nx: y")
    },
    "no authority": Case([METHOD, SCHEME, PATH, TE, TYPE], grpcio=False, nghttp2=False),
    "host for authority": Case([METHOD, SCHEME, PATH, TE, TYPE, ("host", "outbound|9001||x")]),
    "authority and another host": Case(called(("host", "b"))),
    "two hosts": Case(called(("host", "b"), ("host", "b")), grpcio=False, nghttp2=False),
    "two authorities": Case([METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY, TE, TYPE], grpcio=False, nghttp2=False),
    # Metadata: values.
    **{
        f"value {value!r}": Case(called(("x-pad", value)))
        for value in (" padded ", "\tpadded\t", "", "  ", b"\xff\xfe", "é", b"a\x01b", b"a\x7fb", "a, b")
    },
    **{
        f"value {value!r}": Case(called(("x-pad", value)), nghttp2=False, why=MALFORMED)
        for value in (b"a\x00b", b"a\rb", b"a\nb", b"\n", b"\x00")
    },
    "many values": Case(called(*(("x-many", str(number)) for number in range(50)))),
    "cookies": Case(called(("cookie", "a=1"), ("cookie", "b=2"))),
    "two values, the second with NUL": Case(called(("x-a", "1"), ("x-a", b"2\x00")), nghttp2=False, why=MALFORMED),
    "binary": Case(called(("x-bin", "AAAA"))),
    "binary that is none": Case(called(("x-bin", "!!")), grpcio=False, why=STRICT),
    # Names.
    **{
        f"name {name!r}": Case(called((name, "a")), grpcio=False, nghttp2=False)
        for name in ("X-Pad", "x pad", "x:pad", b"x\x01pad", b"x\x00pad", "xé", "x(", "", b"x-pad\x00", b":path\x00", b"te\x00st")
    },
    "name 'x_a'": Case(called(("x_a", "a"))),
    "name 'x%'": Case(called(("x%", "a")), grpcio=False, why="a token of RFC 9110 5.6.2, and no key of gRPC"),
    **{
        name: Case(called((name, value)), nghttp2=False, why=MALFORMED)
        for name, value in (
            *(("connection", "close"), ("keep-alive", "5"), ("upgrade", "h2c"), ("proxy-connection", "close")),
            ("transfer-encoding", "chunked"),
        )
    },
    # Order and number of pseudo fields.
    "pseudo fields in another order": Case([PATH, AUTHORITY, SCHEME, METHOD, TE, TYPE]),
    "te behind the type": Case([METHOD, SCHEME, PATH, AUTHORITY, TYPE, TE]),
    "a late authority": Case([METHOD, SCHEME, PATH, TE, TYPE, AUTHORITY], nghttp2=False, why=MALFORMED),
    "a late path": Case([METHOD, SCHEME, AUTHORITY, TE, TYPE, PATH], nghttp2=False, why=MALFORMED),
    "a late path, another first": Case(
        [METHOD, SCHEME, (":path", "/a/b"), AUTHORITY, TE, TYPE, PATH], nghttp2=False, why=MALFORMED
    ),
    "two methods": Case([METHOD, METHOD, SCHEME, PATH, AUTHORITY, TE, TYPE], nghttp2=False, why=MALFORMED),
    "two schemes": Case([METHOD, SCHEME, SCHEME, PATH, AUTHORITY, TE, TYPE], nghttp2=False, why=MALFORMED),
    "two paths": Case([METHOD, SCHEME, PATH, PATH, AUTHORITY, TE, TYPE], nghttp2=False, why=MALFORMED),
    "another path before": Case([METHOD, SCHEME, OTHER, PATH, AUTHORITY, TE, TYPE], nghttp2=False, why=MALFORMED),
    "another path behind": Case([METHOD, SCHEME, PATH, OTHER, AUTHORITY, TE, TYPE], grpcio=False, nghttp2=False),
    "no method": Case([SCHEME, PATH, AUTHORITY, TE, TYPE], grpcio=False, nghttp2=False),
    "no scheme": Case([METHOD, PATH, AUTHORITY, TE, TYPE], grpcio=False, nghttp2=False),
    "no path": Case([METHOD, SCHEME, AUTHORITY, TE, TYPE], grpcio=False, nghttp2=False),
    "no field at all": Case([], grpcio=False, nghttp2=False),
    ":status": Case([METHOD, SCHEME, PATH, AUTHORITY, (":status", "200"), TE, TYPE], nghttp2=False, why=MALFORMED),
    ":other": Case([METHOD, SCHEME, PATH, AUTHORITY, (":other", "1"), TE, TYPE], grpcio=False, nghttp2=False),
    ":protocol": Case([METHOD, SCHEME, PATH, AUTHORITY, (":protocol", "websocket"), TE, TYPE], grpcio=False, nghttp2=False),
    # What is read.
    "https": Case([METHOD, (":scheme", "https"), PATH, AUTHORITY, TE, TYPE]),
    "HTTP": Case([METHOD, (":scheme", "HTTP"), PATH, AUTHORITY, TE, TYPE], grpcio=False, why=STRICT),
    "no word for a scheme": Case([METHOD, (":scheme", "a b"), PATH, AUTHORITY, TE, TYPE], grpcio=False, nghttp2=False),
    "an empty scheme": Case([METHOD, (":scheme", ""), PATH, AUTHORITY, TE, TYPE], grpcio=False, nghttp2=False),
    "no te": Case([METHOD, SCHEME, PATH, AUTHORITY, TYPE], grpcio=False, why=STRICT),
    "Trailers": Case([METHOD, SCHEME, PATH, AUTHORITY, ("te", "Trailers"), TYPE], grpcio=False, why=STRICT),
    "another te": Case([METHOD, SCHEME, PATH, AUTHORITY, ("te", "gzip"), TYPE], grpcio=False, nghttp2=False),
    "an empty te": Case([METHOD, SCHEME, PATH, AUTHORITY, ("te", ""), TYPE], grpcio=False, nghttp2=False),
    "te twice": Case(called(TE), nghttp2=False, why=ONCE),
    "a type with a parameter": Case([METHOD, SCHEME, PATH, AUTHORITY, TE, ("content-type", "application/grpc;charset=utf-8")]),
    "a type with a suffix": Case([METHOD, SCHEME, PATH, AUTHORITY, TE, ("content-type", "application/grpc+proto")]),
    "the type twice": Case(called(TYPE), nghttp2=False, why=ONCE),
    "another type behind": Case(called(("content-type", "text/plain")), nghttp2=False, why=ONCE),
    "another type before": Case(
        [METHOD, SCHEME, PATH, AUTHORITY, TE, ("content-type", "text/plain"), TYPE], nghttp2=False, why=ONCE
    ),
    "a type in blanks": Case(
        [METHOD, SCHEME, PATH, AUTHORITY, TE, ("content-type", " application/grpc ")],
        nghttp2=False,
        why="grpc's core does not look at the type of a call",
    ),
    "a time": Case(called(("grpc-timeout", "9S"))),
    "the time twice": Case(called(("grpc-timeout", "9S"), ("grpc-timeout", "9S")), nghttp2=False, why=ONCE),
    "another time before": Case(called(("grpc-timeout", "0n"), ("grpc-timeout", "9S")), nghttp2=False, why=ONCE),
    "another time behind": Case(called(("grpc-timeout", "9S"), ("grpc-timeout", "0n")), grpcio=False, nghttp2=False),
    "a time in blanks": Case(called(("grpc-timeout", " 9S ")), nghttp2=False, why="the grammar of PROTOCOL-HTTP2 has none"),
    "an empty time": Case(called(("grpc-timeout", "")), grpcio=False, why=STRICT),
    "an encoding": Case(called(("grpc-encoding", "gzip"))),
    "the encoding twice": Case(called(("grpc-encoding", "gzip"), ("grpc-encoding", "gzip")), nghttp2=False, why=ONCE),
    "another encoding before": Case(called(("grpc-encoding", "zap"), ("grpc-encoding", "gzip")), grpcio=False, nghttp2=False),
    "a length": Case(called(("content-length", "10"))),
    **{
        f"a length of {value!r}": Case(called(("content-length", value)), nghttp2=False, why=MALFORMED)
        for value in ("9", "11", "-1", "+10", "1 0", "", "10, 10", "9" * 30, "²")
    },
    "the length twice": Case(called(("content-length", "10"), ("content-length", "10")), nghttp2=False, why=MALFORMED),
    "a trace": Case(called(("traceparent", TRACE), ("tracestate", "a=1"))),
    "a user agent": Case(called(("user-agent", "grpc-c++/1"))),
}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Served, Served]]:
    """Serve with both; an answer shows what was read of the fields."""
    loops = [Loop(name) for name in NAMES]

    def shown(message: bytes, traceparent: str, tracestate: str) -> bytes:
        return b"%s|%s|%s" % (message, traceparent.encode(), tracestate.encode())

    served = [Served(loop, bytes, traced=shown) for loop in loops]
    yield served[0], served[1]
    for one, loop in zip(served, loops, strict=True):
        one.rests()
        one.stop()
        loop.close()
        assert loop.complaints == []


def answer(served: Served, entries: Fields) -> bytes | None:
    """Return the answer to a call; None stands for a refusal, of the stream or of the connection."""
    with suppress(GoneError), Peer(served.target) as peer:
        received = peer.ask(b"hello", entries=entries)
        return received.message if received.status == 0 else None
    return None


@pytest.fixture(scope="module")
def answers(pair: tuple[Served, Served]) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Play all cases, side by side: grpc's core takes its time to refuse."""
    with ThreadPoolExecutor(16) as pool:
        of_grpcio, of_nghttp2 = (
            list(pool.map(partial(answer, served), (case.entries for case in CASES.values()))) for served in pair
        )
    return dict(zip(CASES, zip(of_grpcio, of_nghttp2, strict=True), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_both_transports_read_header_fields_alike(answers: dict[str, tuple[bytes | None, bytes | None]], name: str) -> None:
    case, (of_grpcio, of_nghttp2) = CASES[name], answers[name]

    assert (of_grpcio is not None, of_nghttp2 is not None) == (case.grpcio, case.nghttp2)
    if of_grpcio is not None and of_nghttp2 is not None:
        assert of_grpcio == of_nghttp2
        assert of_nghttp2.startswith(b"hello|")


TEXT = st.binary(max_size=40).filter(lambda value: not set(value) & set(b"\x00\r\n"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXT, values=st.lists(TEXT, max_size=5))
def test_neither_cares_what_an_authority_or_metadata_hold(pair: tuple[Served, Served], name: bytes, values: list[bytes]) -> None:
    entries = [METHOD, SCHEME, PATH, (":authority", name), TE, TYPE, *((f"x-{at // 2}", value) for at, value in enumerate(values))]

    assert answer(pair[0], entries) == answer(pair[1], entries) == b"hello||"


NAMES_OF_FIELDS = st.sampled_from(
    [
        b":method",
        b":path",
        b":scheme",
        b":authority",
        b"te",
        b"content-type",
        b"content-length",
        b"host",
        b"x-a",
        b"X-A",
        b"traceparent",
        b"",
    ]
)
VALUES = st.sampled_from(
    [b"POST", b"CONNECT", b"/a", CHECK.encode(), b"http", b"trailers", b"application/grpc", b"10", b"", b"a\nb", b" "]
)


@given(st.lists(st.tuples(NAMES_OF_FIELDS, VALUES), max_size=9), st.integers(0, 20))
def test_what_is_remembered_is_what_would_be_judged_anew(pairs: list[tuple[bytes, bytes]], place: int) -> None:
    """Whatever came before; and a NUL in any part makes a list malformed."""
    listed = [METHOD, SCHEME, PATH, AUTHORITY, TE, TYPE]
    for given_pairs in (pairs, [(name.encode(), value.encode()) for name, value in listed] + pairs):
        entries = [part for pair in given_pairs for part in pair]
        size = sum(map(len, entries)) + 32 * len(given_pairs)
        first = fields.judge(entries, size)
        broken = [f"{part.decode()}\0x".encode() if number == place else part for number, part in enumerate(entries)]
        assert fields.judge(broken, size + 2) == (None if place < len(entries) else first)
        assert fields.judge(entries, size) == first
        fields._shape.cache_clear()
        fields._request.cache_clear()
        assert fields.judge(entries, size) == first


def test_lists_that_came_before_are_judged_as_at_first(pair: tuple[Served, Served]) -> None:
    """Also one that differs from them in nothing but where a name ends and its value begins."""
    lists = [called(), called(("x-a", "bc")), called(("x-ab", "c")), called(("x-a", "b\0c")), called(("traceparent", TRACE))]
    first = [answer(pair[0], entries) for entries in lists]
    assert first[0] == first[1] == first[2] == b"hello||"
    for _ in range(3):
        assert [answer(pair[0], entries) for entries in lists] == first


def test_two_tracestates_are_one_list(pair: tuple[Served, Served]) -> None:
    """W3C Trace Context 3.3.1."""
    entries = called(("traceparent", TRACE), ("tracestate", "a=1"), ("tracestate", "b=2"))

    assert {answer(served, entries) for served in pair} == {f"hello|{TRACE}|a=1,b=2".encode()}


def test_two_traceparents_are_malformed(pair: tuple[Served, Served]) -> None:
    """W3C Trace Context 3.2.2: they are none; grpc's core hides all but the last one."""
    entries = called(("traceparent", TRACE), ("traceparent", TRACE))

    assert answer(pair[1], entries) == f"hello|{TRACE},{TRACE}|".encode()
    assert read(f"{TRACE},{TRACE}") == ""
