"""Who sends a request: the bearer of an admin key. A cookie is not looked at, so that no browser sends a request unasked."""

from __future__ import annotations

import re
from collections import OrderedDict
from http import HTTPStatus

from starlette.requests import Request

from extauthz.admin import keys
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor
from extauthz.console.addresses import client_address
from extauthz.console.api.problems import ApiProblem
from extauthz.console.context import Context

CHALLENGE = 'Bearer realm="extauthz console API"'
MAX_FAILURES, WINDOW = 10, 60.0
"""Wrong keys that an address may send in so many seconds; then all that it sends is refused until they are over."""
MAX_ADDRESSES = 10_000

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE).fullmatch


class FailedKeys:
    """Counts wrong keys by address, for the addresses that failed last."""

    def __init__(self) -> None:
        """Begin without a failure."""
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait(self, address: str, now: float) -> int:
        """Return the seconds that an address has to wait, 0 for none."""
        began, count = self._failures.get(address, (now, 0))
        left = began + WINDOW - now
        return int(left) + 1 if count >= MAX_FAILURES and 0 < left <= WINDOW else 0

    def note(self, address: str, now: float) -> None:
        """Count a wrong key; a window begins with the first one."""
        began, count = self._failures.pop(address, (now, 0))
        self._failures[address] = (began, count + 1) if 0 <= now - began < WINDOW else (now, 1)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


async def authenticate(request: Request, context: Context, failures: FailedKeys) -> Actor | ApiProblem:
    """Return who sends a request. Raises StoreError and ConfigurationError."""
    console = context.configuration().settings.console
    address = client_address(request, console.trusted_proxies if console else ())
    if seconds := failures.wait(address, context.clock()):
        return ApiProblem(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"too many wrong keys from your address: wait {seconds} s",
            headers={"retry-after": str(seconds)},
        )
    sent = request.headers.getlist("authorization")
    bearer = _BEARER(sent[0]) if len(sent) == 1 else None
    if bearer is None:
        return _unauthorized("send an admin key: Authorization: Bearer exadm_…", "")
    actor = await context.run(keys.identify, context.administration(), bearer[1], context.now(), address=address)
    if isinstance(actor, Refused):
        failures.note(address, context.clock())
        return _unauthorized(actor.refusals[0].message, ', error="invalid_token"')
    return actor


def _unauthorized(detail: str, error: str) -> ApiProblem:
    return ApiProblem(HTTPStatus.UNAUTHORIZED, detail, headers={"www-authenticate": f"{CHALLENGE}{error}"})
