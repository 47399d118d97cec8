"""What is a token of this service, whatever family it was sent as: such a secret is shown to no issuer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from extauthz.core.tokens import TokenText, parse
from extauthz.ports import ADMIN_KEY_PREFIX, USUAL_PREFIX

_ISSUED = re.compile(r"([A-Za-z0-9]*)(_[0-9A-Za-z]+_[0-9A-Za-z]+)").fullmatch


class OwnTokens:
    """Knows issued tokens and admin keys by what they begin with, in letters of any case, and by their checksum.

    The checksum tells tokens whose prefix is accepted no more, which may be live elsewhere, and those with letters before it.
    """

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        """Take the prefixes of the configuration, to which the usual one and that of admin keys are added."""
        self._prefixes = frozenset({*prefixes, USUAL_PREFIX, ADMIN_KEY_PREFIX})
        self._beginnings = tuple(f"{prefix}_" for prefix in self._prefixes)

    def __contains__(self, text: str) -> bool:
        """Tell whether a text is a token of this service, or was one before it was cut or changed."""
        if text.lower().startswith(self._beginnings):
            return True
        parts = _ISSUED(text)
        return parts is not None and any(
            isinstance(parse(f"{prefix}{parts[2]}", frozenset({prefix})), TokenText)
            for prefix in {parts[1].lower(), *self._prefixes}
        )
