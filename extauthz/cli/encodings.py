"""Text of files that other programs wrote: whatever encoding their byte order mark names, and what they could not be read as."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before UTF-16: the mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
    *((b"+/v" + last, "utf-7") for last in (b"8", b"9", b"+", b"/")),
)
_MARK = "\ufeff"
# Where ASCII has zeros, of four bytes; none are elsewhere.
_ZEROS = (
    ("utf-32-le", (False, True, True, True)),
    ("utf-32-be", (True, True, True, False)),
    ("utf-16-le", (False, True, False, True)),
    ("utf-16-be", (True, False, True, False)),
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text; with an `error` not all of it could be read, and what is ASCII in it stands there all the same."""

    text: str
    error: str | None = None


def decode(data: bytes) -> Decoded:
    """Read bytes by their mark; without one as UTF-8, or as UTF-16 or UTF-32 if they are mostly ASCII."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _guess(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        return Decoded(_ascii(data, encoding), f"byte {error.start} is not of {encoding.upper()}: convert the file to UTF-8")
    text = text.removeprefix(_MARK)
    if "\0" in text:
        place = text.index("\0")
        return Decoded(_ascii(data, encoding), f"character {place} is no text: convert the file, or each part of it, to UTF-8")
    return Decoded(text)


def _guess(data: bytes) -> str:
    zeros = [data[place::4].count(0) for place in range(4)]
    for name, expected in _ZEROS:
        share = len(data) // 4 / 2
        if all((count > share) if is_zero else count == 0 for count, is_zero in zip(zeros, expected, strict=True)):
            return name
    return "utf-8"


def _ascii(data: bytes, encoding: str) -> str:
    """Return two readings: as the encoding, without what is wrong, and as ASCII, without the zeros of wider encodings."""
    return f"{data.decode(encoding, 'replace')}\n{data.decode('latin-1')}\n{data.replace(bytes(1), b'').decode('latin-1')}"
