"""A lone sidecar and its successor: both orders of a restart under load through a real Envoy, and the end of orphans."""

from __future__ import annotations

import contextlib
import os
import signal

from tests.support.demo_processes import children, until
from tests.support.ports import successive_ports
from tests.support.sidecar import SERVICE, Sidecar, sidecar

__all__ = ["sidecar"]

SERVING, NOT_SERVING = 1, 2


def ended(process: int) -> bool:
    """Tell a process to end, and whether it has."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
        return False
    return True


def test_orphans_drain_one_after_the_other(sidecar: Sidecar) -> None:
    """Their time is over at once, and a drain is longer than the patience of the test; a second SIGTERM ends it."""
    listen = [f"127.0.0.1:{port}" for port in successive_ports(2)]
    sidecar.settings["server"] |= {"listen": listen[0], "workers": 2, "orphan_time": "0s", "drain": "5m"}
    sidecar.write()
    sidecar.token()
    sidecar.start()

    def health(index: int) -> int:
        sidecar.settings["server"]["listen"] = listen[index]
        return sidecar.health(SERVICE)

    assert sidecar.process is not None
    until(lambda: sidecar.page("/readyz")[0] == 200)
    orphans = children(sidecar.process.pid)
    try:
        sidecar.process.kill()
        sidecar.process.wait()
        until(lambda: health(0) == NOT_SERVING)
        assert health(1) == SERVING
    finally:
        until(lambda: all(map(ended, orphans)))
