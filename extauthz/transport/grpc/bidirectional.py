"""Bidirectional streams in which each request message gets one response, as server reflection has: few, small and short."""

from __future__ import annotations

from collections.abc import Callable

from extauthz.transport.grpc import messages
from extauthz.transport.grpc._session import RESET_STREAM, Stream
from extauthz.transport.grpc.answers import frame_message
from extauthz.transport.grpc.connection import Connection
from extauthz.transport.grpc.messages import RequestHead, RequestRefusal
from extauthz.transport.grpc.reflection import MAX_REQUEST_SIZE, MAX_REQUESTS, MAX_STREAMS

MAX_UNSENT = 256 * 1024
"""Bytes of responses that the client has not taken, of one stream."""


def respond(connection: Connection, stream: Stream, head: RequestHead, method: Callable[[bytes], bytes | None]) -> None:
    """Answer the request messages that have come completely, and end the stream with the client, or at a limit.

    `method` returns None for a request that is not readable.
    """
    body = connection.release(stream)
    if stream.refusal is RESET_STREAM or (stream.answer and not stream.more):
        return
    refusal = stream.refusal or (None if stream.is_counted else _admit(connection, stream))
    responses = b""
    while refusal is None and len(body) >= messages.PREFIX:
        size = messages.PREFIX + int.from_bytes(body[1 : messages.PREFIX], "big")
        if size > messages.PREFIX + MAX_REQUEST_SIZE:
            refusal = messages.REQUEST_TOO_LARGE
            break
        if len(body) < size:
            break
        response = _response(body[:size], head, method)
        stream.requests += 1
        if isinstance(response, RequestRefusal):
            refusal = response
        elif stream.requests > MAX_REQUESTS or len(stream.answer) - stream.offset + len(responses) + len(response) > MAX_UNSENT:
            refusal = messages.TOO_MANY_REQUESTS
        else:
            responses += frame_message(response)
            body = body[size:]
    if refusal is None:
        connection.keep(stream, body)
        if stream.complete and body:
            refusal = messages.NO_MESSAGE
    connection.reply(stream, responses)
    if refusal is not None or stream.complete:
        connection.end(stream, refusal)


def _admit(connection: Connection, stream: Stream) -> RequestRefusal | None:
    """Count a stream that begins, unless there are too many."""
    if connection.counters.streams >= MAX_STREAMS:
        return messages.TOO_MANY_REQUESTS
    connection.counters.streams += 1
    stream.is_counted = True
    return None


def _response(frame: bytes | bytearray, head: RequestHead, method: Callable[[bytes], bytes | None]) -> bytes | RequestRefusal:
    request = messages.read_message(frame, head.encoding, MAX_REQUEST_SIZE)
    if isinstance(request, RequestRefusal):
        return request
    response = method(request)
    return messages.REQUEST_NOT_READABLE if response is None else response
