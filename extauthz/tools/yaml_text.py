"""Texts in files that tools write, quoted for YAML."""

from __future__ import annotations


def quoted(text: str) -> str:
    """Write a text as YAML reads it back, in double quotes, with escapes for what no one would see (YAML 1.2, 5.7)."""
    return '"' + "".join(letter if letter.isprintable() and letter not in '"\\' else _escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    code = ord(letter)
    if letter in '"\\':
        return f"\\{letter}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
