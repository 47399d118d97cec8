"""Why a request is refused: described, pasted or picked from what sidecars refused lately, and no token comes back."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from extauthz.addresses import Address
from extauthz.admin.rights import Role
from extauthz.console import explain_pages
from extauthz.transport.http.ops import HttpServer, Pages, application
from extauthz.transport.http.private_pages import PrivatePage
from extauthz.transport.sockets import open_port
from tests.support.console_world import NOW, SETTINGS, Browser, ConsoleWorld, console_world

PATH = explain_pages.PATH
SCRIPT = '<script>alert("1")</script>'
ID = "0123456789abcdef" * 2
TOKEN = "glean_4fK2pQ9sXb1Z_hVbDxUsR3WuOxoP9m1QzKfJtYnEg7LcA2SiTbNdGvHpXw0e"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Somebody who only looks, at a console that nobody changes."""
    with console_world(tmp_path_factory.mktemp("viewed")) as made:
        yield made.logged_in(Role.VIEWER)


def described(browser: Browser, **fields: str) -> tuple[int, str]:
    """Send the form that describes a request; return status and text."""
    answer = browser.post(PATH, {"how": "described", "method": "POST", "path": "/search"} | fields)
    return answer.status_code, unescape(answer.text)


def reason(text: str) -> str:
    """Return the reason that an explanation ends with."""
    found = re.search(r'role="status">\n<h2>.*?<code>(\w+)</code>', text, re.DOTALL)
    return found[1] if found else ""


def record(**changes: Any) -> dict[str, Any]:
    usual = {
        "time": float(NOW - 60),
        "decision_id": ID,
        "decision": "deny",
        "reason": "scope_missing",
        "status": 403,
        "method": "POST",
        "path": "/chat",
        "route": "POST /chat",
        "auth_type": "USER",
        "actor": "token:4fK2pQ9sXb1Z",
        "token_id": "4fK2pQ9sXb1Z",
        "user": "ana@acme.com",
        "held_scopes": "SEARCH",
        "required_scopes": "CHAT",
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


@contextmanager
def sidecar(records: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """An ops listener that remembers these decisions; yield its address, and what it is asked."""
    asked: list[str] = []

    async def decisions(query: str) -> tuple[int, str, bytes]:
        asked.append(query)
        wanted = parse_qs(query).get("id")
        found = [each for each in records if wanted is None or each["decision_id"] in wanted]
        answer = {"decisions": found, "workers": {"asked": 1, "answered": 1}, "started": float(NOW - 600)}
        return 200, "application/json", json.dumps(answer).encode()

    async def nothing(*_: object) -> Any:
        return {}

    listener = open_port(Address(host="127.0.0.1", port=0))
    server = HttpServer(
        application(Pages(nothing, nothing, nothing, trusted=False, private={"/decisions": PrivatePage(decisions)}))
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.run_on(listener)))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def look_at(world: ConsoleWorld, *sidecars: str) -> None:
    world.change(console=SETTINGS["console"] | {"sidecars": [*sidecars]})
    world.now += 10


# --- described


def test_every_role_reads_and_nobody_else(world: ConsoleWorld) -> None:
    for role in Role:
        browser = world.logged_in(role)
        assert browser.get(PATH).status_code == 200
        assert reason(described(browser)[1]) == "credential_missing"
    assert world.visitor().get(PATH).status_code == 303
    assert world.visitor().post(PATH, {"how": "described"}, token="").status_code == 401
    assert world.logged_in().post(PATH, {"how": "described"}, token="0" * 64).status_code == 403


@pytest.mark.parametrize(
    ("fields", "comes_to", "says"),
    [
        ({"caller": "USER user=ana@acme.com scopes=SEARCH"}, "allowed", "What the upstream gets"),
        ({"caller": "USER user=ana@acme.com scopes=CHAT"}, "scope_missing", "add the scope SEARCH"),
        ({"caller": "GLOBAL scopes=*", "act_as": "ana@acme.com"}, "allowed", "x-extauthz-user"),
        ({"caller": "GLOBAL scopes=*", "act_as": "ana@evil.com"}, "act_as_forbidden", "act_as.allow"),
        ({"caller": "GLOBAL scopes=* reason=token_revoked"}, "token_revoked", "revoked"),
        ({"path": "/serch"}, "route_unknown", "the nearest route is 'POST /search' (routes.yaml:2)"),
        ({"path": "//"}, "path_ambiguous", "readable request"),
        ({"method": "GET"}, "method_not_allowed", "POST"),
        ({"caller": "ANONYMOUS scopes=CHAT", "path": "/chat"}, "anonymous_not_allowed", "routes.yaml:3"),
    ],
)
def test_a_described_request_is_explained(viewer: Browser, fields: dict[str, str], comes_to: str, says: str) -> None:
    status, text = described(viewer, **fields)
    assert (status, reason(text)) == (200, comes_to)
    assert says in text
    assert str(viewer.world.folder) not in text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"path": ""}, "write a path"),
        ({"caller": "GLOBL scopes=SEARCH"}, "did you mean 'GLOBAL'?"),
        ({"caller": "GLOBAL scopes=NONE"}, "NONE"),
        ({"path": "/" + "x" * 9000}, "at most 8,192 characters"),
        ({"how": "decision", "id": "x"}, "32 hex digits"),
    ],
)
def test_what_cannot_be_read_is_said(viewer: Browser, fields: dict[str, str], says: str) -> None:
    status, text = described(viewer, **fields)
    assert (status, reason(text)) == (422, "")
    assert says in text


@pytest.mark.parametrize("field", ["path", "host", "act_as", "caller", "id"])
def test_a_token_that_is_pasted_anywhere_is_neither_shown_nor_logged(
    viewer: Browser, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    how = {"how": "decision"} if field == "id" else {}
    for text in (TOKEN, f"/search?access_token={TOKEN}", f"GLOBAL scopes={TOKEN}", f"oauth user={TOKEN}"):
        status, page = described(viewer, **how, **{field: text})
        assert status in (200, 422)  # why: which of both depends on the field, and neither may show it
        assert TOKEN.split("_")[2] not in page
    assert TOKEN.split("_")[2] not in caplog.text


def test_what_is_written_is_no_markup(viewer: Browser) -> None:
    for field in ("path", "host", "act_as", "caller"):
        answer = viewer.post(PATH, {"how": "described", "method": "GET", "path": "/search", field: SCRIPT})
        assert "<script>" not in answer.text


# --- pasted


@pytest.mark.parametrize(
    ("line", "holder", "comes_to", "says"),
    [
        ("curl -X POST https://api.acme.com/search", "", "credential_missing", "a Bearer token"),
        (f"curl -d x https://api.acme.com/search -H 'Authorization: Bearer {TOKEN}'", "", "", "the console does not verify"),
        (
            f"curl -d x https://api.acme.com/search -H 'Authorization: Bearer {TOKEN}'",
            "ANONYMOUS scopes=SEARCH",
            "allowed",
            "ANONYMOUS",
        ),
        ("curl -d x https://api.acme.com/search", "USER user=ana@acme.com scopes=CHAT", "scope_missing", "add the scope SEARCH"),
        (f"curl -u ana:{TOKEN} https://api.acme.com/search -d x", "", "scheme_unsupported", "the scheme Bearer"),
        (f"curl -d x 'https://api.acme.com/search?access_token={TOKEN}'", "", "token_in_query", "Authorization header alone"),
    ],
)
def test_a_pasted_line_is_explained_without_its_token(
    viewer: Browser, line: str, holder: str, comes_to: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    answer = viewer.post(PATH, {"how": "curl", "curl": line, "caller": holder})
    text = unescape(answer.text)
    assert (answer.status_code, reason(text)) == (200, comes_to)
    assert says in text
    assert "location" not in answer.headers
    for said in (text, caplog.text):
        assert TOKEN.split("_")[2] not in said
        assert TOKEN.split("_")[1] not in said


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"curl": ""}, "paste a line"),
        ({"curl": "curl"}, "no URL"),
        ({"curl": f"curl --{TOKEN}"}, "error"),
        ({"curl": f"{TOKEN} '"}, "error"),
        ({"curl": "curl -K /etc/passwd https://a/b"}, "error"),
        ({"curl": "curl http://a/b -H @/etc/passwd"}, "headers of a file are not read"),
        ({"curl": "x" * 40_000}, "at most 32,768 characters"),
        ({"curl": "curl https://a/b", "caller": f"{TOKEN} x=1"}, "unknown kind of caller"),
    ],
)
def test_a_line_that_cannot_be_read_is_not_shown_again(viewer: Browser, fields: dict[str, str], says: str) -> None:
    answer = viewer.post(PATH, {"how": "curl"} | fields)
    text = unescape(answer.text)
    assert answer.status_code == 422
    assert says in text
    assert TOKEN.split("_")[2] not in text
    assert "root:" not in text


# --- decisions of sidecars


def test_without_sidecars_the_page_says_what_to_do(viewer: Browser) -> None:
    assert "console.sidecars" in viewer.get(PATH).text


def test_what_sidecars_refused_is_listed_newest_first_and_explained(world: ConsoleWorld) -> None:
    other = record(decision_id="f" * 32, time=float(NOW), reason="credential_missing", auth_type=None, user=None, actor=None)
    allowed = record(decision_id="e" * 32, decision="allow", reason="allowed", status=200)
    earlier = record(decision_id="d" * 32, time=float(NOW - 90))
    with sidecar([record(), earlier, allowed]) as (one, _), sidecar([other]) as (two, asked):
        look_at(world, one, two)
        browser = world.logged_in(Role.VIEWER)
        page = unescape(browser.get(PATH).text)
        ids = re.findall(r'href="/explain\?id=([0-9a-f]{32})"', page)
        assert ids == ["f" * 32, ID]
        assert "and 1 more before" in page
        assert browser.get(PATH).status_code == 200
        assert len(asked) == 1, "nobody is asked again at once"

        text = unescape(browser.get(f"{PATH}?id={ID}").text)
        assert reason(text) == "scope_missing"
        assert "add the scope CHAT" in text
        assert "ana@acme.com" in text
        text = unescape(browser.post(PATH, {"how": "decision", "id": ID.upper()}).text)
        assert reason(text) == "scope_missing"
        assert browser.get(f"{PATH}?id={'0' * 32}").status_code == 404
        assert browser.get(f"{PATH}?id=x").status_code == 200


@pytest.mark.parametrize(
    ("changes", "comes_to", "says"),
    [
        (
            {"reason": "credential_missing", "auth_type": None, "user": None, "actor": None, "held_scopes": None},
            "credential_missing",
            "",
        ),
        ({"reason": "token_expired", "auth_type": None, "user": None}, "token_expired", ""),
        ({"path": "/nothing", "route": None, "reason": "route_unknown", "auth_type": None}, "route_unknown", ""),
        ({"path": "/search", "route": "POST /search"}, "allowed", "It was decided as <code>scope_missing</code> at that time"),
        ({"auth_type": "GLOBAL", "reason": "act_as_missing", "user": None}, "act_as_missing", ""),
        ({"path": None}, "", "has no method and path"),
        ({"method": None}, "", "has no method and path"),
        ({"reason": None}, "", "has no reason"),
        ({"held_scopes": None}, "allowed", "those that the route asks for are assumed"),
    ],
)
def test_a_record_is_explained_as_far_as_it_tells(world: ConsoleWorld, changes: dict[str, Any], comes_to: str, says: str) -> None:
    with sidecar([record(**changes)]) as (address, _):
        look_at(world, address)
        text = unescape(world.logged_in().get(f"{PATH}?id={ID}").text)
    assert reason(text) == comes_to
    assert says in text


def test_sidecars_that_do_not_tell_are_named(world: ConsoleWorld) -> None:
    with sidecar([record()]) as (address, _):
        look_at(world, address, "http://127.0.0.1:1", "unix:///nowhere.sock")
        page = unescape(world.logged_in().get(PATH).text)
    assert "http://127.0.0.1:1: nothing answers there" in page
    assert "unix:///nowhere.sock" in page
    assert ID in page


def test_records_are_no_markup_and_show_no_token(world: ConsoleWorld) -> None:
    evil = record(path=f"/{TOKEN}", user=SCRIPT, route=SCRIPT, reason="scope_missing", method=7, decision_id=ID)
    with sidecar([evil, record(decision_id=SCRIPT), {"decision": "deny"}]) as (address, _):
        look_at(world, address)
        page = world.logged_in().get(PATH).text
    assert "<script>" not in page
    assert TOKEN.split("_")[2] not in page
    assert page.count("/explain?id=") == 1
