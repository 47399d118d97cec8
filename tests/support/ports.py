"""Ports of 127.0.0.1 that nobody else takes: neither another process of tests, nor a connection that goes out."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

FIRST, LAST = 10_100, 65_535
"""Behind the ports that people use: the demo has 10000."""
BLOCK = 400
GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Which ports the system gives to connections by itself, and to listeners that want any; usually 32768 to 60999."""


def blocks(given: tuple[int, int]) -> list[range]:
    """Return what processes of tests have for themselves: blocks of ports that the system gives to nobody by itself.

    Where it gives nearly all of them, they are blocks of all of them: better than none.
    """
    first, last = given
    outside = [*_blocks(FIRST, min(first - 1, LAST)), *_blocks(max(last + 1, FIRST), LAST)]
    return outside if len(outside) >= 8 else _blocks(FIRST, LAST)


def _blocks(first: int, last: int) -> list[range]:
    return [range(start, start + BLOCK) for start in range(first, last - BLOCK + 2, BLOCK)]


def claimed(choice: list[range], begin: int) -> range:
    """Return a block that belongs to this process until its end, however many others ask; raises RuntimeError if none is left.

    What says so is an abstract unix address: it is bound as long as its process lives, and leaves no file behind.
    """
    for block in (*choice[begin % len(choice) :], *choice[: begin % len(choice)]):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            claim = stack.enter_context(socket.socket(socket.AF_UNIX))
            claim.bind(f"\0extauthz-tests-ports-{block.start}")
            claim.detach()
            return block
    raise RuntimeError(f"all {len(choice)} blocks of ports belong to other processes")


class _Own:
    """The ports of this process, one after the other, and from the first one again behind the last."""

    def __init__(self) -> None:
        self.process = 0
        self.ports: Iterator[int] = iter(())

    def __next__(self) -> int:
        # A process that another one forked has no ports yet.
        if self.process != os.getpid():
            self.process = os.getpid()
            first, last = map(int, GIVEN.read_text().split())
            self.ports = itertools.cycle(claimed(blocks((first, last)), self.process))
        return next(self.ports)


_own = _Own()


def successive_ports(count: int) -> list[int]:
    """Return as many ports in a row that nobody uses at the moment, and that this process does not return again soon."""
    while True:
        first = next(_own)
        ports = [first, *(next(_own) for _ in range(count - 1))]
        if ports != list(range(first, first + count)):
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports


def free_port() -> int:
    """Return one port."""
    return successive_ports(1)[0]
