"""Pages for operators alone: who may see them, and what is no operator but a web page in somebody's browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Page = tuple[int, str, bytes]
"""Status, type and body."""

TOO_MANY = 429
"""The status of a page that too many ask for just now: it is worth asking again in a second (RFC 6585, 4)."""

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


@dataclass(frozen=True, slots=True)
class PrivatePage:
    """A page that is asked for with one method; `answer` takes the query as it came."""

    answer: Callable[[str], Awaitable[Page]]
    method: str = "GET"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are answered."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


def refusal(scope: Mapping[str, Any], *, trusted: bool) -> Page | None:
    """Return why a request does not get a private page; on a `trusted` listener only what a web page sent does not."""
    if not trusted and not _is_local(scope):
        path = scope["path"]
        text = f"{path} is shown over loopback, asked for by a loopback name, on a unix socket, and with a client certificate\n"
        return 403, "text/plain", text.encode()
    if header(scope, b"origin") or header(scope, b"sec-fetch-site") not in ("", "none"):
        return 403, "text/plain", b"not for web pages: ask with a program, like extauthz decisions\n"
    return None


def _is_local(scope: Mapping[str, Any]) -> bool:
    """Return whether a request came over loopback and was meant to: a web page elsewhere can use another name for this host."""
    ends = (scope.get("client"), scope.get("server"))
    host = header(scope, b"host").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return all(end and _is_loopback(str(end[0])) for end in ends) and name in _LOCAL_NAMES


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def header(scope: Mapping[str, Any], name: bytes) -> str:
    """Return the values of a header, joined; a header that was sent twice equals no single value."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)
