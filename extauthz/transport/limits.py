"""How much one peer, and all of them together, may use of the HTTP/2 transport."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

SPARE = 500
"""File descriptors besides those of Envoy's connections: the ops listener, that of the keys, store, issuers, logs, libraries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes, seconds and counts; per connection where nothing else is said. The defaults are those of the section `grpc`.

    The resets are high because Envoy resets every check that it gives up after its own time-out.
    """

    message_size: int
    """Of one request; a larger one is RESOURCE_EXHAUSTED."""
    requests_size: int
    """Of all requests of the process that have not come completely."""
    header_list_size: int
    """RFC 9113 6.5.2: names and values and 32 bytes each; a longer list resets its stream."""
    concurrent_streams: int
    connections: int
    """Of the process; one more ends one without a request, or is closed at once. grpcio always does the latter."""
    half_open_timeout: float
    """For a connection to greet, and for a request to come completely."""
    max_connection_age: float | None
    max_connection_age_grace: float
    """For the streams in flight when a connection is told to go away."""
    idle_timeout: float
    """Of grpcio 60 at most: it cannot end a connection that rests to make room for a new one."""
    resets: int
    resets_per_second: int
    settings_entries: int
    continuations: int
    outbound_acknowledgements: int
    empty_frames: int
    """DATA without data and PRIORITY."""
    empty_frames_per_second: int
    output_buffer: int
    """Unsent bytes beyond which nothing more is read or answered."""


def descriptors_missing(connections: int) -> int:
    """Let this process and its children open as many files as they need and the system allows; return how many are missing."""
    needed = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return 0
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return needed - soft
