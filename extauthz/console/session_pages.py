"""The page of sessions: who is logged in, and the end of a session."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from extauthz.admin import sessions
from extauthz.admin.outcomes import Refused
from extauthz.console.visits import Visit, message_page, session_limits


async def list_page(visit: Visit) -> Response:
    """Show the sessions that last."""
    context = visit.context
    listed = await context.run(
        sessions.list_sessions, context.administration(), visit.actor, context.now(), limits=session_limits(context)
    )
    if isinstance(listed, Refused):
        return message_page("Not for you", listed.refusals[0].message, 403)
    return visit.page("sessions.html", listed=listed)


async def end(visit: Visit) -> Response:
    """End a session, one's own too."""
    context, session_id = visit.context, visit.request.path_params["session_id"]
    ended = await context.run(sessions.end, context.administration(), visit.actor, session_id, context.now())
    if isinstance(ended, Refused):
        status = 404 if ended.refusals[0].field == "id" else 403
        return message_page("Not done", ended.refusals[0].message, status, link="/sessions", label="Go to the sessions")
    return RedirectResponse("/sessions", 303)
