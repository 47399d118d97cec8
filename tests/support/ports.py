"""Ports of 127.0.0.1 that nobody else takes: neither another test, nor a connection that goes out."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

FIRST, LAST = 10_000, 32_000
"""Below those that Linux gives to connections by itself (32768 and more)."""

STRIPES = 4
"""Test processes that never meet; a further one shares a stripe."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_size = (LAST - FIRST) // STRIPES
_first = FIRST + _worker % STRIPES * _size
_next = (_first + (os.getpid() * 37 + step) % _size for step in itertools.count())


def successive_ports(count: int) -> list[int]:
    """Return as many ports in a row that nobody uses at the moment, and that this process does not return again soon."""
    while True:
        first = next(_next)
        ports = [first, *(next(_next) for _ in range(count - 1))]
        if ports != list(range(first, first + count)):
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports


def free_port() -> int:
    """Return one port."""
    return successive_ports(1)[0]
