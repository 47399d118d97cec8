"""What the start has needed and freed does not stay with the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from extauthz.process import memory

FREED = """\
from pathlib import Path
from extauthz.process import memory

def resident():
    return int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")))

kept = []
blocks = [bytes(3000) for _ in range(20_000)]
kept, blocks = blocks[::100], None
before = resident()
memory.give_back()
print(before - resident())
"""


def test_what_was_freed_is_given_back() -> None:
    """Small blocks, between others that are still in use: the allocator keeps such pages until it is asked."""
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 20_000


def test_a_library_that_cannot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(_: object) -> Any:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert memory.give_back() is None  # type: ignore[func-returns-value]
