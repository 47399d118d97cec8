"""Tokens, answers and discovery documents as the providers publish them: tests/data/idp_fixtures, which names their sources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from tests.support.project import TESTS

FOLDER = TESTS / "data" / "idp_fixtures"


def published(name: str, filled: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a published document, with texts for the words in angle brackets that stand for a customer's own."""
    text = _text(name)
    for placeholder, value in (filled or {}).items():
        assert placeholder in text, f"{name}.json has no {placeholder}"
        text = text.replace(placeholder, value)
    members = json.loads(text)
    members.pop("_comment", None)
    return members  # type: ignore[no-any-return]


def overlaid(name: str, *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a published document with changes, the later ones over the earlier; None removes a member."""
    members = published(name)
    for change in changes:
        members |= change
    return {name: value for name, value in members.items() if value is not None}


@cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text(encoding="utf-8")
