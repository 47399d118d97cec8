"""What a use case returns when it does not do what was wanted."""

from __future__ import annotations

from dataclasses import dataclass

EXPECTED = "expected"
"""The field of a refusal because a token was changed since it was read."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What stands against a change: the field that it concerns, and a sentence for people.

    Fields are `actor`, `id`, `ids`, `user`, `file`, `text`, `cursor`, `limit`, `key`, `idempotency_key`, `version`, `expected`,
    `managed_by`, and those of a TokenRequest, a KeyRequest, an exported token or the OAuth settings. `position` tells which one of
    several requests or lines is meant, from 0.
    """

    field: str
    message: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was changed, and why; there is at least one refusal."""

    refusals: tuple[Refusal, ...]

    @classmethod
    def because(cls, field: str, message: str) -> Refused:
        """Refuse for one reason."""
        return cls((Refusal(field, message),))
