"""The audit: its rows, and whether they are what was written."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field

from extauthz.adapters.store.records import AuditRow
from extauthz.admin import audits
from extauthz.admin.metadata import utc
from extauthz.admin.outcomes import Refused
from extauthz.console.api.operations import ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.problems import ApiProblem
from extauthz.console.api.values import Answer, Body, Time, Whole

MAX_LISTED = 1000
MAX_NUMBER = 2**53


class AuditQuery(Body):
    """Which rows of the audit to list: those behind a number, or without one the newest."""

    after: Annotated[int | None, Whole(0, MAX_NUMBER, is_text=True), Field(description="Rows behind this number.")] = None
    limit: Annotated[int, Whole(1, MAX_LISTED, is_text=True), Field(description="Rows of a page.")] = 100


class AuditHeadQuery(Body):
    """What was noted outside of the store."""

    head: Annotated[
        str | None,
        Field(pattern=r"^[0-9]{1,15}:[0-9a-f]{64}$", description="A `head` that you noted: shows whether rows were cut off since."),
    ] = None


class AuditRowAnswer(Answer):
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


class AuditList(Answer):
    """Rows, the newest last; `after` is the number that the next page begins behind, null at the end."""

    rows: list[AuditRowAnswer]
    after: int | None


class AuditDifference(Answer):
    """A token whose row is not what the audit says of it."""

    id: str
    field: str
    audit: Any
    row: Any


class AuditVerification(Answer):
    """Whether each row is what was written, and each token what the rows say; note `head` outside of the store."""

    whole: bool
    first_broken: int | None
    differences: list[AuditDifference]
    head: str


def list_rows(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return a page of rows."""
    query: AuditQuery = request.query
    page = audits.list_rows(request.administration, request.actor, after=query.after, limit=query.limit)
    if isinstance(page, Refused):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, page)
    pages = {"next": {"after": str(page.after)}} if page.after is not None else {}
    return ApiAnswer(AuditList(rows=[_shown(row) for row in page.rows], after=page.after), pages=pages)


def verify(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Check all rows, and all tokens against them."""
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
        AuditDifference(id=item.token_id, field=item.field, audit=item.audit, row=item.row) for item in checked.differences
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
        before=json.loads(row.before),
        after=json.loads(row.after),
        pepper_id=row.pepper_id,
        mac=row.mac.hex(),
    )


OPERATIONS = (
    ApiOperation(
        "listAuditRows", "GET", "/audit", "List rows of the audit", list_rows, AuditList, query=AuditQuery, answer_headers=("Link",)
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
