"""Who asks, and whether the request is theirs: session, role and form token, before any page sees it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from extauthz.adapters.store.sessions import LOCAL, OPENID, StoredSession
from extauthz.admin import sessions
from extauthz.admin.rights import Actor, Role
from extauthz.admin.sessions import SessionLimits
from extauthz.config.console import ConsoleSection
from extauthz.console import forms, rendering
from extauthz.console.addresses import client_address
from extauthz.console.context import Context
from extauthz.console.current import role_in
from extauthz.console.forms import Form
from extauthz.console.guard import SAFE_METHODS
from extauthz.errors import ConfigurationError, StoreError

COOKIE = "__Host-session"
SOURCE = "console"

_log = logging.getLogger(__name__)

SESSION_OVER = "Your session is over. Log in again, then repeat what you wanted."
OTHER_FORM = "This form was not made for your session: go back, load the page anew, and send it again."


UNREAD = "The token store cannot be used at the moment. Try again; the log of the console says why."
UNCERTAIN = (
    "The token store cannot be used at the moment, and it is not certain whether it took the change. Look at what is there before "
    "you try again; the log of the console says more."
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody with a session and a role."""

    session: StoredSession
    role: Role
    actor: Actor
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a visitor; `form` is what was sent, without fields for a page that is read."""

    context: Context
    request: Request
    visitor: Visitor
    form: Form = field(default_factory=lambda: Form({}))

    @property
    def actor(self) -> Actor:
        """Who does what the page does."""
        return self.visitor.actor

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the address, the last one of each name."""
        return self.request.query_params

    @property
    def is_recent(self) -> bool:
        """Whether the visitor logged in recently enough for what needs that."""
        return sessions.is_recent(self.visitor.session, self.context.now())

    def csrf(self, action: str) -> str:
        """Return the token of a form of this session to a path."""
        return forms.form_token(self.visitor.secret, action)

    def page(self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
        """Answer with a template; besides the values it has the visit, the visitor and the time."""
        notices = () if self.visitor.role is Role.VIEWER else self.context.notices()
        shown = {"visit": self, "visitor": self.visitor, "now": self.context.now(), "csrf": self.csrf, "notices": notices, **values}
        return HTMLResponse(rendering.render(template, shown), status, headers)


Page = Callable[[Visit], Awaitable[Response]]
Open = Callable[[Context, Request], Awaitable[Response]]


def console_section(context: Context) -> ConsoleSection:
    """Return the section of the console, or its defaults."""
    return context.configuration().settings.console or ConsoleSection()


def session_limits(context: Context) -> SessionLimits:
    """Return how long sessions last."""
    section = console_section(context)
    return SessionLimits(section.session_idle, section.session_lifetime)


def address_of(context: Context, request: Request) -> str:
    """Return the address that a request comes from."""
    return client_address(request, console_section(context).trusted_proxies)


def current_role(context: Context, email: str) -> Role | None:
    """Return the role that the configuration of now gives an address."""
    return role_in(context.configuration().settings.roles, email)


def message_page(title: str, text: str, status: int, *, link: str = "/", label: str = "Go to the overview") -> Response:
    """Answer with a page of a few words, which needs no session."""
    return HTMLResponse(rendering.render("message.html", {"title": title, "text": text, "link": link, "label": label}), status)


def logged_out(response: Response) -> Response:
    """Remove the cookie."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response


async def visitor_of(context: Context, request: Request, *, is_seen: bool = True) -> Visitor | Response | None:
    """Return who asks, None without a session, or the page for somebody who lost the role."""
    secret = request.cookies.get(COOKIE, "")
    if not secret:
        return None
    at, limits = context.now(), session_limits(context)
    session = await context.run(sessions.resume, context.administration(), secret, at, limits=limits, is_seen=is_seen)
    if session is None or not _is_offered(console_section(context), session):
        return None
    role = current_role(context, session.email)
    actor = Actor(session.email, role or Role.VIEWER, f"{SOURCE} {address_of(context, request)}")
    if role is None:
        await context.run(sessions.leave, context.administration(), actor, session, at)
        text = f"{session.email} has no role any more, and was logged out. A super admin can add the address to `roles`."
        return logged_out(message_page("No access", text, 403, link="/login", label="Log in as somebody else"))
    return Visitor(session, role, actor, bytes.fromhex(secret))


def _is_offered(section: ConsoleSection, session: StoredSession) -> bool:
    """Tell whether somebody could log in now as in a session: by an account, or by the same provider."""
    if session.method == LOCAL:
        return section.has_local_accounts
    return session.method == OPENID and section.oidc is not None and section.oidc.issuer == session.issuer


async def _admitted(context: Context, request: Request, *, is_seen: bool) -> Visitor | Response:
    """Return who asks, or the page for nobody."""
    visitor = await visitor_of(context, request, is_seen=is_seen)
    if visitor is not None:
        return visitor
    is_read = request.method in SAFE_METHODS
    return _log_in(request) if is_read else message_page("Log in", SESSION_OVER, 401, link="/login", label="Log in")


def page(
    context: Context,
    handler: Page,
    *,
    repeated: tuple[str, ...] = (),
    is_seen: bool = True,
    max_body: int = forms.MAX_BODY,
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for visitors alone; what is sent to it must be a form of the visitor's session for this path.

    What a page asks for by itself is not `is_seen`: it keeps no session alive.
    """

    async def endpoint(request: Request) -> Response:
        visitor = await _admitted(context, request, is_seen=is_seen)
        if isinstance(visitor, Response):
            return visitor
        if request.method in SAFE_METHODS:
            return await handler(Visit(context, request, visitor))
        form = await forms.read_form(request, repeated, max_body=max_body)
        # The form may have been long on its way: what counts is who the visitor is now.
        visitor = await _admitted(context, request, is_seen=is_seen)
        if isinstance(visitor, Response):
            return visitor
        if not forms.is_own(form, visitor.secret, request.url.path):
            return message_page("Not done", OTHER_FORM, 403)
        return await handler(Visit(context, request, visitor, form))

    return guarded(endpoint)


def open_page(context: Context, handler: Open) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for everybody."""

    async def endpoint(request: Request) -> Response:
        return await handler(context, request)

    return guarded(endpoint)


def guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer with a page when the world is broken; what is broken stands in the log, for whoever may read it."""

    async def fenced(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return PlainTextResponse("The request was not whole.\n", 400)
        except forms.BadForm as error:
            refused = message_page("Not done", f"The form could not be read: {error}.", error.status)
            # The rest of a form that is late is not waited for.
            refused.headers.update({"connection": "close"} if error.status == 408 else {})
            return refused
        except (StoreError, ConfigurationError) as error:
            _log.error("a page could not be made", extra={"path": request.url.path, "error": str(error)})
            text = UNREAD if request.method in SAFE_METHODS else UNCERTAIN
            return message_page("The store does not answer", text, 503, link=request.url.path, label="Look again")
        except Exception:  # noqa: BLE001 - whatever it is, an answer that says nothing of it
            _log.exception("a page failed", extra={"path": request.url.path})
            text = "Something in the console is broken. The log of the console says what."
            return message_page("An error", text, 500)

    return fenced


def go_on(address: str) -> Response:
    """Answer with a page that goes on to a path of ours, or to the provider, where a redirect would not do.

    One in a chain that began elsewhere gets no Strict cookie, and one after a form may not lead to another site.
    """
    text = quote(address, safe=":/%#?=@[]!$&'()*+,;~")
    return HTMLResponse(rendering.render("go_on.html", {"path": text}), headers={"refresh": f"0;url={text}"})


def _log_in(request: Request) -> Response:
    path = quote(request.url.path) + (f"?{request.url.query}" if request.url.query else "")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link in a chat comes without the cookie; from a page of our own it is sent.
        return go_on(path)
    return RedirectResponse("/login" if path == "/" else f"/login?{urlencode({'next': path})}", 303)
