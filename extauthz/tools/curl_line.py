"""A request as a line for a shell, with `$TOKEN` in place of its token and `$HOST` where any host will do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping

from extauthz.core.credentials import AUTHORIZATION
from extauthz.responses.client_headers import spelled

_PLAIN = re.compile(r"[A-Za-z0-9/._~%:@=+,-]*").fullmatch
_NAMED_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]").fullmatch


def curl_line(method: str, path: str, host: str, headers: Mapping[str, str], written: Collection[str] = ()) -> str:
    """Write the line; an Authorization header becomes one with `$TOKEN`, whatever it holds.

    `written` are names of headers as a configuration spells them.
    """
    parts = ["curl", *_method(method)]
    named = _NAMED_HOST(host) is not None
    if host.startswith("["):
        parts.append("--globoff")
    parts.append(f"https://{_quoted_host(host) if named else '$HOST'}{path if _PLAIN(path) else shlex.quote(path)}")
    if host and not named:
        parts += ["-H", shlex.quote(f"Host: {host}")]
    for name, value in headers.items():
        told = shlex.quote(f"{spelled(name, written)}: {value}")
        parts += ["-H", '"Authorization: Bearer $TOKEN"' if name == AUTHORIZATION else told]
    return " ".join(parts)


def _method(method: str) -> list[str]:
    match method:
        case "GET":
            return []
        case "HEAD":
            return ["--head"]
    return ["-X", method]


def _quoted_host(host: str) -> str:
    return f"'{host}'" if host.startswith("[") else host
