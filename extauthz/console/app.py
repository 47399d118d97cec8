"""The console as one application: every page, by method and path, behind the guard."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from extauthz.config.console import CALLBACK
from extauthz.console import (
    activity_pages,
    api_page,
    audit_pages,
    explain_pages,
    key_pages,
    overview_pages,
    rendering,
    route_pages,
    session_pages,
    settings_pages,
    token_changes,
    token_exports,
    token_pages,
    what_if_pages,
)
from extauthz.console.api import app as api
from extauthz.console.api.operations import BASE
from extauthz.console.api.table import OPERATIONS
from extauthz.console.context import Context
from extauthz.console.forms import MAX_BODY
from extauthz.console.guard import Guard
from extauthz.console.local_login import LocalLogin
from extauthz.console.openid import OpenIdLogin
from extauthz.console.openid_pages import OpenIdPages
from extauthz.console.visits import Page, message_page, open_page, page

SCOPES = ("scope",)
"""Fields that a form may have several times."""


@dataclass(frozen=True, slots=True)
class PageRow:
    """One page for visitors: what answers at a path, by method; one that is not `is_seen` keeps no session alive.

    `max_body` are the bytes that its form may have.
    """

    path: str
    get: Page | None = None
    post: Page | None = None
    repeated: tuple[str, ...] = ()
    is_seen: bool = True
    max_body: int = MAX_BODY


def page_rows(login: LocalLogin, company: OpenIdPages) -> tuple[PageRow, ...]:
    """Return every page that needs a session."""
    return (
        PageRow("/", overview_pages.show),
        PageRow("/routes", route_pages.show),
        PageRow(explain_pages.PATH, explain_pages.show, explain_pages.ask),
        PageRow(
            what_if_pages.PATH,
            what_if_pages.show,
            what_if_pages.compare,
            what_if_pages.REPEATED,
            max_body=what_if_pages.MAX_BODY,
        ),
        PageRow("/activity", activity_pages.show),
        PageRow("/activity/numbers", activity_pages.numbers, is_seen=False),
        PageRow("/audit", audit_pages.list_page),
        PageRow("/audit/search", post=audit_pages.search),
        PageRow("/audit/verify", post=audit_pages.verify),
        PageRow("/audit/export.csv", audit_pages.as_csv),
        PageRow("/audit/export.json", audit_pages.as_json),
        PageRow("/tokens", token_pages.list_page, token_changes.create, SCOPES),
        PageRow("/tokens/search", post=token_pages.search),
        PageRow("/tokens/new", token_changes.new),
        PageRow("/tokens/preview", token_pages.preview),
        PageRow("/tokens/export.csv", token_exports.as_csv),
        PageRow("/tokens/export.json", token_exports.as_json),
        PageRow("/tokens/{token_id}", token_pages.show),
        PageRow("/tokens/{token_id}/rotate", token_changes.rotate_form, token_changes.rotate),
        PageRow("/tokens/{token_id}/revoke", token_changes.revoke_form, token_changes.revoke),
        PageRow(settings_pages.PATH, settings_pages.show, settings_pages.change),
        PageRow(f"{settings_pages.PATH}/back", post=settings_pages.go_back),
        PageRow("/api", api_page.show),
        PageRow(key_pages.PATH, key_pages.list_page),
        PageRow(f"{key_pages.PATH}/{{key_id}}/revoke", key_pages.revoke_form, key_pages.revoke),
        PageRow("/sessions", session_pages.list_page),
        PageRow("/sessions/{session_id}/end", post=session_pages.end),
        PageRow("/confirm", login.confirm, login.confirm),
        PageRow("/confirm/provider", company.ask, company.confirm),
        PageRow("/logout", post=login.log_out),
    )


OPEN_PATHS = ("/static/{path:path}", "/favicon.ico", "/login", "/login/openid", CALLBACK)
"""Pages that need no session."""


def paths() -> tuple[str, ...]:
    """Return the pattern of every path that is answered, as they are routed: what to count requests by."""
    of_pages = [row.path for row in page_rows(LocalLogin(), OpenIdPages(None))]
    of_api = [f"{BASE}{path}" for path in (*(operation.path for operation in OPERATIONS), api.DOCUMENT)]
    return (*OPEN_PATHS, *of_api, *of_pages)


def application(context: Context, origins: Collection[str], *, openid: OpenIdLogin | None = None) -> ASGIApp:
    """Return the console as it is reached at these origins, with logins by a provider if there is one."""
    login, company = LocalLogin(), OpenIdPages(openid)
    routes: list[BaseRoute] = [
        Route("/static/{path:path}", rendering.serve_static),
        Route("/favicon.ico", _icon),
        Route("/login", open_page(context, login.show), methods=["GET"]),
        Route("/login", open_page(context, login.log_in), methods=["POST"]),
        Route("/login/openid", open_page(context, company.leave), methods=["GET"]),
        Route(CALLBACK, open_page(context, company.come_back), methods=["GET"]),
        *api.routes(context),
    ]
    for row in page_rows(login, company):
        routes += _routes(context, row)
    app = Starlette(routes=routes, exception_handlers={HTTPException: _explain})
    app.router.redirect_slashes = False
    return Guard(app, origins=origins)


def _routes(context: Context, row: PageRow) -> list[BaseRoute]:
    by_method = {"GET": row.get, "POST": row.post}
    methods = [method for method, handler in by_method.items() if handler is not None]

    async def answer(visit_of: Request) -> Response:
        handler = by_method["GET" if visit_of.method == "HEAD" else visit_of.method]
        if handler is None:
            raise HTTPException(405, headers={"allow": ", ".join(methods)})
        return await page(context, handler, repeated=row.repeated, is_seen=row.is_seen, max_body=row.max_body)(visit_of)

    return [Route(row.path, answer, methods=methods)]


async def _icon(_: Request) -> Response:
    content, kind = next(file for path, file in rendering.static_files().items() if path.endswith("/icon.svg"))
    return Response(content, media_type=kind)


async def _explain(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return message_page("No such page", "Nothing is at this address.", 404)
    return PlainTextResponse("This page is not asked for in that way.\n", status, getattr(error, "headers", None))
