"""Paths as decoded segments, or why a path is malformed or ambiguous (RFC 3986 3.3).

A path is refused rather than repaired: whatever this module accepts is read in the same way by every server behind us.
`urllib.parse.urlsplit` must not be used on it: it takes the first segment of `//admin/x` for a host, deletes TAB and LF, and
raises on `//[::1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from extauthz.core.model import Reason

MAX_BYTES = 8 * 1024
MAX_SEGMENTS = 128
MAX_MEMO = 256
SLASH = "\0"
"""Stands in a segment for a slash that was written %2F; no segment of a path that `parse` returns holds it."""

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+/?|/").fullmatch
_WELL_FORMED = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*").fullmatch
_FORBIDDEN = re.compile(r"[/\\;\x00-\x1f\x7f-\x9f]|%[0-9A-Fa-f]{2}").search
_SAFE = "~!$&'()*+,=:@"


@dataclass(frozen=True, slots=True)
class Path:
    """A path that has one reading: `text` is its decoded segments, each behind a "/"; none of them holds one."""

    text: str

    @property
    def segments(self) -> tuple[str, ...]:
        """The decoded segments; a final "" is a trailing slash."""
        return tuple(self.text[1:].split("/"))

    @property
    def canonical(self) -> str:
        """The segments encoded again, with upper-case hex: for logs and explanations."""
        return "".join("/" + quote(segment, safe=_SAFE) for segment in self.segments).replace("%00", "%2F")


def parse(raw: str) -> Path | Reason:
    """Read a path without its query: PATH_MALFORMED for what RFC 3986 does not allow, PATH_AMBIGUOUS for two readings."""
    return _remembered(raw) if len(raw) <= MAX_MEMO else _parse(raw)


def parse_with_slashes(raw: str) -> Path | Reason:
    """Read a path that `parse` refuses for nothing but encoded slashes, each of which becomes SLASH; else its reason.

    What stands before and behind such a slash obeys the rules of a segment, and is never empty.
    """
    return _remembered(raw, slashes=True) if len(raw) <= MAX_MEMO else _parse(raw, slashes=True)


def _parse(raw: str, *, slashes: bool = False) -> Path | Reason:
    if len(raw) > MAX_BYTES or raw.count("/") > MAX_SEGMENTS:
        return Reason.PATH_MALFORMED
    if _PLAIN(raw):
        return Path(raw)
    if not _WELL_FORMED(raw):
        return Reason.PATH_MALFORMED
    pieces = raw[1:].split("/")
    if "" in pieces[:-1]:
        return Reason.PATH_AMBIGUOUS
    decoded = []
    for piece in pieces:
        segment = _decoded(piece, slashes=slashes)
        if segment is None:
            return Reason.PATH_AMBIGUOUS
        decoded.append(segment)
    return Path("/" + "/".join(decoded))


# Clients choose paths: what is remembered of them is bounded in number and, by MAX_MEMO, in size.
_remembered = lru_cache(maxsize=4096)(_parse)


def is_reachable(segment: str) -> bool:
    """Tell whether a decoded, non-empty segment can be the outcome of `parse`; a route literal that cannot never matches."""
    return segment not in {".", ".."} and not _FORBIDDEN(segment)


def _decoded(piece: str, *, slashes: bool) -> str | None:
    try:
        segment = unquote_to_bytes(piece).decode("utf-8")
    except UnicodeDecodeError:
        return None
    parts = segment.split("/") if slashes else [segment]
    whole = all(parts) or len(parts) == 1
    return SLASH.join(parts) if whole and all(map(is_reachable, parts)) else None
