"""Log in with an account of the console's own, log out, and say again who one is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from extauthz.adapters.store.sessions import LOCAL, StoredAccount, StoredSession
from extauthz.admin import accounts, sessions
from extauthz.admin.outcomes import Refused
from extauthz.admin.reauthentication import CONFIRMATION
from extauthz.admin.rights import Actor, Role
from extauthz.config.console import ConsoleSection
from extauthz.console import devices, forms, passwords, rendering
from extauthz.console.context import Context
from extauthz.console.login_cookie import local_path
from extauthz.console.throttle import LoginThrottle, Throttle
from extauthz.console.visits import (
    COOKIE,
    SOURCE,
    Visit,
    address_of,
    console_section,
    current_role,
    logged_out,
    message_page,
    session_limits,
    visitor_of,
)

WRONG = "The address or the password is wrong."
NO_ROLE = "This address has no role. A super admin can add it to `roles` in the configuration."
CHANGED = "Your session or your account was changed meanwhile. Log in again."

_log = logging.getLogger(__name__)


class LocalLogin:
    """The pages of accounts; they count who tries how often."""

    def __init__(self) -> None:
        """Begin with nobody known."""
        self._throttle = LoginThrottle()
        # Whoever has a session is known: no stranger at the same address takes these attempts away.
        self._confirmations = Throttle(5, 60)
        self._hashing = passwords.Hashing()

    async def show(self, context: Context, request: Request) -> Response:
        """Show how one can log in; somebody who is logged in goes on."""
        path = local_path(request.query_params.get("next", ""))
        visitor = await visitor_of(context, request)
        if visitor is not None and not isinstance(visitor, Response):
            return RedirectResponse("/" if path.startswith("/login") else path, 303)
        return login_page(console_section(context), path)

    async def log_in(self, context: Context, request: Request) -> Response:
        """Begin a session of an account, or show why not."""
        form = await forms.read_form(request)
        path, section = local_path(form.text("next")), console_section(context)
        email, address = form.text("email"), address_of(context, request)
        is_known = _is_known(context, request, email)
        wait = self._throttle.wait(address, email.lower(), context.clock(), is_known=is_known)
        password = form.fields.get("password", ("",))[0]
        account = await self._authenticate(context, request, email, password, wait=wait, is_known=is_known)
        if isinstance(account, Response):
            return account
        if isinstance(account, str):
            return login_page(section, path, email=email, error=account, status=403)
        response = RedirectResponse(path, 303)
        answer = await begin_session(context, request, account.email, LOCAL, response, account=account)
        if answer is response:
            peppers = context.administration().read_peppers()
            devices.set_device(response, devices.device_value(account.email, peppers, context.now()))
        return answer

    async def confirm(self, visit: Visit) -> Response:
        """Ask for the password again, or take it: what needs a recent login is allowed for ten minutes then."""
        if visit.visitor.session.method != LOCAL:
            path, oidc = local_path(visit.query.get("next", "")), console_section(visit.context).oidc
            if oidc is not None and oidc.reauthentication == CONFIRMATION:
                return RedirectResponse(f"/confirm/provider?{urlencode({'next': path})}", 303)
            return RedirectResponse(f"/login/openid?{urlencode({'again': 1, 'next': path})}", 303)
        if not visit.form.fields:
            return visit.page("confirm.html", path=local_path(visit.query.get("next", "")), error="")
        path, email = local_path(visit.form.text("next")), visit.visitor.session.email
        wait = self._confirmations.wait(visit.visitor.session.id, visit.context.clock())
        password = visit.form.fields.get("password", ("",))[0]
        account = await self._authenticate(visit.context, visit.request, email, password, wait=wait)
        if isinstance(account, Response):
            return account
        if isinstance(account, str):
            return visit.page("confirm.html", status=403, path=path, error=account)
        return await begin_session(
            visit.context,
            visit.request,
            account.email,
            LOCAL,
            RedirectResponse(path, 303),
            account=account,
            before=visit.visitor.session,
        )

    async def log_out(self, visit: Visit) -> Response:
        """End the session."""
        await visit.context.run(
            sessions.leave, visit.context.administration(), visit.actor, visit.visitor.session, visit.context.now()
        )
        return logged_out(RedirectResponse("/login", 303))

    async def _authenticate(
        self, context: Context, request: Request, email: str, password: str, *, wait: float, is_known: bool = False
    ) -> StoredAccount | str | Response:
        """Return the account whose password this is, or what is shown instead."""
        section, address = console_section(context), address_of(context, request)
        if not section.has_local_accounts:
            return "Accounts of the console are switched off: log in with your company's account."
        if wait:
            seconds = int(wait) + 1
            page = login_page(section, "/", email=email, error=f"Too many attempts: try again in {seconds} seconds.", status=429)
            page.headers["retry-after"] = str(seconds)
            return page
        text = accounts.normalized(password)
        account = await context.run(accounts.find, context.administration(), email)
        stored = account.password_hash if account is not None else passwords.NOBODY
        is_right = await self._hashing.is_right("" if isinstance(text, Refused) else text, stored)
        if account is None or isinstance(text, Refused) or not is_right:
            _log.warning("a login was refused", extra={"address": address})
            return WRONG
        if current_role(context, account.email) is None:
            return NO_ROLE
        self._throttle.succeeded(address, email.lower(), is_known=is_known)
        fresh = await self._hashing.hashed(text) if passwords.is_outdated(stored) else stored
        return await context.run(accounts.renew, context.administration(), account, fresh)


def _is_known(context: Context, request: Request, email: str) -> bool:
    """Tell whether this account logged in with this browser before."""
    value = request.cookies.get(devices.COOKIE, "")
    return bool(value) and devices.is_device_of(value, email, context.administration().read_peppers(), context.now())


def login_page(section: ConsoleSection, path: str, *, email: str = "", error: str = "", status: int = 200) -> Response:
    """Answer with the ways to log in."""
    values: Mapping[str, Any] = {
        "path": path,
        "email": email,
        "error": error,
        "has_accounts": section.has_local_accounts,
        "issuer": section.oidc.issuer if section.oidc is not None else "",
    }
    return HTMLResponse(rendering.render("login.html", values), status)


async def begin_session(
    context: Context,
    request: Request,
    email: str,
    method: str,
    response: Response,
    *,
    issuer: str = "",
    subject: str = "",
    account: StoredAccount | None = None,
    authenticated_at: int | None = None,
    before: StoredSession | None = None,
) -> Response:
    """Begin a session and give its secret to the browser with this response; answer with another one if it may not begin."""
    address = address_of(context, request)
    actor = Actor(email, current_role(context, email) or Role.VIEWER, f"{SOURCE} {address}")
    new = await context.run(
        sessions.begin,
        context.administration(),
        actor,
        context.now(),
        method=method,
        address=address,
        limits=session_limits(context),
        issuer=issuer,
        subject=subject,
        account=account,
        authenticated_at=authenticated_at,
        before=before,
    )
    if isinstance(new, Refused):
        return message_page("Not logged in", CHANGED, 403, link="/login", label="Log in")
    set_session(response, new.secret)
    return response


def set_session(response: Response, secret: str) -> None:
    """Give the browser the secret of a session, for as long as it is open."""
    response.set_cookie(COOKIE, secret, path="/", secure=True, httponly=True, samesite="strict")
