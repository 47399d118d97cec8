"""What is sent slowly, or while something breaks: what counts is who somebody is at the end, and what is told is true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.store import sessions
from extauthz.admin.rights import Role
from extauthz.console import forms
from extauthz.errors import StoreError
from tests.support.console_world import SETTINGS, ConsoleWorld, console_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Let something happen while the body of a form is on its way."""
    read = forms.read_form

    async def late(*arguments: Any, **options: Any) -> forms.Form:
        form = await read(*arguments, **options)
        happens()
        return form

    monkeypatch.setattr(forms, "read_form", late)


def test_a_role_that_is_lost_while_the_form_comes_does_nothing(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = world.logged_in(Role.SUPER_ADMIN)
    once, token = browser.field("/tokens/new", "/tokens", "once"), browser.token("/tokens/new", "/tokens")
    meanwhile(monkeypatch, lambda: world.change(roles={**SETTINGS["roles"], "super_admins": []}))
    fields = {"once": once, "description": "late", "permission": "GLOBAL", "scope": "SEARCH", "days": "90"}
    assert browser.post("/tokens", fields, token=token).status_code == 403
    assert world.store.list_tokens() == []


def test_a_session_that_ends_while_the_form_comes_does_nothing(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = world.logged_in(Role.SUPER_ADMIN)
    once, token = browser.field("/tokens/new", "/tokens", "once"), browser.token("/tokens/new", "/tokens")

    def end() -> None:
        with world.store.writing() as connection:
            connection.execute(sessions.console_sessions.delete())

    meanwhile(monkeypatch, end)
    fields = {"once": once, "description": "late", "permission": "GLOBAL", "scope": "SEARCH", "days": "90"}
    assert browser.post("/tokens", fields, token=token).status_code == 401
    assert world.store.list_tokens() == []


def test_what_a_page_asks_for_by_itself_keeps_no_session_alive(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.VIEWER)
    for _ in range(3):
        world.now += 599
        assert browser.get("/activity/numbers").status_code == 200
    world.now += 10
    assert browser.get("/activity/numbers").status_code == 303


def test_a_revocation_that_was_taken_is_told_whatever_breaks_behind_it(
    world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, browser = world.issue(), world.logged_in(Role.ADMIN)
    path = f"/tokens/{token.record.id}/revoke"
    csrf = browser.token(path, path)

    def fail() -> None:
        raise StoreError("the store went away")

    monkeypatch.setattr(world.store, "audit_head", fail)
    answer = browser.post(path, {"why": ""}, token=csrf)
    assert (answer.status_code, "Refused from now on" in answer.text) == (200, True)


def test_a_change_that_may_have_been_taken_is_not_called_undone(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = world.logged_in(Role.ADMIN)

    def fail(*_: Any, **__: Any) -> None:
        raise StoreError("the connection was cut while the change was committed")

    monkeypatch.setattr(world.store, "add_many", fail)
    answer = browser.create()
    assert (answer.status_code, "not certain whether" in answer.text) == (503, True)


@pytest.mark.parametrize(
    ("page", "action", "field"),
    [
        ("/tokens", "/tokens/search", "text"),
        ("/tokens", "/tokens/search", "user"),
        ("/tokens", "/tokens/search", "created_by"),
        ("/tokens", "/tokens/search", "scope"),
        ("/audit", "/audit/search", "actor"),
        ("/audit", "/audit/search", "action"),
        ("/audit", "/audit/search", "token"),
    ],
)
def test_no_address_has_a_secret_wherever_it_was_pasted(world: ConsoleWorld, page: str, action: str, field: str) -> None:
    secret = world.issue().text.text
    answer = world.logged_in(Role.VIEWER).post(action, {field: secret}, page=page)
    assert secret.split("_")[2] not in answer.headers.get("location", "") + answer.text


@pytest.mark.parametrize("path", ["/tokens/%E2%82%AC", "/tokens/%0d%0aset-cookie:%20a=b", "/tokens/%22%3E"])
def test_a_link_with_any_letters_goes_on(world: ConsoleWorld, path: str) -> None:
    answer = world.visitor().get(path, sec_fetch_site="cross-site")
    assert (answer.status_code, answer.headers["refresh"].isascii(), "set-cookie" in answer.headers) == (200, True, False)


def test_a_look_at_the_sidecars_follows_a_change_alone(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take some of their time to answer, and a viewer may ask for this page as often as he likes."""
    looks = 0

    async def count() -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(world.context.collector, "collect", count)
    browser = world.logged_in(Role.VIEWER)
    for query in ("", "?saved=1", "?saved=0", "?saved=999"):
        assert browser.get(f"/settings/oauth{query}").status_code == 200
    assert looks == 0
