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
from functools import lru_cache
from itertools import takewhile

from extauthz.transport.messages import Head, Refusal, head

OVERHEAD = 32
"""Of a field in the size of a list, in bytes (RFC 9113 6.5.2)."""
MAX_MEMO = 1024
"""Size of a list beyond which it is judged anew each time."""

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_ONCE = _PSEUDO | {b"host", b"te", b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding"}
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch


def judge(fields: list[bytes], size: int) -> Head | Refusal | None:
    """Return what the fields of a request, names and values by turns, ask for, or the status that refuses it; None: malformed.

    `size` is that of the list as it came: C's strings end at a NUL, so fields that are shorter had one.
    """
    return (_remembered if size <= MAX_MEMO else _judged)(b"\0".join(fields), size)


def are_trailers(fields: list[bytes], size: int) -> bool:
    """Tell whether fields may stand behind a message; the arguments are those of `judge`."""
    whole = sum(map(len, fields)) + OVERHEAD * (len(fields) // 2) == size
    plain = not any(b"\n" in value or b"\r" in value for value in fields[1::2])
    return whole and plain and all(_NAME(name) and not name.startswith(b":") for name in fields[::2])


def is_length(value: bytes, length: int) -> bool:
    """Tell whether a content-length says that there are so many bytes."""
    return _LENGTH(value) is not None and int(value) == length


def _judged(joined: bytes, size: int) -> Head | Refusal | None:
    fields = joined.split(b"\0")
    names, values = fields[::2], fields[1::2]
    whole = len(joined) + 1 + (OVERHEAD - 2) * len(names) == size
    are_names = _are_names if size <= MAX_MEMO else _are_names.__wrapped__
    if not whole or b"\n" in joined or b"\r" in joined or not are_names(tuple(names)):
        return None
    get = dict(zip(names, values, strict=True)).get
    method, path = get(b":method", b""), get(b":path")
    if not method or get(b"te", b"trailers").lower() != b"trailers":
        return None
    if method == b"CONNECT":
        if path is not None or b":scheme" in names or b":authority" not in names:
            return None
    elif not path or not (path.startswith(b"/") or (method, path) == (b"OPTIONS", b"*")) or not _SCHEME(get(b":scheme", b"")):
        return None
    return head(
        method,
        path or b"",
        get(b"content-type", b""),
        get(b"grpc-encoding", b""),
        get(b"grpc-timeout", b""),
        length=get(b"content-length"),
        trace=(_list(names, values, b"traceparent"), _list(names, values, b"tracestate")),
    )


def _list(names: list[bytes], values: list[bytes], wanted: bytes) -> str:
    return b",".join(value for name, value in zip(names, values, strict=True) if name == wanted).decode("latin-1")


@lru_cache(maxsize=1024)
def _are_names(names: tuple[bytes, ...]) -> bool:
    pseudo = tuple(takewhile(lambda name: name.startswith(b":"), names))
    single = [name for name in names if name in _ONCE]
    return (
        all(map(_NAME, names))
        and _PSEUDO.issuperset(pseudo)
        and not any(name.startswith(b":") for name in names[len(pseudo) :])
        and len(single) == len(set(single))
        and _OF_CONNECTIONS.isdisjoint(names)
        and (b":authority" in names or b"host" in names)
    )


# Peers choose fields: what is remembered of them is bounded in number and, by MAX_MEMO, in size.
_remembered = lru_cache(maxsize=1024)(_judged)
