"""The audit: its rows, and whether they are what was written."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field

from extauthz.adapters.store.records import AuditFilter, AuditRow
from extauthz.admin import audit_search, audits
from extauthz.admin.audit_search import MAX_PAGE
from extauthz.admin.metadata import utc
from extauthz.admin.outcomes import Refused
from extauthz.console.api.operations import ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.problems import ApiProblem
from extauthz.console.api.values import AnswerModel, BodyModel, Moment, Printable, Time, Whole

MAX_LISTED = MAX_PAGE
MAX_NUMBER = 10**15
_PLACES = {name: f"query/{name}" for name in ("actor", "action", "since", "until", "limit")} | {"token": "query/token_id"}


class AuditRowQuery(BodyModel):
    """Which rows of the audit to list: the newest ones, or those next to a number."""

    actor: Annotated[Printable | None, Field(description="Those of this actor, by the whole name.")] = None
    action: Annotated[Printable | None, Field(description="Those of this kind, like `revoke`.")] = None
    token_id: Annotated[str | None, Field(pattern=r"^[0-9A-Za-z]{12}$", description="Those of this token.")] = None
    since: Annotated[Moment | None, Field(description="Those of this moment and later.")] = None
    until: Annotated[Moment | None, Field(description="Those before this moment.")] = None
    limit: Annotated[int, Whole(1, MAX_LISTED, is_text=True), Field(description="Rows of a page.")] = 100
    after: Annotated[int | None, Whole(0, MAX_NUMBER, is_text=True), Field(description="The next rows behind this number.")] = None
    before: Annotated[int | None, Whole(1, MAX_NUMBER, is_text=True), Field(description="The last rows before this number.")] = None


class AuditHeadQuery(BodyModel):
    """What was noted outside of the store."""

    head: Annotated[
        str | None,
        Field(pattern=r"^[0-9]{1,15}:[0-9a-f]{64}$", description="A `head` that you noted: shows whether rows were cut off since."),
    ] = None


class AuditRowAnswer(AnswerModel):
    """A change: who made it, when and from where, and what it changed."""

    number: int
    at: Time
    actor: str
    action: str
    token_id: str | None
    source: str
    before: Any
    after: Any
    pepper_id: str
    mac: str


class AuditList(AnswerModel):
    """Rows, the newest last; `after` and `before` are the numbers for newer and for older ones, null where there are none."""

    rows: list[AuditRowAnswer]
    after: int | None
    before: int | None


class AuditDifference(AnswerModel):
    """What is not as the audit says: a token, an admin key, an account (`id` is its address) or the OAuth settings."""

    subject: str
    id: str
    field: str
    audit: Any
    row: Any


class AuditVerification(AnswerModel):
    """Whether each row is what was written, and the store what the rows say; note `head` outside of the store."""

    whole: bool
    first_broken: int | None
    differences: list[AuditDifference]
    head: str


def list_rows(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return a page of rows."""
    query: AuditRowQuery = request.query
    if query.after is not None and query.before is not None:
        return ApiProblem(HTTPStatus.CONFLICT, "rows are after a number or before one: write one of the two")
    # No row is older than the epoch.
    since, until = (None if moment is None else max(0, moment) for moment in (query.since, query.until))
    search = AuditFilter(query.actor, query.action, query.token_id, since, until)
    ways = {"above": query.after, "below": query.before}
    cursor = next((f"{way}-{number}" for way, number in ways.items() if number is not None), None)
    listing = audit_search.list_entries(request.administration, request.actor, search, cursor=cursor, limit=query.limit)
    if isinstance(listing, Refused):
        return ApiProblem.of_refusal(HTTPStatus.UNPROCESSABLE_ENTITY, listing, _PLACES)
    rows = [_shown(entry.row) for entry in reversed(listing.entries)]
    after = rows[-1].number if listing.newer else None
    before = rows[0].number if listing.older and rows[0].number > 1 else None
    numbers = {"next": ("after", after), "prev": ("before", before)}
    pages = {name: {parameter: str(number)} for name, (parameter, number) in numbers.items() if number is not None}
    return ApiAnswer(AuditList(rows=rows, after=after, before=before), pages=pages)


def verify(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Check all rows, and the store against them."""
    query: AuditHeadQuery = request.query
    noted = query.head.partition(":") if query.head else None
    if not audits.ONE_VERIFICATION.acquire(blocking=False):
        return ApiProblem(
            HTTPStatus.TOO_MANY_REQUESTS, "another verification is under way: wait for it", headers={"retry-after": "5"}
        )
    try:
        head = (int(noted[0]), noted[2]) if noted else None
        check = audits.verify(request.administration, request.actor, head=head)
    finally:
        audits.ONE_VERIFICATION.release()
    if isinstance(check, Refused):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, check)
    checked = check.checked
    differences = [
        AuditDifference(subject=item.subject.value, id=item.token_id, field=item.field, audit=item.audit, row=item.row)
        for item in checked.differences
    ]
    is_whole = checked.first_broken is None
    head_text = f"{checked.head[0]}:{checked.head[1]}"
    return ApiAnswer(AuditVerification(whole=is_whole, first_broken=checked.first_broken, differences=differences, head=head_text))


def _shown(row: AuditRow) -> AuditRowAnswer:
    return AuditRowAnswer(
        number=row.number,
        at=str(utc(row.at)),
        actor=row.actor,
        action=row.action,
        token_id=row.token_id,
        source=row.source,
        before=audit_search.value_of(row.before),
        after=audit_search.value_of(row.after),
        pepper_id=row.pepper_id,
        mac=row.mac.hex(),
    )


OPERATIONS = (
    ApiOperation(
        "listAuditRows",
        "GET",
        "/audit",
        "List rows of the audit",
        list_rows,
        AuditList,
        query=AuditRowQuery,
        answer_headers=("Link",),
        problems=(HTTPStatus.CONFLICT,),
    ),
    ApiOperation(
        "verifyAudit",
        "GET",
        "/audit/verification",
        "Check every row of the audit, and every token against the rows",
        verify,
        AuditVerification,
        query=AuditHeadQuery,
    ),
)
