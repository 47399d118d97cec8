"""What /readyz says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def condition(readyz: Mapping[str, Any], key: str) -> bool:
    """Return whether the one condition with this key is met."""
    (met,) = (one["met"] for one in readyz["details"] if one["key"] == key)
    return bool(met)
