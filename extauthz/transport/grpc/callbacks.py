"""What libnghttp2 calls for a connection, which keeps its table of it.

A callback that raises would hand garbage to C, so each one is guarded and gives up its stream or the connection. Whatever runs for
a request runs after `memory_receive` has returned, and nothing that sends or deletes is called in here.
"""

from __future__ import annotations

import ctypes
import logging
import struct
from ctypes import c_char, c_uint32
from typing import Any

from extauthz.transport.grpc import libnghttp2 as http2
from extauthz.transport.grpc.refusals import RefusalReason
from extauthz.transport.grpc.streams import RESET, Stream, StreamTable

_TYPE, _FLAGS, _STREAM = (getattr(http2.FrameHeader, name).offset for name in ("type", "flags", "stream_id"))
_FRAME_HEADER = c_char * ctypes.sizeof(http2.FrameHeader)
_stream_id = struct.Struct("=i").unpack_from

_log = logging.getLogger(__name__)


def _log_failure(code: int) -> int:
    _log.exception("callback failed")
    return code


def _give_up(session: int, number: int) -> int:
    """End one stream from within a callback whose failure would end the connection."""
    http2.submit_reset(session, 0, number, http2.INTERNAL_ERROR)
    return _log_failure(0)


def _begin_headers(_: int, frame: int, table: StreamTable) -> int:
    try:
        number = _stream_id(_FRAME_HEADER.from_address(frame).raw, _STREAM)[0]
        table.list_size = 0
        table.fields = []
        stream = table.streams.get(number)
        if stream is None:
            stream = table.streams[number] = Stream(number, table.now)
        table.current = stream
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _log_failure(http2.TEMPORAL_CALLBACK_FAILURE)
    return 0


def _header(_: int, __: int, name: bytes, name_length: int, value: bytes, value_length: int, ___: int, table: StreamTable) -> int:
    try:
        table.list_size += name_length + value_length + 32
        if table.list_size > table.max_list_size:
            if table.current is not None and table.current.refusal is None:
                table.current.refusal = RESET
                table.count_refusal(RefusalReason.FIELDS_TOO_LARGE)
            return http2.TEMPORAL_CALLBACK_FAILURE
        fields = table.fields
        fields.append(name)
        fields.append(value)
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _log_failure(http2.TEMPORAL_CALLBACK_FAILURE)
    return 0


def _data(session: int, _: int, number: int, data: int, length: int, table: StreamTable) -> int:
    try:
        table.data_came = True
        stream = table.streams.get(number)
        if stream is not None:
            table.take(stream, http2.bytes_at(data, length))
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _give_up(session, number)
    return 0


def _frame(session: int, frame: int, table: StreamTable) -> int:
    head = _FRAME_HEADER.from_address(frame).raw
    try:
        kind, ends = head[_TYPE], head[_FLAGS] & http2.END_STREAM
        if kind == http2.HEADERS:
            table.judge(session, ends)
        if kind <= http2.HEADERS and ends:
            table.data_came = False
            stream = table.streams.get(_stream_id(head, _STREAM)[0])
            if stream is not None:
                stream.complete = True
                if stream.refusal is None:
                    table.queue(stream)
        elif kind == http2.SETTINGS:
            table.greeted = True
        elif kind == http2.DATA and table.data_came:
            table.data_came = False
            stream = table.streams.get(_stream_id(head, _STREAM)[0])
            if stream is not None:
                table.continue_stream(stream)
        elif kind in (http2.DATA, http2.PRIORITY):
            return table.count_empty()
        elif kind == http2.RESET:
            table.reset_by_peer = _stream_id(head, _STREAM)[0]
        elif kind == http2.GOAWAY:
            table.peer_leaves = True
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _give_up(session, _stream_id(head, _STREAM)[0])
    return 0


def _invalid(_: int, __: int, code: int, table: StreamTable) -> int:
    try:
        if code == http2.REFUSED_STREAM:
            table.count_refusal(RefusalReason.STREAM_LIMIT)
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _log_failure(0)
    return 0


def _closed(_: int, number: int, code: int, table: StreamTable) -> int:
    try:
        stream = table.streams.pop(number, None)
        if stream is not None:
            if code and stream.refusal is None and number != table.reset_by_peer:
                table.count_refusal(RefusalReason.INTERNAL if code == http2.INTERNAL_ERROR else RefusalReason.STREAM_ERROR)
            table.close(stream)
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _log_failure(0)
    return 0


def _copy_answer(session: int, number: int, buffer: int, length: int, flags: int, _: int, table: StreamTable) -> int:
    try:
        stream = table.streams[number]
        offset = stream.offset
        size = min(length, len(stream.answer) - offset)
        if size:
            ctypes.memmove(buffer, stream.answer[offset : offset + size] if offset else stream.answer, size)
            stream.offset = offset + size
        if stream.offset == len(stream.answer):
            if not stream.more:
                c_uint32.from_address(flags).value = http2.EOF | http2.NO_END_STREAM
                if http2.submit_trailer(session, number, stream.trailer, len(stream.trailer)) < 0:
                    return http2.TEMPORAL_CALLBACK_FAILURE
            if not size:
                return http2.DEFERRED
    except BaseException:  # noqa: BLE001 - C would get garbage
        return _log_failure(http2.TEMPORAL_CALLBACK_FAILURE)
    return size


# C calls these as long as the process lives.
_FUNCTIONS: dict[str, Any] = {
    "on_begin_headers": http2.BeginHeaders(_begin_headers),
    "on_header": http2.Header(_header),
    "on_data_chunk_recv": http2.DataReceived(_data),
    "on_frame_recv": http2.FrameReceived(_frame),
    "on_invalid_frame_recv": http2.InvalidFrame(_invalid),
    "on_stream_close": http2.StreamClosed(_closed),
}
CALLBACKS = http2.callbacks(_FUNCTIONS)
_PROVIDER = http2.DataProvider(None, http2.ReadData(_copy_answer))
PROVIDER = ctypes.byref(_PROVIDER)
"""Reads the answer of a stream."""
