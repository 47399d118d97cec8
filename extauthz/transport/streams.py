"""The books of one HTTP/2 connection, kept by libnghttp2's callbacks.

A callback that raises would hand garbage to C, so each one is guarded and gives up its stream or the connection. Whatever runs for
a request runs after `memory_receive` has returned, and nothing that sends or deletes is called in here.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import struct
from ctypes import c_char, c_uint32
from time import monotonic
from typing import Any

from extauthz.transport import libnghttp2 as http2
from extauthz.transport import messages
from extauthz.transport.limits import Limits
from extauthz.transport.messages import Refusal

_TYPE, _FLAGS, _STREAM = (getattr(http2.FrameHeader, name).offset for name in ("type", "flags", "stream_id"))
_FRAME_HEADER = c_char * ctypes.sizeof(http2.FrameHeader)
_stream_id = struct.Struct("=i").unpack_from
OK = http2.fields([(b"grpc-status", b"0")])

_log = logging.getLogger(__name__)


class Stream:
    """One call; `answer` holds framed messages, of which `sent` bytes are gone, and `trailer` comes behind them."""

    __slots__ = ("answer", "body", "closed", "complete", "headers", "id", "opened", "refusal", "sent", "task", "trailer", "watches")

    def __init__(self, number: int, opened: float) -> None:
        """Begin with nothing received; `opened` is on the monotonic clock."""
        self.id = number
        self.opened = opened
        self.headers: dict[bytes, bytes] = {}
        self.body: bytes | bytearray = b""
        self.complete = False
        self.refusal: Refusal | None = None
        self.answer = b""
        self.sent = 0
        self.trailer = OK
        self.task: asyncio.Future[bytes] | None = None
        self.watches: str | None = None
        self.closed = False


class Tally:
    """Bytes of requests that have not come completely, on all connections of a process."""

    __slots__ = ("unfinished",)

    def __init__(self) -> None:
        """Begin with none."""
        self.unfinished = 0


class Books:
    """What the callbacks know of a connection, and note for it."""

    def __init__(self, limits: Limits, tally: Tally) -> None:
        """Begin with no stream."""
        self.limits = limits
        self.tally = tally
        self.streams: dict[int, Stream] = {}
        self.ready: list[Stream] = []
        self.now = monotonic()
        self.greeted = False
        self.fields: dict[bytes, bytes] = {}
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
        elif self.tally.unfinished + len(data) > self.limits.requests_size:
            self.turn_down(stream, messages.TOO_MUCH)
        else:
            self.tally.unfinished += len(data)
            if not stream.body:
                stream.body = data
            elif isinstance(stream.body, bytearray):
                stream.body += data
            else:
                stream.body = bytearray(stream.body) + data

    def turn_down(self, stream: Stream, refusal: Refusal) -> None:
        """Refuse a request before it has come completely."""
        self.release(stream)
        stream.refusal = refusal
        self.ready.append(stream)

    def release(self, stream: Stream) -> bytes | bytearray:
        """Return what came of a request, which no longer counts as unfinished."""
        body, stream.body = stream.body, b""
        self.tally.unfinished -= len(body)
        return body

    def close(self, stream: Stream) -> None:
        """Forget a stream; whoever waits for its answer stops."""
        stream.closed = True
        self.release(stream)
        if stream.task is not None:
            stream.task.cancel()

    def count_empty(self) -> int:
        """Count a frame that carries nothing, and give the connection up when there are too many."""
        most, rate = self.limits.empty_frames, self.limits.empty_frames_per_second
        self.allowance = min(most, self.allowance + (self.now - self.allowance_of) * rate) - 1
        self.allowance_of = self.now
        return 0 if self.allowance >= 0 else http2.CALLBACK_FAILURE


def _failed(code: int) -> int:
    _log.exception("callback failed")
    return code


def _given_up(session: int, number: int) -> int:
    """End one stream from within a callback whose failure would end the connection."""
    http2.submit_reset(session, 0, number, http2.INTERNAL_ERROR)
    return _failed(0)


def _begin_headers(_: int, frame: int, books: Books) -> int:
    try:
        number = _stream_id(_FRAME_HEADER.from_address(frame).raw, _STREAM)[0]
        books.list_size = 0
        # Trailers of a request are counted and not kept.
        books.fields = {}
        if number not in books.streams:
            stream = books.streams[number] = Stream(number, books.now)
            books.fields = stream.headers
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _failed(http2.TEMPORAL_CALLBACK_FAILURE)
    return 0


def _header(_: int, __: int, name: bytes, name_length: int, value: bytes, value_length: int, ___: int, books: Books) -> int:
    try:
        books.list_size += name_length + value_length + 32
        if books.list_size > books.max_list_size:
            return http2.TEMPORAL_CALLBACK_FAILURE
        books.fields[name] = value
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _failed(http2.TEMPORAL_CALLBACK_FAILURE)
    return 0


def _data(session: int, _: int, number: int, data: int, length: int, books: Books) -> int:
    try:
        books.data_came = True
        stream = books.streams.get(number)
        if stream is not None:
            books.take(stream, http2.bytes_at(data, length))
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _given_up(session, number)
    return 0


def _frame(session: int, frame: int, books: Books) -> int:
    head = _FRAME_HEADER.from_address(frame).raw
    try:
        kind = head[_TYPE]
        if kind <= http2.HEADERS and head[_FLAGS] & http2.END_STREAM:
            books.data_came = False
            stream = books.streams.get(_stream_id(head, _STREAM)[0])
            if stream is not None:
                stream.complete = True
                if stream.refusal is None:
                    books.ready.append(stream)
        elif kind == http2.SETTINGS:
            books.greeted = True
        elif kind == http2.DATA and books.data_came:
            books.data_came = False
        elif kind in (http2.DATA, http2.PRIORITY):
            return books.count_empty()
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _given_up(session, _stream_id(head, _STREAM)[0])
    return 0


def _closed(_: int, number: int, __: int, books: Books) -> int:
    try:
        stream = books.streams.pop(number, None)
        if stream is not None:
            books.close(stream)
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _failed(0)
    return 0


def _read(session: int, number: int, buffer: int, length: int, flags: int, _: int, books: Books) -> int:
    try:
        stream = books.streams[number]
        sent = stream.sent
        size = min(length, len(stream.answer) - sent)
        if size:
            ctypes.memmove(buffer, stream.answer[sent : sent + size] if sent else stream.answer, size)
            stream.sent = sent + size
        if stream.sent == len(stream.answer):
            if stream.watches is None:
                c_uint32.from_address(flags).value = http2.EOF | http2.NO_END_STREAM
                if http2.submit_trailer(session, number, stream.trailer, len(stream.trailer)) < 0:
                    return http2.TEMPORAL_CALLBACK_FAILURE
            if not size:
                return http2.DEFERRED
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _failed(http2.TEMPORAL_CALLBACK_FAILURE)
    return size


# C calls these as long as the process lives.
_FUNCTIONS: dict[str, Any] = {
    "on_begin_headers": http2.BeginHeaders(_begin_headers),
    "on_header": http2.Header(_header),
    "on_data_chunk_recv": http2.DataReceived(_data),
    "on_frame_recv": http2.FrameReceived(_frame),
    "on_stream_close": http2.StreamClosed(_closed),
}
CALLBACKS = http2.callbacks(_FUNCTIONS)
_PROVIDER = http2.DataProvider(None, http2.ReadData(_read))
PROVIDER = ctypes.byref(_PROVIDER)
"""Reads the answer of a stream."""
