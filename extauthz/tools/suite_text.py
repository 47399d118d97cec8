"""Texts of suites: quoted for YAML, and shown without what may be a token."""

from __future__ import annotations

import re

from extauthz.core.model import DECISION_ID

HIDDEN = "…"
"""Stands for what may be a token."""

_AS_IT_IS = re.compile(r"[ !#-\[\]-~]*").fullmatch
_ISSUED = re.compile(r"[A-Za-z][A-Za-z0-9]{0,31}_[0-9A-Za-z]{8,}_[0-9A-Za-z]{20,}")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_=-]*){0,4}")
_BEHIND_SCHEME = re.compile(r"(?i)\b(bearer|basic|dpop|negotiate|digest)([ \t]+|%20|\+)[^\s'\"]+")
_IN_QUERY = re.compile(r"(?i)((?:token|secret|password|assertion|code|api_?key)(?:%3d|=))[^&\s'\"]+")
_RUN = re.compile(r"[A-Za-z0-9_.~+=%-]{24,}")
_MIXED = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])|(?=.*[a-z])(?=.*[A-Z])").match


def quoted(text: str) -> str:
    """Write a text as YAML reads it back, in double quotes and with ASCII alone (YAML 1.2, 5.7)."""
    if _AS_IT_IS(text):
        return f'"{text}"'
    return '"' + "".join(letter if _AS_IT_IS(letter) else _escaped(letter) for letter in text) + '"'


def shown(text: str) -> str:
    """Return a text of a suite without what may be a token: behind a scheme, in a query, or a long run of letters and digits."""
    text = text.replace(DECISION_ID, "${decision_id}")
    text = _BEHIND_SCHEME.sub(rf"\1 {HIDDEN}", _IN_QUERY.sub(rf"\1{HIDDEN}", shown_place(text)))
    return _RUN.sub(lambda run: HIDDEN if _MIXED(run[0]) else run[0], text)


def shown_place(text: str) -> str:
    """Return the name of a file, which may be as long as it likes, without what has the form of a token."""
    return _JWT.sub(HIDDEN, _ISSUED.sub(HIDDEN, text))


def _escaped(letter: str) -> str:
    code = ord(letter)
    if letter in '"\\':
        return f"\\{letter}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
