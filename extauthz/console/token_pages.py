"""The pages of client tokens: list, one token, and its export; what they change is in `token_changes`."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from extauthz.adapters.store.records import StoredToken
from extauthz.admin import audit_search, chains, tokens
from extauthz.admin.metadata import token_metadata
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import PERMISSIONS, Operation, may
from extauthz.admin.token_search import TokenStatus
from extauthz.console import token_forms
from extauthz.console.token_form_values import form_values
from extauthz.console.token_forms import TokenDraft, TokenListing, by_field
from extauthz.console.visits import Visit, message_page
from extauthz.core.model import AuthType

PAGE = 50


async def list_page(visit: Visit) -> Response:
    """Show the tokens that the address asks for."""
    return await _listed(visit, TokenListing.of(visit.query))


async def search(visit: Visit) -> Response:
    """Take what was typed out of the body, where a pasted token leaves no trace, and go on to the address of its list."""
    listing = TokenListing.of({name: visit.form.text(name) for name in visit.form.fields})
    readable = listing.search.without_secret(visit.context.administration().prefixes)
    if isinstance(readable, Refused):
        errors = by_field(readable.refusals)
        return await _listed(visit, TokenListing.of({**listing.query, **dict.fromkeys(errors, "")}), errors=errors, status=422)
    return RedirectResponse(listing.link(text=readable.text or None), 303)


async def _listed(visit: Visit, listing: TokenListing, *, errors: dict[str, str] | None = None, status: int = 200) -> Response:
    at = visit.context.now()
    page = await visit.context.run(
        tokens.list_tokens,
        visit.context.administration(),
        visit.actor,
        listing.search,
        at,
        sort=listing.sort,
        cursor=listing.cursor,
        limit=PAGE,
    )
    if isinstance(page, Refused):
        errors, page, status = by_field(page.refusals), tokens.Page((), None, None), 422
    # The form lies over the list as a dialog; its own errors are on its own page.
    return visit.page(
        "tokens.html",
        status=status,
        **{**form_values(visit, TokenDraft(), {}), "errors": errors or {}},
        listing=listing,
        page=page,
        rows=[row(token, at) for token in page.tokens],
        can_create=may(visit.actor, Operation.CREATE),
        status_options=[(status.value, status.value.capitalize()) for status in TokenStatus],
        permission_options=[(permission.value, permission.value) for permission in PERMISSIONS],
        scope_options=[(name, name) for name in sorted(visit.context.configuration().settings.scopes)],
        expiring_options=[(days, f"{days} days") for days in token_forms.EXPIRING],
        unused_options=[*((days, f"{days} days") for days in token_forms.UNUSED), ("never", "Ever")],
        sort_options=[(sort.value, label) for sort, label in token_forms.SORTS.items()],
    )


def row(token: StoredToken, at: int) -> dict[str, Any]:
    """Return a token as pages show it."""
    facts = token_metadata(token, at)
    ends_soon = facts["status"] == "active" and token.expires_at - at <= token_forms.SOON and token.rotated_to is None
    return {"token": token, "state": facts["status"], "ends_soon": ends_soon, "scopes": facts["scopes"]}


async def show(visit: Visit) -> Response:
    """Show one token: what is known of it, the tokens before and after it, and what it can call."""
    token = await token_of_path(visit)
    if isinstance(token, Response):
        return token
    at, context = visit.context.now(), visit.context
    links = await context.run(chains.chain, context.administration(), visit.actor, token)
    trail = await context.run(audit_search.of_token, context.administration(), visit.actor, token.id)
    routes = context.route_map().opened_by(token.scopes, token.permission)
    return visit.page(
        "token.html",
        **row(token, at),
        chain=() if isinstance(links, Refused) else links,
        trail=() if isinstance(trail, Refused) else trail,
        routes=routes,
        can_change=may(visit.actor, Operation.REVOKE, token.permission),
        can_create=may(visit.actor, Operation.CREATE),
    )


async def token_of_path(visit: Visit) -> StoredToken | Response:
    """Return the token that the path names, or the page for none."""
    token = await visit.context.run(tokens.show, visit.context.administration(), visit.actor, visit.request.path_params["token_id"])
    if isinstance(token, Refused):
        return message_page("No such token", "No token has this id.", 404, link="/tokens", label="Go to the tokens")
    return token


async def preview(visit: Visit) -> Response:
    """Tell what a token with these scopes could call, for the form of a new one."""
    scopes = frozenset(visit.request.query_params.getlist("scope"))
    permission = visit.query.get("permission", "")
    opened = visit.context.route_map().opened_by(scopes, AuthType(permission)) if permission in PERMISSIONS else ()
    routes = [entry.route.match.text for entry in opened]
    return JSONResponse({"count": len(routes), "routes": routes})
