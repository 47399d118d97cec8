"""What strangers send, as hypothesis strategies: paths, header names, whole CheckRequests, and changed copies of good things."""

from __future__ import annotations

import hashlib
import itertools
import re
import string
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, digest, fingerprint, mint
from extauthz.service import Runtime
from tests.support.world import NOW, PEPPER, World

MARKER = "zQ7Marker"
"""Part of every value that a random request carries: no answer may hold it."""

SEPARATORS = "!#$%&'*+-.^_`|~"
"""The token characters that are neither letters nor digits (RFC 9110 5.6.2)."""
TOKEN_CHARACTERS = SEPARATORS + string.ascii_letters + string.digits

PCHAR = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_HOSTILE_WORDS = r"""
/ // . .. %2e %2E%2e %2F %5c \ ; %3B ;a=b %00 %7F %C2%80 %C3%A9 %FF %C0%AE %ED%A0%80 %25 %252F %2541 100%25 % %4 %zz
? # ?a#b [ ] {id} ** * | ^ ` < > + : @ ~ = "
"""
HOSTILE = (*_HOSTILE_WORDS.split(), " ", "\t", "\r\n", "\x00", "\x7f", "\x80", "\xe9", "a" * 300)
_ORDINARY_WORDS = "a search Items %41 %C3%A9 %e9%a9%ac %20 100%25 %23 %3F + a=b ~x a.b ..a %2B:@ ?q=%2F"
ORDINARY = (*_ORDINARY_WORDS.split(), "")

_serials = itertools.count(1)


def put_token(world: World, permission: str = "USER", scopes: tuple[str, ...] = ("SEARCH",)) -> str:
    """Put a token of its own into the store and return its text; USER acts for ana@acme.com."""
    kind, user = AuthType(permission), "ana@acme.com" if permission == "USER" else None
    entropy = hashlib.sha384(str(next(_serials)).encode()).digest()
    text, held, created = mint("glean", entropy[:ENTROPY_BYTES]), frozenset(scopes), NOW - 60
    hashed = digest(text.text, PEPPER, permission=kind, user=user, scopes=held, created_at=created, latest=None)
    record = TokenRecord(text.id, "fuzz", kind, user, held, created, "test", NOW + 3600, "p1", hashed)
    world.store.add(record, fingerprint(PEPPER))
    return text.text


def fresh_runtime(world: World) -> Runtime:
    """Return what decides in a world, with nothing in memory yet."""
    world.poll()
    return world.build().runtime


def targets() -> SearchStrategy[str]:
    """Raw `:path` texts: ordinary ones, and ordinary ones with everything in them that servers read in two ways."""
    hostile = st.one_of(st.sampled_from(HOSTILE), st.characters(max_codepoint=0xFF))
    plain = st.lists(st.sampled_from(ORDINARY), max_size=4).map(lambda pieces: "/" + "/".join(pieces))
    spoilt = st.builds("{}{}{}".format, plain, hostile, st.sampled_from(("", "/", "/a", "b")))
    wild = st.builds("{}{}".format, st.sampled_from(("/", "", "http://host/")), st.lists(hostile, max_size=6).map("".join))
    return st.one_of(plain, spoilt, spoilt, wild)


@st.composite
def spellings(draw: DrawFn, segments: list[str]) -> str:
    """One way to write these decoded segments as a path: each byte plain where it may be, or encoded in either case."""
    written = []
    for segment in segments:
        text = ""
        for byte in segment.encode("utf-8"):
            character = chr(byte)
            plain = character in PCHAR and character != ";" and draw(st.booleans())
            text += character if plain else draw(st.sampled_from((f"%{byte:02X}", f"%{byte:02x}")))
        written.append(text)
    return "/" + "/".join(written)


@st.composite
def spelled(draw: DrawFn, name: str) -> str:
    """A header name that a careless upstream reads as this one: other separators, other case."""
    return "".join(
        draw(st.sampled_from(SEPARATORS)) if character == "-" else draw(st.sampled_from((character, character.upper())))
        for character in name
    )


def header_names(*known: str) -> SearchStrategy[str]:
    """Header names: these, spellings of these, their neighbours, and any other token."""
    listed = st.sampled_from(known)
    return st.one_of(
        listed,
        listed.flatmap(spelled),
        listed.flatmap(spelled),
        st.builds(str.__add__, listed.flatmap(spelled), st.text(TOKEN_CHARACTERS, max_size=3)),
        listed.map(lambda name: name.replace("-", "")),
        listed.map(lambda name: "".join(name.rsplit("-", 1))),
        listed.map(lambda name: "-".join(name.split("-")[:2])),
        st.text(TOKEN_CHARACTERS, min_size=1, max_size=20),
    )


@st.composite
def changed(draw: DrawFn, text: str, characters: str) -> str:
    """A text that differs from this one by one character: replaced, inserted, deleted, or two neighbours swapped."""
    position = draw(st.integers(0, len(text) - 1))
    before, here, behind = text[:position], text[position], text[position + 1 :]
    way = draw(st.sampled_from(("replace", "replace", "insert", "delete", "swap", "case")))
    match way:
        case "replace":
            return before + draw(st.sampled_from([one for one in characters if one != here])) + behind
        case "insert":
            return before + draw(st.sampled_from(characters)) + here + behind
        case "swap" if behind and behind[0] != here:
            return before + behind[0] + here + behind[1:]
        case "case" if here.swapcase() != here:
            return before + here.swapcase() + behind
    return before + behind


@st.composite
def damaged(draw: DrawFn, data: bytes) -> bytes:
    """These bytes after a few accidents: flipped bits, lost, doubled, inserted and cut-off parts."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 8)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[to:]
            case 2:
                data = data[:to] + data[at:]
            case 3:
                data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
            case _:
                data = data[:at] if draw(st.booleans()) else data[at:]
    return data


@dataclass(frozen=True)
class Sent:
    """A serialised CheckRequest, and the authorization values in it."""

    data: bytes
    authorizations: tuple[bytes, ...]


def _marked(tail: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    return st.builds(lambda before, behind: before + MARKER.encode() + behind, tail, tail)


_TAILS = st.one_of(
    st.just(b""),
    st.binary(max_size=12),
    st.sampled_from([b"\r\nx-injected: 1", b"\x00", b"\xff\xfe", b"\xc3", b'"', b"\\", b",", b"; ", b" \t", b"a" * 65536]),
)
_AUTHORIZATIONS = st.one_of(
    _marked(_TAILS),
    st.builds(
        b"".join, st.tuples(st.sampled_from([b"Bearer ", b"bearer  ", b"Basic ", b"Bearer", b"Negotiate "]), _marked(_TAILS))
    ),
    st.builds(
        b"".join, st.tuples(st.just(b"Bearer "), st.sampled_from([b"glean_", b"eyJhbGciOiJub25lIn0."]), _marked(st.just(b"")))
    ),
)
_NAMES = st.one_of(
    st.sampled_from(
        ["x-glean-auth-type", "x-scio-actas", "x-glean-actas", "x-extauthz-user", "x_extauthz_user", "content-type", "cookie"]
    ),
    st.sampled_from(["origin", "access-control-request-method", "x-original-url", "host", ""]),
    st.text(TOKEN_CHARACTERS, min_size=1, max_size=12),
    st.text(max_size=5),
)
_ROUTING = st.sampled_from((":path", ":authority", ":method", ":scheme"))
_METHODS = st.one_of(st.sampled_from((*METHODS, "CONNECT", "get", "")), st.text(max_size=6))
_VALUES = st.one_of(
    _marked(_TAILS),
    st.sampled_from([b"", b"OAUTH", b"oauth ", b"ana@acme.com", b"GET", b"application/grpc", b"application/grpc+proto"]),
)
# What each kind of token asks for beside itself.
_COMPANIONS = st.sampled_from(([], [("x-glean-auth-type", b"OAUTH")], [("x-scio-actas", b"ana@acme.com")]))


Drawn = TypeVar("Drawn")


def _usually(draw: DrawFn, usual: SearchStrategy[Drawn], rare: SearchStrategy[Drawn]) -> Drawn:
    return draw(rare if draw(st.integers(0, 6)) == 6 else usual)


def _text(data: bytes) -> str:
    """Read bytes as Envoy writes a string field: what is not UTF-8 becomes "!"."""
    return re.sub("[\udc80-\udcff]", "!", data.decode("utf-8", "surrogateescape"))


@st.composite
def check_requests(draw: DrawFn, *, paths: tuple[str, ...], tokens: tuple[str, ...] = ()) -> Sent:
    """A CheckRequest with random method, path, host and headers in either form; `tokens` are sent now and then."""
    message = pb.CheckRequest()
    http = message.attributes.request.http
    http.SetInParent()
    http.method = _usually(draw, st.sampled_from(("POST", "GET")), _METHODS)
    wild = targets().map(lambda text: text.replace("/", f"/{MARKER}", 1))
    target = _usually(draw, st.sampled_from(paths), wild)
    http.path = _text(target.encode("latin-1"))
    http.host = _usually(draw, st.sampled_from(("api.acme.com", "admin.acme.com:443")), st.text(max_size=8))
    good = st.sampled_from(tokens).map(lambda token: f"Bearer {token}".encode()) if tokens else _AUTHORIZATIONS
    values = _usually(draw, st.lists(good, min_size=1, max_size=1), st.lists(st.one_of(_AUTHORIZATIONS, good), max_size=3))
    lines = [("authorization", value) for value in values] + draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=4))
    lines += draw(_COMPANIONS)
    lines += _usually(draw, st.just([]), st.lists(st.tuples(_ROUTING, _VALUES), max_size=1))
    if draw(st.integers(0, 40)) == 40:
        lines += [(f"x-{number}", MARKER.encode()) for number in range(3000)]
    if draw(st.booleans()):
        if draw(st.booleans()):
            lines.insert(0, (":path", target.encode("latin-1")))
        for name, value in lines:
            line = http.header_map.headers.add(key=name)
            if draw(st.booleans()):
                line.raw_value = value
            else:
                line.value = _text(value)
    else:
        for name, value in lines:
            http.headers[name] = _text(value)
    return Sent(message.SerializeToString(), tuple(values))
