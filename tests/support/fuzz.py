"""What strangers send, as hypothesis strategies: paths, header names, whole CheckRequests, and changed copies of good things."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from extauthz._pb import ext_authz_pb2 as pb

MARKER = "zQ7Marker"
"""Part of every value that a random request carries: no answer may hold it."""

SEPARATORS = "!#$%&'*+-.^_`|~"
"""The token characters that are neither letters nor digits (RFC 9110 5.6.2)."""
TOKEN_CHARACTERS = SEPARATORS + string.ascii_letters + string.digits

PCHAR = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_HOSTILE = (
    *("/", "//", ".", "..", "%2e", "%2E%2e", "%2F", "%5c", "\\", ";", "%3B", ";a=b", "%00", "%7F", "%C2%80", "%C3%A9", "%c3%a9"),
    *("%FF", "%C0%AE", "%ED%A0%80", "%25", "%252F", "%2541", "100%25", "%", "%4", "%zz", "?", "#", "?a#b", " ", "\t", "\r\n", "\x00"),
    *("\x7f", "\x80", "\xe9", "[", "]", "{id}", "**", "*", "|", "^", "`", '"', "<", ">", "+", ":", "@", "~", "=", "a" * 300),
)


def targets() -> SearchStrategy[str]:
    """Raw `:path` texts: mostly paths, with everything in them that servers read in two ways."""
    piece = st.one_of(st.sampled_from(_HOSTILE), st.text(PCHAR, max_size=6), st.characters(max_codepoint=0xFF))
    return st.builds("{}{}".format, st.sampled_from(("/", "/", "/", "/", "", "http://host/")), st.lists(piece, max_size=8).map("".join))


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
    st.builds(b"".join, st.tuples(st.sampled_from([b"Bearer ", b"bearer  ", b"Basic ", b"Bearer", b"Negotiate "]), _marked(_TAILS))),
    st.builds(b"".join, st.tuples(st.just(b"Bearer "), st.sampled_from([b"glean_", b"eyJhbGciOiJub25lIn0."]), _marked(st.just(b"")))),
)
_NAMES = st.one_of(
    st.sampled_from(
        [
            *("x-glean-auth-type", "x-scio-actas", "x-glean-actas", "x-extauthz-user", "x_extauthz_user", "content-type", "cookie"),
            *("origin", "access-control-request-method", ":path", ":authority", ":method", "", "x-original-url", "host"),
        ]
    ),
    st.text(TOKEN_CHARACTERS, min_size=1, max_size=12),
    st.text(max_size=5),
)
_VALUES = st.one_of(
    _marked(_TAILS),
    st.sampled_from([b"", b"OAUTH", b"oauth ", b"application/grpc", b"application/grpc+proto", b"GET", b"application/json"]),
)


def _text(data: bytes) -> str:
    """Read bytes as Envoy writes a string field: what is not UTF-8 becomes "!"."""
    return re.sub("[\udc80-\udcff]", "!", data.decode("utf-8", "surrogateescape"))


@st.composite
def check_requests(draw: DrawFn, *, paths: tuple[str, ...], tokens: tuple[str, ...] = ()) -> Sent:
    """A CheckRequest with random method, path, host and headers in either form; `tokens` are sent now and then."""
    message = pb.CheckRequest()
    if draw(st.integers(0, 20)) == 0:
        return Sent(message.SerializeToString(), ())
    http = message.attributes.request.http
    http.SetInParent()
    http.method = draw(st.one_of(st.sampled_from((*METHODS, "CONNECT", "get", "")), st.text(max_size=6)))
    target = draw(st.one_of(st.sampled_from(paths), targets().map(lambda text: text.replace("/", f"/{MARKER}", 1))))
    http.path = _text(target.encode("latin-1"))
    http.host = draw(st.one_of(st.sampled_from(("api.acme.com", "admin.acme.com:443", "")), st.text(max_size=8)))
    values: list[bytes] = draw(
        st.lists(
            st.one_of(_AUTHORIZATIONS, *[st.just(f"Bearer {token}".encode()) for token in tokens]),
            max_size=3 if draw(st.integers(0, 3)) == 0 else 1,
        )
    )
    lines = [("authorization", value) for value in values] + draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=6))
    if draw(st.integers(0, 60)) == 0:
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
