"""gRPC over HTTP/2: what a complete request holds, or the status that refuses it (PROTOCOL-HTTP2.md of grpc)."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import IntEnum

from extauthz.transport.grpc.refusals import RefusalReason

PREFIX = 5
"""Bytes before a message: the compressed flag, and its length."""

BIDIRECTIONAL = frozenset(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo".encode("ascii") for version in ("v1", "v1alpha")
)
"""Paths of methods that take many messages, and answer each; all others take one."""

_READ_AS_THEY_ARE = frozenset({b"", b"identity", b"gzip"})
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch


class GrpcStatus(IntEnum):
    """The statuses of gRPC that the transport itself gives."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


@dataclass(frozen=True, slots=True)
class RequestRefusal:
    """Why a request is not handed on; with another `http` status than 200 it was no gRPC at all."""

    status: GrpcStatus
    message: str
    reason: RefusalReason
    http: int = 200


NOT_GRPC = RequestRefusal(GrpcStatus.INTERNAL, "content-type is not application/grpc", RefusalReason.NOT_GRPC, 415)
NOT_POST = RequestRefusal(GrpcStatus.INTERNAL, "gRPC is sent with POST", RefusalReason.NOT_GRPC, 405)
NO_MESSAGE = RequestRefusal(GrpcStatus.INTERNAL, "the request is not one whole message", RefusalReason.MESSAGE_MALFORMED)
TOO_MANY = RequestRefusal(GrpcStatus.UNIMPLEMENTED, "more than one message", RefusalReason.MESSAGE_MALFORMED)
TOO_LARGE = RequestRefusal(GrpcStatus.RESOURCE_EXHAUSTED, "the message is too large", RefusalReason.MESSAGE_TOO_LARGE)
TOO_MUCH = RequestRefusal(GrpcStatus.RESOURCE_EXHAUSTED, "too many requests are under way", RefusalReason.REQUESTS_TOO_LARGE)
FLAG_UNKNOWN = RequestRefusal(GrpcStatus.INTERNAL, "the compressed flag is neither 0 nor 1", RefusalReason.MESSAGE_MALFORMED)
FLAG_WITHOUT_ENCODING = RequestRefusal(
    GrpcStatus.INTERNAL, "a compressed message without grpc-encoding", RefusalReason.MESSAGE_MALFORMED
)
ENCODING_UNKNOWN = RequestRefusal(
    GrpcStatus.UNIMPLEMENTED, "grpc-encoding is not supported: identity, gzip", RefusalReason.ENCODING_UNKNOWN
)
NOT_GZIP = RequestRefusal(GrpcStatus.INTERNAL, "the message is not gzip", RefusalReason.MESSAGE_MALFORMED)
TIMEOUT_MALFORMED = RequestRefusal(GrpcStatus.INTERNAL, "grpc-timeout is malformed", RefusalReason.TIMEOUT_MALFORMED)
TOO_LATE = RequestRefusal(GrpcStatus.DEADLINE_EXCEEDED, "the deadline has passed", RefusalReason.DEADLINE_EXCEEDED)
NOT_READABLE = RequestRefusal(GrpcStatus.INVALID_ARGUMENT, "the message is not readable", RefusalReason.MESSAGE_MALFORMED)
NO_SERVICE = RequestRefusal(GrpcStatus.NOT_FOUND, "unknown service", RefusalReason.SERVICE_UNKNOWN)
TOO_MANY_REQUESTS = RequestRefusal(GrpcStatus.RESOURCE_EXHAUSTED, "too many requests or streams", RefusalReason.REFLECTION)
REQUEST_TOO_LARGE = RequestRefusal(GrpcStatus.RESOURCE_EXHAUSTED, "the request is too large", RefusalReason.REFLECTION)
REQUEST_NOT_READABLE = RequestRefusal(GrpcStatus.INVALID_ARGUMENT, "the request is not readable", RefusalReason.REFLECTION)
OPEN_TOO_LONG = RequestRefusal(GrpcStatus.UNAVAILABLE, "the stream has been open for too long", RefusalReason.REFLECTION)
NO_METHOD = RequestRefusal(GrpcStatus.UNIMPLEMENTED, "unknown method", RefusalReason.METHOD_UNKNOWN)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the headers of a request ask for; `timeout` is in seconds, and `has_length` is for a content-length."""

    path: bytes
    encoding: bytes
    timeout: float | None
    has_length: bool = False


def head(
    method: bytes, path: bytes, content_type: bytes, encoding: bytes, timeout: bytes, *, has_length: bool
) -> RequestHead | RequestRefusal:
    """Judge the headers of a request; an encoding or a time-out that is absent is empty."""
    if method != b"POST":
        return NOT_POST
    if content_type != b"application/grpc" and not content_type.startswith((b"application/grpc+", b"application/grpc;")):
        return NOT_GRPC
    if not timeout:
        return RequestHead(path, encoding, None, has_length)
    match = _TIMEOUT(timeout)
    return TIMEOUT_MALFORMED if match is None else RequestHead(path, encoding, int(match[1]) * _UNITS[match[2]], has_length)


def path_of_plain(head: RequestHead | RequestRefusal) -> bytes | None:
    """Return the path of a request whose message needs nothing but its length to be read; None for any other."""
    is_plain = isinstance(head, RequestHead) and not head.has_length and head.encoding in _READ_AS_THEY_ARE
    return head.path if is_plain and isinstance(head, RequestHead) else None


def read_message(body: bytes | bytearray, encoding: bytes, limit: int) -> bytes | RequestRefusal:
    """Return the one message that a request holds; `limit` is in bytes, after decompression."""
    size = len(body) - PREFIX
    announced = int.from_bytes(body[1:PREFIX], "big")
    if size < 0:
        return NO_MESSAGE
    if announced > limit:
        return TOO_LARGE
    if announced != size:
        return NO_MESSAGE if announced > size else TOO_MANY
    message = bytes(body[PREFIX:])
    if body[0] == 0 and encoding in _READ_AS_THEY_ARE:
        return message
    match body[0], encoding:
        case 1, b"gzip":
            return _unpack(message, limit)
        case 1, b"" | b"identity":
            return FLAG_WITHOUT_ENCODING
        case 0 | 1, _:
            return ENCODING_UNKNOWN
        case _:
            return FLAG_UNKNOWN


def _unpack(message: bytes, limit: int) -> bytes | RequestRefusal:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        data = decompressor.decompress(message, limit + 1)
    except zlib.error:
        return NOT_GZIP
    if len(data) > limit:
        return TOO_LARGE
    return data if decompressor.eof and not decompressor.unused_data else NOT_GZIP
