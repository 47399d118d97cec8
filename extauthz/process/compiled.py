"""Compiled modules, where they are built and wanted: to find out whether a fault is one of theirs, they can be left out."""

from __future__ import annotations

import importlib
import os
from typing import Any

PURE = "EXTAUTHZ_PURE"
"""With 1 in this variable of the environment nothing that is compiled is used."""


def is_wanted() -> bool:
    """Return whether compiled modules may be used."""
    return os.environ.get(PURE) != "1"


def load(name: str) -> Any:
    """Return a compiled module, or None where it is not built or not wanted."""
    if not is_wanted():
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
