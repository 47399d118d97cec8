"""Requests and answers of the local issuer, and what goes wrong with them on demand."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, quote, unquote_plus

MOVED = ".moved"
"""A path with this ending is answered as the path without it, and no fault reaches it: here redirects lead."""
WRONG_ISSUER = "https://issuer.invalid"
_PADDING = 1 << 20
_EXAMPLE = '{"path": "/oauth2", "fault": "slow"}'
_TOKEN_FIELDS = ("access_token", "id_token", "token")


class Fault(StrEnum):
    """What can go wrong with an answer; each says what a client sees of it."""

    SLOW = "slow"
    """The right answer after `slow_seconds`."""
    ERROR_500 = "error_500"
    """Status 500."""
    GARBAGE = "garbage"
    """Status 200 and a page that is not JSON."""
    TRUNCATED = "truncated"
    """Half of the right answer under its whole length, then the end of the connection."""
    REDIRECT = "redirect"
    """Status 302 to another host name, where the right answer is."""
    REDIRECT_SAME = "redirect_same"
    """Status 302 to another path of the same host, where the right answer is."""
    HUGE = "huge"
    """The right answer with a member of 1 MiB beside it."""
    WRONG_ISSUER = "wrong_issuer"
    """A discovery document that names another issuer; other documents stay right."""
    EMPTY_KEYS = "empty_keys"
    """A key set without keys; other documents stay right."""
    TOO_MANY = "too_many"
    """Status 429 with Retry-After: 2."""
    MISSING = "missing"
    """Status 404."""


@dataclass(frozen=True, slots=True)
class IssuerRequest:
    """One request: `authorization` is that header as it came, `form` a form in the body."""

    method: str
    path: str
    authorization: str
    query: dict[str, list[str]]
    form: dict[str, list[str]]
    body: bytes

    @classmethod
    async def from_asgi(cls, scope: Any, receive: Any) -> IssuerRequest:
        """Read a request to its end."""
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        is_form = headers.get(b"content-type", "").startswith("application/x-www-form-urlencoded")
        return cls(
            method=scope["method"],
            path=scope["path"],
            authorization=headers.get(b"authorization", ""),
            query=parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True),
            form=parse_qs(body.decode("latin-1"), keep_blank_values=True) if is_form else {},
            body=body,
        )

    def credentials(self, scheme: str) -> str:
        """Return what the Authorization header holds for a scheme, or ""."""
        name, _, value = self.authorization.partition(" ")
        return value.strip(" ") if name.lower() == scheme else ""

    @property
    def client(self) -> tuple[str, str]:
        """The client that HTTP Basic names, with its secret (RFC 6749 2.3.1)."""
        try:
            name, _, secret = base64.b64decode(self.credentials("basic"), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return unquote_plus(name), unquote_plus(secret)

    @property
    def tokens(self) -> set[str]:
        """The tokens that it brought, wherever they stood."""
        scheme, _, value = self.authorization.partition(" ")
        header = {value.strip(" ") or scheme} if scheme.lower() not in ("", "basic") else set()
        return header | self.tokens_in_query | self.tokens_in_form

    @property
    def tokens_in_query(self) -> set[str]:
        """The tokens that end up in logs."""
        return _tokens(self.query)

    @property
    def tokens_in_form(self) -> set[str]:
        """The tokens of a form in the body."""
        return _tokens(self.form)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: a JSON document unless `raw` stands in its place; the last `missing` bytes that it promises never come."""

    status: int
    document: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    missing: int = 0

    @property
    def body(self) -> bytes:
        """What is sent."""
        return json.dumps(self.document, indent=1).encode() + b"\n" if self.raw is None else self.raw

    async def send(self, send: Any) -> None:
        """Send it (ASGI); a server closes the connection of an answer that was left incomplete."""
        body = self.body
        headers = {"content-type": "application/json", "content-length": str(len(body) + self.missing), **self.headers}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": encoded})
        await send({"type": "http.response.body", "body": body, "more_body": self.missing > 0})


class Faults:
    """The faults in force, by the prefix of the paths that they spoil."""

    def __init__(self) -> None:
        """Start without any."""
        self._by_prefix: dict[str, Fault] = {}

    def add(self, prefix: str, fault: str) -> None:
        """Spoil every path that starts so; raises ValueError for what is neither a path nor a fault."""
        if not prefix.startswith("/"):
            raise ValueError(f"a path starts with a slash, {prefix!r} does not; use '/' for every path")
        if fault not in set(Fault):
            raise ValueError(f"{fault!r} is not a fault; use one of {', '.join(Fault)}")
        self._by_prefix = {**self._by_prefix, prefix: Fault(fault)}

    def add_json(self, text: bytes) -> None:
        """Read prefix and fault from a document; raises ValueError with an example of one."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        match document:
            case {"path": str(prefix), "fault": str(fault)} if len(document) == 2:
                self.add(prefix, fault)
            case _:
                raise ValueError(f"the body is not a path and a fault in JSON; send for example {_EXAMPLE}")

    def clear(self) -> None:
        """End all of them."""
        self._by_prefix = {}

    def by_path(self) -> dict[str, str]:
        """Return fault by prefix."""
        return {prefix: fault.value for prefix, fault in self._by_prefix.items()}

    def at(self, path: str) -> Fault | None:
        """Return what spoils a path: the fault of the longest prefix."""
        faults = self._by_prefix
        prefixes = [] if path.endswith(MOVED) else [prefix for prefix in faults if path.startswith(prefix)]
        return faults[max(prefixes, key=len)] if prefixes else None


async def pause(receive: Any, seconds: float) -> None:
    """Wait, but not longer than the client does (ASGI)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass


def spoiled(fault: Fault, reply: Reply, base: str, path: str) -> Reply:
    """Return what becomes of the right answer to a path; to wait is the caller's part."""
    match fault:
        case Fault.SLOW:
            return reply
        case Fault.ERROR_500:
            return Reply(500, {"error": "server_error"})
        case Fault.GARBAGE:
            return Reply(200, {}, raw=b"<html>The issuer is being maintained.</html>\n")
        case Fault.TRUNCATED:
            middle = len(reply.body) // 2
            return replace(reply, raw=reply.body[:middle], missing=len(reply.body) - middle)
        case Fault.REDIRECT:
            return Reply(302, {}, {"location": base.replace("127.0.0.1", "localhost") + quote(path) + MOVED})
        case Fault.REDIRECT_SAME:
            return Reply(302, {}, {"location": base + quote(path) + MOVED})
        case Fault.HUGE:
            return replace(reply, document={**reply.document, "padding": "x" * _PADDING})
        case Fault.WRONG_ISSUER:
            return _with(reply, "issuer", WRONG_ISSUER)
        case Fault.EMPTY_KEYS:
            return _with(reply, "keys", [])
        case Fault.TOO_MANY:
            return Reply(429, {"error": "too_many_requests"}, {"retry-after": "2"})
        case Fault.MISSING:
            return Reply(404, {"error": "not_found"})


def _with(reply: Reply, member: str, value: object) -> Reply:
    return replace(reply, document={**reply.document, member: value}) if member in reply.document else reply


def _tokens(fields: Mapping[str, list[str]]) -> set[str]:
    return {token for name in _TOKEN_FIELDS for token in fields.get(name, ())}
