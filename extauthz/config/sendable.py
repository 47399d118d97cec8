"""Secrets that are sent to somebody: client secrets, what a collector of spans asks for, and the password of a database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from extauthz.config import document
from extauthz.config.files import Files
from extauthz.config.values import Secret
from extauthz.errors import ConfigurationError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]").search
_PRINTABLE = re.compile(rb"[ -~]+").fullmatch  # RFC 6749 A.2, and RFC 9110 5.5 without white space at the ends


def secrets(
    file: Path, files: Files, places: Mapping[str, tuple[document.KeyPath, Secret]], environment: Mapping[str, str]
) -> dict[str, bytes]:
    """Read secrets by name, each with the key path in `file` that names it; raises ConfigurationError with all that is wrong."""
    secrets: dict[str, bytes] = {}
    problems = []
    for name, (path, place) in places.items():
        try:
            secrets[name] = place.read_secret(file.parent, environment, files)
        except ValueError as error:
            problems.append(document.read(file, files).problem(path, str(error)))
            continue
        if not _PRINTABLE(secrets[name]):
            message = "what stands there is no secret that could be sent: put one line of printable ASCII there"
            problems.append(document.read(file, files).problem(path, message))
    if problems:
        raise ConfigurationError(problems)
    return secrets


def password(file: Path, files: Files, place: tuple[document.KeyPath, Secret], environment: Mapping[str, str]) -> str:
    """Read the password of a database, in any language; raises ConfigurationError."""
    path, secret = place
    try:
        value = secret.read_secret(file.parent, environment, files).decode()
        if not value or _CONTROL(value):
            raise ValueError("what stands there is no password: put one line of text there")
    except UnicodeDecodeError:
        message = "what stands there is no text in UTF-8: write the password in UTF-8"
    except ValueError as error:
        message = str(error)
    else:
        return value
    raise ConfigurationError([document.read(file, files).problem(path, message)])
