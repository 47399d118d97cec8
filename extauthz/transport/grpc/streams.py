"""The table of one HTTP/2 connection: its streams, what has come of each, and what is refused."""

from __future__ import annotations

import asyncio
from time import monotonic

from extauthz.transport.grpc import libnghttp2 as http2
from extauthz.transport.grpc import messages
from extauthz.transport.grpc.answers import OK
from extauthz.transport.grpc.fields import are_trailers, judge
from extauthz.transport.grpc.messages import GrpcStatus, RequestHead, RequestRefusal
from extauthz.transport.grpc.refusals import RefusalReason, Refusals
from extauthz.transport.limits import Limits

RESET = RequestRefusal(GrpcStatus.INTERNAL, "the stream is reset", RefusalReason.STREAM_ERROR)
"""Marks a stream that gets no answer, and is counted already."""

REASONS = {http2.ENHANCE_YOUR_CALM: RefusalReason.FLOOD, http2.INTERNAL_ERROR: RefusalReason.FLOOD}
"""Why a connection ends with an error code; this library ends one that resets too much with INTERNAL_ERROR."""


class Stream:
    """One call; `answer` holds framed messages, of which those before `offset` are sent, and `trailer` comes behind them.

    With `more` other messages may follow before it. A bidirectional stream `is_counted` among those of the process.
    """

    __slots__ = (
        "answer",
        "body",
        "closed",
        "complete",
        "fields",
        "head",
        "id",
        "is_counted",
        "more",
        "offset",
        "opened_at",
        "queued",
        "refusal",
        "requests",
        "task",
        "trailer",
        "watches",
    )

    def __init__(self, number: int, opened_at: float) -> None:
        """Begin with nothing received; `opened_at` is on the monotonic clock."""
        self.id = number
        self.opened_at = opened_at
        self.fields: list[bytes] = []
        self.head: RequestHead | RequestRefusal | None = None
        self.body: bytes | bytearray = b""
        self.complete = False
        self.refusal: RequestRefusal | None = None
        self.answer = b""
        self.offset = 0
        self.trailer = OK
        self.task: asyncio.Future[bytes] | None = None
        self.more = False
        self.watches: str | None = None
        self.requests = 0
        self.is_counted = False
        self.queued = False
        self.closed = False


class TransportCounters:
    """Bytes of requests that have not come completely, and bidirectional streams, on all connections of a process."""

    __slots__ = ("streams", "unfinished")

    def __init__(self) -> None:
        """Begin with none."""
        self.unfinished = 0
        self.streams = 0


class StreamTable:
    """What the callbacks know of a connection, and note for it."""

    peer = ""

    def __init__(self, limits: Limits, counters: TransportCounters, refusals: Refusals) -> None:
        """Begin with no stream."""
        self.limits = limits
        self.counters = counters
        self.refusals = refusals
        self.streams: dict[int, Stream] = {}
        self.ready: list[Stream] = []
        self.now = monotonic()
        self.greeted = False
        self.peer_leaves = False
        self.reset_by_peer = 0
        self.current: Stream | None = None
        self.fields: list[bytes] = []
        self.list_size = 0
        self.max_list_size = limits.header_list_size
        self.data_came = False
        self.allowance = float(limits.empty_frames)
        self.allowance_of = self.now

    def take(self, stream: Stream, data: bytes) -> None:
        """Keep a part of a request, as long as it may become a message."""
        if stream.refusal is not None:
            return
        size = len(stream.body) + len(data)
        if size > self.limits.message_size + messages.PREFIX:
            self.turn_down(stream, messages.TOO_LARGE)
        elif self.counters.unfinished + len(data) > self.limits.requests_size:
            self.turn_down(stream, messages.TOO_MUCH)
        else:
            self.counters.unfinished += len(data)
            if not stream.body:
                stream.body = data
            elif isinstance(stream.body, bytearray):
                stream.body += data
            else:
                stream.body = bytearray(stream.body) + data

    def turn_down(self, stream: Stream, refusal: RequestRefusal) -> None:
        """Refuse a request before it has come completely."""
        self.release(stream)
        stream.refusal = refusal
        self.queue(stream)

    def queue(self, stream: Stream) -> None:
        """Have a stream looked at when all that came has been read; once, however much of it came."""
        if not stream.queued:
            stream.queued = True
            self.ready.append(stream)

    def unqueued(self) -> list[Stream]:
        """Return the streams that are to be looked at, each of which may be queued again."""
        ready, self.ready = self.ready, []
        for stream in ready:
            stream.queued = False
        return ready

    def count_refusal(self, reason: RefusalReason, detail: str = "") -> None:
        """Count what is refused."""
        self.refusals.count(reason, now=self.now, peer=self.peer, detail=detail)

    def reset(self, session: int | None, stream: Stream, reason: RefusalReason, code: int) -> None:
        """End a stream without an answer; once, since a peer that does not read gets nothing of it."""
        self.release(stream)
        if stream.refusal is None:
            self.count_refusal(reason)
        stream.complete, stream.refusal = True, RESET
        if session is not None:
            http2.submit_reset(session, 0, stream.id, code)

    def judge(self, session: int, ends: int) -> None:
        """Judge the fields that have come completely: of a request, or behind one, which they must end."""
        stream = self.current
        if stream is None or stream.refusal is not None:
            return
        if stream.head is None:
            stream.fields = self.fields
            stream.head = judge(self.fields, self.list_size)
            is_valid = stream.head is not None
        else:
            is_valid = bool(ends) and are_trailers(self.fields, self.list_size)
        if not is_valid:
            self.reset(session, stream, RefusalReason.FIELDS_MALFORMED, http2.PROTOCOL_ERROR)

    def release(self, stream: Stream) -> bytes | bytearray:
        """Return what came of a request, which no longer counts as unfinished."""
        body, stream.body = stream.body, b""
        self.counters.unfinished -= len(body)
        return body

    def keep(self, stream: Stream, body: bytes | bytearray) -> None:
        """Keep what is left of a request that goes on."""
        stream.body = body
        self.counters.unfinished += len(body)

    def continue_stream(self, stream: Stream) -> None:
        """Look at a request that has not ended, if its messages are answered before it does."""
        head = stream.head
        if isinstance(head, RequestHead) and head.path in messages.BIDIRECTIONAL and stream.refusal is None:
            self.queue(stream)

    def close(self, stream: Stream) -> None:
        """Forget a stream; a task that waits for its answer stops."""
        stream.closed = True
        self.release(stream)
        if stream.is_counted:
            self.counters.streams -= 1
        if stream.task is not None:
            stream.task.cancel()

    def count_empty(self) -> int:
        """Count a frame that carries nothing, and give the connection up when there are too many."""
        most, rate = self.limits.empty_frames, self.limits.empty_frames_per_second
        self.allowance = min(most, self.allowance + (self.now - self.allowance_of) * rate) - 1
        self.allowance_of = self.now
        return 0 if self.allowance >= 0 else http2.CALLBACK_FAILURE


def reason_of_failure(code: int, data: bytes) -> RefusalReason:
    """Name what the library ends a connection for at once; what speaks TLS begins with a record of version 3 (RFC 8446 5.1)."""
    match code:
        case http2.BAD_PREFACE:
            return RefusalReason.TLS_NOT_CONFIGURED if data.startswith(b"\x16\x03") else RefusalReason.PREFACE
        case http2.FLOODED | http2.CALLBACK_FAILURE:
            return RefusalReason.FLOOD
        case _:
            return RefusalReason.PROTOCOL_ERROR
