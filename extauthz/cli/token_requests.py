"""What `token create` is asked for: by flags, or many at once in a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.admin.rights import PERMISSIONS
from extauthz.admin.times import expiry
from extauthz.admin.token_requests import TokenRequest, check
from extauthz.cli.session import Session
from extauthz.config.vocabulary import scope
from extauthz.core.model import AuthType
from extauthz.errors import Problem

if TYPE_CHECKING:
    from extauthz.config.document import Document

MAX_REQUESTS = 10_000
FIELDS = ("description", "permission", "user", "scopes", "expires")
FLAGS = {"scopes": "scope", "expires_at": "expires", "actor": "as"}
"""The flag of a field, where it has another name."""
_KEYS = {"expires_at": "expires"}


def from_flags(session: Session, permission: str, scopes: tuple[str, ...], expires: str, at: int, **rest: Any) -> TokenRequest:
    """Return the request of the flags, or refuse it with every flag that is wrong."""
    request = TokenRequest(
        permission=AuthType(permission.upper()),
        scopes=frozenset(_flag("--scope", partial(scope, vocabulary=session.rules.vocabulary), name) for name in scopes),
        created_at=at,
        created_by=session.actor.name,
        expires_at=_flag("--expires", partial(expiry, at=at), expires),
        **rest,
    )
    wrong = check(request, session.rules, session.actor)
    if wrong:
        lines = "\n".join(f"  --{FLAGS.get(each.field, each.field)}: {each.message}" for each in wrong)
        raise click.ClickException(f"no token was made\n{lines}")
    return request


def from_file(session: Session, file: Path, at: int) -> list[TokenRequest]:
    """Return the requests of a YAML file, or refuse all of them with line and field of everything that is wrong."""
    from extauthz.config import document

    source = document.read(file)
    problems = list(source.problems)
    requests: list[TokenRequest] = []
    items = source.data
    if not problems and (not isinstance(items, list) or not items):
        problems.append(source.problem((), f"write a list of orders: - {{{', '.join(f'{name}: …' for name in FIELDS)}}}"))
    elif isinstance(items, list) and len(items) > MAX_REQUESTS:
        problems.append(source.problem((MAX_REQUESTS,), f"more than {MAX_REQUESTS} orders: split the file"))
    elif isinstance(items, list):
        for index, item in enumerate(items):
            if not source.is_unread((index,)):
                _read_request(session, source, index, item, at, requests, problems)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in sorted(set(problems)))
        raise click.ClickException(f"no token was made\n{lines}")
    return requests


def _read_request(
    session: Session, source: Document, index: int, item: object, at: int, requests: list[TokenRequest], problems: list[Problem]
) -> None:
    before = len(problems)
    fields = item if isinstance(item, dict) else {}
    for name in fields:
        if name not in FIELDS:
            problems.append(source.problem((index, name), f"unknown key: write {', '.join(FIELDS)}"))
    request = TokenRequest(
        description=_text(fields.get("description")),
        permission=_permission(source, index, fields, problems),
        scopes=_scopes(session, source, index, fields, problems),
        created_at=at,
        created_by=session.actor.name,
        expires_at=_expires(source, index, fields, at, problems),
        user=_text(fields["user"]) if fields.get("user") is not None else None,
    )
    paths = {problem.path for problem in problems[before:]}
    for each in check(request, session.rules, session.actor):
        problem = source.problem((index, _KEYS.get(each.field, each.field)), each.message)
        # Whether a user is needed depends on a permission that can be read.
        in_vain = each.field == "user" and any(path.endswith(".permission") for path in paths)
        if not in_vain and not any(path.startswith(problem.path) for path in paths):
            problems.append(problem)
    if len(problems) == before:
        requests.append(request)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _permission(source: Document, index: int, fields: Mapping[str, Any], problems: list[Problem]) -> AuthType:
    name = str(fields.get("permission")).upper()
    if name in PERMISSIONS:
        return AuthType(name)
    problems.append(source.problem((index, "permission"), "write GLOBAL, USER or ANONYMOUS"))
    return AuthType.USER


def _scopes(session: Session, source: Document, index: int, fields: Mapping[str, Any], problems: list[Problem]) -> frozenset[str]:
    names = fields.get("scopes")
    scopes = set()
    for place, name in enumerate(names if isinstance(names, list) else [names] if names is not None else []):
        try:
            scopes.add(scope(name, session.rules.vocabulary))
        except ValueError as error:
            problems.append(source.problem((index, "scopes", place), str(error)))
    return frozenset(scopes)


def _expires(source: Document, index: int, fields: Mapping[str, Any], at: int, problems: list[Problem]) -> int:
    try:
        return expiry(fields.get("expires"), at)
    except ValueError as error:
        problems.append(source.problem((index, "expires"), str(error)))
        return at


def _flag(name: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from error
