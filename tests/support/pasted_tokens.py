"""Texts that are credentials, of every family that somebody may paste, as hypothesis strategies."""

from __future__ import annotations

import string

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

LETTERS = string.ascii_letters + string.digits


def _has_both(text: str) -> bool:
    return not text.isalpha() and not text.isdigit()


def issued(prefix: str = "glean") -> SearchStrategy[str]:
    """Tokens of the form that `extauthz token create` prints, whether their checksum is right or not."""
    parts = st.text(LETTERS, min_size=12, max_size=12), st.text(LETTERS, min_size=49, max_size=49).filter(_has_both)
    return st.builds(f"{prefix}_{{}}_{{}}".format, *parts)


JWT = st.builds("eyJ{}.eyJ{}.{}".format, *[st.text(f"{LETTERS}_-", min_size=20, max_size=60).filter(_has_both)] * 3)
UUID = st.uuids(version=4).map(str)
HEX = st.binary(min_size=16, max_size=32).map(bytes.hex).filter(_has_both)
OPAQUE = st.text(LETTERS, min_size=21, max_size=80).filter(_has_both)
PASTED = st.one_of(issued(), issued("acme2"), JWT, UUID, HEX, OPAQUE, OPAQUE.map("ya29.a0{}".format), OPAQUE.map("ghp_{}".format))


def is_shown(secret: str, text: str) -> bool:
    """Tell whether a text has a token, its secret part, or the end of it that nobody could guess."""
    lower = text.lower()
    parts = {secret, secret.rpartition("_")[2], secret.rpartition(".")[2], secret[-16:]}
    return any(part.lower() in lower for part in parts if len(part) >= 16)
