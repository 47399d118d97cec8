"""The page of the OAuth settings: who may change what, what is shown before, and what other admins did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from extauthz.admin.rights import Role
from tests.support.console_world import Browser, ConsoleWorld, console_world

PATH = "/settings/oauth"
MANAGED = {"managed_by": "console", "leeway": "60s"}
OKTA = {
    "enabled": "yes",
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": "0oa1, 0oa2",
    "audience": "api",
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        made.change(oauth=MANAGED)
        yield made


def send(browser: Browser, do: str, expected: int = 0, **changes: str) -> tuple[int, str]:
    """Send the form; return status and page."""
    answer = browser.post(PATH, {**OKTA, **changes, "do": do, "expected": str(expected)})
    return answer.status_code, answer.text


def versions(world: ConsoleWorld) -> list[int]:
    """Return the versions in the store, the newest first."""
    return [row.version for row in world.store.settings_page(None, 100)]


def test_a_change_is_shown_and_then_saved(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.SUPER_ADMIN)
    assert "Nothing was saved yet" in browser.get(PATH).text
    status, page = send(browser, "review")
    assert (status, "What changes" in page, "0oa1, 0oa2" in page, versions(world)) == (200, True, True, [])
    assert send(browser, "save")[0] == 303
    page = browser.get(f"{PATH}?saved=1").text
    assert ("Version 1 is saved" in page, "cto@acme.com" in page) == (True, True)
    assert versions(world) == [1]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
@pytest.mark.parametrize("do", ["save", "review", "test"])
def test_nobody_but_a_super_admin_changes_them(world: ConsoleWorld, role: Role, do: str) -> None:
    browser = world.logged_in(role)
    assert "Only a super admin" in browser.get(PATH).text
    status, page = send(browser, do)
    assert (status, "needs a super admin" in page, versions(world)) == (422, True, [])


def test_saving_needs_a_recent_login(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.SUPER_ADMIN)
    world.now += 601
    status, page = send(browser, "save")
    assert (status, "Confirm that it is you" in page, versions(world)) == (422, True, [])


def test_two_admins_do_not_undo_each_other(world: ConsoleWorld) -> None:
    one, other = world.logged_in(Role.SUPER_ADMIN), world.logged_in(Role.SUPER_ADMIN)
    assert send(one, "save")[0] == 303
    status, _ = send(other, "save", client_ids="0oa3")
    assert (status, versions(world)) == (422, [1])
    assert send(other, "save", expected=1, client_ids="0oa3")[0] == 303


def test_an_earlier_version_is_saved_once_more(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.SUPER_ADMIN)
    send(browser, "save")
    send(browser, "save", expected=1, enabled="")
    assert browser.post(f"{PATH}/back", {"version": "1", "expected": "2"}, page=PATH).status_code == 303
    assert versions(world) == [3, 2, 1]
    first, last = (world.store.settings_page(version + 1, 1)[0].values() for version in (1, 3))
    assert first == last
    world.now += 601
    assert browser.post(f"{PATH}/back", {"version": "2", "expected": "3"}, page=PATH).status_code == 422
    assert versions(world) == [3, 2, 1]


@pytest.mark.parametrize("version", ["9", "-1", "", "x", "9" * 30])
def test_a_version_that_is_not_there(world: ConsoleWorld, version: str) -> None:
    browser = world.logged_in(Role.SUPER_ADMIN)
    send(browser, "save")
    send(browser, "save", expected=1, enabled="")
    answer = browser.post(f"{PATH}/back", {"version": version, "expected": "2"}, page=PATH)
    assert (answer.status_code, versions(world)) == (422, [2, 1])


WRONG = {
    "issuer": ({"issuer": "acme"}, "is not an issuer of okta"),
    "client_ids": ({"client_ids": ""}, "client_ids"),
    "scopes": ({"scopes": "NOPE"}, "NOPE"),
    "provider": ({"provider": "keycloak"}, "keycloak"),
    "audience": ({"audience": ""}, "audience"),
}


@pytest.mark.parametrize("field", WRONG)
def test_what_is_wrong_stands_beside_its_field(world: ConsoleWorld, field: str) -> None:
    changes, says = WRONG[field]
    for do in ("review", "save"):
        status, page = send(world.logged_in(Role.SUPER_ADMIN), do, **changes)
        assert (status, versions(world)) == (422, [])
        start = page.index(f'id="{field}-error"')
        assert says in page[start : page.index("</p>", start)] or field in (
            "client_ids",
            "audience",
        )  # why: their sentence is the configuration's


def test_the_short_form_of_an_issuer_is_shown_whole(world: ConsoleWorld) -> None:
    status, page = send(world.logged_in(Role.SUPER_ADMIN), "review", issuer="https://acme", audience="")
    assert (status, 'value="https://acme.okta.com"' in page) == (200, True)


def test_settings_of_the_file_are_read_alone(world: ConsoleWorld) -> None:
    world.change(
        oauth={"provider": "okta", "issuer": "https://acme.okta.com/oauth2/default", "client_ids": ["0oa1"], "audience": "api"}
    )
    browser = world.logged_in(Role.SUPER_ADMIN)
    page = browser.get(PATH).text
    assert ("extauthz.yaml:" in page, "managed_by: console" in page, 'name="do"' in page) == (True, True, False)
    status, page = send(browser, "save")
    assert (status, "change them there" in page, versions(world)) == (422, True, [])


def test_a_script_is_text(world: ConsoleWorld) -> None:
    _, page = send(world.logged_in(Role.SUPER_ADMIN), "review", client_ids="<script>alert(1)</script>")
    assert "<script>alert" not in page
