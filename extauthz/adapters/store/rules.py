"""What every token store refuses, in the same words."""

from __future__ import annotations

from extauthz.adapters.store.folding import fold
from extauthz.adapters.store.records import CHANGEABLE, AuditKey, Change, StoredToken, TokenFilter
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenRecord, usable
from extauthz.errors import ChangeRefused, StoreError, TokenChanged

MAX_ID = 12
MAX_ACTOR = 254
MAX_SOURCE = 254
MAX_WHY = 200
MAX_USED_FROM = 64
RETENTION = 7 * 86400
"""Seconds that the feed keeps a change; a sidecar that was away for longer drops everything that it has in memory."""


def check_text(name: str, text: str | None, limit: int) -> None:
    """Refuse a text that not every database keeps as it is."""
    if text is not None and (len(text) > limit or not text.isprintable()):
        raise StoreError(f"{name}: write at most {limit} printable characters")


def possible(token_id: str) -> bool:
    """Return whether an id may be in a query to every database; one that may not is unknown."""
    return token_id.isascii() and token_id.isprintable()


def audit_key(change: Change, key: AuditKey | None) -> AuditKey:
    """Return the key of the audit; refuse a change that the audit cannot record."""
    check_text("actor", change.actor, MAX_ACTOR)
    check_text("source", change.source, MAX_SOURCE)
    if key is None:
        raise StoreError("nothing was changed: the audit is signed with a key of the pepper, and no pepper was given")
    return key


def check_fingerprint(pepper_id: str, expected: str | None, fingerprint: str | None) -> str:
    """Return the fingerprint of a pepper; refuse another one than expected, and none at all."""
    if fingerprint is None:
        raise StoreError(f"pepper {pepper_id!r} has no fingerprint: list it in `tokens.peppers`")
    if expected is not None and expected != fingerprint:
        raise StoreError(f"pepper {pepper_id!r} is not the one that the tokens were made with: restore its file")
    return fingerprint


def in_use(token_id: str) -> ChangeRefused:
    """Return the refusal of an id that a token has."""
    return ChangeRefused(f"token {token_id} exists already")


def has_tombstone(token_id: str) -> ChangeRefused:
    """Return the refusal of an id that has a tombstone."""
    return ChangeRefused(f"token {token_id} was revoked before the store was restored, and may not come back: make a new one")


def check_expected(token: StoredToken | None, expected: StoredToken | None) -> None:
    """Refuse a change of a token that somebody else has changed since it was read; None is expected by whoever does not mind."""
    if expected is not None and (token is None or any(getattr(token, name) != getattr(expected, name) for name in CHANGEABLE)):
        raise TokenChanged(f"token {expected.id} was changed since it was read: read it again")


def check_rotation(token: StoredToken | None, token_id: str, successor: TokenRecord, at: int) -> StoredToken:
    """Return the token that is to be rotated; refuse one that is no longer good, and a successor that may do something else."""
    if token is None:
        raise ChangeRefused(f"no token has the id {token_id!r}; see: extauthz token list")
    refusal = usable(token, at)
    if refusal is not None:
        state = "revoked" if refusal is Reason.TOKEN_REVOKED else "expired"
        raise ChangeRefused(f"token {token_id} is {state}: make a new one with 'extauthz token create'")
    if token.rotated_to is not None:
        raise ChangeRefused(f"token {token_id} was rotated before, to {token.rotated_to}: rotate that one")
    if (successor.permission, successor.user, successor.scopes) != (token.permission, token.user, token.scopes):
        raise ChangeRefused(f"the successor of token {token_id} must have its permission, user and scopes")
    return token


def meets(token: StoredToken, filters: TokenFilter) -> bool:
    """Return whether a token meets every condition of a filter."""
    used_at = token.last_used_at
    return (
        filters.permission in (None, token.permission)
        and (filters.text is None or filters.text == token.id or fold(filters.text) in fold(token.description))
        and (filters.scope is None or not token.scopes.isdisjoint({filters.scope, filters.kept_scope}))
        and filters.user in (None, token.user)
        and filters.created_by in (None, token.created_by)
        and filters.pepper_id in (None, token.pepper_id)
        and (filters.expires_after is None or token.expires_at > filters.expires_after)
        and (filters.expires_before is None or token.expires_at < filters.expires_before)
        and not (filters.never_used and used_at is not None)
        and (filters.unused_since is None or max(token.created_at, used_at or token.created_at) < filters.unused_since)
        and (filters.active_at is None or (token.revoked_at is None and token.expires_at > filters.active_at))
        and (filters.expired_at is None or (token.revoked_at is None and token.expires_at <= filters.expired_at))
        and not (filters.revoked and token.revoked_at is None)
    )
