"""Texts of suites, shown without what may be a token."""

from __future__ import annotations

import re

from extauthz.core.model import DECISION_ID
from extauthz.tools.masking import HIDDEN, Mask

TOKEN_MARK = "\ud800"
"""Stands in a header for the token of the caller: no file can hold this character."""

_BEHIND_SCHEME = re.compile(r"(?i)\b(bearer|basic|dpop|negotiate|digest)([ \t]+|%20|\+)[^\s'\"]{8,}")
_IN_QUERY = re.compile(r"(?i)((?:token|secret|password|assertion|code|api_?key)(?:%3d|=))[^&\s'\"]{8,}")
_mask = Mask()


def shown(text: str) -> str:
    """Return a text of a suite without what may be a token: behind a scheme, in a query, or a long run of letters and digits."""
    text = text.replace(DECISION_ID, "${decision_id}").replace(TOKEN_MARK, "${token}")
    return _mask(_BEHIND_SCHEME.sub(rf"\1 {HIDDEN}", _IN_QUERY.sub(rf"\1{HIDDEN}", text)))


def shown_place(text: str) -> str:
    """Return the name of a file, which may be as long as it likes, without what has the form of a token."""
    return _mask.tokens(text)
