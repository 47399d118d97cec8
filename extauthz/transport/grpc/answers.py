"""The parts of an answer: its header fields, its frame, its trailers. The library reads the fields in place."""

from __future__ import annotations

from functools import lru_cache

from extauthz.transport.grpc._session import HeaderBlock
from extauthz.transport.grpc.messages import GrpcStatus, RequestRefusal

SHUTTING_DOWN = HeaderBlock([(b"grpc-status", b"%d" % GrpcStatus.UNAVAILABLE), (b"grpc-message", b"the server is shutting down")])


def frame_message(message: bytes) -> bytes:
    """Return a message as gRPC sends it: not compressed, its length, its bytes."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _status(refusal: RequestRefusal) -> list[tuple[bytes, bytes]]:
    return [(b"grpc-status", b"%d" % refusal.status), (b"grpc-message", refusal.message.encode("ascii"))]


@lru_cache(maxsize=64)
def status_fields(refusal: RequestRefusal) -> HeaderBlock:
    """Return the trailers of a refusal."""
    return HeaderBlock(_status(refusal))


@lru_cache(maxsize=64)
def refusal_fields(refusal: RequestRefusal) -> HeaderBlock:
    """Return the header fields of a refusal; there are a handful, all of our own words, and the library reads them in place."""
    pairs = [(b":status", b"%d" % refusal.http), (b"content-type", b"application/grpc")]
    if refusal.status is GrpcStatus.UNIMPLEMENTED:
        pairs.append((b"grpc-accept-encoding", b"identity,gzip"))
    return HeaderBlock([*pairs, *_status(refusal)])
