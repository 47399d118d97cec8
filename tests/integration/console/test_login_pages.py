"""Who gets in by an account of the console, for how long, and who does not."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.store import sessions as stored_sessions
from extauthz.adapters.store.records import AuditFilter
from extauthz.admin import accounts, sessions
from extauthz.admin.rights import Actor, Role
from extauthz.admin.sessions import SessionLimits
from extauthz.console import forms, passwords, throttle
from extauthz.console.app import application
from extauthz.console.visits import COOKIE
from tests.support.console_world import FOUNDER, HASH, NOW, ORIGIN, PASSWORD, SETTINGS, WHO, ConsoleWorld, console_world, done

ANA = WHO[Role.ADMIN]
OIDC = {"issuer": "https://acme.okta.com", "client_id": "0oa1console"}
LIMITS = SessionLimits(1800, 43200)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        done(accounts.put(made.current.administration(), FOUNDER, ANA, HASH, NOW))
        yield made


def listed(world: ConsoleWorld) -> list[stored_sessions.StoredSession]:
    """Return the sessions that last."""
    return list(done(sessions.list_sessions(world.current.administration(), FOUNDER, int(world.now), limits=LIMITS)))


def is_in(browser: object) -> bool:
    """Tell whether somebody is logged in."""
    return browser.get("/tokens").status_code == 200  # type: ignore[attr-defined]


def test_somebody_with_account_and_role_gets_in(world: ConsoleWorld) -> None:
    browser = world.visitor()
    answer = browser.post("/login", {"email": "ANA@acme.com", "password": PASSWORD, "next": "/tokens?scope=CHAT"}, token="")
    assert (answer.status_code, answer.headers["location"]) == (303, "/tokens?scope=CHAT")
    cookie, device = answer.headers.get_list("set-cookie")
    assert device.startswith("__Host-device=")
    assert device.lower().endswith("; httponly; max-age=7776000; path=/; samesite=strict; secure")
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert cookie.startswith(f"{COOKIE}=")
    assert attributes == {"path=/", "secure", "httponly", "samesite=strict"}
    assert "ana@acme.com" in browser.get("/tokens").text


REFUSED = {
    "another password": ({"email": ANA, "password": "correct horse batterY"}, 403, "wrong"),
    "a short password": ({"email": ANA, "password": "short"}, 403, "wrong"),
    "no password": ({"email": ANA}, 403, "wrong"),
    "a long password": ({"email": ANA, "password": "x" * 4000}, 403, "wrong"),
    "nobody": ({"email": "nobody@acme.com", "password": PASSWORD}, 403, "wrong"),
    "no address": ({"email": "ana", "password": PASSWORD}, 403, "wrong"),
    "somebody without a role": ({"email": "guest@acme.com", "password": PASSWORD}, 403, "has no role"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_do_not(world: ConsoleWorld, name: str, caplog: pytest.LogCaptureFixture) -> None:
    done(accounts.put(world.current.administration(), FOUNDER, "guest@acme.com", HASH, NOW))
    fields, status, says = REFUSED[name]
    browser = world.visitor()
    answer = browser.post("/login", fields, token="")
    assert answer.status_code == status
    assert says in answer.text
    assert "set-cookie" not in answer.headers
    assert not is_in(browser)
    assert fields.get("password", "never") not in answer.text + caplog.text


def test_who_tries_often_waits(world: ConsoleWorld) -> None:
    browser = world.visitor()
    statuses = [browser.post("/login", {"email": ANA, "password": f"{PASSWORD} {n}"}, token="").status_code for n in range(6)]
    assert statuses == [403] * 5 + [429]
    waiting = browser.post("/login", {"email": ANA, "password": PASSWORD}, token="")
    assert (waiting.status_code, waiting.headers["retry-after"]) == (429, "13")
    world.now += 13
    assert browser.post("/login", {"email": ANA, "password": PASSWORD}, token="").status_code == 303


def test_many_networks_keep_out_nobody_who_logged_in_before(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "OF_ALL", 4)
    world.app = application(world.context, [ORIGIN])
    known = world.logged_in(Role.ADMIN)
    known.post("/logout", {}, page="/")
    for number in range(4):
        stranger = world.visitor()
        stranger.client = world.client(world.app, f"203.0.113.{number}")
        last = stranger.post("/login", {"email": f"{number}@acme.com", "password": "x"}, token="")
    assert last.status_code == 429, "one of the four was taken by the login"
    fields = {"email": ANA, "password": PASSWORD}
    assert world.visitor().post("/login", fields, token="").status_code == 429
    assert known.post("/login", {"email": "cto@acme.com", "password": PASSWORD}, token="").status_code == 429
    assert known.post("/login", fields, token="").status_code == 303


def test_a_session_confirms_although_others_try_from_its_address(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    for number in range(6):
        last = world.visitor().post("/login", {"email": ANA, "password": f"{PASSWORD} {number}"}, token="")
    assert last.status_code == 429
    tries = [f"{PASSWORD} {number}" for number in range(3)] + [PASSWORD]
    assert [browser.post("/confirm", {"password": text}, page="/confirm").status_code for text in tries] == [403] * 3 + [303]
    tries = [f"{PASSWORD} {number}" for number in range(5)] + [PASSWORD]
    assert [browser.post("/confirm", {"password": text}, page="/confirm").status_code for text in tries] == [403] * 5 + [429]


def test_with_a_provider_accounts_are_off_unless_the_file_keeps_them(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    world.change(console={"public_url": ORIGIN, "oidc": OIDC, "local_accounts": True})
    assert is_in(browser)
    world.change(console={"public_url": ORIGIN, "oidc": OIDC})
    assert not is_in(browser)
    assert "Password" not in world.visitor().get("/login").text
    answer = world.visitor().post("/login", {"email": ANA, "password": PASSWORD}, token="")
    assert (answer.status_code, "switched off" in answer.text) == (403, True)


def test_a_session_ends_when_nobody_uses_it(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    for _ in range(5):
        world.now += 1799
        assert is_in(browser)
    world.now += 1800
    assert not is_in(browser)


def test_a_session_ends_for_good(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    for _ in range(24):
        world.now += 1790
        assert is_in(browser)
    world.now += 12 * 3600 - 24 * 1790
    assert not is_in(browser)


def test_a_role_that_was_removed_ends_at_the_next_click(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    cookie = browser.client.cookies[COOKIE]
    world.change(roles={"super_admins": ["cto@acme.com"]})
    answer = browser.get("/tokens")
    assert answer.status_code == 403
    text = f"{ANA} has no role any more, and was logged out. A super admin can add the address to `roles`."
    assert_shows(answer.text, "No access", text, "/login", "Log in as somebody else")
    assert listed(world) == []
    world.change(roles=SETTINGS["roles"])
    browser.client.cookies.set(COOKIE, cookie)
    assert not is_in(browser)


def assert_shows(page: str, title: str, text: str, link: str, label: str) -> None:
    """Compare a page of a few words with what it has to say."""
    assert f'<h1>{title}</h1>\n<p>{text}</p>\n<p><a class="button" href="{link}">{label}</a></p>' in page


def test_a_role_that_was_changed_counts_at_the_next_click(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    world.change(roles={"viewers": [ANA]})
    assert browser.create().status_code == 422
    assert world.texts() == []


def test_another_password_ends_sessions(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    done(accounts.put(world.current.administration(), FOUNDER, ANA, HASH, NOW))
    assert not is_in(browser)


def test_an_account_that_is_removed_is_out(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    done(accounts.remove(world.current.administration(), FOUNDER, ANA, NOW))
    assert not is_in(browser)
    assert world.visitor().post("/login", {"email": ANA, "password": PASSWORD}, token="").status_code == 403


def test_who_logs_out_is_out(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    cookie = browser.client.cookies[COOKIE]
    assert browser.post("/logout", {}, page="/tokens").status_code == 303
    again = world.visitor()
    again.client.cookies.set(COOKIE, cookie)
    assert not is_in(again)


@pytest.mark.parametrize("cookie", ["", "0", "0" * 64, "f" * 63, "F" * 64, "../../etc/passwd", "0" * 4000])
def test_a_made_up_cookie_opens_nothing(world: ConsoleWorld, cookie: str) -> None:
    world.logged_in(Role.SUPER_ADMIN)
    browser = world.visitor()
    browser.client.cookies.set(COOKIE, cookie)
    assert not is_in(browser)


def test_neither_a_client_token_nor_an_admin_key_is_a_session(world: ConsoleWorld) -> None:
    browser = world.visitor()
    browser.client.cookies.set(COOKIE, world.issue().text.text)
    assert not is_in(browser)
    assert browser.get("/tokens", authorization=f"Bearer {world.issue().text.text}").status_code == 303


def test_a_super_admin_lists_and_ends_sessions(world: ConsoleWorld) -> None:
    ana, cto = world.logged_in(Role.ADMIN), world.logged_in(Role.SUPER_ADMIN)
    listed = cto.get("/sessions").text
    assert (ANA in listed, "cto@acme.com" in listed) == (True, True)
    session = next(
        each
        for each in done(
            sessions.list_sessions(world.current.administration(), FOUNDER, NOW, limits=sessions.SessionLimits(1800, 43200))
        )
        if each.email == ANA
    )
    assert cto.post(f"/sessions/{session.id}/end", {}, page="/sessions").status_code == 303
    assert not is_in(ana)
    assert is_in(cto)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
def test_nobody_else_sees_sessions(world: ConsoleWorld, role: Role) -> None:
    assert world.logged_in(role).get("/sessions").status_code == 403


NEXT = [
    "https://evil.test/",
    "//evil.test",
    "/\\evil.test",
    "javascript:alert(1)",
    "/tokens/../../x",
    "tokens",
    "/\r\nset-cookie: a=b",
]


@pytest.mark.parametrize("path", NEXT)
def test_nobody_is_led_elsewhere(world: ConsoleWorld, path: str) -> None:
    answer = world.visitor().post("/login", {"email": ANA, "password": PASSWORD, "next": path}, token="")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_link_from_a_chat_goes_on_once_and_then_to_the_login(world: ConsoleWorld) -> None:
    """Such a link comes without the cookie, which the browser sends from a page of our own."""
    browser = world.visitor()
    first = browser.get("/tokens?scope=CHAT", sec_fetch_site="cross-site")
    assert (first.status_code, first.headers["refresh"]) == (200, "0;url=/tokens?scope=CHAT")
    second = browser.get("/tokens?scope=CHAT", sec_fetch_site="same-origin")
    assert (second.status_code, second.headers["location"]) == (303, "/login?next=%2Ftokens%3Fscope%3DCHAT")


def test_a_recent_login_is_asked_for_again(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.SUPER_ADMIN)
    before = browser.client.cookies[COOKIE]
    world.now += 601
    refused = browser.create(permission="GLOBAL")
    assert (refused.status_code, "log in again first" in refused.text) == (422, True)
    wrong = browser.post("/confirm", {"password": "another password", "next": "/tokens/new"}, page="/confirm")
    assert (wrong.status_code, browser.create(permission="GLOBAL").status_code) == (403, 422)
    confirmed = browser.post("/confirm", {"password": PASSWORD, "next": "/tokens/new"}, page="/confirm")
    assert (confirmed.status_code, confirmed.headers["location"]) == (303, "/tokens/new")
    assert browser.client.cookies[COOKIE] != before
    assert browser.create(permission="GLOBAL").status_code == 201
    old = world.visitor()
    old.client.cookies.set(COOKIE, before)
    assert not is_in(old)


# --- whoever can write the store, and has no pepper

OTHER_PASSWORD = "a password of somebody else"
OTHER_HASH = passwords.hashed(OTHER_PASSWORD)
OTHER_SECRET = "ab" * 32
OTHER_DIGEST = hashlib.sha256(bytes.fromhex(OTHER_SECRET)).hexdigest()
SESSION_ROWS = {
    "somebody else": "email = 'cto@acme.com'",
    "another way to log in": "method = 'openid'",
    "another provider": "issuer = 'https://evil.test'",
    "another id": "id = '000000000000'",
    "another address": "address = '10.0.0.1'",
    "a later beginning": "created_at = created_at + 1",
    "a later login": "authenticated_at = authenticated_at + 1",
    "no address": "email = x'00'",
    "no time": "seen_at = 'now'",
    "no secret": "digest = 'text'",
    "a pepper that is not listed": "pepper_id = 'gone'",
    "no MAC": "mac = zeroblob(32)",
    "a MAC of another kind": "mac = 'text'",
    "a secret of one's own": f"digest = x'{OTHER_DIGEST}'",
    "a secret of one's own and a MAC without a key": f"digest = x'{OTHER_DIGEST}', mac = x'{OTHER_DIGEST}'",
}
ACCOUNT_ROWS = {
    "another password": f"password_hash = '{OTHER_HASH}'",
    "somebody else": f"email = 'cto@acme.com', password_hash = '{OTHER_HASH}'",
    "somebody else with the same password": "email = 'cto@acme.com'",
    "another beginning": "created_at = created_at + 1",
    "another maker": "created_by = 'eve'",
    "no hash": "password_hash = x'00'",
    "a pepper that is not listed": "pepper_id = 'gone'",
    "no MAC": "mac = zeroblob(32)",
    "a MAC of another kind": "mac = 'text'",
}


def write(world: ConsoleWorld, statement: str) -> None:
    """Change the store behind its back."""
    with closing(sqlite3.connect(world.folder / "tokens.db", isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize("name", SESSION_ROWS)
def test_a_session_that_somebody_wrote_opens_nothing(world: ConsoleWorld, name: str) -> None:
    browser, other = world.logged_in(Role.ADMIN), world.visitor()
    other.client.cookies.set(COOKIE, OTHER_SECRET)
    write(world, f"UPDATE console_sessions SET {SESSION_ROWS[name]}")  # noqa: S608
    assert (is_in(browser), is_in(other)) == (False, False)
    assert listed(world) == []


@pytest.mark.parametrize("name", ACCOUNT_ROWS)
def test_an_account_that_somebody_wrote_lets_nobody_in(world: ConsoleWorld, name: str, caplog: pytest.LogCaptureFixture) -> None:
    write(world, f"UPDATE console_accounts SET {ACCOUNT_ROWS[name]}")  # noqa: S608
    statuses = [
        world.visitor().post("/login", {"email": email, "password": password}, token="").status_code
        for email in (ANA, "cto@acme.com")
        for password in (PASSWORD, OTHER_PASSWORD)
    ]
    assert statuses == [403] * 4
    assert "was not written by this installation" in caplog.text


@pytest.mark.parametrize("change", ["mac = zeroblob(32)", "created_at = x'00'", "created_by = x'00'", "password_hash = x'00'"])
def test_a_new_password_mends_an_account(world: ConsoleWorld, change: str) -> None:
    write(world, f"UPDATE console_accounts SET {change}")  # noqa: S608
    assert done(accounts.put(world.current.administration(), FOUNDER, ANA, HASH, NOW)) is False
    assert is_in(world.logged_in(Role.ADMIN))


def test_a_pepper_that_is_not_listed_any_more_ends_sessions_and_not_accounts(world: ConsoleWorld) -> None:
    """An account goes over to the newest pepper with a login."""
    (world.folder / "pepper2").write_bytes(b"another pepper for tests, 32 long")
    before = world.logged_in(Role.ADMIN)
    peppers = [{"id": "p2", "file": "pepper2"}, {"id": "p1", "file": "pepper"}]
    world.change(tokens=SETTINGS["tokens"] | {"peppers": peppers})
    assert (is_in(before), is_in(world.logged_in(Role.ADMIN))) == (True, True)
    world.change(tokens=SETTINGS["tokens"] | {"peppers": peppers[:1]})
    assert (is_in(before), is_in(world.logged_in(Role.ADMIN))) == (False, True)


# --- a login under way


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen while the next password is looked at."""
    look = passwords.Hashing.is_right

    async def slow(self: passwords.Hashing, password: str, stored: str) -> bool:
        is_right = await look(self, password, stored)
        happens()
        return is_right

    monkeypatch.setattr(passwords.Hashing, "is_right", slow)


@pytest.mark.parametrize("how", ["removed", "another password", "the same password anew"])
def test_a_login_under_way_ends_with_its_account(world: ConsoleWorld, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    administration, anew = world.current.administration(), passwords.hashed(PASSWORD)
    changes = {
        "removed": lambda: accounts.remove(administration, FOUNDER, ANA, NOW),
        "another password": lambda: accounts.put(administration, FOUNDER, ANA, OTHER_HASH, NOW),
        "the same password anew": lambda: accounts.put(administration, FOUNDER, ANA, anew, NOW),
    }
    meanwhile(monkeypatch, changes[how])
    browser = world.visitor()
    answer = browser.post("/login", {"email": ANA, "password": PASSWORD}, token="")
    assert (answer.status_code, "Log in again" in answer.text, "set-cookie" in answer.headers) == (403, True, False)
    assert not is_in(browser)
    assert listed(world) == []


def test_a_confirmation_under_way_ends_with_its_session(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = world.logged_in(Role.ADMIN)
    token, administration = browser.token("/confirm", "/confirm"), world.current.administration()
    (session,) = listed(world)
    meanwhile(monkeypatch, lambda: sessions.end(administration, FOUNDER, session.id, NOW))
    answer = browser.post("/confirm", {"password": PASSWORD, "next": "/"}, token=token)
    assert (answer.status_code, "Log in again" in answer.text) == (403, True)
    assert not is_in(browser)
    assert listed(world) == []


def test_a_hash_with_other_costs_is_made_anew_at_a_login(world: ConsoleWorld) -> None:
    outdated = passwords.argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(PASSWORD)
    done(accounts.put(world.current.administration(), FOUNDER, ANA, outdated, NOW))
    assert is_in(world.logged_in(Role.ADMIN))
    assert passwords.is_outdated(done(accounts.list_accounts(world.current.administration(), FOUNDER))[0].password_hash) is False
    assert is_in(world.logged_in(Role.ADMIN))


# --- a provider that does not count any more


@pytest.mark.parametrize(
    ("console", "counts"),
    [
        ({"oidc": OIDC}, True),
        ({"oidc": OIDC, "local_accounts": True}, True),
        ({"oidc": OIDC | {"issuer": "https://other.okta.com"}}, False),
        ({"local_accounts": True}, False),
    ],
)
def test_a_session_of_a_provider_ends_with_it(world: ConsoleWorld, console: dict[str, object], counts: bool) -> None:
    who = Actor(ANA, Role.ADMIN, "a test")
    new = done(
        sessions.begin(
            world.current.administration(), who, NOW, method="openid", issuer=OIDC["issuer"], address="192.0.2.7", limits=LIMITS
        )
    )
    browser = world.visitor()
    browser.client.cookies.set(COOKIE, new.secret)
    world.change(console={"public_url": ORIGIN} | console)
    assert browser.get("/tokens").status_code == (200 if counts else 303)


def test_a_form_that_does_not_come_ends_its_connection(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "BODY_TIMEOUT", 0.01)
    sent = {"host": ORIGIN.removeprefix("https://"), "origin": ORIGIN, "content-type": forms.CONTENT_TYPE}
    headers = [(name.encode(), value.encode()) for name, value in sent.items()]
    scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": headers}
    answers: list[Any] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            answers.append(message)

        await world.app(scope, asyncio.Event().wait, send)

    world.portal.call(ask)
    assert (answers[0]["status"], (b"connection", b"close") in answers[0]["headers"]) == (408, True)


# --- forms and sessions


def test_a_form_of_another_session_or_of_another_page_does_nothing(world: ConsoleWorld) -> None:
    mine, other = world.logged_in(Role.ADMIN), world.logged_in(Role.SUPER_ADMIN)
    for token in (other.token("/tokens", "/logout"), mine.token("/tokens/new", "/tokens"), "", "0" * 64):
        answer = mine.post("/logout", {}, token=token)
        assert answer.status_code == 403
        text = "This form was not made for your session: go back, load the page anew, and send it again."
        assert_shows(answer.text, "Not done", text, "/", "Go to the overview")
    assert is_in(mine)
    assert mine.post("/logout", {}, page="/tokens").status_code == 303


def test_a_form_without_a_session_says_that_it_is_over(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    token = browser.token("/tokens", "/logout")
    browser.client.cookies.clear()
    answer = browser.post("/logout", {}, token=token)
    assert answer.status_code == 401
    assert_shows(answer.text, "Log in", "Your session is over. Log in again, then repeat what you wanted.", "/login", "Log in")


def test_a_session_lasts_as_long_as_the_configuration_of_now_says(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    world.change(console=SETTINGS["console"] | {"session_idle": "5m", "session_lifetime": "10m"})
    for seconds, lasts in ((299, True), (299, True), (2, False)):
        world.now += seconds
        assert is_in(browser) is lasts
    again = world.logged_in(Role.ADMIN)
    world.now += 300
    assert not is_in(again)


def test_a_login_and_its_end_stand_in_the_audit_with_who_and_from_where(world: ConsoleWorld) -> None:
    world.change(console=SETTINGS["console"] | {"trusted_proxies": ["192.0.2.0/24"]})
    browser = world.visitor()
    browser.client = world.client(world.app, "192.0.2.7")
    behind = {"x-forwarded-for": "198.51.100.9, 203.0.113.5"}
    browser.post("/login", {"email": ANA, "password": PASSWORD}, token="", headers=behind)
    browser.post("/logout", {}, page="/tokens", headers=behind)
    told = [(each.action, each.actor, each.source) for each in world.store.newest_audit(AuditFilter(), limit=2)]
    assert told == [("logout", ANA, "console 203.0.113.5"), ("login", ANA, "console 203.0.113.5")]


def test_a_viewer_is_not_told_what_is_wrong_with_the_configuration(world: ConsoleWorld) -> None:
    browsers = {role: world.logged_in(role) for role in Role}
    for is_broken in (False, True):
        told = {role: "extauthz.yaml" in browser.get("/tokens").text for role, browser in browsers.items()}
        assert told == {role: is_broken and role is not Role.VIEWER for role in Role}
        world.file.write_text("version: [")
        world.ticks += 60


def test_a_field_comes_once_unless_it_is_a_choice_of_several(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.ADMIN)
    answer = browser.post("/logout", {"why": ["one", "another"]}, page="/tokens")
    assert (answer.status_code, "a field came twice" in answer.text, is_in(browser)) == (400, True, True)
    assert browser.create(scope=["SEARCH", "CHAT"]).status_code == 201


def test_a_session_of_an_unknown_kind_opens_nothing(world: ConsoleWorld) -> None:
    """One that a later release began: nobody knows here what it rests on."""
    world.change(console={"public_url": ORIGIN, "oidc": OIDC, "local_accounts": True})
    for method, status in (("openid", 200), ("passkey", 303)):
        who = Actor(ANA, Role.ADMIN, "a test")
        begun = sessions.begin(
            world.current.administration(), who, NOW, method=method, issuer=OIDC["issuer"], address="192.0.2.7", limits=LIMITS
        )
        browser = world.visitor()
        browser.client.cookies.set(COOKIE, done(begun).secret)
        assert browser.get("/tokens").status_code == status
