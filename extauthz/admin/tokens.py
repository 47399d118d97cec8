"""Tokens: create, rotate, list and show them. A secret is returned once, by the use case that made it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from extauthz.adapters.store.records import StoredToken, TokenFilter
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refusal, Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.admin.token_requests import TokenRequest, check, issue, refusals, successor
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, TokenText, fingerprint
from extauthz.errors import ChangeRefused

SUCCESSOR = "successor."
"""What the field of a refusal begins with that stands against the successor of a token."""

Entropy = Callable[[int], bytes]
"""Returns so many random bytes."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just stored: its text, which is a secret, and its record."""

    text: TokenText
    record: TokenRecord


@dataclass(frozen=True, slots=True)
class Rotation:
    """A successor, and the token that it follows as it is now."""

    new: NewToken
    old: StoredToken


@dataclass(frozen=True, slots=True)
class Page:
    """Some tokens, the newest first, and the key behind which the next page begins, None on the last one."""

    tokens: tuple[StoredToken, ...]
    after: tuple[int, str] | None


def create(
    administration: Administration,
    actor: Actor,
    requests: Sequence[TokenRequest],
    at: int,
    *,
    entropy: Entropy = os.urandom,
    advance: Callable[[], object] = lambda: None,
) -> tuple[NewToken, ...] | Refused:
    """Store all tokens in one change, or none; `advance` is called for each one that is made."""
    wrong = tuple(_placed(administration, actor, requests))
    if wrong:
        return Refused(wrong)
    new_tokens, fingerprints = [], {}
    peppers = administration.unlocked(at)
    pepper_id, pepper = next(iter(peppers.items()))
    for request in requests:
        text, record = issue(request, administration.rules, pepper_id=pepper_id, pepper=pepper, entropy=entropy(ENTROPY_BYTES))
        fingerprints[pepper_id] = fingerprint(pepper)
        new_tokens.append(NewToken(text, record))
        advance()
    administration.store.add_many([new.record for new in new_tokens], fingerprints, actor.change(at))
    return tuple(new_tokens)


def rotate(
    administration: Administration, actor: Actor, token_id: str, at: int, *, overlap: int, entropy: Entropy = os.urandom
) -> Rotation | Refused:
    """Replace a token by a successor with the same rights and length of life; the old one ends after `overlap` seconds."""
    store, rules = administration.store, administration.rules
    old = store.get(token_id)
    if old is None:
        return unknown(token_id)
    if refused := forbidden(actor, Operation.ROTATE, old.permission):
        return refused
    pepper_id, pepper = next(iter(administration.unlocked(at).items()))
    request = successor(old, at=at, by=actor.name, max_lifetime=rules.max_lifetime)
    text, record = issue(request, rules, pepper_id=pepper_id, pepper=pepper, entropy=entropy(ENTROPY_BYTES))
    # The store looks at the token's state under its lock; what the configuration forbids comes after it.
    wrong = refusals(request, rules) if old.revoked_at is None and old.expires_at > at else ()
    if not_allowed := tuple(replace(item, field=f"{SUCCESSOR}{item.field}") for item in wrong):
        return Refused(not_allowed)
    try:
        old = store.rotate(token_id, record, at + overlap, fingerprint(pepper), actor.change(at))
    except ChangeRefused as error:
        return Refused.because("id", str(error))
    return Rotation(NewToken(text, record), old)


def list_tokens(
    administration: Administration, actor: Actor, criteria: TokenFilter, *, after: tuple[int, str] | None = None, limit: int = 100
) -> Page | Refused:
    """Return a page of tokens, without any secret."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    rows = administration.store.page(criteria, after, limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(tuple(rows[:limit]), None if last is None else (last.created_at, last.id))


def show(administration: Administration, actor: Actor, token_id: str) -> StoredToken | Refused:
    """Return what is known of one token."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    return administration.store.get(token_id) or unknown(token_id)


def unknown(token_id: str) -> Refused:
    """Refuse an id that no token has."""
    return Refused.because("id", f"no token has the id {token_id!r}; see: extauthz token list")


def _placed(administration: Administration, actor: Actor, requests: Sequence[TokenRequest]) -> Iterator[Refusal]:
    for position, request in enumerate(requests):
        for item in check(request, administration.rules, actor):
            yield replace(item, position=position)
