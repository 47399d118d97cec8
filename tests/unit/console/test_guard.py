"""No change that another site asks for, and the headers of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from extauthz.console.guard import HEADERS, Guard

ORIGIN = "https://console.acme.com"
Fields = Sequence[tuple[str, str]]


async def page(request: Request) -> Response:
    return PlainTextResponse(
        (await request.body()).decode() or "done", headers={"cache-control": "immutable"} if request.url.path == "/static" else {}
    )


def answer(
    method: str, fields: Fields, path: str = "/", origins: Sequence[str] = (ORIGIN,), content: bytes = b""
) -> httpx2.Response:
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    app = Guard(Starlette(routes=[Route("/{rest:path}", page, methods=methods)]), origins=origins)

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
            request = httpx2.Request(method, f"{ORIGIN}{path}", content=content)
            del request.headers["host"]
            request.headers = httpx2.Headers([*request.headers.multi_items(), *fields])
            return await client.send(request)

    return asyncio.run(ask())


OWN = [("host", "console.acme.com"), ("origin", ORIGIN), ("sec-fetch-site", "same-origin")]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (OWN, 200),
        (OWN[:2], 200),  # over http there is no Sec-Fetch-Site
        (OWN[:1], 403),
        ([OWN[0], OWN[2]], 403),
        ([OWN[0], ("origin", "null"), OWN[2]], 403),
        ([OWN[0], ("origin", "https://console.acme.com:8443"), ("sec-fetch-site", "same-site")], 403),
        ([OWN[0], ("origin", "http://console.acme.com"), OWN[2]], 403),
        ([OWN[0], ("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")], 403),
        ([*OWN[:2], ("sec-fetch-site", "same-site")], 403),
        ([*OWN[:2], ("sec-fetch-site", "none")], 403),
        ([*OWN, ("origin", "https://evil.test")], 403),
        ([*OWN, ("sec-fetch-site", "cross-site")], 403),
    ],
)
def test_a_change_is_asked_for_by_a_page_of_ours(method: str, fields: Fields, status: int) -> None:
    assert answer(method, fields).status_code == status


@pytest.mark.parametrize("fields", [OWN[:1], [OWN[0], ("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")]])
def test_anybody_may_link_to_a_page(fields: Fields) -> None:
    assert answer("GET", fields).text == "done"
    assert answer("HEAD", fields).status_code == 200


@pytest.mark.parametrize(
    "hosts", [[], ["evil.test"], [""], ["console.acme.com:8443"], ["console.acme.com", "console.acme.com.evil.test"]]
)
def test_another_name_does_not_lead_here(hosts: list[str]) -> None:
    """Or a name of a stranger could be pointed to the console's address, and his pages would be its pages."""
    response = answer("GET", [("host", host) for host in hosts])
    assert response.status_code == 421
    assert response.headers["content-security-policy"] == HEADERS["content-security-policy"]


@pytest.mark.parametrize(("fields", "status"), [(OWN, 200), (OWN[:1], 403), ([("host", "evil.test")], 421)])
def test_every_answer_has_the_headers(fields: Fields, status: int) -> None:
    response = answer("POST", fields)
    assert response.status_code == status
    for name, value in HEADERS.items():
        assert response.headers.get_list(name) == [value]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["strict-transport-security"] == "max-age=31536000"


def test_a_file_that_never_changes_may_be_kept() -> None:
    assert answer("GET", OWN, "/static").headers["cache-control"] == "immutable"


def test_without_tls_nothing_is_said_of_it() -> None:
    fields = [("host", "127.0.0.1:8443")]
    response = answer("GET", fields, origins=["http://127.0.0.1:8443"])
    assert (response.status_code, "strict-transport-security" in response.headers) == (200, False)


@pytest.mark.parametrize(
    ("path", "status"), [("/api/v1/tokens", 200), ("/api/", 200), ("/api", 403), ("/apis/", 403), ("/x/api/", 403), ("/API/", 403)]
)
def test_what_is_asked_with_a_key_needs_no_page_of_ours(path: str, status: int) -> None:
    """Nothing below is asked with a cookie, so that no other site can use one."""
    evil = [("host", "console.acme.com"), ("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")]
    assert {answer("POST", fields, path).status_code for fields in (OWN[:1], evil)} == {status}
    assert answer("POST", [("host", "evil.test")], path).status_code == 421


def test_what_is_sent_comes_through() -> None:
    assert answer("POST", OWN, content=b"a form").text == "a form"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (OWN[:1], "This request did not come from a page of this console. Open the console itself and try again.\n"),
        ([("host", "evil.test")], "This console is not reached by that name. See console.public_url.\n"),
    ],
)
def test_a_refusal_says_what_to_do(fields: Fields, text: str) -> None:
    response = answer("POST", fields)
    assert response.text == text
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["content-length"] == str(len(text))


def test_the_headers_leave_a_browser_no_more_than_the_pages_need() -> None:
    response = answer("GET", OWN)
    policy = dict(part.partition(" ")[::2] for part in response.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    others = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    assert others == {
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        "strict-transport-security": "max-age=31536000",
    }


def test_one_origin_without_tls_is_enough_to_say_nothing_of_it() -> None:
    assert "strict-transport-security" not in answer("GET", OWN, origins=[ORIGIN, "http://127.0.0.1:8443"]).headers
