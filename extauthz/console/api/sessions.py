"""Sessions of people in the console: who is logged in, and the end of a session."""

from __future__ import annotations

from http import HTTPStatus

from extauthz.adapters.store.sessions import StoredSession
from extauthz.admin import sessions
from extauthz.admin.metadata import utc
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Operation
from extauthz.admin.sessions import SessionLimits
from extauthz.config.console import ConsoleSection
from extauthz.console.api.operations import ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.problems import ApiProblem
from extauthz.console.api.values import AnswerModel, Time


class SessionAnswer(AnswerModel):
    """Somebody who is logged in: by which method, and from where. A request is told by the minute."""

    id: str
    email: str
    method: str
    address: str
    created_at: Time
    seen_at: Time
    authenticated_at: Time


class SessionList(AnswerModel):
    """The sessions that last, the newest first."""

    sessions: list[SessionAnswer]


def list_sessions(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return who is logged in."""
    section = request.configuration.settings.console or ConsoleSection()
    limits = SessionLimits(section.session_idle, section.session_lifetime)
    listed = sessions.list_sessions(request.administration, request.actor, request.at, limits=limits)
    if isinstance(listed, Refused):
        return ApiProblem.of_refusal(HTTPStatus.FORBIDDEN, listed)
    return ApiAnswer(SessionList(sessions=[_shown(session) for session in listed]))


def end_session(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """End a session of anybody."""
    ended = sessions.end(request.administration, request.actor, request.path["id"], request.at)
    if isinstance(ended, Refused):
        is_unknown = ended.refusals[0].field == "id"
        return ApiProblem.of_refusal(HTTPStatus.NOT_FOUND if is_unknown else HTTPStatus.FORBIDDEN, ended)
    return ApiAnswer(_shown(ended))


def _shown(session: StoredSession) -> SessionAnswer:
    return SessionAnswer(
        id=session.id,
        email=session.email,
        method=session.method,
        address=session.address,
        created_at=str(utc(session.created_at)),
        seen_at=str(utc(session.seen_at)),
        authenticated_at=str(utc(session.authenticated_at)),
    )


OPERATIONS = (
    ApiOperation(
        "listSessions",
        "GET",
        "/sessions",
        "List the people who are logged in to the console",
        list_sessions,
        SessionList,
        needs=Operation.SESSIONS,
    ),
    ApiOperation(
        "endSession",
        "DELETE",
        "/sessions/{id}",
        "End a session, and return what it was",
        end_session,
        SessionAnswer,
        needs=Operation.SESSIONS,
    ),
)
