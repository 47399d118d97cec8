"""The calls of libnghttp2 that the transport needs, declared for ctypes (nghttp2.h; the symbols exist since 1.43).

PyDLL keeps the interpreter's lock during a call. With CDLL every call and every callback gives it up, and one busy thread brings
the server to a standstill. Importing this module raises ImportError where the library is missing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from ctypes import c_char, c_char_p, c_int, c_int32, c_size_t, c_ssize_t, c_uint8, c_uint32, c_void_p, py_object
from itertools import starmap
from typing import Any

from extauthz.transport.limits import Limits

NAMES = ("libnghttp2.so.14", "libnghttp2.14.dylib", "/opt/homebrew/lib/libnghttp2.14.dylib", "/usr/local/lib/libnghttp2.14.dylib")
FLOOD_LIMITS = ("nghttp2_option_set_stream_reset_rate_limit", "nghttp2_option_set_max_continuations")

TEMPORAL_CALLBACK_FAILURE = -521
CALLBACK_FAILURE = -902
BAD_PREFACE, FLOODED = -903, -904
DEFERRED = -508
REFUSED_STREAM = -533

DATA, HEADERS, PRIORITY, RESET, SETTINGS, GOAWAY = 0, 1, 2, 3, 4, 7
END_STREAM = 0x1
ACKNOWLEDGEMENT = 0x1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM = 0x0, 0x1, 0x2, 0x8, 0xB
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 0x3, 0x6
EOF, NO_END_STREAM = 0x1, 0x2
GOAWAY_SIZE = 17
"""Bytes of a GOAWAY before its words."""
_NO_COPY = 0x2 | 0x4


def _load() -> ctypes.PyDLL:
    for name in NAMES:
        try:
            return ctypes.PyDLL(name)
        except OSError:
            continue
    raise ImportError("libnghttp2 is not installed (Debian, Ubuntu: libnghttp2-14; Fedora: libnghttp2; Alpine: nghttp2-libs)")


_library = _load()


class FrameHeader(ctypes.Structure):
    """nghttp2_frame_hd, which every frame begins with."""

    _fields_ = (("length", c_size_t), ("stream_id", c_int32), ("type", c_uint8), ("flags", c_uint8), ("reserved", c_uint8))


class HeaderField(ctypes.Structure):
    """nghttp2_nv."""

    _fields_ = (("name", c_char_p), ("value", c_char_p), ("name_length", c_size_t), ("value_length", c_size_t), ("flags", c_uint8))


class _Setting(ctypes.Structure):
    _fields_ = (("identifier", c_int32), ("value", c_uint32))


_Callback: Any = ctypes.PYFUNCTYPE
BeginHeaders = _Callback(c_int, c_void_p, c_void_p, py_object)
Header = _Callback(c_int, c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_uint8, py_object)
FrameReceived = _Callback(c_int, c_void_p, c_void_p, py_object)
DataReceived = _Callback(c_int, c_void_p, c_uint8, c_int32, c_void_p, c_size_t, py_object)
InvalidFrame = _Callback(c_int, c_void_p, c_void_p, c_int, py_object)
StreamClosed = _Callback(c_int, c_void_p, c_int32, c_uint32, py_object)
ReadData = _Callback(c_ssize_t, c_void_p, c_int32, c_void_p, c_size_t, c_void_p, c_void_p, py_object)


class DataProvider(ctypes.Structure):
    """nghttp2_data_provider; the source is unused, since the read callback gets the connection."""

    _fields_ = (("source", c_void_p), ("read", ReadData))


_Window = c_char * 2**24


def bytes_at(address: Any, length: int) -> bytes:
    """Return a copy of what C holds at an address, at most the 16 MiB of a frame; one array type serves all lengths."""
    return _Window.from_address(address)[:length]  # type: ignore[return-value]


def _declared(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_library, f"nghttp2_{name}")
    function.restype = result
    function.argtypes = arguments
    return function


memory_receive = _declared("session_mem_recv", c_ssize_t, c_void_p, c_char_p, c_size_t)
memory_send = _declared("session_mem_send", c_ssize_t, c_void_p, c_void_p)
want_read = _declared("session_want_read", c_int, c_void_p)
want_write = _declared("session_want_write", c_int, c_void_p)
submit_response = _declared("submit_response", c_int, c_void_p, c_int32, c_void_p, c_size_t, c_void_p)
submit_trailer = _declared("submit_trailer", c_int, c_void_p, c_int32, c_void_p, c_size_t)
submit_reset = _declared("submit_rst_stream", c_int, c_void_p, c_uint8, c_int32, c_uint32)
submit_shutdown_notice = _declared("submit_shutdown_notice", c_int, c_void_p)
submit_goaway = _declared("submit_goaway", c_int, c_void_p, c_uint8, c_int32, c_uint32, c_char_p, c_size_t)
terminate = _declared("session_terminate_session", c_int, c_void_p, c_uint32)
last_processed_stream = _declared("session_get_last_proc_stream_id", c_int32, c_void_p)
resume_data = _declared("session_resume_data", c_int, c_void_p, c_int32)
delete_session = _declared("session_del", None, c_void_p)
_new_session = _declared("session_server_new2", c_int, c_void_p, c_void_p, py_object, c_void_p)
_new_callbacks = _declared("session_callbacks_new", c_int, c_void_p)
_new_option = _declared("option_new", c_int, c_void_p)
_submit_settings = _declared("submit_settings", c_int, c_void_p, c_uint8, c_void_p, c_size_t)
_set_window = _declared("session_set_local_window_size", c_int, c_void_p, c_uint8, c_int32, c_int32)
_version = _declared("version", c_void_p, c_int)


def goaway(frame: bytes) -> tuple[int, str] | None:
    """Return error code and words of a GOAWAY that the library wrote; None for any other frame (RFC 9113 6.8)."""
    if len(frame) < GOAWAY_SIZE or frame[3] != GOAWAY:
        return None
    return int.from_bytes(frame[13:GOAWAY_SIZE], "big"), frame[GOAWAY_SIZE:].decode("ascii", "replace")


def version() -> str:
    """Return the version of the library, like "1.52.0"."""

    class Information(ctypes.Structure):
        _fields_ = (("age", c_int), ("number", c_int), ("text", c_char_p))

    return str(Information.from_address(_version(0)).text.decode("ascii"))


def missing_flood_limits() -> list[str]:
    """Name the limits that this library lacks: without them rapid resets or CONTINUATION frames can keep the process busy."""
    return [name.removeprefix("nghttp2_option_set_") for name in FLOOD_LIMITS if not hasattr(_library, name)]


def fields(pairs: Iterable[tuple[bytes, bytes]]) -> ctypes.Array[HeaderField]:
    """Return header fields that the library reads where they are: keep them as long as anything may be unsent."""
    entries = [HeaderField(name, value, len(name), len(value), _NO_COPY) for name, value in pairs]
    return (HeaderField * len(entries))(*entries)


def callbacks(functions: Mapping[str, Any]) -> c_void_p:
    """Return the set of callbacks of every session, each named as in nghttp2.h; they must live as long as any session."""
    pointer = c_void_p()
    _check(_new_callbacks(ctypes.byref(pointer)))
    for name, function in functions.items():
        _declared(f"session_callbacks_set_{name}_callback", None, c_void_p, type(function))(pointer, function)
    return pointer


def options(limits: Limits) -> c_void_p:
    """Return the options of every session; a flood limit that the library lacks is left out."""
    pointer = c_void_p()
    _check(_new_option(ctypes.byref(pointer)))
    # What a request's fields may hold is judged in `fields`.
    _declared("option_set_no_http_messaging", None, c_void_p, c_int)(pointer, 1)
    _declared("option_set_no_closed_streams", None, c_void_p, c_int)(pointer, 1)
    _declared("option_set_max_outbound_ack", None, c_void_p, c_size_t)(pointer, limits.outbound_acknowledgements)
    _declared("option_set_max_settings", None, c_void_p, c_size_t)(pointer, limits.settings_entries)
    missing = missing_flood_limits()
    if "stream_reset_rate_limit" not in missing:
        set_resets = _declared("option_set_stream_reset_rate_limit", None, c_void_p, ctypes.c_uint64, ctypes.c_uint64)
        set_resets(pointer, limits.resets, limits.resets_per_second)
    if "max_continuations" not in missing:
        _declared("option_set_max_continuations", None, c_void_p, c_size_t)(pointer, limits.continuations)
    return pointer


def new_session(connection: object, own_callbacks: c_void_p, own_options: c_void_p, limits: Limits, *, window: int) -> int:
    """Return a server session whose callbacks get the connection, which must outlive it; `window` is in bytes."""
    pointer = c_void_p()
    _check(_new_session(ctypes.byref(pointer), own_callbacks, connection, own_options))
    entries = ((MAX_CONCURRENT_STREAMS, limits.concurrent_streams), (MAX_HEADER_LIST_SIZE, limits.header_list_size))
    _check(_submit_settings(pointer, 0, (_Setting * len(entries))(*starmap(_Setting, entries)), len(entries)))
    _check(_set_window(pointer, 0, 0, window))
    if pointer.value is None:
        raise MemoryError
    return pointer.value


def _check(code: int) -> None:
    if code < 0:
        raise RuntimeError(f"libnghttp2 refused a call with {code}")
