"""Names of scopes as values of the schema; what they mean is in vocabulary.py, which commands load that know no schema."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo

from extauthz.config.values import WrittenAs
from extauthz.config.vocabulary import NAME, scope

SCOPE = {"type": "string", "pattern": f"^(?:{NAME})$"}


def _scope_of_vocabulary(text: object, info: ValidationInfo) -> str:
    return scope(text, info.context or ())


ScopeName = Annotated[str, BeforeValidator(scope), WrittenAs(SCOPE, only=True)]
"""A name in the vocabulary itself."""
Scope = Annotated[str, BeforeValidator(_scope_of_vocabulary), WrittenAs(SCOPE, only=True)]
"""A name of the vocabulary, which is the context of the validation."""
