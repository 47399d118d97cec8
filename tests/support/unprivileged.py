"""Processes and blocks without the rights of root, which tests may run with: servers refuse it, and mode bits do not bind it."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - a block without rights may not be able to read it where Python stands
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOBODY = 65534


def given_away(folder: Path, user: int = NOBODY) -> dict[str, Any]:
    """Give a folder to a user and return what makes a subprocess run as that user; as another user than root, change nothing."""
    if os.geteuid():
        return {}
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, NOBODY)
    return {"user": user, "group": NOBODY, "extra_groups": []}


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Run the block as another user than root, who may write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def bound_by_modes(*command: str) -> list[str]:
    """Return a command whose process is bound by owners and mode bits, root or not: it has no capability."""
    return [*([] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]), *command]


@contextlib.contextmanager
def owner(path: Path) -> Iterator[None]:
    """Run the block as whoever may change a file and its folder."""
    before = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    else:
        path.parent.chmod(0o755)
        path.chmod(0o644)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(before)
        else:
            path.chmod(0o444)
            path.parent.chmod(0o555)
