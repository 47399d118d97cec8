"""Which scopes OAuth access tokens hold, as it is written: all, those of a list, or what a claim of the token says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from extauthz.config.scope_names import Scope
from extauthz.config.values import TEXT, WrittenAs, one_or_many

ALL, CLAIM = "all", "claim"
LISTED, NAMED = "(list of scopes)", "(all or claim)"
"""The forms of oauth.scopes; pydantic puts them into the paths of its errors."""


def listed(value: object) -> object:
    """Let one comma-separated text stand for a list, as forms write it; all and claim are no lists."""
    return value if value in (ALL, CLAIM) else one_or_many(value)


def _form(value: object) -> str:
    return NAMED if isinstance(value, str) else LISTED


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


ScopeGrant = Annotated[
    Annotated[list[Scope], Field(min_length=1), Tag(LISTED)] | Annotated[Literal["all", "claim"], Tag(NAMED)],
    Discriminator(_form),
    BeforeValidator(listed),
    WrittenAs(TEXT),
]
ScopesOfValue = Annotated[list[Scope], BeforeValidator(_listed), Field(min_length=1), WrittenAs(TEXT)]


def reads_claims(entry: dict[str, Any]) -> bool:
    """Tell whether tokens of an entry, as it is written, hold what their claims say."""
    return entry.get("scopes") == CLAIM or entry.get("scope_claim") is not None or entry.get("scope_map") is not None
