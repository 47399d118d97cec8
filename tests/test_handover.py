"""A lone sidecar and its successor: both orders of a restart under load through a real Envoy, and what is never shared."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extauthz.demo.launcher import Demo
from extauthz.demo.wiring import Link, Wiring
from tests.support.running import running_demo
from tests.test_workers import nothing_more, sidecar_of, under_load, until

LEAVING = "draining until a successor serves"


@contextmanager
def started(demo: Demo, name: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start another sidecar of the same configuration, whose log has this name."""
    command = [sys.executable, "-m", "extauthz", "serve", "--config", str(demo.configuration), *more]
    with (demo.folder / name).open("wb") as errors, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.envoy
@pytest.mark.parametrize(("transport", "link"), [("nghttp2", Link.TCP), ("grpcio", Link.UNIX)])
def test_a_lone_sidecar_is_replaced_without_losing_a_request(
    tmp_path_factory: pytest.TempPathFactory, transport: str, link: Link
) -> None:
    """Told to stop before its successor is started, and after that; the drain is longer than the patience of the test."""
    wiring = Wiring(transport=transport, link=link, drain="5m")
    with running_demo(Path(tmp_path_factory.mktemp("h")), nothing_more, wiring=wiring) as running:
        demo, first = running.demo, sidecar_of(running.demo)
        with contextlib.ExitStack() as stack, under_load(demo) as load:
            os.kill(first, signal.SIGTERM)
            until(lambda: LEAVING in (demo.folder / "sidecar.log").read_text())
            second = stack.enter_context(started(demo, "second.log"))
            until(lambda: not Path(f"/proc/{first}").exists())
            third = stack.enter_context(started(demo, "third.log", "--wait", "1m"))
            until(lambda: "waiting until the address is left" in (demo.folder / "third.log").read_text())
            seen = load.sent
            until(lambda: load.sent > seen + 50)
            second.terminate()
            assert second.wait(60) == 0
            seen = load.sent
            until(lambda: load.sent > seen + 50)
            assert third.poll() is None
        assert set(load.statuses) == {200}, load.statuses
