"""The page of the audit: its rows with what they changed, their export, and whether the chain is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response, StreamingResponse

from extauthz.adapters.store.records import AuditFilter
from extauthz.admin import audit_search, audits
from extauthz.admin.audit_search import AuditListing
from extauthz.admin.audits import AuditCheck
from extauthz.admin.outcomes import Refused
from extauthz.console.token_forms import by_field
from extauthz.console.visits import Visit, message_page

PAGE = 50
DAY = 86_400
MOST_DIFFERENCES = 100
_FILTERS = ("actor", "action", "token", "since", "until", "cursor")
_DAY_HINT = "write a day like 2027-01-31"
_BUSY = "Another check of the audit is under way: wait until it is done, then try again."


@dataclass(frozen=True, slots=True)
class AuditView:
    """Which rows are listed, and from where on; `query` are the parameters of the address that say so.

    `since` and `until` are days, both of them included, in UTC; `wrong` tells by field what could not be read.
    """

    filters: AuditFilter
    cursor: str | None
    query: Mapping[str, str]
    wrong: Mapping[str, str]

    @classmethod
    def of(cls, query: Mapping[str, str]) -> AuditView:
        """Read the parameters of an address; what says nothing to us is left out."""
        kept = {name: query[name].strip() for name in _FILTERS if query.get(name, "").strip()}
        unread = {name: _DAY_HINT for name in kept if name in ("since", "until") and _midnight(kept[name]) is None}
        since, until = (_midnight(kept.get(name, "")) for name in ("since", "until"))
        filters = AuditFilter(
            actor=kept.get("actor"),
            action=kept.get("action"),
            token_id=kept.get("token"),
            since=since,
            until=None if until is None else until + DAY,
        )
        return cls(filters, kept.get("cursor"), kept, unread)

    def link(self, path: str = "/audit", **changes: str | None) -> str:
        """Return the address of the same list with changes, from its first page on unless `cursor` is one of them."""
        query = {name: value for name, value in {**self.query, "cursor": None, **changes}.items() if value}
        return f"{path}?{urlencode(query)}" if query else path

    @property
    def is_filtered(self) -> bool:
        """Whether anything is left out of the list."""
        return bool(self.query.keys() - {"cursor"})


async def list_page(visit: Visit) -> Response:
    """Show the rows that the address asks for."""
    return await _listed(visit, AuditView.of(visit.query))


async def search(visit: Visit) -> Response:
    """Take what was typed out of the body, where a pasted token leaves no trace, and go on to the address of its list."""
    asked = AuditView.of({name: visit.form.text(name) for name in visit.form.fields})
    filters = audit_search.readable(visit.context.administration(), asked.filters)
    if isinstance(filters, Refused) or asked.wrong:
        errors = {**asked.wrong, **(by_field(filters.refusals) if isinstance(filters, Refused) else {})}
        kept = {name: text for name, text in asked.query.items() if name not in errors}
        return await _listed(visit, AuditView.of(kept), errors=errors, status=422)
    return RedirectResponse(asked.link(token=filters.token_id), 303)


async def verify(visit: Visit) -> Response:
    """Check every row against the chain, and every token against the rows."""
    administration = visit.context.administration()

    def alone() -> AuditCheck | Refused | None:
        if not audits.ONE_VERIFICATION.acquire(blocking=False):
            return None
        try:
            return audits.verify(administration, visit.actor)
        finally:
            audits.ONE_VERIFICATION.release()

    check = await visit.context.run(alone)
    if check is None:
        return message_page("Not done", _BUSY, 429, link="/audit", label="Go to the audit")
    if isinstance(check, Refused):
        return message_page("Not done", check.refusals[0].message, 403, link="/audit", label="Go to the audit")
    differences = check.checked.differences[:MOST_DIFFERENCES]
    return visit.page(
        "audit_check.html", check=check, differences=differences, more=len(check.checked.differences) - len(differences)
    )


async def as_csv(visit: Visit) -> Response:
    """Answer with the rows that the address asks for, as CSV (RFC 4180)."""
    return await _export(visit, is_csv=True)


async def as_json(visit: Visit) -> Response:
    """Answer with the rows that the address asks for, as JSON lines."""
    return await _export(visit, is_csv=False)


async def _export(visit: Visit, *, is_csv: bool) -> Response:
    asked = AuditView.of(visit.query)
    pieces = audit_search.export(visit.context.administration(), visit.actor, asked.filters, as_csv=is_csv)
    if isinstance(pieces, Refused) or asked.wrong:
        text = pieces.refusals[0].message if isinstance(pieces, Refused) else "; ".join(asked.wrong.values())
        return message_page("No export", text, 422, link="/audit", label="Go to the audit")
    ending, kind = ("csv", "text/csv; charset=utf-8") if is_csv else ("jsonl", "application/jsonl")
    headers = {"content-disposition": f'attachment; filename="audit.{ending}"'}
    return StreamingResponse(pieces, media_type=kind, headers=headers)


async def _listed(visit: Visit, asked: AuditView, *, errors: Mapping[str, str] | None = None, status: int = 200) -> Response:
    context, administration = visit.context, visit.context.administration()
    listing = await context.run(
        audit_search.list_entries, administration, visit.actor, asked.filters, cursor=asked.cursor, limit=PAGE
    )
    shown_errors = {**asked.wrong, **(errors or {})}
    if isinstance(listing, Refused):
        shown_errors |= by_field(listing.refusals)
        # What was refused may be a secret: the page does not repeat it.
        asked = replace(asked, query={name: text for name, text in asked.query.items() if name not in shown_errors})
        listing, status = AuditListing((), None, None), 422
    actions = await context.run(audit_search.actions, administration, visit.actor)
    return visit.page(
        "audit.html",
        status=422 if shown_errors else status,
        asked=asked,
        listing=listing,
        errors=shown_errors,
        actions=[] if isinstance(actions, Refused) else actions,
    )


def _midnight(text: str) -> int | None:
    """Return when a day like 2027-01-31 begins, in UTC; None for another text."""
    if len(text) != len("2027-01-31"):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return max(0, int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()))
