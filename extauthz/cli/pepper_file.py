"""Files of peppers."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import click

from extauthz.process import private_files

PEPPER_BYTES = 32


def make_pepper(file: Path) -> bool:
    """Write a new pepper, mode 0600, whole or not at all; return False where a file is there by now, which stays as it is."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        private_files.make_folder(file.parent)
        with open(private_files.create(draft), "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(PEPPER_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            return False
    except OSError as error:
        raise click.ClickException(f"{file}: the pepper cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return True
