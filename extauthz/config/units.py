"""Durations and sizes as the YAML and the command line write them."""

from __future__ import annotations

import re

MAX_DURATION = 36_500 * 86_400

_DURATION = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)").fullmatch
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB)").fullmatch
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2}


def duration(text: object) -> float:
    """Read "150ms", "10s", "5m", "24h" or "90d" as seconds; raise ValueError."""
    match = _DURATION(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a number and ms, s, m, h or d, like 10s")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > MAX_DURATION:
        raise ValueError(f"{text!r} is longer than 100 years: write at most 36500d")
    return seconds


def size(text: object) -> int:
    """Read "512B", "16KiB" or "1MiB" as bytes; raise ValueError."""
    match = _SIZE(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a number and B, KiB or MiB, like 16KiB")
    return int(match[1]) * _BYTES[match[2]]
