"""Finds libnghttp2, and says what this one can do (nghttp2.h; the symbols exist since 1.43).

PyDLL, because the compiled session calls it with the interpreter's lock held. Importing this module raises ImportError where the
library is missing.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from typing import Any

from extauthz.transport.limits import Limits

NAMES = ("libnghttp2.so.14", "libnghttp2.14.dylib", "/opt/homebrew/lib/libnghttp2.14.dylib", "/usr/local/lib/libnghttp2.14.dylib")
FLOOD_LIMITS = ("nghttp2_option_set_stream_reset_rate_limit", "nghttp2_option_set_max_continuations")

BAD_PREFACE, FLOODED, CALLBACK_FAILURE = -903, -904, -902
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM = 0x0, 0x1, 0x2, 0x8, 0xB
GOAWAY = 7
GOAWAY_SIZE = 17
"""Bytes of a GOAWAY before its words."""


def _load() -> ctypes.PyDLL:
    for name in NAMES:
        try:
            return ctypes.PyDLL(name)
        except OSError:
            continue
    raise ImportError("libnghttp2 is not installed (Debian, Ubuntu: libnghttp2-14; Fedora: libnghttp2; Alpine: nghttp2-libs)")


_library = _load()


def address(name: str) -> int:
    """Return where a function is, named without its prefix; raises AttributeError for one that this library lacks."""
    return ctypes.cast(getattr(_library, f"nghttp2_{name}"), c_void_p).value or 0


def _declared(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_library, f"nghttp2_{name}")
    function.restype = result
    function.argtypes = arguments
    return function


def goaway(frame: bytes) -> tuple[int, str] | None:
    """Return error code and words of a GOAWAY that the library wrote; None for any other frame (RFC 9113 6.8)."""
    if len(frame) < GOAWAY_SIZE or frame[3] != GOAWAY:
        return None
    return int.from_bytes(frame[13:GOAWAY_SIZE], "big"), frame[GOAWAY_SIZE:].decode("ascii", "replace")


def version() -> str:
    """Return the version of the library, like "1.52.0"."""

    class Information(ctypes.Structure):
        _fields_ = (("age", c_int), ("number", c_int), ("text", c_char_p))

    return str(Information.from_address(_declared("version", c_void_p, c_int)(0)).text.decode("ascii"))


def missing_flood_limits() -> list[str]:
    """Name the limits that this library lacks: without them rapid resets or CONTINUATION frames can keep the process busy."""
    return [name.removeprefix("nghttp2_option_set_") for name in FLOOD_LIMITS if not hasattr(_library, name)]


def options(limits: Limits) -> int:
    """Return the address of the options of every session, which live as long as the process; a missing flood limit is left out."""
    pointer = c_void_p()
    if _declared("option_new", c_int, c_void_p)(ctypes.byref(pointer)) < 0 or pointer.value is None:
        raise MemoryError
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
    return pointer.value
