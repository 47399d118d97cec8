"""The first pepper file."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import click

PEPPER_BYTES = 32


def make_pepper(file: Path) -> None:
    """Write a new pepper, mode 0600, whole or not at all; a file that appeared meanwhile stays as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(PEPPER_BYTES) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    except OSError as error:
        raise click.ClickException(f"{file}: the pepper cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
