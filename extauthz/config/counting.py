"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, name: str, plural: str | None = None) -> str:
    """Write a number and what it counts, in the singular or the plural."""
    return f"{number:,} {name if number == 1 else plural or f'{name}s'}"
