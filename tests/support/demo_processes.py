"""The processes of a running demo, and a load that goes on while something happens to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http.client import HTTPConnection
from pathlib import Path

from extauthz.demo.launcher import Demo, Ports
from tests.support.ports import free_port
from tests.support.waiting import eventually

PATIENCE = 60.0
"""Seconds that a test waits for what has to come."""
PACE = 0.005
"""Seconds between two requests of one connection: what happens meanwhile needs the processor too."""


def demo_ports() -> Ports:
    """Return ports that belong to this process: with `Ports.free` a connection may have one before whoever is to listen there."""
    return Ports(*(free_port() for _ in fields(Ports)))


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


async def nothing_more(_: Demo) -> None:
    """Be content with the tokens of the demo."""


@dataclass
class Load:
    """Requests that are sent one after the other on each of several connections, and what came back."""

    demo: Demo
    clients: int = 4
    statuses: dict[int, int] = field(default_factory=dict)
    ending: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Send until told to end."""
        connection = HTTPConnection("127.0.0.1", self.demo.ports.envoy, timeout=30)
        headers = {"Authorization": f"Bearer {self.demo.tokens['USER_TOKEN']}", "Host": "localhost"}
        while not self.ending.wait(PACE):
            connection.request("POST", "/rest/api/v1/chat", body=b"{}", headers=headers)
            response = connection.getresponse()
            response.read()
            with self.lock:
                self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
        connection.close()

    @property
    def sent(self) -> int:
        """How many requests were answered."""
        with self.lock:
            return sum(self.statuses.values())


@contextmanager
def under_load(demo: Demo) -> Iterator[Load]:
    """Load Envoy inside the block, some requests before it and some behind."""
    load = Load(demo)
    threads = [threading.Thread(target=load.run) for _ in range(load.clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: load.sent > 50)
        yield load
        seen = load.sent
        until(lambda: load.sent > seen + 50)
    finally:
        load.ending.set()
        for thread in threads:
            thread.join()


def until(condition: Callable[[], bool]) -> None:
    eventually(condition, seconds=PATIENCE, pause=0.02)


def sidecar_of(demo: Demo) -> int:
    assert demo.sidecar is not None
    return demo.sidecar.pid
