"""Signals that come while a process starts: none kills it, a reload is made up for, and an end is an end with 0."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.demo_processes import children
from tests.support.ports import successive_ports
from tests.support.sidecar import PATIENCE, Sidecar, sidecar
from tests.support.waiting import eventually

__all__ = ["sidecar"]

LOOK = 0.002
"""Seconds between two looks; what is looked for stays for some hundredths at least."""
# The settings are read with the one, so it is loaded early among what takes long; signals have to be safe before.
FIRST_LIBRARY, LAST_LIBRARY = "_pydantic_core", "uvloop/loop"


def is_caught(process: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def has_loaded(process: int, library: str) -> bool:
    """Tell whether a process has come as far in its imports."""
    return library in Path(f"/proc/{process}/maps").read_text()


def step_of(process: int) -> tuple[int, ...]:
    """Tell how far a process of the start has come."""
    with contextlib.suppress(OSError):
        return (process, is_caught(process, signal.SIGTERM), *(has_loaded(process, one) for one in (FIRST_LIBRARY, LAST_LIBRARY)))
    return (process,)


def started(sidecar: Sidecar) -> subprocess.Popen[bytes]:
    """Start it in a process group of its own, and wait for nothing."""
    sidecar.token()
    with (sidecar.folder / "stderr").open("wb") as errors:
        call = [sys.executable, "-m", "extauthz", "serve", "--config", str(sidecar.file)]
        output = subprocess.DEVNULL
        sidecar.process = subprocess.Popen(call, stdout=output, stderr=errors, start_new_session=True)
    return sidecar.process


def until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Look often, because the moment passes; a process that ends before it comes is none that was ready."""

    def holds() -> bool:
        assert process.poll() is None, f"ended with {process.returncode}"
        return condition()

    eventually(holds, seconds=PATIENCE, pause=LOOK)


def said(sidecar: Sidecar) -> str:
    """Return the process log."""
    return (sidecar.folder / "stderr").read_text()


def two_workers(sidecar: Sidecar) -> None:
    """Let it have a parent and two workers."""
    sidecar.settings["server"] |= {"listen": f"127.0.0.1:{successive_ports(2)[0]}", "workers": 2}
    sidecar.write()


def test_a_reload_during_the_imports_is_made_up_for(sidecar: Sidecar) -> None:
    process = started(sidecar)
    until(process, lambda: has_loaded(process.pid, FIRST_LIBRARY))
    assert all(is_caught(process.pid, number) for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT))
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGHUP)
    until(process, lambda: '"serving"' in said(sidecar))
    until(process, lambda: 'extauthz_config_reloads_total{result="ok"} 1.0' in sidecar.page("/metrics")[1])


def test_signals_to_the_whole_group_do_not_kill_a_worker_that_starts(sidecar: Sidecar) -> None:
    """Sent at every step of the start that can be seen: a process was born, listens, has loaded what takes long."""
    two_workers(sidecar)
    process = started(sidecar)
    until(process, lambda: is_caught(process.pid, signal.SIGHUP) or has_loaded(process.pid, FIRST_LIBRARY))
    seen: set[object] = set()

    def has_started() -> bool:
        """Send the signals at each step that was not seen yet."""
        step = frozenset(map(step_of, [process.pid, *children(process.pid)]))
        if step not in seen:
            seen.add(step)
            for number in (signal.SIGHUP, signal.SIGUSR2):
                os.killpg(process.pid, number)
        return '"serving with several workers"' in said(sidecar)

    until(process, has_started)
    until(process, lambda: 'extauthz_config_reloads_total{result="ok"}' in sidecar.page("/metrics")[1])
    assert len(seen) > 2
    assert "ended by itself" not in said(sidecar)
    assert "Traceback" not in said(sidecar)


@pytest.mark.parametrize(("library", "number"), [(FIRST_LIBRARY, signal.SIGINT), (LAST_LIBRARY, signal.SIGTERM)])
def test_an_end_during_the_start_is_an_end_with_0(sidecar: Sidecar, library: str, number: signal.Signals) -> None:
    process = started(sidecar)
    until(process, lambda: has_loaded(process.pid, library))
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE) == 0
    if library == FIRST_LIBRARY:
        assert '"serving"' not in said(sidecar)
    assert "Traceback" not in said(sidecar)


def test_an_end_during_the_start_of_workers_is_an_end_with_0(sidecar: Sidecar) -> None:
    """The whole group is told, as by a terminal or a service manager."""
    two_workers(sidecar)
    process = started(sidecar)
    until(process, lambda: any(has_loaded(child, FIRST_LIBRARY) for child in children(process.pid)))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 0
    assert "Traceback" not in said(sidecar)
