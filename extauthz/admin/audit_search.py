"""Lists of the audit: which rows somebody wants to see, what each of them changed, and the same as a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from extauthz.adapters.store import chain
from extauthz.adapters.store.records import AuditFilter, AuditRow
from extauthz.admin.administration import Administration
from extauthz.admin.exporting import csv_line
from extauthz.admin.metadata import utc
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.admin.token_search import MAY_BE_SECRET, TokenSearch, may_hold_secret
from extauthz.config.wording import nearest

MAX_PAGE = 1000
"""Rows of one page."""
MAX_ACTOR = 254
_BATCH = 500
_CURSOR = re.compile(r"(below(?=-[1-9])|above)-(0|[1-9][0-9]{0,15})").fullmatch
_FIELDS = ("number", "at", "actor", "action", "token_id", "source", "before", "after")
_MOMENT = range(2**40)


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of what was changed, before and after, as texts; None for a field that was not there, or was empty."""

    field: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row of the audit, and what it changed."""

    row: AuditRow
    changes: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class AuditListing:
    """Some rows, the newest first, and the cursors of the pages with older and with newer ones, None where there are none."""

    entries: tuple[AuditEntry, ...]
    older: str | None
    newer: str | None


@dataclass(frozen=True, slots=True)
class AuditStretch:
    """Some rows, the newest last, and the numbers behind and before which there are more, None where that is not known."""

    entries: tuple[AuditEntry, ...]
    after: int | None
    before: int | None


def readable(administration: Administration, search: AuditFilter) -> AuditFilter | Refused:
    """Return what may be looked for: of a whole token that was typed in place of an id, the id alone. Texts are trimmed."""
    token = TokenSearch(text=search.token_id or "").without_secret(administration.prefixes)
    if isinstance(token, Refused):
        return Refused.because("token", token.refusals[0].message)
    for field, text in (("actor", search.actor), ("action", search.action)):
        if may_hold_secret(text or "", administration.prefixes):
            return Refused.because(field, MAY_BE_SECRET)
        if text is not None and (len(text) > MAX_ACTOR or not text.isprintable()):
            return Refused.because(field, f"write at most {MAX_ACTOR} printable characters")
    for field, moment in (("since", search.since), ("until", search.until)):
        if moment is not None and moment not in _MOMENT:
            return Refused.because(field, "write a day like 2027-01-31")
    who, what = ((text or "").strip() or None for text in (search.actor, search.action))
    return replace(search, actor=who, action=what, token_id=token.text or None)


def list_entries(
    administration: Administration, actor: Actor, search: AuditFilter, *, cursor: str | None = None, limit: int = 100
) -> AuditListing | Refused:
    """Return a page of the audit, the newest rows first; the fields of refusals are `actor`, `token`, `cursor` and `limit` too."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    if not 1 <= limit <= MAX_PAGE:
        return Refused.because("limit", f"write a number from 1 to {MAX_PAGE}")
    match = None if cursor is None else _CURSOR(cursor)
    if cursor is not None and match is None:
        return Refused.because("cursor", "write what the end of the page before says")
    filters = readable(administration, search)
    if isinstance(filters, Refused):
        return filters
    below, above = (int(match[2]) if match is not None and match[1] == way else None for way in ("below", "above"))
    rows = administration.store.newest_audit(filters, below=below, above=above, limit=limit + 1)
    has_more = len(rows) > limit
    shown = rows[-limit:] if above is not None else rows[:limit]
    if not shown:
        return AuditListing((), None, None)
    has_older, has_newer = (True, has_more) if above is not None else (has_more, below is not None)
    return AuditListing(
        tuple(AuditEntry(row, changes_of(row)) for row in shown),
        older=f"below-{shown[-1].number}" if has_older else None,
        newer=f"above-{shown[0].number}" if has_newer else None,
    )


def list_rows(
    administration: Administration,
    actor: Actor,
    search: AuditFilter | None = None,
    *,
    after: int | None = None,
    before: int | None = None,
    limit: int = 100,
) -> AuditStretch | Refused:
    """Return rows, the newest last: those that come next `after` a number, the last ones `before` one, or the newest of all.

    The fields of refusals are those of `list_entries` and `action`, for one that is no word of the audit.
    """
    if refused := forbidden(actor, Operation.READ):
        return refused
    filters = readable(administration, search or AuditFilter())
    if isinstance(filters, Refused):
        return filters
    rows = administration.store.newest_audit(filters, below=before, above=after, limit=limit + 1)[::-1]
    if (
        not rows
        and filters.action is not None
        and filters.action not in (words := known_actions().union(administration.store.audit_actions()))
    ):
        hint = nearest(filters.action, words) or f": write one of {', '.join(sorted(words))}"
        return Refused.because("action", f"the audit knows no action {filters.action!r}{hint}")
    has_more = len(rows) > limit
    shown = rows[:limit] if after is not None else rows[-limit:]
    return AuditStretch(
        tuple(AuditEntry(row, changes_of(row)) for row in shown),
        after=shown[-1].number if after is not None and has_more else None,
        before=shown[0].number if after is None and has_more else None,
    )


def known_actions() -> frozenset[str]:
    """Return what this version writes into the audit; a later one may have written more."""
    # Whoever only reads the flags of a command needs no database.
    from extauthz.adapters.store import sessions

    return frozenset(
        {
            *(chain.CREATED, chain.REVOKED, chain.ROTATED, chain.EXPIRY, chain.TOMBSTONE, chain.RESTORE, chain.SETTINGS),
            *(chain.KEY_CREATED, chain.KEY_REVOKED, sessions.LOGGED_IN, sessions.LOGGED_OUT),
            *(sessions.ACCOUNT_ADDED, sessions.ACCOUNT_CHANGED, sessions.ACCOUNT_REMOVED),
        }
    )


def of_token(administration: Administration, actor: Actor, token_id: str, *, limit: int = 100) -> tuple[AuditEntry, ...] | Refused:
    """Return the newest rows of one token."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    rows = administration.store.newest_audit(AuditFilter(token_id=token_id), limit=limit)
    return tuple(AuditEntry(row, changes_of(row)) for row in rows)


def actions(administration: Administration, actor: Actor) -> list[str] | Refused:
    """Return every action that the audit tells of."""
    return forbidden(actor, Operation.READ) or administration.store.audit_actions()


def changes_of(row: AuditRow) -> tuple[FieldChange, ...]:
    """Return the fields that differ before and after, in their order; times are written in UTC."""
    before, after = _fields(row.before), _fields(row.after)
    changes = (FieldChange(name, _text(name, before.get(name)), _text(name, after.get(name))) for name in sorted({*before, *after}))
    return tuple(change for change in changes if change.before != change.after)


def export(administration: Administration, actor: Actor, search: AuditFilter, *, as_csv: bool) -> Iterator[str] | Refused:
    """Return all rows that are looked for, the newest first, in pieces of some lines: CSV with a line of names, or JSON lines."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    filters = readable(administration, search)
    return filters if isinstance(filters, Refused) else _lines(administration, filters, as_csv=as_csv)


def _lines(administration: Administration, filters: AuditFilter, *, as_csv: bool) -> Iterator[str]:
    if as_csv:
        yield csv_line(_FIELDS)
    below = None
    while rows := administration.store.newest_audit(filters, below=below, limit=_BATCH):
        below = rows[-1].number
        yield "".join(map(_csv if as_csv else _json, rows))


def _csv(row: AuditRow) -> str:
    return csv_line(utc(row.at) if name == "at" else getattr(row, name) for name in _FIELDS)


def _json(row: AuditRow) -> str:
    line = {name: getattr(row, name) for name in _FIELDS}
    return json.dumps(line | {"at": utc(row.at), "before": value_of(row.before), "after": value_of(row.after)}) + "\n"


def value_of(text: str) -> Any:
    """Read what a row holds before or after a change; what is no JSON is a text."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


def _fields(text: str) -> Mapping[str, Any]:
    value = value_of(text)
    return value if isinstance(value, dict) else {} if value is None else {"value": value}


def _text(name: str, value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("_at") and value in _MOMENT:
            return utc(value)
        case str():
            return value
        case list() if all(isinstance(part, str) for part in value):
            return ", ".join(value)
        case _:
            return json.dumps(value, sort_keys=True, ensure_ascii=False)
