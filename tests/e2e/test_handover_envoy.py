"""A successor takes over while a real Envoy sends requests."""

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

from extauthz.demo.wiring import EnvoyLink, Wiring
from tests.support.demo_processes import nothing_more, sidecar_of, under_load, until
from tests.support.running import running_demo

pytestmark = pytest.mark.long


@contextmanager
def started(configuration: Path, log: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start another sidecar."""
    command = [sys.executable, "-m", "extauthz", "serve", "--config", str(configuration), *more]
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.envoy
def test_a_lone_sidecar_is_replaced_without_losing_a_request(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Told to stop before its successor is started, and after that; the drain is longer than the patience of the test."""
    wiring = Wiring(transport="nghttp2", link=EnvoyLink.TCP, drain="5m")
    with running_demo(Path(tmp_path_factory.mktemp("h")), nothing_more, wiring=wiring) as running:
        demo, first = running.demo, sidecar_of(running.demo)
        logs = {name: demo.folder / f"{name}.log" for name in ("sidecar", "second", "third")}
        other = demo.configuration.with_name("grpcio.yaml")
        other.write_text(demo.configuration.read_text().replace('"transport": "nghttp2"', '"transport": "grpcio"'))
        with contextlib.ExitStack() as stack, under_load(demo) as load:
            os.kill(first, signal.SIGTERM)
            until(lambda: "draining until a successor serves" in logs["sidecar"].read_text())
            second = stack.enter_context(started(other, logs["second"]))
            until(lambda: not Path(f"/proc/{first}").exists())
            until(lambda: '"transport": "grpcio"' in logs["second"].read_text())
            third = stack.enter_context(started(demo.configuration, logs["third"], "--wait", "1m"))
            until(lambda: "waiting until the address is left" in logs["third"].read_text())
            seen = load.sent
            until(lambda: load.sent > seen + 50)
            second.terminate()
            assert second.wait(60) == 0
            seen = load.sent
            until(lambda: load.sent > seen + 50)
            assert third.poll() is None
        assert set(load.statuses) == {200}, load.statuses
