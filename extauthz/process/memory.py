"""When memory is looked through for what nobody needs, and given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

_USUAL = gc.get_threshold()
_NEVER = 2**31 - 1


@contextlib.contextmanager
def without_full_collections() -> Iterator[None]:
    """Let no collection look through all objects inside the block, which holds every thread up; the others go on.

    What was made in it is not looked at later either: a configuration lives long, and nothing in it points in a circle, so that it
    goes when nobody holds it. Of two blocks at the same time the first that ends is the end of both.
    """
    gc.set_threshold(*_USUAL[:2], _NEVER)
    try:
        yield
    finally:
        gc.collect(1)
        gc.freeze()
        gc.set_threshold(*_USUAL)


def give_back() -> None:
    """Return what is free, as far as the C library can (malloc_trim of glibc); do nothing where it cannot.

    What a start has needed and freed stays with the allocator otherwise, 5 MB of a sidecar.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        # musl and macOS have no such function, and give memory back by themselves.
        return
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    trim(0)
