"""The end of tokens: revoke some by id, or all of a user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from extauthz.adapters.store.records import StoredToken, TokenFilter
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import EXPECTED, Refused
from extauthz.admin.rights import Actor, Operation, refusal
from extauthz.core.act_as import address
from extauthz.core.model import AuthType
from extauthz.errors import TokenChanged

MAX_COUNTED = 1000
"""Active tokens of a user that are counted before they are revoked."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Tokens that may be revoked by an actor, by id, and the ids that no token has."""

    tokens: Mapping[str, StoredToken]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """The ids that were revoked now, the tokens that had been revoked before, and the ids that no token has."""

    ids: tuple[str, ...]
    before: Mapping[str, StoredToken] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def select(administration: Administration, actor: Actor, ids: Iterable[str]) -> Selection | Refused:
    """Return the tokens of these ids; refuse when the actor may not revoke one of them, or when there is none at all."""
    records = {token_id: administration.store.get(token_id) for token_id in dict.fromkeys(ids)}
    tokens = {token_id: token for token_id, token in records.items() if token is not None}
    if not tokens:
        return Refused.because("ids", f"no token has the id {', '.join(map(repr, records))}; see: extauthz token list")
    for token_id, token in tokens.items():
        forbidden = refusal(actor, Operation.REVOKE, token.permission)
        if forbidden is not None:
            return Refused.because("ids", f"no token was revoked, because of {token_id}: {forbidden.message}")
    return Selection(tokens, tuple(token_id for token_id in records if token_id not in tokens))


def revoke(
    administration: Administration,
    actor: Actor,
    ids: Iterable[str],
    at: int,
    *,
    why: str | None = None,
    linked: bool = False,
    expected: StoredToken | None = None,
) -> Revoked | Refused:
    """Revoke tokens for good, and if `linked` those they were rotated from and to; all in one change.

    Refused by the field EXPECTED are all when one was changed since it was read as `expected`.
    """
    match select(administration, actor, ids):
        case Refused() as refused:
            return refused
        case Selection(tokens, unknown):
            administration.unlocked(at, to_revoke=True)
            try:
                revoked_ids = administration.store.revoke(tokens, why, actor.change(at), chain=linked, expected=expected)
            except TokenChanged as error:
                return Refused.because(EXPECTED, str(error))
            other_ids = [token_id for token_id in tokens if token_id not in revoked_ids]
            before = {token_id: administration.store.get(token_id) or tokens[token_id] for token_id in other_ids}
            return Revoked(tuple(revoked_ids), before, unknown)


def count_active(administration: Administration, actor: Actor, user: str, at: int) -> int | Refused:
    """Count the active tokens of a user, up to MAX_COUNTED; refuse an address that has none, and an actor who may not end them."""
    email = address(user)
    if email is None:
        return Refused.because("user", "write one e-mail address")
    forbidden = refusal(actor, Operation.REVOKE, AuthType.USER)
    if forbidden is not None:
        return Refused.because("actor", f"no token was revoked: {forbidden.message}")
    count = len(administration.store.page(TokenFilter(user=email, active_at=at), None, MAX_COUNTED))
    if not count:
        return Refused.because("user", f"{email} has no active token; see: extauthz token list --user {email} --all")
    return count


def revoke_user(administration: Administration, actor: Actor, user: str, at: int, *, why: str | None = None) -> Revoked | Refused:
    """Revoke every token of a user, for good."""
    match count_active(administration, actor, user, at):
        case Refused() as refused:
            return refused
        case _:
            administration.unlocked(at, to_revoke=True)
            return Revoked(administration.store.revoke_user(address(user) or "", why, actor.change(at)))
