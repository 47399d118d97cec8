"""The rules for making an issued token; every refusal names its field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from extauthz.core import tokens
from extauthz.core.act_as import ActAs, address
from extauthz.core.identity import MAX_VALUE
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord, TokenText

MAX_DESCRIPTION = 200


@dataclass(frozen=True, slots=True)
class Order:
    """A token that somebody asks for. Times are whole seconds since the epoch."""

    description: str
    permission: AuthType
    scopes: frozenset[str]
    created_at: int
    created_by: str
    expires_at: int
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What an order is measured by; `max_lifetime` is in seconds."""

    prefix: str
    vocabulary: frozenset[str]
    max_lifetime: float
    act_as: ActAs


def refusals(order: Order, rules: Rules) -> Iterable[tuple[str, str]]:
    """Yield (field, what is wrong) for everything that stands against an order."""
    if not 1 <= len(order.description) <= MAX_DESCRIPTION or not order.description.isprintable() or order.description.isspace():
        yield "description", f"write 1 to {MAX_DESCRIPTION} printable characters"
    if order.permission not in (AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS):
        yield "permission", "write GLOBAL, USER or ANONYMOUS"
    if not order.scopes:
        yield "scope", "name at least one scope"
    for scope in sorted(order.scopes - rules.vocabulary):
        yield "scope", f"{scope!r} is not one of {', '.join(sorted(rules.vocabulary))}"
    if len(",".join(order.scopes)) > MAX_VALUE:
        yield "scope", f"a token's scopes are told to the upstream in a header of at most {MAX_VALUE} bytes: name fewer"
    lifetime = order.expires_at - order.created_at
    if not 0 < lifetime <= rules.max_lifetime:
        yield "expires", f"must lie ahead, at most {rules.max_lifetime / 86400:g} days (tokens.max_lifetime)"
    if order.permission is AuthType.USER:
        user = address(order.user or "")
        if user is None:
            yield "user", "a USER token needs one e-mail address"
        elif not rules.act_as.permits(user):
            yield "user", f"act_as in the configuration does not allow {user}"
    elif order.user is not None:
        yield "user", f"a {order.permission} token has no user"


def issue(order: Order, rules: Rules, *, pepper_id: str, pepper: bytes, entropy: bytes) -> tuple[TokenText, TokenRecord]:
    """Make the token of an order without refusals, from tokens.ENTROPY_BYTES random bytes: its text, told once, and its record."""
    text = tokens.mint(rules.prefix, entropy)
    user = address(order.user) if order.user else None
    digest = tokens.digest(
        text.text, pepper, permission=order.permission, user=user, scopes=order.scopes, created_at=order.created_at
    )
    record = TokenRecord(
        id=text.id,
        description=order.description,
        permission=order.permission,
        user=user,
        scopes=order.scopes,
        created_at=order.created_at,
        created_by=order.created_by,
        expires_at=order.expires_at,
        pepper_id=pepper_id,
        digest=digest,
    )
    return text, record
