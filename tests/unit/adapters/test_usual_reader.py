"""The compiled reader of usual messages against protobuf: whatever it answers is what protobuf reads."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy import _reader, codec
from extauthz.adapters.envoy.codec import EnvoyCodec, read_by_protobuf
from tests.support.wire_messages import USUAL, Wire
from tests.support.world import DECISION_ID, check_request

NAMES = st.text(st.characters(codec="ascii"), min_size=1, max_size=70).map(str.lower) | st.text(max_size=8)
TEXTS = st.text(st.characters(codec="ascii"), max_size=90) | st.text(max_size=8)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_reader_answers_is_what_protobuf_reads(seed: int) -> None:
    """`make fuzz` does the same for as long as it is asked to."""
    wire, answered = Wire(seed), 0
    different = []
    for _ in range(500):
        data = wire.message()
        usual = _reader.read(data)
        answered += usual is not None
        if usual is not None and usual != read_by_protobuf(data):
            different.append(data.hex())
    sys.stdout.write(f"{answered / 5:.0f} % were answered without protobuf\n")
    assert different == []
    assert answered >= 150


@settings(deadline=None)
@given(
    method=TEXTS,
    path=TEXTS,
    host=TEXTS,
    source=TEXTS,
    entries=st.lists(st.tuples(NAMES, TEXTS), max_size=5),
    raw=st.lists(st.tuples(NAMES, st.binary(max_size=9), TEXTS), max_size=5),
    size=st.integers(-2, 2**40),
)
def test_messages_of_every_shape_are_read_alike(
    method: str,
    path: str,
    host: str,
    source: str,
    entries: list[tuple[str, str]],
    raw: list[tuple[str, bytes, str]],
    size: int,
) -> None:
    message = pb.CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host, http.size = method, path, host, size
    http.headers.update(entries)
    for name, exact, value in raw:
        http.header_map.headers.add(key=name, raw_value=exact, value=value)
    message.attributes.source.address.socket_address.address = source
    data = message.SerializeToString()
    usual, expected = _reader.read(data), read_by_protobuf(data)
    assert usual == (expected if usual is not None else None)
    texts = method + path + host + source + "".join(map("".join, entries))
    is_plain = bool(method) and not raw and texts.isascii() and all(name and name == name.lower() for name, _ in entries)
    assert (usual is not None) >= is_plain


@pytest.mark.parametrize("data", USUAL, ids=["raw", "map"])
def test_what_envoy_sends_is_usual(data: bytes) -> None:
    assert _reader.read(data) is not None


@pytest.mark.parametrize("data", USUAL, ids=["raw", "map"])
def test_no_byte_behind_the_end_is_read(data: bytes) -> None:
    """Cut at every byte: a length that reaches beyond the end is never followed."""
    read = [(_reader.read(data[:size]), read_by_protobuf(data[:size])) for size in range(len(data))]
    assert len(read) > 100
    assert [usual for usual, expected in read if usual is not None and usual != expected] == []


def test_names_that_strangers_choose_take_no_place_for_ever() -> None:
    """Slots are filled once, and a name without one is read all the same."""
    for number in range(5000):
        data = check_request("GET", "/", [(f"x-{number}", "v"), ("accept", "a")])
        usual = _reader.read(data)
        assert usual is not None
        assert usual == read_by_protobuf(data)


@pytest.mark.parametrize(("value", "is_used"), [("1", False), ("0", True), ("", True)])
def test_a_switch_leaves_the_reader_out(monkeypatch: pytest.MonkeyPatch, value: str, is_used: bool) -> None:
    monkeypatch.setenv("EXTAUTHZ_PURE", value)
    parsed = []
    monkeypatch.setattr(codec, "read_by_protobuf", lambda data: parsed.append(data) or read_by_protobuf(data))
    request = EnvoyCodec().read(USUAL[0], DECISION_ID)
    assert request is not None
    assert request.header("authorization") == "Bearer a.b.c"
    assert bool(parsed) is not is_used


def test_without_the_compiled_module_protobuf_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "extauthz.adapters.envoy._reader", None)
    monkeypatch.delattr("extauthz.adapters.envoy._reader")
    request = EnvoyCodec().read(USUAL[0], DECISION_ID)
    assert request is not None
    assert request.header("x-a") == "1,2"
