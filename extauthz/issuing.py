"""The rules for issued tokens: who may make and end which, and what an order must be; every refusal names its field."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from extauthz.core import tokens
from extauthz.core.act_as import ActAs, address
from extauthz.core.identity import MAX_VALUE
from extauthz.core.model import AuthType
from extauthz.core.policy import Policy
from extauthz.core.routes import MethodTable, Node
from extauthz.core.tokens import TokenRecord, TokenText

MAX_DESCRIPTION = 200
PERMISSIONS = (AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS)


class Role(StrEnum):
    """What somebody is to the token store."""

    ADMIN = "admin"
    SUPER_ADMIN = "super_admin"


def role_of(email: str, admins: Collection[str], super_admins: Collection[str]) -> Role | None:
    """Return the role of an address; all addresses are in lower case."""
    if email in super_admins:
        return Role.SUPER_ADMIN
    return Role.ADMIN if email in admins else None


def may(role: Role | None, permission: AuthType | None = None) -> bool:
    """Tell whether a role may make and end tokens of a permission; without a permission, whether it may look at them."""
    if role is None:
        return False
    return permission is None or (permission in PERMISSIONS and (role is Role.SUPER_ADMIN or permission is not AuthType.GLOBAL))


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
    if order.permission not in PERMISSIONS:
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
        text.text,
        pepper,
        permission=order.permission,
        user=user,
        scopes=order.scopes,
        created_at=order.created_at,
        latest=order.expires_at,
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


def successor(token: TokenRecord, *, at: int, by: str, max_lifetime: float) -> Order:
    """Return the order of the token that follows another: the same in all, and as long a life, but at most `max_lifetime`."""
    return Order(
        description=token.description,
        permission=token.permission,
        scopes=token.scopes,
        created_at=at,
        created_by=by,
        expires_at=at + min(token.expires_at - token.created_at, int(max_lifetime)),
        user=token.user,
    )


def useless_scopes(order: Order, policy: Policy) -> list[str]:
    """Return the scopes of an ANONYMOUS order that no anonymous route asks for."""
    if order.permission is not AuthType.ANONYMOUS:
        return []
    used: set[str] = set()
    for table in (policy.routes, *policy.hosts.values()):
        for methods in _method_tables(table.root):
            for route in methods.values():
                if AuthType.ANONYMOUS in route.accept:
                    used.update(route.scopes)
    return sorted(order.scopes - used)


def _method_tables(node: Node) -> Iterator[MethodTable]:
    yield from (methods for methods in (node.methods, node.rest) if methods is not None)
    for child in (*node.literals.values(), *filter(None, (node.parameter,))):
        yield from _method_tables(child)
