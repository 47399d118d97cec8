"""Admin keys as pages: who sees them, what is told of each, and the end of one."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from httpx2 import Response

from extauthz.adapters.store import admin_keys
from extauthz.admin import keys
from extauthz.admin.keys import KeyRequest, NewKey
from extauthz.admin.rights import Actor, Role
from tests.support.console_world import DAY, FOUNDER, NOW, WHO, Browser, ConsoleWorld, console_world, done

CTO = Actor(WHO[Role.SUPER_ADMIN], Role.SUPER_ADMIN, "a test")
NO_ROLE, LOWER_ROLE = "maker has no role any more", "maker has a lower role now"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


def made(
    world: ConsoleWorld, maker: Actor = FOUNDER, *, role: Role = Role.ADMIN, description: str = "CI", days: int = 30
) -> NewKey:
    """Make a key."""
    request = KeyRequest(description, role, int(world.now) + days * DAY)
    new: NewKey = done(keys.create(world.current.administration(), maker, request, int(world.now)))
    return new


def is_good(world: ConsoleWorld, key: NewKey) -> bool:
    """Return whether the API takes a key."""
    return world.visitor().get("/api/v1/tokens", authorization=f"Bearer {key.text.text}").status_code == 200


def words(answer: Response) -> str:
    """Return the text of a page."""
    return unescape(answer.text)


def revoked_at(world: ConsoleWorld, key: NewKey) -> int | None:
    """Return when a key was revoked."""
    record = admin_keys.get(world.store, key.record.id)
    assert record is not None
    return record.revoked_at


def test_a_super_admin_sees_what_there_is_to_know_of_each_key(world: ConsoleWorld) -> None:
    key = made(world, CTO, description="<script>rotation</script>")
    assert is_good(world, key)
    shown = world.logged_in().get("/keys")
    for text in (key.record.id, CTO.name, "rotation", "admin", "active", "2027-01-15 08:00", "2027-02-14 08:00", "in 30 days"):
        assert text in shown.text, text
    assert "<script>rotation" not in shown.text
    secret = key.text.text.split("_")[2]
    assert (secret in shown.text, key.record.digest.hex() in shown.text) == (False, False)
    assert 'href="/keys" aria-current="page"' in shown.text


def test_without_keys_the_page_says_how_to_make_one(world: ConsoleWorld) -> None:
    assert "extauthz console key create" in world.logged_in().get("/keys").text


def test_what_has_ended_is_listed_on_demand(world: ConsoleWorld) -> None:
    old, ended, good = made(world, days=1), made(world), made(world)
    keys.revoke(world.current.administration(), FOUNDER, ended.record.id, NOW)
    world.now += 2 * DAY
    browser = world.logged_in()
    ids = [key.record.id for key in (old, ended, good)]
    assert [key_id in browser.get("/keys").text for key_id in ids] == [False, False, True]
    everything = browser.get("/keys?all=1").text
    assert [key_id in everything for key_id in ids] == [True, True, True]
    assert [text in everything for text in ("expired", "revoked", "os:founder")] == [True, True, True]
    assert [f'action="/keys/{key_id}/revoke"' in everything or f'href="/keys/{key_id}/revoke"' in everything for key_id in ids] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
def test_nobody_else_sees_or_ends_keys(world: ConsoleWorld, role: Role) -> None:
    key, browser = made(world), world.logged_in(role)
    path = f"/keys/{key.record.id}/revoke"
    for answer in (browser.get("/keys"), browser.get("/keys?all=1"), browser.get(path)):
        assert (answer.status_code, key.record.id in answer.text) == (403, False)
    assert browser.post(path, {}, token="0" * 64).status_code == 403
    assert 'href="/keys"' not in browser.get("/").text
    assert revoked_at(world, key) is None


def test_a_key_is_revoked_by_a_form_that_asks_first(world: ConsoleWorld) -> None:
    key, other, browser = made(world, description="the nightly job"), made(world), world.logged_in()
    path = f"/keys/{key.record.id}/revoke"
    assert path in browser.get("/keys").text
    assert "the nightly job" in browser.get(path).text
    assert is_good(world, key)
    answer = browser.post(path, {})
    assert (answer.status_code, answer.headers["location"]) == (303, "/keys")
    assert [is_good(world, each) for each in (key, other)] == [False, True]
    row = world.store.audit_page(world.store.audit_head()[0] - 1)[0]
    assert (row.action, row.actor, row.source) == ("key-revoke", CTO.name, "console unknown")
    again = browser.get(path)
    assert (again.status_code, "was revoked" in again.text, "<form" in again.text.split("<main")[1]) == (200, True, False)


@pytest.mark.parametrize("forgery", ["none", "made up", "of another key", "of another session"])
def test_a_form_of_somebody_else_revokes_nothing(world: ConsoleWorld, forgery: str) -> None:
    key, other, browser = made(world), made(world), world.logged_in()
    path = f"/keys/{key.record.id}/revoke"
    token = {
        "none": lambda: "",
        "made up": lambda: "0" * 64,
        "of another key": lambda: browser.token(f"/keys/{other.record.id}/revoke", f"/keys/{other.record.id}/revoke"),
        "of another session": lambda: world.logged_in().token(path, path),
    }[forgery]()
    assert browser.post(path, {}, token=token).status_code == 403
    assert revoked_at(world, key) is None
    evil = {"origin": "https://evil.test"}
    assert browser.post(path, {}, headers=evil).status_code == 403
    assert world.visitor().post(path, {}, token=browser.token(path, path)).status_code == 401
    assert revoked_at(world, key) is None


@pytest.mark.parametrize("key_id", ["aaaaaaaaaaaa", "x", "%00"])
def test_an_unknown_key_is_said_to_be_none(world: ConsoleWorld, key_id: str) -> None:
    assert world.logged_in().get(f"/keys/{key_id}/revoke").status_code == 404


# --- a key outlives the role of its maker


def without(email: str, **more: list[str]) -> dict[str, list[str]]:
    """Return roles in which somebody has none but those given."""
    others = {"viewers": ["val@acme.com"], "admins": ["ana@acme.com"], "super_admins": ["cto@acme.com"]}
    return {name: [*(each for each in emails if each != email), *more.get(name, [])] for name, emails in others.items()}


def told(browser: Browser, text: str) -> list[str]:
    """Return the pages that say something."""
    return [path for path in ("/", "/keys") if text in browser.get(path).text]


def test_a_key_of_somebody_without_a_role_does_nothing_and_is_shown(world: ConsoleWorld) -> None:
    eve = Actor("eve@acme.com", Role.SUPER_ADMIN, "a test")
    world.change(roles=without("", super_admins=[eve.name]))
    key, other, browser, admin = made(world, eve), made(world), world.logged_in(), world.logged_in(Role.ADMIN)
    assert (is_good(world, key), told(browser, NO_ROLE)) == (True, [])
    world.change(roles=without(eve.name))
    assert (is_good(world, key), is_good(world, other)) == (False, True)
    assert told(browser, NO_ROLE) == ["/", "/keys"]
    assert 'href="/keys"' in browser.get("/").text.split("<main")[1]
    assert NO_ROLE not in admin.get("/").text
    refused = world.visitor().get("/api/v1/tokens", authorization=f"Bearer {key.text.text}")
    assert (refused.status_code, "eve@acme.com has no role any more" in refused.json()["detail"]) == (401, True)
    done(keys.revoke(world.current.administration(), FOUNDER, key.record.id, NOW))
    assert told(browser, NO_ROLE) == []


def test_a_key_of_somebody_with_a_lower_role_does_less_and_is_shown(world: ConsoleWorld) -> None:
    eve = Actor("eve@acme.com", Role.SUPER_ADMIN, "a test")
    world.change(roles=without("", super_admins=[eve.name]))
    key, browser = made(world, eve, role=Role.SUPER_ADMIN), world.logged_in()
    bearer = {"authorization": f"Bearer {key.text.text}"}
    assert world.visitor().get("/api/v1/sessions", **bearer).status_code == 200
    world.change(roles=without("", viewers=[eve.name]))
    assert world.visitor().get("/api/v1/sessions", **bearer).status_code == 403
    assert is_good(world, key)
    assert told(browser, LOWER_ROLE) == ["/", "/keys"]
    assert "acts as viewer" in words(browser.get("/keys"))
