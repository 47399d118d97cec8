"""Files that a command writes in place of standard output: whole, or as they were before."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import click


def write_file(file: Path, text: str) -> None:
    """Put a text into a file in one step, with the mode that the file has; raises ClickException and leaves what was there.

    A link stays one, and what it names is written.
    """
    try:
        target = file.resolve()
        mode = _mode(target)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        draft = Path(name)
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            draft.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written, and is as it was: {error.strerror or error}") from error


def _mode(target: Path) -> int:
    """Return the mode of the file that is there, or of one that a shell would make; refuse what is no file."""
    try:
        found = target.stat()
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        return 0o666 & ~umask
    if not stat.S_ISREG(found.st_mode):
        raise click.ClickException(f"{target} is no file: name one, or leave --output out")
    return stat.S_IMODE(found.st_mode)
