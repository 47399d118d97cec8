"""OAuth tokens while nobody can tell which are accepted."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from extauthz.ports import Evidence


@dataclass(frozen=True, slots=True)
class UnknownSettings:
    """Stands for a verifier whose settings are in a store that does not tell them, for one of the reasons with status 503."""

    reason: Reason

    def verify(self, token: str, now: float) -> Evidence:
        """Raise Unavailable: a token that is good may be sent again."""
        raise Unavailable(self.reason)
