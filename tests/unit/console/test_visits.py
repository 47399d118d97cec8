"""What a page answers when it cannot be made, and where who has no session is sent; tests/integration has the whole way."""

from __future__ import annotations

import asyncio
import html
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from extauthz.adapters.store.sessions import StoredSession
from extauthz.admin.rights import Actor, Role
from extauthz.console import visits
from extauthz.console.forms import BadForm
from extauthz.errors import ConfigurationError, StoreError

SECRET = "what nobody may read"
UNREAD = "The token store cannot be used at the moment. Try again; the log of the console says why."
UNCERTAIN = (
    "The token store cannot be used at the moment, and it is not certain whether it took the change. "
    "Look at what is there before you try again; the log of the console says more."
)
BROKEN = "Something in the console is broken. The log of the console says what."


def asked(method: str = "GET", path: str = "/tokens/a", query: str = "", site: str = "") -> Request:
    headers = [(b"sec-fetch-site", site.encode())] if site else []
    return Request({"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers})


def answered(failure: Exception | None, method: str = "GET") -> Response:
    async def endpoint(request: Request) -> Response:
        if failure is not None:
            raise failure
        return PlainTextResponse(request.url.path)

    return asyncio.run(visits.guarded(endpoint)(asked(method)))


def text_of(response: Response) -> str:
    return bytes(response.body).decode()


def shown(title: str, text: str, link: str = "/", label: str = "Go to the overview") -> list[str]:
    """Return the parts of a page of a few words."""
    return [f"<title>{title}", f"<h1>{title}</h1>\n<p>{text}</p>", f'<a class="button" href="{link}">{label}</a>']


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    ("failure", "status", "parts"),
    [
        (BadForm("a field came twice"), 400, shown("Not done", "The form could not be read: a field came twice.")),
        (BadForm("it is late", 408), 408, shown("Not done", "The form could not be read: it is late.")),
        (ValueError(SECRET), 500, shown("An error", BROKEN)),
        (StopIteration(SECRET), 500, shown("An error", BROKEN)),
    ],
    ids=repr,
)
def test_a_page_that_cannot_be_made_says_as_much_as_anybody_may_know(
    failure: Exception, status: int, parts: list[str], method: str
) -> None:
    response = answered(failure, method)
    assert response.status_code == status
    assert [part for part in parts if part not in text_of(response)] == []
    assert SECRET not in text_of(response) + str(response.headers)
    # The rest of a form that is late is not waited for.
    assert response.headers.get("connection") == ("close" if status == 408 else None)


@pytest.mark.parametrize(("method", "told"), [("GET", UNREAD), ("HEAD", UNREAD), ("POST", UNCERTAIN)])
@pytest.mark.parametrize("failure", [StoreError(SECRET), ConfigurationError([])], ids=repr)
def test_after_a_change_that_was_on_its_way_nobody_is_told_that_it_was_not_made(failure: Exception, method: str, told: str) -> None:
    response = answered(failure, method)
    assert response.status_code == 503
    parts = shown("The store does not answer", told, "/tokens/a", "Look again")
    assert [part for part in parts if part not in text_of(response)] == []
    assert SECRET not in text_of(response) + str(response.headers)


def test_whoever_went_away_gets_a_few_words_and_all_others_their_page() -> None:
    gone, whole = answered(ClientDisconnect()), answered(None)
    assert (gone.status_code, text_of(gone)) == (400, "The request was not whole.\n")
    assert (whole.status_code, text_of(whole)) == (200, "/tokens/a")


def test_a_visitor_is_written_into_no_log_with_the_secret() -> None:
    session = StoredSession("id", "ana@acme.com", "local", "", "192.0.2.7", 1, 1, 1, b"digest")
    visitor = visits.Visitor(session, Role.ADMIN, Actor("ana@acme.com", Role.ADMIN, "console"), SECRET.encode())
    assert SECRET not in repr(visitor)


def test_what_is_broken_stands_in_the_log_with_its_page(caplog: pytest.LogCaptureFixture) -> None:
    answered(StoreError("no such table"))
    answered(ValueError("a fault"))
    (store, fault) = (record.__dict__ for record in caplog.records)
    assert (store["path"], store["error"]) == ("/tokens/a", "no such table")
    assert (fault["path"], bool(fault["exc_info"])) == ("/tokens/a", True)


@pytest.mark.parametrize(
    ("path", "query", "site", "location", "refresh"),
    [
        ("/", "", "", "/login", None),
        ("/", "", "same-origin", "/login", None),
        ("/", "text=a", "", "/login?next=%2F%3Ftext%3Da", None),
        ("/tokens", "", "none", "/login?next=%2Ftokens", None),
        ("/tokens/a b", "text=a+b", "same-site", "/login?next=%2Ftokens%2Fa%2520b%3Ftext%3Da%2Bb", None),
        ("/tokens", "text=a", "cross-site", None, "0;url=/tokens?text=a"),
        ("/", "", "cross-site", None, "0;url=/"),
    ],
)
def test_who_has_no_session_is_sent_to_the_login_and_goes_on_from_there(
    path: str, query: str, site: str, location: str | None, refresh: str | None
) -> None:
    response = visits._log_in(asked("GET", path, query, site))
    assert response.status_code == (303 if location else 200)
    assert (response.headers.get("location"), response.headers.get("refresh")) == (location, refresh)


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("/tokens?text=a&page=2#end", "/tokens?text=a&page=2#end"),
        ("https://id.acme.com:8443/authorize?state=a%20b", "https://id.acme.com:8443/authorize?state=a%20b"),
        ("/a;b@c[1]!$'()*+,~", "/a;b@c[1]!$'()*+,~"),
        ('/"><script>', "/%22%3E%3Cscript%3E"),
        ("/a b\r\nset-cookie: c", "/a%20b%0D%0Aset-cookie:%20c"),
        ("/\u20ac", "/%E2%82%AC"),
        ("/X\\X", "/X%5CX"),
    ],
)
def test_a_page_goes_on_to_an_address_that_breaks_out_of_nothing(address: str, written: str) -> None:
    response = visits.go_on(address)
    assert (response.status_code, response.headers["refresh"]) == (200, f"0;url={written}")
    assert "<script>" not in text_of(response)
    assert f'<a href="{written}">Go on</a>' in html.unescape(text_of(response))


def test_a_cookie_is_removed_as_it_was_set() -> None:
    """With another path or without Secure a browser would keep it: the name says __Host-."""
    response = visits.logged_out(Response())
    (cookie,) = response.headers.getlist("set-cookie")
    name, *attributes = cookie.split("; ")
    assert name == '__Host-session=""'
    removed = {each.lower() for each in attributes if not each.lower().startswith("expires=")}
    assert removed == {"max-age=0", "path=/", "secure", "httponly", "samesite=strict"}


@pytest.mark.parametrize(
    ("more", "link", "label"),
    [({}, "/", "Go to the overview"), ({"link": "/login", "label": "Log in"}, "/login", "Log in")],
)
def test_a_page_of_a_few_words_shows_them_as_text(more: dict[str, Any], link: str, label: str) -> None:
    response = visits.message_page("A <b>title", "Some <i>words", 403, **more)
    parts = shown("A &lt;b&gt;title", "Some &lt;i&gt;words", link, label)
    assert [part for part in parts if part not in text_of(response)] == []
    assert response.status_code == 403
