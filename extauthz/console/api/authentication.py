"""Who sends a request: the bearer of an admin key. A cookie is not looked at, so that no browser sends a request unasked."""

from __future__ import annotations

import math
import re
from http import HTTPStatus

from starlette.requests import Request

from extauthz.admin import keys
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor
from extauthz.console.addresses import client_address
from extauthz.console.api.problems import ApiProblem
from extauthz.console.context import Context
from extauthz.console.throttle import Throttle, network_of

CHALLENGE = 'Bearer realm="extauthz console API"'
WRONG_KEYS, WINDOW = 10, 60.0
"""Wrong keys that may come from an address in so many seconds; the next ones wait, and no right key does."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE).fullmatch


async def authenticate(request: Request, context: Context, failures: Throttle) -> Actor | ApiProblem:
    """Return who sends a request. Raises StoreError and ConfigurationError."""
    settings = context.configuration().settings
    console = settings.console
    address = client_address(request, console.trusted_proxies if console else ())
    sent = request.headers.getlist("authorization")
    bearer = _BEARER(sent[0]) if len(sent) == 1 else None
    if bearer is None:
        return _unauthorized("send an admin key: Authorization: Bearer exadm_…", "")
    actor = await context.run(
        keys.identify, context.administration(), bearer[1], context.now(), address=address, roles=settings.roles
    )
    if isinstance(actor, Refused):
        if seconds := math.ceil(failures.wait(network_of(address), context.clock())):
            detail = f"too many wrong keys came from your address: wait {seconds} s"
            return ApiProblem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"retry-after": str(seconds)})
        return _unauthorized(actor.refusals[0].message, ', error="invalid_token"')
    return actor


def _unauthorized(detail: str, error: str) -> ApiProblem:
    return ApiProblem(HTTPStatus.UNAUTHORIZED, detail, headers={"www-authenticate": f"{CHALLENGE}{error}"})
