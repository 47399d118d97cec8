"""What a form sends: read strictly, and with a token that only a page of this session can have."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.requests import Request

MAX_BODY = 64 * 1024
"""Bytes."""
BODY_TIMEOUT = 5.0
"""Seconds that a form may take to come."""
MAX_FIELDS = 100
CONTENT_TYPE = "application/x-www-form-urlencoded"
TOKEN = "csrf"
"""The field that `form_token` fills."""


class BadForm(Exception):
    """A form that no page of ours sends, and the status that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        """Say what is wrong with it."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form; some may come several times."""

    fields: Mapping[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """Return the text of a field without blanks around it, "" for none."""
        return self.fields.get(name, ("",))[0].strip()

    def all(self, name: str) -> tuple[str, ...]:
        """Return all values of a field."""
        return self.fields.get(name, ())


async def read_form(request: Request, repeated: Collection[str] = (), *, max_body: int = MAX_BODY) -> Form:
    """Read a form of at most so many bytes, of which only the `repeated` fields may come several times; raise BadForm."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise BadForm(f"a form is sent as {CONTENT_TYPE}")
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in _pairs(await _body(request, max_body)):
        if name in fields and name not in repeated:
            raise BadForm("a field came twice")
        if "\0" in value:
            raise BadForm("a field holds a NUL")
        fields[name] = (*fields.get(name, ()), value)
    return Form(fields)


async def _body(request: Request, max_body: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_body:
                    raise BadForm(f"a form has {max_body} bytes at most")
    except TimeoutError as error:
        raise BadForm(f"it did not come within {BODY_TIMEOUT:.0f} seconds", 408) from error
    return bytes(body)


def _pairs(body: bytes) -> list[tuple[str, str]]:
    if not body:
        return []
    try:
        text = body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise BadForm("not the fields of a form") from error


def form_token(session: bytes, action: str) -> str:
    """Return what a form to an action carries: nobody who does not know the session's id can make it."""
    return hmac.digest(session, b"csrf\0" + action.encode(), "sha256").hex()


def is_own(form: Form, session: bytes, action: str) -> bool:
    """Tell whether a form was made by a page of this session, for this action."""
    return hmac.compare_digest(form.text(TOKEN).encode(), form_token(session, action).encode())
