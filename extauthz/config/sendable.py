"""Secrets that are sent to somebody: passwords, client secrets, and what a collector of spans asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from extauthz.config import document
from extauthz.config.document import ConfigurationError
from extauthz.config.files import Files
from extauthz.config.values import Secret

_PRINTABLE = re.compile(rb"[ -~]+").fullmatch  # RFC 6749 A.2, and RFC 9110 5.5 without white space at the ends


def read(
    file: Path, files: Files, places: Mapping[str, tuple[document.KeyPath, Secret]], environment: Mapping[str, str]
) -> dict[str, bytes]:
    """Read secrets by name, each with the key path in `file` that names it; raises ConfigurationError with all that is wrong."""
    secrets: dict[str, bytes] = {}
    mistakes = []
    for name, (path, place) in places.items():
        try:
            secrets[name] = place.read(file.parent, environment, files)
        except ValueError as error:
            mistakes.append(document.read(file, files).mistake(path, str(error)))
            continue
        if not _PRINTABLE(secrets[name]):
            message = "what stands there is no secret that could be sent: put one line of printable ASCII there"
            mistakes.append(document.read(file, files).mistake(path, message))
    if mistakes:
        raise ConfigurationError(mistakes)
    return secrets
