"""What commands cost before they do anything: the processor's time of a process, from its start to its end."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.answers import WrongAnswer

EXAMPLE = Path(__file__).parents[1] / "config" / "extauthz.yaml"
COMMANDS = (
    (("--version",), "extauthz, version"),
    (("--help",), "Exit codes"),
    (("token", "create", "--help"), "--permission"),
    (("doctor", "--help"), "--envoy-admin"),
    (("config", "check", "--config", str(EXAMPLE)), "0 problems"),
    (("envoy-config", "--config", str(EXAMPLE)), "static_resources"),
)
"""Each with a text that it has to print."""
ROUNDS = 3


def start_seconds(arguments: Sequence[str], expected: str) -> float:
    """Return the least of several rounds, in seconds; raises WrongAnswer for a command that does not print what is expected."""
    # With bytecode, as an installed package has it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    least = float("inf")
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "extauthz", *arguments], env=environment, capture_output=True, text=True, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0 or expected not in done.stdout:
            raise WrongAnswer(f"{' '.join(arguments)}: {done.returncode}, {done.stdout[:200]!r} {done.stderr[:200]!r}")
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least
