"""Tokens from one store to another, as digests: nobody gets a new secret, and the secrets of these tokens stay good."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from extauthz.adapters.store.records import TokenFilter
from extauthz.adapters.store.rules import MAX_ACTOR
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refusal, Refused
from extauthz.admin.rights import PERMISSIONS, Actor, Operation, forbidden, refusal
from extauthz.admin.token_requests import TokenRequest, TokenRules, refusals
from extauthz.core.act_as import address
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord, fingerprint, latest_expiry
from extauthz.errors import ChangeRefused

MAX_LINES = 100_000
"""Lines of one import."""

_PAGE = 1000
_TEXTS = ("id", "description", "permission", "created_by", "pepper_id", "pepper_fingerprint", "digest")
_TIMES = ("created_at", "expires_at")
_ID = re.compile(r"[0-9A-Za-z]{12}").fullmatch
_DIGEST = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{16})?").fullmatch


@dataclass(frozen=True, slots=True)
class Import:
    """Tokens that an actor may take over: their records, and the fingerprints of the peppers of this installation."""

    actor: Actor
    records: tuple[TokenRecord, ...]
    pepper_fingerprints: Mapping[str, str]


def export(administration: Administration, actor: Actor, at: int, permission: AuthType | None = None) -> Iterator[str] | Refused:
    """Return the active tokens as JSON lines, which are read page by page while they are taken."""
    if refused := forbidden(actor, Operation.EXPORT_DIGESTS):
        return refused
    return _exported(administration, TokenFilter(permission=permission, active_at=at))


def prepare(lines: Iterable[str], actor: Actor, at: int, *, rules: TokenRules, peppers: Mapping[str, bytes]) -> Import | Refused:
    """Read the lines of an export, and refuse them all when one is not right; `position` of a refusal counts lines from 0."""
    fingerprints = {name: fingerprint(pepper) for name, pepper in peppers.items()}
    records: dict[str, TokenRecord] = {}
    wrong: list[Refusal] = []
    for position, text in enumerate(lines):
        if position >= MAX_LINES:
            return Refused.because("file", f"more than {MAX_LINES} lines: split the file")
        if not text.strip():
            continue
        line = _fields(text)
        record = _record(line)
        if isinstance(record, Refusal):
            wrong.append(replace(record, position=position))
            continue
        wrong += [replace(item, position=position) for item in _refusals(record, line, actor, at, rules, fingerprints)]
        if record.id in records:
            wrong.append(Refusal("id", f"token {record.id} stands in a line above", position))
        records[record.id] = record
    if wrong:
        return Refused(tuple(wrong))
    if not records:
        return Refused.because("file", "the file is empty")
    return Import(actor, tuple(records.values()), fingerprints)


def import_tokens(administration: Administration, prepared: Import, at: int) -> tuple[str, ...] | Refused:
    """Store the tokens of an import, all or none; return their ids."""
    administration.unlocked(at)
    try:
        administration.store.add_many(prepared.records, prepared.pepper_fingerprints, prepared.actor.change(at))
    except ChangeRefused as error:
        return Refused.because("id", str(error))
    return tuple(record.id for record in prepared.records)


def _exported(administration: Administration, criteria: TokenFilter) -> Iterator[str]:
    fingerprints = administration.store.pepper_fingerprints()
    after = None
    while batch := administration.store.page(criteria, after, _PAGE):
        for token in batch:
            yield json.dumps(_line(token, fingerprints[token.pepper_id]), sort_keys=True)
        after = (batch[-1].created_at, batch[-1].id)


def _line(token: TokenRecord, pepper_fingerprint: str) -> dict[str, Any]:
    names = ("id", "description", "user", "created_at", "created_by", "expires_at", "pepper_id")
    return {name: getattr(token, name) for name in names} | {
        "permission": token.permission.value,
        "scopes": sorted(token.scopes),
        "digest": token.digest.hex(),
        "pepper_fingerprint": pepper_fingerprint,
    }


def _fields(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        line = None
    return line if isinstance(line, dict) else {}


def _record(line: Mapping[str, Any]) -> TokenRecord | Refusal:
    wrong = next(_unreadable(line), None)
    if wrong is not None:
        return wrong
    return TokenRecord(
        id=line["id"],
        description=line["description"],
        permission=AuthType(line["permission"]),
        user=line["user"],
        scopes=frozenset(line["scopes"]),
        created_at=line["created_at"],
        created_by=line["created_by"],
        expires_at=line["expires_at"],
        pepper_id=line["pepper_id"],
        digest=bytes.fromhex(line["digest"]),
    )


def _unreadable(line: Mapping[str, Any]) -> Iterator[Refusal]:
    """Yield why a line is no record; each check relies on those before it."""
    for name in (*_TEXTS, *_TIMES, "scopes", "user"):
        if name not in line:
            yield Refusal(name, "missing: write the file with 'extauthz token export'")
    for name in _TEXTS:
        if not isinstance(line[name], str):
            yield Refusal(name, "not a text")
    for name in _TIMES:
        if type(line[name]) is not int or not 0 < line[name] < 2**40:
            yield Refusal(name, "not a time in whole seconds")
    if not isinstance(line["scopes"], list) or not all(isinstance(name, str) for name in line["scopes"]):
        yield Refusal("scopes", "not a list of texts")
    if line["user"] is not None and not isinstance(line["user"], str):
        yield Refusal("user", "not a text")
    if not line["created_by"].isprintable() or len(line["created_by"]) > MAX_ACTOR:
        yield Refusal("created_by", f"write at most {MAX_ACTOR} printable characters")
    if not _ID(line["id"]):
        yield Refusal("id", "not 12 letters and digits")
    if not _DIGEST(line["digest"]):
        yield Refusal("digest", "not 64 or 80 hex digits")
    if line["permission"] not in PERMISSIONS:
        yield Refusal("permission", "write GLOBAL, USER or ANONYMOUS")


def _refusals(
    record: TokenRecord, line: Mapping[str, Any], actor: Actor, at: int, rules: TokenRules, peppers: Mapping[str, str]
) -> Iterator[Refusal]:
    request = TokenRequest(
        description=record.description,
        permission=record.permission,
        scopes=record.scopes,
        created_at=record.created_at,
        created_by=record.created_by,
        expires_at=record.expires_at,
        user=record.user,
    )
    yield from refusals(request, rules)
    if record.user is not None and record.user != address(record.user):
        yield Refusal("user", "write the address in lower case")
    forbidden = refusal(actor, Operation.IMPORT, record.permission)
    if forbidden is not None:
        yield forbidden
    latest = latest_expiry(record)
    if latest is not None and record.expires_at > latest:
        yield Refusal("expires_at", "later than the digest of the token allows: it would not verify")
    if record.created_at > at:
        yield Refusal("created_at", "lies ahead")
    if record.expires_at <= at:
        yield Refusal("expires_at", "the token has expired")
    if record.pepper_id not in peppers:
        yield Refusal("pepper_id", f"tokens.peppers does not list {record.pepper_id!r}: the token cannot be verified without it")
    elif peppers[record.pepper_id] != line["pepper_fingerprint"]:
        yield Refusal("pepper_fingerprint", f"the pepper {record.pepper_id!r} of this configuration is another one")
