"""What stands before every page: no change that another site asks for, and headers that bind what a browser may do with it."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD"})
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    # With "no-referrer" the Origin of a form of our own would be "null".
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
"""Of every answer; `cache-control: no-store` beside them, unless the page says otherwise."""
TRANSPORT_SECURITY = "max-age=31536000"

_REFUSAL = b"This request did not come from a page of this console. Open the console itself and try again.\n"


class Guard:
    """Refuses unsafe requests from elsewhere, hosts that are not ours, and puts HEADERS on each answer.

    Cookies know no ports, so that a page on another port of this host is the same site: Origin and Sec-Fetch-Site tell it apart.
    What is below `keyed` is asked with a key in its header, never with a cookie, so that no page can ask it in somebody's name.
    A header that comes twice is refused as well. `hosts` are those of our own addresses, so that no name of a stranger leads here.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str], keyed: str = "/api/") -> None:
        """Guard an application that is reached at these origins, like `https://console.acme.com`."""
        self._app = app
        self._keyed = keyed
        self._origins = frozenset(origins)
        self._hosts = frozenset(origin.partition("://")[2] for origin in origins)
        self._is_encrypted = all(origin.startswith("https://") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
                if self._is_encrypted:
                    headers["strict-transport-security"] = TRANSPORT_SECURITY
            await send(message)

        headers = Headers(scope=scope)
        if headers.getlist("host") == [] or not self._hosts.issuperset(headers.getlist("host")):
            await _refuse(guarded, 421, b"This console is not reached by that name. See console.public_url.\n")
        elif scope["method"] in SAFE_METHODS or scope["path"].startswith(self._keyed) or self._is_own(headers):
            await self._app(scope, receive, guarded)
        else:
            await _refuse(guarded, 403, _REFUSAL)

    def _is_own(self, headers: Headers) -> bool:
        origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
        return len(origins) == 1 and origins[0] in self._origins and sites in ([], ["same-origin"])


async def _refuse(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
