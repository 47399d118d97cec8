"""Tokens: create, rotate, list and show them. A secret is returned once, by the use case that made it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from extauthz.adapters.store.records import Sort, StoredToken, TokenFilter
from extauthz.admin import idempotency, token_search
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import EXPECTED, Refusal, Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.admin.token_requests import TokenRequest, check, issue, refusals, successor
from extauthz.admin.token_search import TokenSearch
from extauthz.config.vocabulary import in_upper_case, kept_scope
from extauthz.config.wording import nearest
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, TokenText, fingerprint
from extauthz.errors import ChangeRefused, TokenChanged

SUCCESSOR = "successor."
"""What the field of a refusal begins with that stands against the successor of a token."""

MAX_PAGE = 10_000
"""Tokens of one page."""

Entropy = Callable[[int], bytes]
"""Returns so many random bytes."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just stored: its text, which is a secret, and its record."""

    text: TokenText
    record: TokenRecord


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same request came before, and made the token of this id; its secret was told then and is never told again."""

    id: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """A successor, and the token that it follows as it is now."""

    new: NewToken
    old: StoredToken


@dataclass(frozen=True, slots=True)
class Page:
    """Some tokens in the order that was asked for, and the cursors of the pages behind and before them.

    A cursor is None where the list ends, or begins; a page without tokens has neither: begin at the first page.
    """

    tokens: tuple[StoredToken, ...]
    after: str | None
    before: str | None


@overload
def create(
    administration: Administration,
    actor: Actor,
    requests: Sequence[TokenRequest],
    at: int,
    *,
    idempotency_key: None = None,
    entropy: Entropy = os.urandom,
    advance: Callable[[], object] = lambda: None,
) -> tuple[NewToken, ...] | Refused: ...


@overload
def create(
    administration: Administration,
    actor: Actor,
    requests: Sequence[TokenRequest],
    at: int,
    *,
    idempotency_key: str | None,
    entropy: Entropy = os.urandom,
    advance: Callable[[], object] = lambda: None,
) -> tuple[NewToken, ...] | Repeated | Refused: ...


def create(
    administration: Administration,
    actor: Actor,
    requests: Sequence[TokenRequest],
    at: int,
    *,
    idempotency_key: str | None = None,
    entropy: Entropy = os.urandom,
    advance: Callable[[], object] = lambda: None,
) -> tuple[NewToken, ...] | Repeated | Refused:
    """Store all tokens in one change, or none; `advance` is called for each one that is made.

    With an `idempotency_key` the actor makes one token within a day; a repetition is Repeated, and the key with another request is
    refused by the field `idempotency_key`. Such a key is for one token: ValueError for several.
    """
    wrong = tuple(_placed(administration, actor, requests))
    if wrong:
        return Refused(wrong)
    key = None if idempotency_key is None else idempotency.key_of(actor, idempotency_key, requests, at)
    if isinstance(key, Refused):
        return key
    new_tokens, fingerprints = [], {}
    peppers = administration.unlocked(at)
    pepper_id, pepper = next(iter(peppers.items()))
    for request in requests:
        text, record = issue(request, administration.rules, pepper_id=pepper_id, pepper=pepper, entropy=entropy(ENTROPY_BYTES))
        fingerprints[pepper_id] = fingerprint(pepper)
        new_tokens.append(NewToken(text, record))
        advance()
    records = [new.record for new in new_tokens]
    earlier = administration.store.add_many(records, fingerprints, actor.change(at), idempotency=key)
    if earlier is None:
        return tuple(new_tokens)
    if idempotency.is_same(earlier, requests[0], at):
        return Repeated(earlier.token_id)
    return Refused.because(
        idempotency.FIELD, f"it was used for another request, which made token {earlier.token_id}: write a new one"
    )


def rotate(
    administration: Administration,
    actor: Actor,
    token_id: str,
    at: int,
    *,
    overlap: int,
    expected: StoredToken | None = None,
    entropy: Entropy = os.urandom,
) -> Rotation | Refused:
    """Replace a token by a successor with the same rights and length of life; the old one ends after `overlap` seconds.

    Refused by the field EXPECTED is a token that was changed since it was read as `expected`.
    """
    store, rules = administration.store, administration.rules
    old = store.get(token_id)
    if old is None:
        return unknown(token_id)
    if refused := rotation_refused(administration, actor, old, at):
        return refused
    pepper_id, pepper = next(iter(administration.unlocked(at).items()))
    request = successor(old, at=at, by=actor.name, max_lifetime=rules.max_lifetime)
    text, record = issue(request, rules, pepper_id=pepper_id, pepper=pepper, entropy=entropy(ENTROPY_BYTES))
    try:
        old = store.rotate(token_id, record, at + overlap, fingerprint(pepper), actor.change(at), expected=expected)
    except TokenChanged as error:
        return Refused.because(EXPECTED, str(error))
    except ChangeRefused as error:
        return Refused.because("id", str(error))
    return Rotation(NewToken(text, record), old)


def rotation_refused(administration: Administration, actor: Actor, old: StoredToken, at: int) -> Refused | None:
    """Return what stands against a successor of a token, None where nothing does; of the token's own state the store knows."""
    if refused := forbidden(actor, Operation.ROTATE, old.permission):
        return refused
    rules = administration.rules
    request = successor(old, at=at, by=actor.name, max_lifetime=rules.max_lifetime)
    # The store looks at the token's state under its lock; what the configuration forbids comes after it.
    readable = replace(request, scopes=frozenset(kept_scope(name, rules.vocabulary) for name in request.scopes))
    wrong = refusals(readable, rules) if old.revoked_at is None and old.expires_at > at else ()
    not_allowed = tuple(replace(item, field=f"{SUCCESSOR}{item.field}") for item in wrong)
    return Refused(not_allowed) if not_allowed else None


def list_tokens(
    administration: Administration,
    actor: Actor,
    search: TokenSearch,
    at: int,
    *,
    sort: Sort = Sort.NEWEST,
    cursor: str | None = None,
    limit: int = 100,
) -> Page | Refused:
    """Return a page of tokens, without any secret; `cursor` is what another page of the same search and order has.

    The fields of refusals are `actor`, `text`, `cursor` and `limit`.
    """
    if refused := forbidden(actor, Operation.READ):
        return refused
    if not 1 <= limit <= MAX_PAGE:
        return Refused.because("limit", f"write a number from 1 to {MAX_PAGE}")
    readable = search.without_secret(administration.prefixes)
    if isinstance(readable, Refused):
        return readable
    start = token_search.read_cursor(cursor, readable, sort)
    if isinstance(start, Refused):
        return start
    vocabulary, filters = administration.rules.vocabulary, readable.filter(at)
    if filters.scope is not None and filters.scope in vocabulary:
        filters = replace(filters, kept_scope=in_upper_case(filters.scope))
    rows = administration.store.page(filters, start.after, limit + 1, before=start.before, sort=sort)
    has_more = len(rows) > limit
    if not rows:
        return Page((), None, None)
    if start.before is None:
        found, has_earlier, has_later = rows[:limit], start.after is not None, has_more
    else:
        found, has_earlier, has_later = rows[-limit:], has_more, True
    return Page(
        tuple(found),
        after=token_search.after(found[-1], readable, sort) if has_later else None,
        before=token_search.before(found[0], readable, sort) if has_earlier else None,
    )


def unknown_scope(administration: Administration, search: TokenSearch) -> Refused | None:
    """Refuse a scope that is not of the vocabulary and that no token of the store has; a token may have one that was taken away."""
    name, vocabulary = search.scope, administration.rules.vocabulary
    if name is None or name in vocabulary or administration.store.page(TokenFilter(scope=name), None, 1):
        return None
    hint = nearest(name, vocabulary) or f": write one of {', '.join(sorted(vocabulary))}"
    return Refused.because("scope", f"no token holds {name!r}, and the vocabulary lacks it{hint}")


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
