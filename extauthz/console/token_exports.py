"""What a list of tokens shows, as a file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import Response, StreamingResponse

from extauthz.admin import tokens
from extauthz.admin.exporting import csv_line
from extauthz.admin.metadata import token_metadata
from extauthz.admin.outcomes import Refused
from extauthz.admin.tokens import Page
from extauthz.console.token_forms import TokenListing
from extauthz.console.visits import Visit, message_page

BATCH = 1000
FIELDS = (
    "id",
    "description",
    "permission",
    "user",
    "scopes",
    "status",
    "created_at",
    "created_by",
    "expires_at",
    "last_used_at",
    "last_used_from",
    "revoked_at",
    "revoked_by",
    "revoked_why",
    "rotated_from",
    "rotated_to",
)


async def as_csv(visit: Visit) -> Response:
    """Answer with the tokens that the address asks for, as CSV (RFC 4180)."""
    return await _export(visit, "csv", "text/csv; charset=utf-8", _csv)


async def as_json(visit: Visit) -> Response:
    """Answer with the tokens that the address asks for, as JSON lines."""
    return await _export(visit, "jsonl", "application/jsonl", _json)


async def _export(visit: Visit, ending: str, media_type: str, write: Callable[[Page, int, bool], str]) -> Response:
    listing, at = TokenListing.of(visit.query), visit.context.now()

    def read(cursor: str | None) -> Awaitable[Page | Refused]:
        administration, search, sort = visit.context.administration(), listing.search, listing.sort
        return visit.context.run(tokens.list_tokens, administration, visit.actor, search, at, sort=sort, cursor=cursor, limit=BATCH)

    first = await read(None)
    if isinstance(first, Refused):
        return message_page("No export", first.refusals[0].message, 422, link="/tokens", label="Go to the tokens")

    async def lines(page: Page) -> AsyncIterator[str]:
        yield write(page, at, True)
        cursor = page.after
        while cursor is not None:
            following = await read(cursor)
            if isinstance(following, Refused):
                raise RuntimeError(following.refusals[0].message)
            yield write(following, at, False)
            cursor = following.after

    headers = {"content-disposition": f'attachment; filename="client-tokens.{ending}"'}
    return StreamingResponse(lines(first), media_type=media_type, headers=headers)


def _csv(page: Page, at: int, is_first: bool) -> str:
    rows = [csv_line(FIELDS)] if is_first else []
    for token in page.tokens:
        facts = token_metadata(token, at)
        rows.append(csv_line(facts[name] for name in FIELDS))
    return "".join(rows)


def _json(page: Page, at: int, _: bool) -> str:
    return "".join(json.dumps(token_metadata(token, at)) + "\n" for token in page.tokens)
