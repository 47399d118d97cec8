"""Completion in the shells that somebody types into; test_completion.py asks as the scripts of all shells do."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from tests.support.command_line import folder

__all__ = ["folder"]

PATIENCE = 60.0
"""Seconds until a shell counts as hung."""

SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
"""Those that read lines from a terminal as dumb as the one here; fish is asked by its own builtin."""
PREPARED = {
    "bash": 'eval "$(extauthz completion bash)"',
    # A shell in a terminal without abilities draws the line anew with blanks and returns, which nobody has to read here.
    "zsh": "unsetopt zle_bracketed_paste; PS1= PS2= RPS1= PROMPT_EOL_MARK=; bindkey -e; autoload -U compinit; compinit -D -u; "
    'eval "$(extauthz completion zsh)"',
}
CASES = [
    (["extauthz", "tok"], "token"),
    (["extauthz", "envoy-config", "--config", "ext"], "extauthz.yaml"),
    (["extauthz", "token", "list", "--config", "extauthz.yaml", "--scope", "DOC"], "DOCPERMISSIONS"),
    (["extauthz", "decisions", "--config", "extauthz.yaml", "--route", "PO"], "POST /search"),
    (["extauthz", "decisions", "--reason", "scope_m"], "scope_missing"),
]


def program(shell: str) -> str:
    """Return the program of a shell; skip where there is none, but not under CI."""
    found = shutil.which(shell)
    if found is None:
        missing = f"no {shell}: run 'make shells', or on Debian 'apt-get install {shell}'"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)  # why: nobody has to install a shell to try the rest; CI has all
    return found


def environment(folder: Path) -> dict[str, str]:
    """Return what the shells start with: our program first, and no settings of anybody."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": programs, "HOME": str(folder), "TERM": "dumb", "INPUTRC": os.devnull, "XDG_CONFIG_HOME": str(folder)}


@contextmanager
def typing(shell: str, folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """Start a shell with our script; yields what returns the words that Tab makes of what was typed."""
    command = [program(shell), *SHELLS[shell][1:]]
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = Popen(command, cwd=folder, env=environment(folder), start_new_session=True, **streams)
    os.close(theirs)

    def answer(keys: str) -> list[str]:
        # What is typed behind a Tab waits until the completion is done.
        os.write(ours, f"{keys}\x01printf '<%s>\\n' \x05 end\n".encode())
        seen = b""
        while b"\n<end>\r\n" not in seen:
            assert select.select([ours], [], [], PATIENCE)[0], f"{shell} shows no more than {seen!r}"
            seen += os.read(ours, 4096)
        return re.findall("^<(.*)>\r$", seen.decode(), re.MULTILINE)[:-1]

    try:
        answer("")
        os.write(ours, f"{PREPARED[shell]}\n".encode())
        yield lambda begun: answer(f"{begun}\t")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture(params=SHELLS)
def typed(request: pytest.FixtureRequest, folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """Each shell with our script."""
    with typing(request.param, folder) as answer:
        yield answer


@pytest.mark.parametrize(("begun", "completed"), CASES)
def test_tab_completes(typed: Callable[[str], list[str]], begun: list[str], completed: str) -> None:
    assert typed(" ".join(begun)) == [*begun[:-1], completed]


@pytest.mark.parametrize(("begun", "completed"), CASES)
def test_fish_completes(folder: Path, begun: list[str], completed: str) -> None:
    script = 'extauthz completion fish | source; complete --do-complete "$argv"'
    found = subprocess.run(
        [program("fish"), "--no-config", "--command", script, " ".join(begun)],
        cwd=folder,
        env=environment(folder),
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout
    assert completed in [line.partition("\t")[0] for line in found.splitlines()]
