"""Logins in a browser: the console's own pages around the real local issuer, with a real store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from http.cookies import SimpleCookie
from pathlib import Path

import httpx2
import pytest

from extauthz.admin import sessions
from extauthz.admin.sessions import SessionLimits
from extauthz.config.console import CALLBACK, LoginSection
from extauthz.console.app import application
from extauthz.console.openid import COOKIE, LIFETIME, OpenIdLogin
from extauthz.console.openid_pages import STEPS
from extauthz.console.visits import COOKIE as SESSION
from extauthz.demo.faults import Fault
from extauthz.demo.forgeries import Forgery
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.login import CONSOLE_CLIENT, CONSOLE_SECRET, USERS
from tests.support.console_world import FOUNDER, ORIGIN, SETTINGS, ConsoleWorld, console_world
from tests.support.served_issuer import IssuerServer, issuer_server
from tests.support.world import StillClock

OTHER_NAME = "https://localhost:9003"
ADMIN, STRANGER = USERS["Admin"], USERS["Somebody without a role"]
ALLOWED = {
    Forgery.NO_KEY_ID,
    Forgery.SEVERAL_AUDIENCES_RIGHT_PARTY,
    Forgery.ADDRESS_IN_USERINFO,
    Forgery.VERIFIED_IN_USERINFO,
    Forgery.OLD_LOGIN,
    Forgery.NO_LOGIN_TIME,
}
"""What lets people in where they were not asked to log in again."""


@dataclass
class Console:
    """A console in this process, and a browser of it."""

    issuer: DemoIssuer
    browser: httpx2.AsyncClient
    clock: StillClock
    world: ConsoleWorld

    async def get(self, path: str) -> httpx2.Response:
        return await self.browser.get(path, headers={"sec-fetch-site": "same-origin"})

    async def go_to_the_provider(self, path: str = "/tokens", **more: str) -> str:
        """Return the address of its page."""
        answer = await self.browser.get("/login/openid", params={"next": path, **more})
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def come_back(self, address: str, user: str = ADMIN) -> httpx2.Response:
        """Choose a user at the page of the provider, and come back."""
        async with httpx2.AsyncClient(trust_env=False) as elsewhere:
            answer = await elsewhere.post(address, data={"user": user})
        return await self.get(answer.headers["location"])

    async def log_in(self, user: str = ADMIN, **more: str) -> httpx2.Response:
        return await self.come_back(await self.go_to_the_provider(**more), user)


def cookies_of(answer: httpx2.Response) -> SimpleCookie:
    return SimpleCookie("\r\n".join(answer.headers.get_list("set-cookie")))


@pytest.fixture(scope="module")
def server() -> Iterator[IssuerServer]:
    with issuer_server() as made:
        yield made


@pytest.fixture
async def console(server: IssuerServer, tmp_path: Path) -> AsyncIterator[Console]:
    server.issuer = issuer = DemoIssuer(server.base)
    issuer.login.register(CONSOLE_CLIENT, CONSOLE_SECRET, [ORIGIN + CALLBACK])
    clock = StillClock(time.time())  # noqa: TID251 - the issuer's tokens live now
    section = LoginSection(issuer=issuer.login.issuer, client_id=CONSOLE_CLIENT)
    login = OpenIdLogin(section, ORIGIN + CALLBACK, secret=CONSOLE_SECRET.encode(), trust=None, clock=clock)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(login.close)
        world = stack.enter_context(console_world(tmp_path))
        world.change(console=SETTINGS["console"] | {"oidc": {"issuer": section.issuer, "client_id": section.client_id}})
        app = application(replace(world.context, clock=clock.now), [ORIGIN, OTHER_NAME], openid=login)
        transport = httpx2.ASGITransport(app)
        browser = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url=ORIGIN))
        yield Console(issuer, browser, clock, world)


async def test_a_user_logs_in_and_goes_on_where_the_way_began(console: Console) -> None:
    asked = await console.get("/tokens?text=billing")
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Ftokens%3Ftext%3Dbilling")
    page = await console.go_to_the_provider("/tokens?text=billing")
    assert page.startswith(f"{console.issuer.login.issuer}/authorize?")
    (pending,) = [cookie for cookie in console.browser.cookies.jar if cookie.name == COOKIE]
    assert (pending.secure, pending.path, pending.domain_specified) == (True, "/", False)
    back = await console.come_back(page)

    # A redirect would belong to the chain that began at the provider, and get no Strict cookie.
    assert (back.status_code, back.headers["refresh"]) == (200, "0;url=/tokens?text=billing")
    session = cookies_of(back)[SESSION]
    assert [session[name] for name in ("samesite", "httponly", "secure", "path", "domain")] == ["strict", True, True, "/", ""]
    assert cookies_of(back)[COOKIE]["max-age"] == "0"
    assert ADMIN in (await console.get("/tokens?text=billing")).text
    assert not [cookie for cookie in console.browser.cookies.jar if cookie.name == COOKIE]


async def test_the_way_there_is_kept_in_a_cookie_of_ten_minutes(console: Console) -> None:
    answer = await console.browser.get("/login/openid", params={"next": "https://evil.com/"})
    cookie = cookies_of(answer)[COOKIE]
    found = [cookie[name] for name in ("samesite", "httponly", "secure", "path", "domain", "max-age")]
    assert found == ["lax", True, True, "/", "", str(LIFETIME)]
    assert (await console.come_back(answer.headers["location"])).headers["refresh"] == "0;url=/"


async def test_somebody_without_a_role_has_no_session(console: Console) -> None:
    back = await console.log_in(STRANGER)
    assert (back.status_code, STRANGER in back.text, SESSION in cookies_of(back)) == (403, True, False)


async def test_a_forged_id_token_begins_no_session_and_the_page_says_why(console: Console) -> None:
    entered, pages = set(), {}
    for forgery in Forgery:
        console.issuer.login.forgery = forgery
        console.browser.cookies.clear()
        back = await console.log_in()
        pages[forgery] = back.text
        if SESSION in cookies_of(back):
            entered.add(forgery)
        else:
            assert (back.status_code, cookies_of(back)[COOKIE]["max-age"]) == (403, "0")
        # Keys are asked for again, and steps may be taken again.
        console.clock.ticks += 600
        console.clock.wall += 3
    assert entered == ALLOWED
    assert "The ID token belongs to another login." in pages[Forgery.WRONG_NONCE]


async def test_an_answer_counts_once_and_for_the_browser_that_asked(console: Console) -> None:
    page = await console.go_to_the_provider()
    async with httpx2.AsyncClient(trust_env=False) as elsewhere:
        location = (await elsewhere.post(page, data={"user": ADMIN})).headers["location"]
    mine = dict(console.browser.cookies)
    console.browser.cookies.clear()
    stranger = await console.get(location)
    assert (stranger.status_code, SESSION in cookies_of(stranger)) == (403, False)
    console.browser.cookies.update(mine)
    assert SESSION in cookies_of(await console.get(location))
    again = await console.get(location)
    assert (again.status_code, SESSION in cookies_of(again)) == (403, False)


async def test_a_fresh_login_is_asked_for_and_an_old_one_is_none(console: Console) -> None:
    console.issuer.login.forgery = Forgery.OLD_LOGIN
    await console.log_in()
    confirm = await console.get("/confirm?next=/tokens")
    assert (confirm.status_code, confirm.headers["location"]) == (303, "/login/openid?again=1&next=%2Ftokens")
    page = await console.go_to_the_provider(again="1")
    assert httpx2.URL(page).params["prompt"] == "login"
    refused = await console.come_back(page)
    assert (refused.status_code, SESSION in cookies_of(refused)) == (403, False)
    console.issuer.login.forgery = None
    assert SESSION in cookies_of(await console.log_in(again="1"))


@pytest.mark.parametrize(("forgery", "is_recent"), [(None, True), (Forgery.OLD_LOGIN, False), (Forgery.NO_LOGIN_TIME, False)])
async def test_a_login_is_recent_by_the_time_that_the_provider_signed(
    console: Console, forgery: Forgery | None, is_recent: bool
) -> None:
    """GLOBAL tokens and OAuth settings ask for one: a provider that remembers somebody from yesterday is none."""
    console.issuer.login.forgery = forgery
    await console.log_in()
    administration, at = console.world.current.administration(), int(console.clock.now())
    listed = sessions.list_sessions(administration, FOUNDER, at, limits=SessionLimits(600, 6000))
    assert isinstance(listed, tuple)
    assert [(session.email, session.method, sessions.is_recent(session, at)) for session in listed] == [
        (ADMIN, "openid", is_recent)
    ]


async def test_a_provider_that_does_not_answer_is_said_and_can_be_tried_again(console: Console) -> None:
    console.issuer.fail("/login/.well-known", Fault.ERROR_500)
    assert (await console.browser.get("/login/openid")).status_code == 503
    console.issuer.heal()
    console.clock.ticks += 60
    page = await console.go_to_the_provider()
    console.issuer.fail("/login/token", Fault.ERROR_500)
    back = await console.come_back(page)
    assert (back.status_code, SESSION in cookies_of(back)) == (503, False)
    console.issuer.heal()
    assert SESSION in cookies_of(await console.log_in())


async def test_every_step_of_a_stranger_is_counted(console: Console) -> None:
    """Each is a question of ours to the provider, also with one cookie again and again."""
    await console.go_to_the_provider()
    statuses = [(await console.get(f"{CALLBACK}?code=a&state=b")).status_code for _ in range(STEPS)]
    assert statuses == [403] * (STEPS - 1) + [429]
    refused = await console.browser.get("/login/openid")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    console.clock.advance(60)
    assert SESSION in cookies_of(await console.log_in())


async def test_a_login_begins_at_the_name_that_the_provider_sends_back_to(console: Console) -> None:
    answer = await console.browser.get(f"{OTHER_NAME}/login/openid", params={"next": "/tokens"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{ORIGIN}/login/openid?next=%2Ftokens")
    assert not cookies_of(answer)
