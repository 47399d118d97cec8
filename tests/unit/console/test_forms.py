"""A form is read strictly, and belongs to a session and an action."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from extauthz.console.forms import CONTENT_TYPE, MAX_BODY, BadForm, Form, form_token, is_own, read_form
from tests.support.virtual_time import in_virtual_time


def read(body: bytes, content_type: str = CONTENT_TYPE, repeated: tuple[str, ...] = ("scopes",)) -> Form:
    chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)] or [b""]
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False
    left = iter(messages)

    async def receive() -> Any:
        return next(left)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
    return asyncio.run(read_form(Request(scope, receive), repeated))


TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@given(TEXTS, st.lists(TEXTS, max_size=20))
def test_what_a_browser_sends_is_read(text: str, scopes: list[str]) -> None:
    form = read(urlencode([("description", text), *(("scopes", scope) for scope in scopes)]).encode())
    assert form.text("description") == text.strip()
    assert form.all("scopes") == tuple(scopes)
    assert (form.text("missing"), form.all("missing")) == ("", ())


def test_an_empty_form_has_no_fields() -> None:
    assert read(b"").fields == {}


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a=2",
        b"a=%00",
        b"a=%ff",
        b"a=\xc3\xa4",
        b"a",
        b"a=1&b",
        b"&",
        b"&".join(b"scopes=%d" % number for number in range(101)),
        b"a=" + b"x" * MAX_BODY,
    ],
)
def test_what_no_page_sends_is_refused(body: bytes) -> None:
    with pytest.raises(BadForm):
        read(body)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"a=1&a=2", "a field came twice"),
        (b"a=%00", "a field holds a NUL"),
        (b"a", "not the fields of a form"),
        (b"a=%ff", "not the fields of a form"),
        (b"a=" + b"x" * (64 * 1024 - 1), "a form has 65536 bytes at most"),
    ],
    ids=lambda value: value[:20],
)
def test_a_refusal_says_why_and_is_the_fault_of_whoever_asks(body: bytes, cause: str) -> None:
    with pytest.raises(BadForm) as refused:
        read(body)
    assert (str(refused.value), refused.value.status) == (cause, 400)


@pytest.mark.parametrize(("scopes", "length"), [(100, 0), (0, 64 * 1024 - len("description="))])
def test_a_form_may_be_as_large_as_the_bounds_say(scopes: int, length: int) -> None:
    form = read(b"&".join([b"scopes=a"] * scopes) or b"description=" + b"x" * length)
    assert (len(form.all("scopes")), len(form.text("description"))) == (scopes, length)


def test_a_form_says_that_it_is_one() -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"a=1"}

    with pytest.raises(BadForm, match=CONTENT_TYPE):
        asyncio.run(read_form(Request({"type": "http", "method": "POST", "headers": []}, receive)))


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(BadForm, match=CONTENT_TYPE):
        read(b"a=1", content_type)


def test_a_content_type_may_have_a_charset() -> None:
    assert read(b"a=1", f"{CONTENT_TYPE.title()}; charset=UTF-8").text("a") == "1"


def test_a_form_belongs_to_a_session_and_an_action() -> None:
    mine, other = bytes(32), bytes(31) + b"x"
    token = form_token(mine, "/tokens")

    def sent(value: str) -> Form:
        return Form({"csrf": (value,)})

    assert is_own(sent(token), mine, "/tokens")
    assert not is_own(sent(token), other, "/tokens")
    assert not is_own(sent(token), mine, "/tokens/revoke")
    assert not any(is_own(sent(value), mine, "/tokens") for value in ("", token[:-1], token + "0", "ä" * 64))
    assert not is_own(Form({}), mine, "/tokens")


def test_a_form_that_does_not_come_is_waited_for_five_seconds() -> None:
    async def receive() -> Any:
        await asyncio.sleep(1.0)  # why: each part comes in time, and the whole does not
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def work() -> tuple[int, float]:
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", CONTENT_TYPE.encode())]}
        with pytest.raises(BadForm, match="within 5 seconds") as refused:
            await read_form(Request(scope, receive))
        return refused.value.status, asyncio.get_running_loop().time()

    assert in_virtual_time(work) == (408, 5.0)
