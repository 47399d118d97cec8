"""Routes that change while the sidecar serves, and how to see that they are in use; for `under_load.py` and `soak.py`."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import SystemRandom

from benchmarks.answers import WrongAnswer, allowed, refused
from tests.support.h2_client import Peer
from tests.support.world import check_request

PATIENCE = 60.0
"""Seconds."""


def write_routes(folder: Path, version: int, count: int) -> None:
    """Write so many routes, others in each version, and the one that is asked for, in a file that replaces the one before."""
    lines = [f'  - {{match: "GET /v{version}/items{number}/{{id}}", scope: SEARCH}}\n' for number in range(count)]
    text = 'routes:\n  - {match: "POST /rest/api/v1/search", scope: SEARCH, anonymous: true}\n' + "".join(lines)
    new = folder / "routes.new"
    new.write_text(text)
    new.replace(folder / "routes.yaml")


def scrape(port: int) -> str:
    """Return the metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as response:
        return str(response.read().decode())


def metric(page: str, name: str, labels: str = "") -> float:
    """Return the sum of all samples of a name whose labels contain a text."""
    return sum(
        float(value) for found, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", page, re.MULTILINE) if labels in found
    )


def reloads(ops: int) -> float:
    """Return how many reloads went well."""
    return metric(scrape(ops), "extauthz_config_reloads_total", 'result="ok"')


@dataclass
class RouteEditor:
    """Replaces the routes by others every few seconds, waits until the sidecar says that they are in use, and tries them."""

    folder: Path
    ops: int
    port: int
    user: str
    headers: Mapping[str, str]
    count: int
    pid: int = 0
    longest_pause: float = 4.0
    ending: threading.Event = field(default_factory=threading.Event)
    still: threading.Lock = field(default_factory=threading.Lock)
    """Held while a reload is under way."""
    reloads: int = 0

    def play(self) -> None:
        """Go on until told to end; raises WrongAnswer for a reload that does not come, and for other routes than written."""
        chance = SystemRandom()
        while not self.ending.wait(chance.uniform(0.5, self.longest_pause)):
            with self.still:
                self.reload(is_told=chance.random() < 0.5)

    def reload(self, *, is_told: bool) -> None:
        """Replace the routes and try them; the sidecar is told by a signal, or sees it itself. Raises WrongAnswer."""
        before = reloads(self.ops)
        self.write(self.reloads + 1)
        if is_told:
            os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while reloads(self.ops) == before:
            if time.monotonic() > deadline:
                raise WrongAnswer("the reload did not come")
            time.sleep(0.1)
        self.reloads += 1
        self.try_routes()

    def write(self, version: int) -> None:
        """Write a version of the routes."""
        write_routes(self.folder, version, self.count)

    def try_routes(self) -> None:
        """Ask for a route of this version and for one of the version before; raises WrongAnswer."""
        with Peer(self.port) as peer:
            for version, judge in ((self.reloads, allowed(self.user)), (self.reloads - 1, refused("route_unknown"))):
                path = f"/v{version}/items{self.count - 1}/x"
                judge(peer.ask(check_request("GET", path, self.headers.items())).message)
