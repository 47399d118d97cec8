"""CheckRequest as bytes, well formed or not: made field by field as protobuf allows it, or usual ones that were damaged."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random  # noqa: TID251 - seeded by the test

from tests.support.world import check_request

TEXTS = (
    *(b"", b"a", b"GET", b"POST", b"/x?y=1", b"x-extauthz-user", b"Authorization", b"authorization", b":path", b":authority"),
    *(b":method", b"cookie", b"X-Y", b"a" * 200, b"x" * 63, b"x" * 64, b"x" * 65, b"\x00", b"127.0.0.1", b"a,b"),
    *("é".encode(), "€".encode(), "İ".encode(), b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"),
)
NAMES = (b"accept", b"authorization", b":path", b":authority", b":method", b"cookie", b"x-a", b"x" * 63, b"x" * 64, b"x" * 65)
USUAL = [
    check_request("POST", "/rest/api/v1/search?a=b", [("authorization", "Bearer a.b.c"), ("x-a", "1"), ("x-a", "2")], form=form)
    for form in ("raw", "map")
]
UNKNOWN = (7, 8, 11, 12, 14, 15, 16, 17, 31, 32, 33, 100, 2047, 2048, 5000)


class Wire:
    """Makes messages from one seed."""

    def __init__(self, seed: int) -> None:
        """Begin with a seed, which makes the same messages again."""
        self._random = Random(seed)  # noqa: S311 - it has to make the same ones again

    def message(self) -> bytes:
        """Return one message."""
        return self._made() if self._random.random() < 0.9 else self._damaged()

    def _made(self) -> bytes:
        request = self._mixed([self._nested(1, b"\x08\x01"), self._nested(2, self._http())], (2,))
        entry = self._nested(10, self._entry())
        attributes = [self._nested(1, self._peer()), self._nested(2, self._peer()), self._nested(4, request), entry]
        return self._mixed([self._nested(1, self._mixed(attributes, (1, 2, 4, 10)))], (1,))

    def _damaged(self) -> bytes:
        data = bytearray(self._random.choice(USUAL))
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
            if not data:
                break
            at = self._random.randrange(len(data))
            match self._random.randrange(4):
                case 0:
                    data[at] = self._random.randrange(256)
                case 1:
                    del data[at : at + self._random.randrange(1, 4)]
                case 2:
                    data[at:at] = self._random.randbytes(self._random.randrange(1, 4))
                case _:
                    data[at] ^= 1 << self._random.randrange(8)
        return bytes(data)

    def _http(self) -> bytes:
        parts = [self._nested(field, self._text()) for field in (1, 4, 5, 6, 10)]
        parts.append(self._nested(2, b"POST" if self._random.random() < 0.95 else self._text()))
        parts.append(self._tag(9, 0) + self._number(self._random.choice((0, 5, 2**64 - 1))))
        if self._random.random() < 0.7:
            parts += [self._nested(3, self._entry()) for _ in range(self._random.randrange(6))]
        if self._random.random() < 0.6:
            lines = [self._nested(1, self._entry(raw=True)) for _ in range(self._random.randrange(6))]
            parts.append(self._nested(13, self._mixed(lines, (1,))))
        return self._mixed(parts, (1, 2, 3, 4, 5, 6, 9, 10, 13))

    def _peer(self) -> bytes:
        socket_address = self._mixed([self._nested(2, self._text()), self._tag(3, 0) + self._number(80)], (2, 3))
        address = self._mixed([self._nested(1, socket_address)], (1,))
        return self._mixed([self._nested(1, address), self._nested(2, self._text()), self._nested(4, self._text())], (1, 2, 4))

    def _entry(self, *, raw: bool = False) -> bytes:
        name = self._random.choice(NAMES) if self._random.random() < 0.97 else self._text()
        parts = [self._nested(1, name), self._nested(2, self._text())]
        if raw and self._random.random() < 0.7:
            parts.append(self._nested(3, self._text()))
        return self._mixed(parts, (1, 2, 3)) if self._random.random() < 0.1 else b"".join(parts)

    def _mixed(self, parts: Sequence[bytes], fields: Sequence[int]) -> bytes:
        """Leave some out, repeat one, add a field that nobody knows, or a known one of another type, in any order."""
        kept = [part for part in parts if self._random.random() < 0.98]
        if kept and self._random.random() < 0.02:
            kept.append(self._random.choice(kept))
        if self._random.random() < 0.06:
            kept.append(self._unknown())
        if self._random.random() < 0.005:
            kind = self._random.choice((0, 1, 5))
            kept.append(self._tag(self._random.choice(fields), kind) + self._value(kind))
        if self._random.random() < 0.5:
            self._random.shuffle(kept)
        return b"".join(kept)

    def _unknown(self) -> bytes:
        field, kind = self._random.choice(UNKNOWN), self._random.choice((0, 0, 1, 1, 2, 2, 2, 3, 4, 5, 5))
        if kind == 3:
            return self._tag(field, 3) + (self._tag(field, 4) if self._random.random() < 0.8 else b"")
        return self._tag(field, kind) + self._value(kind)

    def _value(self, kind: int) -> bytes:
        match kind:
            case 0:
                return self._number(self._random.choice((0, 1, 2**32, 2**64 - 1)))
            case 1:
                return bytes(8)
            case 2:
                text = self._text()
                return self._number(len(text)) + text
            case 5:
                return bytes(4)
            case _:
                return b""

    def _nested(self, field: int, content: bytes) -> bytes:
        return self._tag(field, 2) + self._number(len(content), padding=self._random.choice((0,) * 200 + (1,))) + content

    def _tag(self, field: int, kind: int) -> bytes:
        return self._number(field << 3 | kind, padding=self._random.choice((0,) * 300 + (1, 2)))

    def _number(self, number: int, *, padding: int = 0) -> bytes:
        """Write a varint, longer than it has to be with `padding`."""
        data = bytearray()
        while number > 0x7F or padding:
            padding -= number <= 0x7F
            data.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes([*data, number])

    def _text(self) -> bytes:
        if self._random.random() < 0.98:
            return self._random.choice(TEXTS[:20]) if self._random.random() < 0.99 else self._random.choice(TEXTS)
        return self._random.randbytes(self._random.randrange(9))
