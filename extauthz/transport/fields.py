"""The header fields of a request, judged once for it: what RFC 9113 forbids is malformed, and what gRPC needs is read.

libnghttp2's own rules for HTTP messages are off (`nghttp2_option_set_no_http_messaging`): they refuse what Envoy really sends. The
`:authority` of a check is the name of Envoy's cluster, `outbound|9001||x` or `authéz`, and metadata may be padded. Of these rules:

- kept, the stream is reset with PROTOCOL_ERROR: a pseudo field that is unknown, missing, repeated or behind others, CONNECT with a
  path or a scheme, neither `:authority` nor `host` (RFC 9113 8.3); a path that does not begin with "/"; a scheme that is none; a
  name that is no lower-case token; NUL, CR or LF in a value (8.2.1); connection, keep-alive, proxy-connection, transfer-encoding,
  upgrade, another te than trailers (8.2.2); a content-length that is not the length of DATA (8.1.1); trailers with a pseudo field,
  or without END_STREAM (8.1).
- stricter: a name that is no token was dropped in silence and is malformed; so is any field that is read and comes twice, for which
  there is no rule which one counts. Of other fields the values are joined with a comma, as metadata is (PROTOCOL-HTTP2.md of grpc).
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
"""Bytes of a list of fields beyond which it is judged anew each time."""
ONCE = frozenset({b"host", b"te", b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding"})
"""Fields that must not come twice, beside the pseudo fields."""

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch


def judge(fields: dict[bytes, bytes], size: int) -> Head | Refusal | None:
    """Return what the fields of a request ask for, or the status that refuses it; None: it is malformed.

    `size` is that of the list as it came: C's strings end at a NUL, so fields that are shorter had one.
    """
    names, values = b"\0".join(fields), b"".join(fields.values())
    if len(names) + len(values) + (OVERHEAD - 1) * len(fields) + 1 != size or b"\n" in values or b"\r" in values:
        return None
    get = fields.get
    return (_remembered if size <= MAX_MEMO else _judged)(
        names,
        get(b":method", b""),
        get(b":scheme", b""),
        get(b":path", b""),
        get(b"te"),
        get(b"content-type", b""),
        get(b"grpc-encoding", b""),
        get(b"grpc-timeout", b""),
    )


def are_trailers(fields: dict[bytes, bytes], size: int) -> bool:
    """Tell whether fields may stand behind a message; `size` is that of the list as it came."""
    values = b"".join(fields.values())
    whole = sum(map(len, fields)) + len(values) + OVERHEAD * len(fields) == size
    return whole and not re.search(rb"[\r\n]", values) and all(_NAME(name) and not name.startswith(b":") for name in fields)


def is_length(value: bytes, length: int) -> bool:
    """Tell whether a content-length says that there are so many bytes."""
    return _LENGTH(value) is not None and int(value) == length


def _judged(
    names: bytes, method: bytes, scheme: bytes, path: bytes, te: bytes | None, content_type: bytes, encoding: bytes, timeout: bytes
) -> Head | Refusal | None:
    listed = names.split(b"\0")
    present = frozenset(listed)
    pseudo = tuple(takewhile(lambda name: name.startswith(b":"), listed))
    if (
        not all(map(_NAME, listed))
        or not _PSEUDO.issuperset(pseudo)
        or any(name.startswith(b":") for name in listed[len(pseudo) :])
        or not _OF_CONNECTIONS.isdisjoint(present)
        or not (b":authority" in present or b"host" in present)
        or (te is not None and te.lower() != b"trailers")
        or not method
    ):
        return None
    if method == b"CONNECT":
        whole = present.isdisjoint((b":path", b":scheme")) and b":authority" in present
    else:
        whole = bool(_SCHEME(scheme)) and (path.startswith(b"/") or (method == b"OPTIONS" and path == b"*"))
    return head(method, path, content_type, encoding, timeout, has_length=b"content-length" in present) if whole else None


# Peers choose fields: what is remembered of them is bounded in number and, by MAX_MEMO, in size.
_remembered = lru_cache(maxsize=1024)(_judged)
