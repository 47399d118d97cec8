"""The header fields of a request, judged once for it: what RFC 9113 forbids is malformed, and what gRPC needs is read.

libnghttp2's own rules for HTTP messages are off (`nghttp2_option_set_no_http_messaging`): they refuse what Envoy really sends. The
`:authority` of a check is the name of Envoy's cluster, `outbound|9001||x` or `authéz`, and metadata may be padded. Of these rules:

- kept, the stream is reset with PROTOCOL_ERROR: a pseudo field that is unknown, missing, repeated or behind others, CONNECT with a
  path or a scheme, neither `:authority` nor `host` (RFC 9113 8.3); a path that does not begin with "/"; a scheme that is none; a
  name that is no lower-case token; NUL, CR or LF in a value (8.2.1); connection, keep-alive, proxy-connection, transfer-encoding,
  upgrade, another te than trailers (8.2.2); a content-length that is not the length of DATA (8.1.1); trailers with a pseudo field,
  or without END_STREAM (8.1).
- stricter: a name that is no token was dropped in silence and is malformed; so is any field that is read and comes twice, for which
  there is no rule which one counts. Those of traceparent, and of tracestate, are joined (W3C Trace Context).
- given up: what `:authority` and `host` may hold, other control characters and blanks at the ends of values. Nothing reads them,
  and no value or name of a peer is ever written to a log.
- never needed: what holds for answers and for pushes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from operator import itemgetter
from typing import Any

from extauthz.transport.grpc.messages import RequestHead, RequestRefusal, head

MAX_MEMO, MEMOS = 2048, 1024
"""Size of a list beyond which nothing of it is remembered, and how many are: peers choose fields."""

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_FIELDS = (b":method", b":scheme", b":path", b"te", b"content-type", b"grpc-encoding", b"grpc-timeout")
_TRACE = (b"traceparent", b"tracestate")
_ONCE = _PSEUDO.union(_FIELDS, (b"host", b"content-length"))
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch

_BREAKS = re.compile(rb"[\0\r\n]")
_LINE_FEED, _CARRIAGE_RETURN = 0x0A, 0x0D


def judge(fields: list[bytes], size: int) -> RequestHead | RequestRefusal | None:
    """Return what the fields of a request, names and values by turns, ask for, or the status that refuses it; None: malformed.

    `size` is that of the list (RFC 9113 6.5.2), in bytes.
    """
    joined = b"\0".join(fields)
    if joined.count(b"\0") != len(fields) - 1 or _LINE_FEED in joined or _CARRIAGE_RETURN in joined:
        return None
    is_small = size <= MAX_MEMO
    shape = (_shape if is_small else _shape.__wrapped__)(b"\0".join(fields[::2]))
    if shape is None:
        return None
    values: list[bytes | None] = [*fields[1::2], None]
    return (_request if is_small else _request.__wrapped__)(shape.has_length, *shape.pick(values))


def trace(fields: list[bytes]) -> tuple[str, str]:
    """Return traceparent and tracestate, empty where there is none; values of one that comes again are joined with a comma."""
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    parent, state = (b",".join(value for name, value in pairs if name == field) for field in _TRACE)
    return parent.decode("latin-1"), state.decode("latin-1")


def has_its_length(fields: list[bytes], length: int) -> bool:
    """Return whether the content-length, which is among the fields, says that there are so many bytes."""
    value = fields[2 * fields[::2].index(b"content-length") + 1]
    return _LENGTH(value) is not None and int(value) == length


def are_trailers(fields: list[bytes]) -> bool:
    """Return whether fields, names and values by turns, may stand behind a message."""
    plain = not any(_BREAKS.search(value) for value in fields[1::2])
    return plain and all(_NAME(name) and not name.startswith(b":") for name in fields[::2])


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where in a list of values, which ends with one for what is absent, the values stand that are read."""

    pick: Callable[[list[bytes | None]], tuple[bytes | None, ...]]
    has_length: bool


@lru_cache(maxsize=MEMOS)
def _shape(joined: bytes) -> _Shape | None:
    """Judge the names of a list."""
    names = joined.split(b"\0")
    pseudo = tuple(takewhile(lambda name: name.startswith(b":"), names))
    once = [name for name in names if name in _ONCE]
    is_valid = (
        all(map(_NAME, names))
        and _PSEUDO.issuperset(pseudo)
        and not any(name.startswith(b":") for name in names[len(pseudo) :])
        and len(once) == len(set(once))
        and _OF_CONNECTIONS.isdisjoint(names)
        and (b":authority" in names or b"host" in names)
    )
    if not is_valid:
        return None
    places = {name: at for at, name in enumerate(names)}
    pick: Any = itemgetter(*(places.get(name, -1) for name in _FIELDS))
    return _Shape(pick, b"content-length" in places)


@lru_cache(maxsize=MEMOS)
def _request(
    has_length: bool,
    method: bytes | None,
    scheme: bytes | None,
    path: bytes | None,
    te: bytes | None,
    content_type: bytes | None,
    encoding: bytes | None,
    timeout: bytes | None,
) -> RequestHead | RequestRefusal | None:
    """Judge the values of a list that are read."""
    if not method or (te is not None and te.lower() != b"trailers"):
        return None
    if method == b"CONNECT":
        if path is not None or scheme is not None:
            return None
    elif not path or not (path.startswith(b"/") or (method, path) == (b"OPTIONS", b"*")) or not _SCHEME(scheme or b""):
        return None
    return head(method, path or b"", content_type or b"", encoding or b"", timeout or b"", has_length=has_length)
