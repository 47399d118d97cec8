"""Whether compiled modules are used where they are built: to find out whether a fault is one of theirs, they can be left out."""

from __future__ import annotations

import os

PURE = "EXTAUTHZ_PURE"
"""With 1 in this variable of the environment nothing that is compiled is used."""


def is_wanted() -> bool:
    """Return whether compiled modules may be used."""
    return os.environ.get(PURE) != "1"
