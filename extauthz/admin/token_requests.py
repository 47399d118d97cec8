"""The rules for a new token: what a request for one must be, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from extauthz.admin.outcomes import Refusal
from extauthz.admin.rights import PERMISSIONS, Actor, Operation, refusal
from extauthz.admin.route_map import routes_of
from extauthz.core import tokens
from extauthz.core.act_as import ActAs, address
from extauthz.core.identity import MAX_VALUE
from extauthz.core.model import AuthType
from extauthz.core.policy import Policy
from extauthz.core.tokens import TokenRecord, TokenText

MAX_DESCRIPTION = 200


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token that somebody asks for. Times are whole seconds since the epoch."""

    description: str
    permission: AuthType
    scopes: frozenset[str]
    created_at: int
    created_by: str
    expires_at: int
    user: str | None = None


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a request is measured by; `max_lifetime` is in seconds."""

    prefix: str
    vocabulary: frozenset[str]
    max_lifetime: float
    act_as: ActAs


def refusals(request: TokenRequest, rules: TokenRules) -> Iterator[Refusal]:
    """Yield everything that stands against a request; the fields are those of TokenRequest."""
    yield from description_refusals(request.description)
    if request.permission not in PERMISSIONS:
        yield Refusal("permission", "write GLOBAL, USER or ANONYMOUS")
    if not request.scopes:
        yield Refusal("scopes", "name at least one scope")
    for scope in sorted(request.scopes - rules.vocabulary):
        yield Refusal("scopes", f"{scope!r} is not one of {', '.join(sorted(rules.vocabulary))}")
    if len(",".join(request.scopes)) > MAX_VALUE:
        yield Refusal("scopes", f"a token's scopes are told to the upstream in a header of at most {MAX_VALUE} bytes: name fewer")
    yield from lifetime_refusals(request.expires_at - request.created_at, rules)
    if request.permission is AuthType.USER:
        user = address(request.user or "")
        if user is None:
            yield Refusal("user", "a USER token needs one e-mail address")
        elif not rules.act_as.permits(user):
            yield Refusal("user", f"act_as in the configuration does not allow {user}")
    elif request.user is not None:
        yield Refusal("user", f"a {request.permission} token has no user")


def description_refusals(text: str) -> Iterator[Refusal]:
    """Yield what stands against a description."""
    if not 1 <= len(text) <= MAX_DESCRIPTION or not text.isprintable() or text.isspace():
        yield Refusal("description", f"write 1 to {MAX_DESCRIPTION} printable characters")


def lifetime_refusals(lifetime: int, rules: TokenRules) -> Iterator[Refusal]:
    """Yield what stands against a length of life in seconds."""
    if not 0 < lifetime <= rules.max_lifetime:
        days = rules.max_lifetime / 86400
        yield Refusal("expires_at", f"must lie ahead, at most {days:g} {'day' if days == 1 else 'days'} (tokens.max_lifetime)")


def check(request: TokenRequest, rules: TokenRules, actor: Actor) -> list[Refusal]:
    """Return everything that stands against a request of this actor, rights first."""
    refused = refusal(actor, Operation.CREATE, request.permission)
    wrong = [item for item in refusals(request, rules) if refused is None or item.field != refused.field]
    return [refused, *wrong] if refused else wrong


def issue(
    request: TokenRequest, rules: TokenRules, *, pepper_id: str, pepper: bytes, entropy: bytes
) -> tuple[TokenText, TokenRecord]:
    """Make the token of a request without refusals, from tokens.ENTROPY_BYTES random bytes: text, shown once, and record."""
    text = tokens.mint(rules.prefix, entropy)
    user = address(request.user) if request.user else None
    digest = tokens.digest(
        text.text,
        pepper,
        permission=request.permission,
        user=user,
        scopes=request.scopes,
        created_at=request.created_at,
        latest=request.expires_at,
    )
    record = TokenRecord(
        id=text.id,
        description=request.description,
        permission=request.permission,
        user=user,
        scopes=request.scopes,
        created_at=request.created_at,
        created_by=request.created_by,
        expires_at=request.expires_at,
        pepper_id=pepper_id,
        digest=digest,
    )
    return text, record


def successor(token: TokenRecord, *, at: int, by: str, max_lifetime: float) -> TokenRequest:
    """Return the request of the token that follows another: the same in all, and as long a life, but at most `max_lifetime`."""
    return TokenRequest(
        description=token.description,
        permission=token.permission,
        scopes=token.scopes,
        created_at=at,
        created_by=by,
        expires_at=at + min(token.expires_at - token.created_at, int(max_lifetime)),
        user=token.user,
    )


def unused_scopes(request: TokenRequest, policy: Policy) -> list[str]:
    """Return the scopes of an ANONYMOUS request that no anonymous route asks for."""
    if request.permission is not AuthType.ANONYMOUS:
        return []
    routes = (route for table in (policy.routes, *policy.hosts.values()) for route in routes_of(table))
    asked = {scope for route in routes if AuthType.ANONYMOUS in route.accept for scope in route.scopes}
    return sorted(request.scopes - asked)
