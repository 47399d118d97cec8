"""What if other files counted: what is pasted is compared, kept nowhere, and reads nothing of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.admin.rights import Role
from extauthz.console import what_if_pages
from tests.support.console_world import ROUTES, SETTINGS, Browser, ConsoleWorld, console_world

PATH = what_if_pages.PATH
WIDER = ROUTES + '  - {match: "GET /chat", public: true}\n'
TOKEN = "glean_4fK2pQ9sXb1Z_hVbDxUsR3WuOxoP9m1QzKfJtYnEg7LcA2SiTbNdGvHpXw0e"
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJlLW9m"
SCRIPT = '<script>alert("1")</script>'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Somebody who only looks, at a console that nobody changes."""
    with console_world(tmp_path_factory.mktemp("viewed")) as made:
        yield made.logged_in(Role.VIEWER)


def compared(browser: Browser, settings: str = "", **files: str) -> tuple[int, str]:
    """Send the form; return the status and the text."""
    names = {"routes.yaml": ""} | {name.replace("_yaml", ".yaml"): text for name, text in files.items()}
    answer = browser.post(PATH, {"settings": settings, "name": list(names), "routes": list(names.values())})
    return answer.status_code, unescape(answer.text)


def tiles(text: str) -> list[int]:
    """Return how many findings there are of each effect."""
    return [int(count) for count in re.findall(r'<div class="tile"><b>(\d+)</b>', text)]


def text_of(**sections: Any) -> str:
    return yaml.safe_dump({key: value for key, value in (SETTINGS | sections).items() if value is not None})


def test_every_role_sees_what_a_route_file_would_change(world: ConsoleWorld) -> None:
    for role in Role:
        browser = world.logged_in(role)
        assert browser.get(PATH).status_code == 200
        status, text = compared(browser, routes_yaml=WIDER)
        assert (status, tiles(text)) == (200, [1, 0, 0, 0])
        assert "GET /chat" in text
        assert "let in now" in text
        assert "curl" in text
    assert (world.folder / "routes.yaml").read_text() == ROUTES
    assert [entry.pattern for entry in world.context.route_map().entries] == ["/search", "/chat"]


def test_the_same_files_differ_in_nothing(viewer: Browser) -> None:
    status, text = compared(viewer, text_of(), routes_yaml=ROUTES)
    assert status == 200
    assert "No request would be decided otherwise" in text
    assert "Both say the same" in text


def test_settings_and_a_further_file(world: ConsoleWorld) -> None:
    more = 'routes: [{match: "GET /more", scope: CHAT}]'
    status, text = compared(world.logged_in(), text_of(routes=["routes.yaml", "more.yaml"], realm="x"), more_yaml=more)
    assert (status, tiles(text)[0]) == (200, 1)
    assert "more.yaml:1" in text
    assert "<code>realm</code>" in text
    assert str(world.folder) not in text


@pytest.mark.parametrize(
    ("settings", "files", "says"),
    [
        ("", {}, "paste at least one file"),
        ("version: 1\nrutes: []", {}, "did you mean 'routes'?"),
        ("", {"routes_yaml": 'routes: [{match: "GET /a", scope: CAHT}]'}, "routes.yaml:1"),
        ("", {"": "routes: []"}, "has no name"),
        ("", {"x" * 201: "routes: []"}, "200 characters at most"),
        (text_of(routes=["/etc/passwd"]), {}, "/etc/passwd was not pasted"),
        (text_of(routes=["pepper"]), {}, "pepper was not pasted"),
        ("[" * 1000, {}, "nested deeper than"),
        (SCRIPT, {}, "Nothing was compared"),
    ],
)
def test_what_cannot_be_compared_is_said(viewer: Browser, settings: str, files: dict[str, str], says: str) -> None:
    answer = compared(viewer, settings, **files)
    assert answer[0] == 422
    assert says in answer[1]


def test_pasted_text_is_no_markup(viewer: Browser) -> None:
    files = {"name": ["routes.yaml", SCRIPT], "routes": [f"routes: [{{match: 'GET /a', public: true, name: '{SCRIPT}'}}]", ""]}
    for settings in ("", SCRIPT, f"{SCRIPT}: 1"):
        text = viewer.post(PATH, {"settings": settings, **files}).text
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


@pytest.mark.parametrize("token", [TOKEN, JWT], ids=["issued", "JWT"])
@pytest.mark.parametrize(
    "routes",
    [
        f"routes: [{{match: 'GET /{TOKEN}', public: true}}]",
        f"routes: [{{match: 'GET /a', public: true, name: '{TOKEN}'}}]",
        f"routes: [{{match: 'GET /a', scope: {TOKEN}}}]",
        f"routes: [{{match: 'GET /a', public: true}}] # {TOKEN}",
        f"hosts: [{TOKEN}]\nroutes: []",
        f"{TOKEN}: [",
    ],
)
def test_a_token_in_a_pasted_file_is_not_shown_again(viewer: Browser, routes: str, token: str) -> None:
    routes = routes.replace(TOKEN, token)
    pages = [compared(viewer, **{name: text})[1] for name, text in (("routes_yaml", routes), (token, routes))]
    pages.append(compared(viewer, routes)[1])
    assert [token[-12:] in page for page in pages] == [False, False, False]


def test_what_holds_no_token_is_shown_again(viewer: Browser) -> None:
    settings = text_of(realm="get_organization_members")
    text = compared(viewer, settings, routes_yaml=WIDER)[1]
    assert settings.strip() in text
    assert WIDER.strip() in text


def test_a_field_twice_and_a_form_that_is_too_long_are_refused(world: ConsoleWorld) -> None:
    browser = world.logged_in()
    status, text = compared(browser, **{"routes_yaml": ROUTES, "routes.yaml ": ROUTES})
    assert (status, "pasted twice" in text) == (422, True)
    assert compared(browser, "x" * what_if_pages.MAX_BODY)[0] == 400
    assert browser.post("/audit/search", {"actor": "x" * 70_000}, page="/audit").status_code == 400, "others keep their bound"


def test_a_form_of_another_session_compares_nothing(world: ConsoleWorld) -> None:
    assert world.logged_in().post(PATH, {"settings": "x"}, token="0" * 64).status_code == 403
    assert world.visitor().post(PATH, {"settings": "x"}, token="").status_code == 401
    assert world.visitor().get(PATH).status_code == 303


def test_one_comparison_is_made_at_a_time(world: ConsoleWorld) -> None:
    browser = world.logged_in()
    token = browser.token(PATH, PATH)
    limiter = world.context.comparing
    world.portal.call(limiter.acquire_on_behalf_of, "somebody")
    try:
        answer = browser.post(PATH, {"settings": "version: 1"}, token=token)
    finally:
        world.portal.call(limiter.release_on_behalf_of, "somebody")
    assert (answer.status_code, "another comparison is being made" in answer.text) == (422, True)


def test_where_the_console_manages_oauth_the_settings_of_the_store_count_on_both_sides(world: ConsoleWorld) -> None:
    world.change(oauth={"managed_by": "console"})
    status, text = compared(world.logged_in(), routes_yaml=WIDER)
    assert (status, tiles(text)) == (200, [1, 0, 0, 0])
