"""What `token create` is asked for: by flags, or many at once in a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from extauthz.cli.session import Session
from extauthz.cli.times import expiry
from extauthz.config import document
from extauthz.config.document import Document, Mistake
from extauthz.config.values import scope
from extauthz.core.model import AuthType
from extauthz.issuing import PERMISSIONS, Order, refusals

MAX_ORDERS = 10_000
FIELDS = ("description", "permission", "user", "scopes", "expires")
_NAMES = {"scope": "scopes"}


def from_flags(session: Session, permission: str, scopes: tuple[str, ...], expires: str, at: int, **rest: Any) -> Order:
    """Return the order of the flags, or refuse it with every flag that is wrong."""
    order = Order(
        permission=AuthType(permission.upper()),
        scopes=frozenset(_flag("--scope", scope, name) for name in scopes),
        created_at=at,
        created_by=session.actor,
        expires_at=_flag("--expires", partial(expiry, at=at), expires),
        **rest,
    )
    wrong = _refusals(session, order)
    if wrong:
        raise click.ClickException("no token was made\n" + "\n".join(f"  --{field}: {message}" for field, message in wrong))
    return order


def from_file(session: Session, file: Path, at: int) -> list[Order]:
    """Return the orders of a YAML file, or refuse all of them with line and field of everything that is wrong."""
    source = document.read(file)
    mistakes = list(source.mistakes)
    orders: list[Order] = []
    items = source.data
    if not mistakes and (not isinstance(items, list) or not items):
        mistakes.append(source.mistake((), f"write a list of orders: - {{{', '.join(f'{name}: …' for name in FIELDS)}}}"))
    elif isinstance(items, list) and len(items) > MAX_ORDERS:
        mistakes.append(source.mistake((MAX_ORDERS,), f"more than {MAX_ORDERS} orders: split the file"))
    elif isinstance(items, list):
        for index, item in enumerate(items):
            if not source.is_unread((index,)):
                _read(session, source, index, item, at, orders, mistakes)
    if mistakes:
        told = "\n".join(f"  {mistake}" for mistake in sorted(set(mistakes)))
        raise click.ClickException(f"no token was made\n{told}")
    return orders


def _read(
    session: Session, source: Document, index: int, item: object, at: int, orders: list[Order], mistakes: list[Mistake]
) -> None:
    before = len(mistakes)
    fields = item if isinstance(item, dict) else {}
    for name in fields:
        if name not in FIELDS:
            mistakes.append(source.mistake((index, name), f"unknown key: write {', '.join(FIELDS)}"))
    order = Order(
        description=_text(fields.get("description")),
        permission=_permission(source, index, fields, mistakes),
        scopes=_scopes(source, index, fields, mistakes),
        created_at=at,
        created_by=session.actor,
        expires_at=_expires(source, index, fields, at, mistakes),
        user=_text(fields["user"]) if fields.get("user") is not None else None,
    )
    told = {mistake.path for mistake in mistakes[before:]}
    for field, message in _refusals(session, order):
        mistake = source.mistake((index, _NAMES.get(field, field)), message)
        # Whether a user is needed depends on a permission that can be read.
        in_vain = field == "user" and any(path.endswith(".permission") for path in told)
        if not in_vain and not any(path.startswith(mistake.path) for path in told):
            mistakes.append(mistake)
    if len(mistakes) == before:
        orders.append(order)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _permission(source: Document, index: int, fields: Mapping[str, Any], mistakes: list[Mistake]) -> AuthType:
    name = str(fields.get("permission")).upper()
    if name in PERMISSIONS:
        return AuthType(name)
    mistakes.append(source.mistake((index, "permission"), "write GLOBAL, USER or ANONYMOUS"))
    return AuthType.USER


def _scopes(source: Document, index: int, fields: Mapping[str, Any], mistakes: list[Mistake]) -> frozenset[str]:
    names = fields.get("scopes")
    found = set()
    for place, name in enumerate(names if isinstance(names, list) else [names] if names is not None else []):
        try:
            found.add(scope(name))
        except ValueError as error:
            mistakes.append(source.mistake((index, "scopes", place), str(error)))
    return frozenset(found)


def _expires(source: Document, index: int, fields: Mapping[str, Any], at: int, mistakes: list[Mistake]) -> int:
    try:
        return expiry(fields.get("expires"), at)
    except ValueError as error:
        mistakes.append(source.mistake((index, "expires"), str(error)))
        return at


def _refusals(session: Session, order: Order) -> list[tuple[str, str]]:
    wrong = list(refusals(order, session.rules))
    refusal = session.refusal(order.permission)
    return [("permission", refusal), *wrong] if refusal else wrong


def _flag(name: str, read: Any, text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from error
