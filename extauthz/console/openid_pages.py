"""The way to the company's provider and back: what stands around `openid` in a browser."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from extauthz.adapters.store.sessions import OPENID
from extauthz.admin import reauthentication
from extauthz.admin.outcomes import Refused
from extauthz.admin.reauthentication import CONFIRMATION, SENTENCE, Proof
from extauthz.admin.rights import Actor, Role
from extauthz.config.console import CALLBACK
from extauthz.console.context import Context
from extauthz.console.id_tokens import LoginRefusal
from extauthz.console.local_login import NO_ROLE, begin_session, set_session
from extauthz.console.login_cookie import COOKIE, LIFETIME, local_path
from extauthz.console.openid import Authenticated, OpenIdLogin
from extauthz.console.throttle import Throttle, network_of
from extauthz.console.visits import (
    SOURCE,
    Visit,
    address_of,
    console_section,
    current_role,
    go_on,
    message_page,
    session_limits,
)
from extauthz.errors import Unavailable

TICKET = "__Host-confirmation"
"""Where the browser keeps the ticket of a confirmation beside COOKIE, in the same way."""
STEPS = 40
"""Ways to the provider and back that one address may take in a minute."""
UNREACHABLE = "The provider of your company does not answer. Try again in a moment; the log of the console says more."


class OpenIdPages:
    """The pages of a login by the provider, and of its confirmation; without one there are none."""

    def __init__(self, login: OpenIdLogin | None) -> None:
        """Begin with nobody known."""
        self._login = login
        self._throttle = Throttle(STEPS, 60)

    async def leave(self, context: Context, request: Request) -> Response:
        """Send the browser to the provider."""
        if self._login is None:
            return _off()
        if refused := self._too_many(context, request):
            return refused
        origin = self._login.redirect_uri.removesuffix(CALLBACK)
        if request.headers.get("host") != origin.partition("://")[2]:
            # The provider sends the browser back to one name, where a cookie of another is not sent.
            return RedirectResponse(f"{origin}{request.url.path}?{request.url.query}", 303)
        path, again = local_path(request.query_params.get("next", "")), request.query_params.get("again") == "1"
        try:
            begun = await self._login.begin(path, context.clock(), again=again)
        except Unavailable:
            return message_page("The provider does not answer", UNREACHABLE, 503, link="/login", label="Log in")
        response = RedirectResponse(begun.address, 303)
        _keep(response, COOKIE, begun.cookie)
        # A confirmation that was given up is none of this login.
        _forget(response, TICKET)
        return response

    async def ask(self, visit: Visit) -> Response:
        """Ask for the sentence of a confirmation."""
        path = local_path(visit.query.get("next", ""))
        if self._login is None:
            return _off()
        if visit.visitor.session.method != OPENID or _reauthentication(visit.context) != CONFIRMATION:
            return RedirectResponse(f"/confirm?{urlencode({'next': path})}", 303)
        return visit.page("confirm_provider.html", path=path, sentence=SENTENCE, errors={})

    async def confirm(self, visit: Visit) -> Response:
        """Take the sentence, and send the browser to the provider."""
        if self._login is None:
            return _off()
        context, path, session = visit.context, local_path(visit.form.text("next")), visit.visitor.session
        if refused := self._too_many(context, visit.request):
            return refused
        try:
            begun = await self._login.begin(path, context.clock(), chooses=True, hint=session.email)
        except Unavailable:
            return message_page("The provider does not answer", UNREACHABLE, 503, link=path, label="Go back")
        ticket = await context.run(
            reauthentication.start,
            context.administration(),
            session,
            visit.form.text("sentence"),
            begun.cookie,
            context.now(),
            reauthentication=_reauthentication(context),
        )
        if isinstance(ticket, Refused):
            errors = {item.field: item.message for item in ticket.refusals}
            return visit.page("confirm_provider.html", status=422, path=path, sentence=SENTENCE, errors=errors)
        # A redirect to another site would end a chain that began with a form, which the policy of the page forbids.
        response = go_on(begun.address)
        _keep(response, COOKIE, begun.cookie)
        _keep(response, TICKET, ticket)
        return response

    async def come_back(self, context: Context, request: Request) -> Response:
        """Begin a session of whoever the provider names."""
        if self._login is None:
            return _off()
        if refused := self._too_many(context, request):
            return refused
        try:
            ended = await self._login.finish(request.url.query, request.cookies.get(COOKIE, ""), context.clock())
        except Unavailable:
            return message_page("The provider does not answer", UNREACHABLE, 503, link="/login", label="Log in")
        match ended:
            case LoginRefusal():
                page = message_page("Not logged in", ended.value, 403, link="/login", label="Log in")
            case Authenticated(email) if current_role(context, email) is None:
                page = message_page("No access", f"{email}: {NO_ROLE}", 403, link="/login", label="Log in as somebody else")
            case Authenticated() if TICKET in request.cookies:
                page = await self._confirmed(context, request, ended)
            case Authenticated(email, authenticated_at, path, subject):
                # The chain of redirects began at the provider, so the cookie counts from the next page on.
                page = await begin_session(
                    context,
                    request,
                    email,
                    OPENID,
                    go_on(path),
                    issuer=self._login.issuer,
                    subject=subject,
                    authenticated_at=authenticated_at or 0,
                )
        for name in (COOKIE, TICKET):
            _forget(page, name)
        return page

    async def _confirmed(self, context: Context, request: Request, ended: Authenticated) -> Response:
        """Put a new session in the place of the one that was confirmed; whoever is refused keeps what there was."""
        issuer, address = "" if self._login is None else self._login.issuer, address_of(context, request)
        actor = Actor(ended.email, current_role(context, ended.email) or Role.VIEWER, f"{SOURCE} {address}")
        new = await context.run(
            reauthentication.finish,
            context.administration(),
            actor,
            request.cookies.get(TICKET, ""),
            request.cookies.get(COOKIE, ""),
            Proof(issuer, ended.subject, ended.email, ended.issued_at),
            context.now(),
            reauthentication=_reauthentication(context),
            address=address,
            limits=session_limits(context),
        )
        if isinstance(new, Refused):
            text = f"Nothing was confirmed: {new.refusals[0].message}."
            return message_page("Not confirmed", text, 403, link=ended.path, label="Go back")
        page = go_on(ended.path)
        set_session(page, new.secret)
        return page

    def _too_many(self, context: Context, request: Request) -> Response | None:
        """Turn somebody away: each way to the provider is a fetch of ours, and so is each way back."""
        wait = self._throttle.wait(network_of(address_of(context, request)), context.clock())
        if not wait:
            return None
        page = message_page("Too many logins", f"Try again in {int(wait) + 1} seconds.", 429, link="/login", label="Log in")
        page.headers["retry-after"] = str(int(wait) + 1)
        return page


def _reauthentication(context: Context) -> str:
    """Return how a login is made anew, as the configuration of now has it; "" without a provider."""
    oidc = console_section(context).oidc
    return "" if oidc is None else oidc.reauthentication


def _keep(response: Response, name: str, value: str) -> None:
    response.set_cookie(name, value, max_age=LIFETIME, path="/", secure=True, httponly=True, samesite="lax")


def _forget(response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


def _off() -> Response:
    return message_page("No provider", "Logins by a provider are not set up: see console.oidc.", 404, link="/login", label="Log in")
