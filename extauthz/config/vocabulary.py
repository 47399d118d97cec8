"""Names of scopes: the vocabulary says how each is written, and whoever names one is understood by that.

Names are compared exactly (RFC 6749 3.3), but for those of the Client API, which are read in any letter case. A vocabulary has no
two names that differ in case alone: tokens that were made before names kept their case hold them in upper case, and each of these
has to mean one scope.
"""

from __future__ import annotations

import re
from collections.abc import Collection

CLIENT_API = frozenset(
    {
        *("ACTIVITY", "ANNOUNCEMENTS", "ANSWERS", "CHAT", "COLLECTIONS", "DOCPERMISSIONS", "DOCUMENTS", "ENTITIES", "FEED"),
        *("FEEDBACK", "INSIGHTS", "PEOPLE", "PINS", "SEARCH", "SHORTCUTS", "SUMMARIZE", "VERIFICATION"),
        *("AGENTS", "TOOLS", "MCP", "DATA_GOVERNANCE", "CONTENT_HIDING", "ADMIN", "TRIGGERS", "TRIGGERS:READ", "TRIGGERS:WRITE"),
    }
)
"""The names that are read in any letter case."""

NAME = r"[A-Za-z][A-Za-z0-9_:.-]{0,63}"
"""What a scope is called."""
_NAME = re.compile(NAME).fullmatch
_ALIASES = {"DOC_PERMISSIONS": "DOCPERMISSIONS"}


def scope(text: object, vocabulary: Collection[str] = ()) -> str:
    """Return a name as the vocabulary writes it, and as it came where that has no such name; raise ValueError for what is none."""
    if not isinstance(text, str) or not _NAME(text):
        if isinstance(text, list):
            raise ValueError("scope is one name: write all_of or any_of for several")
        raise ValueError(f"{text!r} is not a scope name: write up to 64 letters, digits, '_', ':', '.' and '-', a letter first")
    name = _ALIASES.get(text, text)
    common = in_upper_case(name)
    return name if name in vocabulary or common not in CLIENT_API else _written(common, vocabulary, name)


def kept_scope(name: str, vocabulary: Collection[str]) -> str:
    """Return how the vocabulary writes a name that was kept, perhaps when all names were kept in upper case."""
    return name if name in vocabulary or name != in_upper_case(name) else _written(name, vocabulary, name)


def in_upper_case(name: str) -> str:
    """Return what names that differ in letter case alone have in common."""
    upper = name.upper()
    return _ALIASES.get(upper, upper)


def _written(common: str, vocabulary: Collection[str], otherwise: str) -> str:
    return next((name for name in vocabulary if in_upper_case(name) == common), otherwise)
