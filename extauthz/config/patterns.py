"""The two patterns that are written as text: what a route matches, and which addresses may be acted for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from extauthz.config.wording import nearest
from extauthz.core.paths import MAX_SEGMENTS, is_reachable
from extauthz.core.routes import Match

METHODS = frozenset(
    {
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"),
        *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY"),
        *("MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPFIND", "PROPPATCH", "REBIND"),
        *("REPORT", "SEARCH", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"),
        *("M-SEARCH", "NOTIFY", "PURGE", "SOURCE", "SUBSCRIBE", "UNSUBSCRIBE"),
    }
)
"""Those of the registry of HTTP methods, and in the last line those that Envoy lets through besides."""
_METHODS = re.compile(r"\*|[A-Z][A-Z0-9_-]*(?:\|[A-Z][A-Z0-9_-]*)*").fullmatch
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}").fullmatch
_ADDRESSES = re.compile(r"[A-Za-z0-9.!#$&'*+/=?^_{}~-]+@[A-Za-z0-9.*-]+").fullmatch


def parse_match(text: str) -> Match:
    """Read "METHOD|METHOD /pattern"; raise ValueError with a hint."""
    methods_text, space, pattern = text.partition(" ")
    if not space or not pattern.startswith("/") or pattern != pattern.strip():
        raise ValueError(f"{text!r}: write a method, one space and a path that starts with '/': 'GET /items/{{id}}'")
    if not _METHODS(methods_text):
        raise ValueError(f"{methods_text!r} is not a method: write GET, GET|HEAD or * in upper case")
    methods = tuple(methods_text.split("|"))
    for method in methods:
        if method not in METHODS and methods_text != "*":
            hint = nearest(method, METHODS) or ": write one that HTTP knows, like GET, PUT or PROPFIND; Envoy lets no other through"
            raise ValueError(f"{method!r} is no method{hint}")
    if len(set(methods)) != len(methods):
        raise ValueError(f"{methods_text!r} names a method twice")
    if "CONNECT" in methods:
        raise ValueError("CONNECT has no path and is always refused: it cannot be a route")
    pieces = pattern[1:].split("/")
    if len(pieces) > MAX_SEGMENTS:
        raise ValueError(f"a path has at most {MAX_SEGMENTS} segments")
    rest = pieces[-1] == "**"
    if rest:
        pieces.pop()
    last = len(pieces) - 1
    segments = tuple(_pattern_segment(piece, is_last=index == last and not rest) for index, piece in enumerate(pieces))
    return Match(text, methods, segments, rest)


def _pattern_segment(piece: str, *, is_last: bool) -> str | None:
    if _PARAMETER(piece):
        return None
    if not piece and not is_last:
        raise ValueError("an empty segment ('//') never matches: such paths are refused")
    if "{" in piece or "}" in piece:
        raise ValueError(f"segment {piece!r}: a parameter is one whole segment, written {{name}}")
    if "*" in piece:
        raise ValueError(f"segment {piece!r}: write {{name}} for one segment, and ** only as the last segment")
    if not is_reachable(piece):
        raise ValueError(f"segment {piece!r} never matches: write it decoded; '.', '..', ';', '\\' and control are refused")
    return piece


def compile_patterns(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Compile address patterns, in which `*` is any run without "@"; None for an empty list; raise ValueError for a bad one."""
    compiled = []
    for pattern in patterns:
        if not _ADDRESSES(pattern):
            raise ValueError(f"{pattern!r} is not an address pattern: write someone@acme.com, *@acme.com or *@*")
        compiled.append(re.escape(pattern.lower()).replace(r"\*", "[^@]*"))
    return re.compile("|".join(compiled)) if compiled else None
