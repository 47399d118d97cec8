"""Peppers: a new one, and the tokens that have to move to it before an old one is retired."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from extauthz.adapters.store.records import Sort, StoredToken, TokenFilter
from extauthz.admin import tokens
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor
from extauthz.admin.tokens import Entropy, Rotation

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Candidate:
    """An active token of a pepper that has no successor yet, and what stands against one, None where nothing does."""

    token: StoredToken
    refused: Refused | None


@dataclass(frozen=True, slots=True)
class NotRotated:
    """A token that stays as it was, and why."""

    token: StoredToken
    refused: Refused


def check_new(pepper_id: str, *, listed: Collection[str], known: Collection[str] = ()) -> Refused | None:
    """Refuse an id that no pepper can have, or that one has; `known` are those that the store ever saw."""
    from extauthz.config.values import NAME, NAME_RULE

    if re.fullmatch(NAME, pepper_id) is None:
        return Refused.because("id", NAME_RULE)
    if pepper_id in listed:
        return Refused.because("id", f"tokens.peppers lists {pepper_id!r} already: give the new pepper another id")
    if pepper_id in known:
        return Refused.because("id", f"the store knows another pepper {pepper_id!r}: give the new one an id that was never used")
    return None


def candidates(administration: Administration, actor: Actor, pepper_id: str, at: int) -> Iterator[Candidate] | Refused:
    """Return the tokens that a rotation of all tokens of a pepper concerns, the oldest first, read page by page.

    Refuses the pepper of new tokens, and one that the store does not know, by the field `pepper_id`. Raises StoreError and
    ConfigurationError.
    """
    newest = next(iter(administration.unlocked(at)))
    if pepper_id == newest:
        hint = "put a new one before it in tokens.peppers, see: extauthz pepper new --help"
        return Refused.because("pepper_id", f"{pepper_id!r} is the pepper that successors would be made with: {hint}")
    known = sorted(administration.store.pepper_fingerprints())
    if pepper_id not in known:
        # What is no id may be the pepper itself.
        names = ", ".join(known) or "none"
        return Refused.because("pepper_id", f"no token was made with a pepper of this id: the store knows {names}")
    return _candidates(administration, actor, pepper_id, at)


def rotate_all(
    administration: Administration, actor: Actor, pepper_id: str, at: int, *, overlap: int, entropy: Entropy = os.urandom
) -> Iterator[Rotation | NotRotated] | Refused:
    """Return successors of all tokens that are candidates: each is one change, made when it is asked for.

    What was rotated meanwhile by somebody else, or may have none, is not rotated. To go on after an interruption repeat it.
    """
    selected = candidates(administration, actor, pepper_id, at)
    if isinstance(selected, Refused):
        return selected
    return _rotated(administration, actor, selected, at, overlap, entropy)


def _candidates(administration: Administration, actor: Actor, pepper_id: str, at: int) -> Iterator[Candidate]:
    criteria = TokenFilter(pepper_id=pepper_id, active_at=at)
    after = None
    while batch := administration.store.page(criteria, after, _PAGE, sort=Sort.OLDEST):
        for token in batch:
            if token.rotated_to is None:
                yield Candidate(token, tokens.rotation_refused(administration, actor, token, at))
        after = Sort.OLDEST.position(batch[-1])


def _rotated(
    administration: Administration, actor: Actor, selected: Iterator[Candidate], at: int, overlap: int, entropy: Entropy
) -> Iterator[Rotation | NotRotated]:
    for candidate in selected:
        outcome = candidate.refused or tokens.rotate(
            administration, actor, candidate.token.id, at, overlap=overlap, entropy=entropy
        )
        yield NotRotated(candidate.token, outcome) if isinstance(outcome, Refused) else outcome
