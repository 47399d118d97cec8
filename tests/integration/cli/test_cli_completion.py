"""Completion in a bash that somebody types into; test_completion.py asks as the scripts of all shells do."""

from __future__ import annotations

import os
import pty
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.support.command_line import folder

__all__ = ["folder"]


@pytest.fixture
def typed(folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """A bash with our script; returns the words that Tab makes of what was typed."""
    ours, theirs = pty.openpty()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": programs, "HOME": str(folder), "TERM": "dumb", "INPUTRC": os.devnull}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    bash = Popen(["bash", "--norc", "--noprofile", "-i"], cwd=folder, env=environment, start_new_session=True, **streams)
    os.close(theirs)

    def answer(keys: str) -> list[str]:
        # What is typed behind a Tab waits until the completion is done.
        os.write(ours, f"{keys}\x01printf '<%s>\\n' \x05 end\n".encode())
        seen = b""
        while b"\n<end>\r\n" not in seen:
            seen += os.read(ours, 4096)
        return re.findall("^<(.*)>\r$", seen.decode(), re.MULTILINE)[:-1]

    try:
        answer("")
        os.write(ours, b'eval "$(extauthz completion bash)"\n')
        yield lambda begun: answer(f"{begun}\t")
    finally:
        bash.kill()
        bash.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("begun", "completed"),
    [
        (["extauthz", "tok"], "token"),
        (["extauthz", "envoy-config", "--config", "ext"], "extauthz.yaml"),
        (["extauthz", "token", "list", "--config", "extauthz.yaml", "--scope", "DOC"], "DOCPERMISSIONS"),
        (["extauthz", "decisions", "--config", "extauthz.yaml", "--route", "PO"], "POST /search"),
        (["extauthz", "decisions", "--reason", "scope_m"], "scope_missing"),
    ],
)
def test_tab_completes_in_bash(typed: Callable[[str], list[str]], begun: list[str], completed: str) -> None:
    assert typed(" ".join(begun)) == [*begun[:-1], completed]
