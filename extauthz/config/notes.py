"""What a configuration does that is neither wrong nor a risk, and that not everybody expects."""

from __future__ import annotations

from extauthz.config.loader import Configuration
from extauthz.errors import Problem


def notes_of(configuration: Configuration) -> list[Problem]:
    """Return the notes, each with its line: that OAuth tokens hold the whole vocabulary, where they do."""
    vocabulary = frozenset(configuration.settings.scopes)
    names = [rules.name for rules in configuration.providers if rules.scope_claims is None and rules.scopes == vocabulary]
    if not names:
        return []
    message = (
        f"tokens of {', '.join(names)} hold every scope of the vocabulary, whatever they claim themselves: "
        "scopes: claim reads that, and a list of scopes is a limit"
    )
    return [configuration.problem(("oauth",), message)]
