"""A terminal of so many columns, and what is seen of a command there."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from extauthz.cli import main


class Terminal(io.TextIOWrapper):
    """A terminal of an encoding."""

    def __init__(self, charset: str) -> None:
        self.seen = io.BytesIO()
        super().__init__(self.seen, charset, newline="\n", write_through=True)

    def isatty(self) -> bool:
        """Say that somebody looks at it."""
        return True


def narrow(columns: int, *arguments: str, charset: str = "utf-8") -> str:
    """Run a command at a terminal of so many columns; return what is seen, without styles."""
    terminal_ = Terminal(charset)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", str(columns))
        patched.setenv("TERM", "dumb")
        patched.setattr(sys, "stdout", terminal_)
        patched.setattr(sys, "stderr", terminal_)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    assert ended.value.code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal_.seen.getvalue().decode(charset))


def narrow_in(folder: Path, columns: int, *arguments: str, charset: str = "utf-8") -> str:
    """Do so with the configuration of a folder."""
    return narrow(columns, *arguments, "--config", str(folder / "extauthz.yaml"), charset=charset)
