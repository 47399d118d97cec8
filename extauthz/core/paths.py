"""Paths as decoded segments, or why a path is malformed or ambiguous (RFC 3986 3.3).

A path is refused rather than repaired: whatever this module accepts is read in the same way by every server behind us.
`urllib.parse.urlsplit` must not be used on it: it takes the first segment of `//admin/x` for a host, deletes TAB and LF, and
raises on `//[::1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from extauthz.core.model import Reason

MAX_BYTES = 8 * 1024
MAX_SEGMENTS = 128

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+/?|/").fullmatch
_WELL_FORMED = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*").fullmatch
_FORBIDDEN = re.compile(r"[/\\;\x00-\x1f\x7f-\x9f]|%[0-9A-Fa-f]{2}").search
_SAFE = "~!$&'()*+,=:@"


@dataclass(frozen=True, slots=True)
class Path:
    """A path that has one reading. `text` is the decoded segments joined with "/"; a final "" segment is a trailing slash."""

    text: str
    segments: tuple[str, ...]
    query: str

    @property
    def canonical(self) -> str:
        """The segments encoded again, with upper-case hex: for logs and explanations."""
        return "".join("/" + quote(segment, safe=_SAFE) for segment in self.segments)


def parse(target: str) -> Path | Reason:
    """Read a raw `:path`: PATH_MALFORMED for what RFC 3986 does not allow, PATH_AMBIGUOUS for what has two readings."""
    raw, _, query = target.partition("?")
    if len(raw) > MAX_BYTES or "#" in query:
        return Reason.PATH_MALFORMED
    if _PLAIN(raw):
        segments = tuple(raw[1:].split("/"))
        return Path(raw, segments, query) if len(segments) <= MAX_SEGMENTS else Reason.PATH_MALFORMED
    if not _WELL_FORMED(raw):
        return Reason.PATH_MALFORMED
    pieces = raw[1:].split("/")
    if len(pieces) > MAX_SEGMENTS:
        return Reason.PATH_MALFORMED
    if "" in pieces[:-1]:
        return Reason.PATH_AMBIGUOUS
    decoded = []
    for piece in pieces:
        segment = _decoded(piece)
        if segment is None:
            return Reason.PATH_AMBIGUOUS
        decoded.append(segment)
    return Path("/" + "/".join(decoded), tuple(decoded), query)


def is_reachable(segment: str) -> bool:
    """Tell whether a decoded, non-empty segment can be the outcome of `parse`; a route literal that cannot never matches."""
    return segment not in {".", ".."} and not _FORBIDDEN(segment)


def _decoded(piece: str) -> str | None:
    try:
        segment = unquote_to_bytes(piece).decode("utf-8")
    except UnicodeDecodeError:
        return None
    return segment if is_reachable(segment) else None
