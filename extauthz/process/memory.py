"""Gives memory back to the system: what a start has needed and freed stays with the allocator, 5 MB of a sidecar."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return what is free, as far as the C library can (malloc_trim of glibc); do nothing where it cannot."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        # musl and macOS have no such function, and give memory back by themselves.
        return
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    trim(0)
