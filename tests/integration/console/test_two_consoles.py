"""Two consoles on one store behave as one, also in the middle of something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.rights import Role
from extauthz.config.loader import load
from extauthz.console.app import application
from extauthz.console.context import Context
from extauthz.console.current import CurrentConfiguration
from tests.support.console_world import ORIGIN, Browser, ConsoleWorld, console_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


@pytest.fixture
def other(world: ConsoleWorld) -> Iterator[Browser]:
    """A browser at another console, which has connections and memory of its own."""
    with closing(SqlTokenStore(world.folder / "tokens.db")) as store:
        current = CurrentConfiguration(load(world.file), store, monotonic=lambda: world.ticks, now=lambda: world.now)
        context = Context(current.configuration, current.administration, current.route_map, clock=lambda: world.now)
        browser = world.visitor()
        browser.client = world.client(application(context, [ORIGIN]))
        yield browser


def same_person(browser: Browser, other: Browser) -> None:
    """Let the other console's browser be the same one."""
    other.client.cookies = browser.client.cookies


def test_a_session_is_one_of_both_and_ends_in_both(world: ConsoleWorld, other: Browser) -> None:
    browser = world.logged_in(Role.ADMIN)
    same_person(browser, other)
    assert other.get("/tokens").status_code == 200
    cookies = dict(browser.client.cookies)
    other.post("/logout", {}, page="/tokens")
    browser.client.cookies.update(cookies)
    assert browser.get("/tokens").status_code == 303


def test_a_form_of_one_is_taken_by_the_other_and_makes_one_token(world: ConsoleWorld, other: Browser) -> None:
    browser = world.logged_in(Role.ADMIN)
    same_person(browser, other)
    once, token = browser.field("/tokens/new", "/tokens", "once"), browser.token("/tokens/new", "/tokens")
    fields = {"once": once, "description": "one", "permission": "ANONYMOUS", "scope": "SEARCH", "days": "90"}
    statuses = [each.post("/tokens", fields, token=token).status_code for each in (browser, other, browser)]
    assert (statuses, len(world.store.list_tokens())) == ([201, 409, 409], 1)


def test_what_one_does_the_other_shows(world: ConsoleWorld, other: Browser) -> None:
    browser = world.logged_in(Role.ADMIN)
    same_person(browser, other)
    browser.create(description="made here")
    assert "made here" in other.get("/tokens").text
    (token,) = world.store.list_tokens()
    other.post(f"/tokens/{token.id}/revoke", {"why": "there"})
    assert "there" in browser.get(f"/tokens/{token.id}").text
    assert world.store.get(token.id) == replace(token, revoked_at=int(world.now), revoked_by="ana@acme.com", revoked_why="there")
