"""The way to the company's provider and back: what stands around `openid` in a browser."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from extauthz.adapters.store.sessions import OPENID
from extauthz.config.console import CALLBACK
from extauthz.console.context import Context
from extauthz.console.id_tokens import LoginRefusal
from extauthz.console.local_login import NO_ROLE, begin_session
from extauthz.console.openid import COOKIE, LIFETIME, Authenticated, OpenIdLogin, local_path
from extauthz.console.throttle import Throttle, network_of
from extauthz.console.visits import address_of, current_role, go_on, message_page
from extauthz.errors import Unavailable

STEPS = 40
"""Ways to the provider and back that one address may take in a minute."""
UNREACHABLE = "The provider of your company does not answer. Try again in a moment; the log of the console says more."


class OpenIdPages:
    """The two pages of a login by the provider; without one there are none."""

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
        response.set_cookie(COOKIE, begun.cookie, max_age=LIFETIME, path="/", secure=True, httponly=True, samesite="lax")
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
            case Authenticated(email, authenticated_at, path):
                # The chain of redirects began at the provider, so the cookie counts from the next page on.
                page = await begin_session(
                    context,
                    request,
                    email,
                    OPENID,
                    go_on(path),
                    issuer=self._login.issuer,
                    authenticated_at=authenticated_at or 0,
                )
        page.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return page

    def _too_many(self, context: Context, request: Request) -> Response | None:
        """Turn somebody away: each way to the provider is a fetch of ours, and so is each way back."""
        wait = self._throttle.wait(network_of(address_of(context, request)), context.clock())
        if not wait:
            return None
        page = message_page("Too many logins", f"Try again in {int(wait) + 1} seconds.", 429, link="/login", label="Log in")
        page.headers["retry-after"] = str(int(wait) + 1)
        return page


def _off() -> Response:
    return message_page("No provider", "Logins by a provider are not set up: see console.oidc.", 404, link="/login", label="Log in")
