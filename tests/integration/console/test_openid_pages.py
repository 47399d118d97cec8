"""Logins in a browser: the console's own pages around the real local issuer, with a real store."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from http.cookies import SimpleCookie
from pathlib import Path

import httpx2
import pytest

from extauthz.adapters.store.records import AuditFilter
from extauthz.admin import sessions
from extauthz.admin.reauthentication import SENTENCE
from extauthz.admin.sessions import SessionLimits
from extauthz.config.console import CALLBACK, LoginSection
from extauthz.console.app import application
from extauthz.console.login_cookie import COOKIE, LIFETIME
from extauthz.console.openid import OpenIdLogin
from extauthz.console.openid_pages import STEPS, TICKET
from extauthz.console.visits import COOKIE as SESSION
from extauthz.demo.faults import Fault
from extauthz.demo.forgeries import Forgery
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.login import CONSOLE_CLIENT, CONSOLE_SECRET, USERS
from tests.support.console_world import FOUNDER, ORIGIN, SETTINGS, ConsoleWorld, console_world
from tests.support.served_issuer import IssuerServer, issuer_server
from tests.support.world import StillClock

OTHER_NAME = "https://localhost:9003"
OWN = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}
"""What a browser says of a form of the console's own."""
ADMIN, STRANGER = USERS["Admin"], USERS["Somebody without a role"]
LONG = SessionLimits(3600, 36000)
ALLOWED = {
    Forgery.NO_KEY_ID,
    Forgery.SEVERAL_AUDIENCES_RIGHT_PARTY,
    Forgery.ADDRESS_IN_USERINFO,
    Forgery.VERIFIED_IN_USERINFO,
    Forgery.OLD_LOGIN,
    Forgery.NO_LOGIN_TIME,
    Forgery.OTHER_SUBJECT,
    Forgery.ISSUED_LONG_AGO,
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


# --- a provider that cannot prove a fresh login, and is asked once more after a sentence was typed


@dataclass
class Confirming:
    """Somebody logged in at a provider that signs no time of authentication, where `confirmation` is configured."""

    console: Console

    async def get_form(self) -> str:
        """Return the page that asks for the sentence."""
        answer = await self.console.get("/confirm/provider?next=/tokens")
        assert answer.status_code == 200, answer.text
        return answer.text

    async def send(self, sentence: str = SENTENCE, **changes: str) -> httpx2.Response:
        """Type a sentence."""
        form = await self.form("/confirm/provider") | {"next": "/tokens", "sentence": sentence} | changes
        return await self.console.browser.post("/confirm/provider", data=form, headers=OWN)

    async def form(self, action: str) -> dict[str, str]:
        """Return what a form on the page of the sentence sends by itself."""
        token = re.search(rf'action="{action}".*?name="csrf" value="([^"]*)"', await self.get_form(), re.DOTALL)
        assert token is not None
        return {"csrf": token[1]}

    async def leave(self) -> str:
        """Type the sentence; return the address of the provider that the page goes on to."""
        answer = await self.send()
        assert (answer.status_code, answer.headers["refresh"][:6]) == (200, "0;url="), answer.text
        return str(answer.headers["refresh"][6:])

    def use(self, ticket: str) -> None:
        """Write another ticket into the browser."""
        self.console.browser.cookies.delete(TICKET)
        self.console.browser.cookies.set(TICKET, ticket, domain="console.acme.com", path="/")

    def listed(self) -> list[tuple[str, int, bool]]:
        """Return address, beginning and whether the login is recent, of each session."""
        administration, at = self.console.world.current.administration(), int(self.console.clock.now())
        found = sessions.list_sessions(administration, FOUNDER, at, limits=LONG)
        assert isinstance(found, tuple)
        return [(session.email, session.created_at, sessions.is_recent(session, at)) for session in found]

    def configure(self, reauthentication: str | None) -> None:
        """Change the key."""
        section = self.console.world.settings["console"] | {"trusted_proxies": ["127.0.0.0/8"]}
        more = {} if reauthentication is None else {"reauthentication": reauthentication}
        oidc = {name: section["oidc"][name] for name in ("issuer", "client_id")}
        self.console.world.change(console=section | {"oidc": oidc | more})


@pytest.fixture
async def confirming(console: Console) -> Confirming:
    console.issuer.login.forgery = Forgery.NO_LOGIN_TIME
    made = Confirming(console)
    made.configure("confirmation")
    await console.log_in()
    return made


async def test_a_sentence_and_a_fresh_round_trip_confirm_a_session(confirming: Confirming) -> None:
    console = confirming.console
    ((email, began_at, is_recent),) = confirming.listed()
    assert (email, is_recent) == (ADMIN, False)
    console.clock.wall += 30
    there = await console.get("/confirm?next=/tokens")
    assert (there.status_code, there.headers["location"]) == (303, "/confirm/provider?next=%2Ftokens")
    page = await confirming.get_form()
    assert "does not prove that a password was typed" in page
    asked = httpx2.URL(await confirming.leave()).params
    assert (asked["prompt"], asked["login_hint"], "max_age" in asked) == ("select_account", ADMIN, False)

    before = console.browser.cookies[SESSION]
    back = await console.come_back(await confirming.leave())
    assert (back.status_code, back.headers["refresh"]) == (200, "0;url=/tokens")
    assert cookies_of(back)[TICKET]["max-age"] == "0"
    # The new session stands in the place of the old one: it ends when that would have.
    assert confirming.listed() == [(ADMIN, began_at, True)]
    assert console.browser.cookies[SESSION] != before
    newest = console.world.store.newest_audit(AuditFilter(), limit=1)[0]
    assert (newest.action, json.loads(newest.after)["reauthentication"]) == ("login", "confirmation")
    console.clock.wall += sessions.RECENT
    assert confirming.listed() == [(ADMIN, began_at, False)]


async def test_another_sentence_leads_nowhere(confirming: Confirming) -> None:
    for sentence in ("", "it is", "it is me it is me", "yes", "IT\u00a0IS\u00a0ME!", "itisme", "x" * 5000):
        answer = await confirming.send(sentence)
        assert (answer.status_code, "refresh" in answer.headers, TICKET in cookies_of(answer)) == (422, False, False), sentence


async def test_a_sentence_may_be_written_as_people_write(confirming: Confirming) -> None:
    assert (await confirming.send("  It  is ME ")).status_code == 200


async def test_without_a_form_of_the_session_no_confirmation_begins(confirming: Confirming) -> None:
    assert (await confirming.send(csrf="0" * 64)).status_code == 403
    again = await confirming.console.go_to_the_provider(again="1")
    assert SESSION not in cookies_of(await confirming.console.come_back(again))
    assert confirming.listed()[0][2] is False


async def test_a_forged_id_token_confirms_nobody(confirming: Confirming) -> None:
    console, confirmed = confirming.console, set()
    for number, forgery in enumerate(Forgery):
        # Each from an address of its own, whose steps are counted for themselves.
        console.browser.headers["x-forwarded-for"] = f"192.0.2.{number}"
        address = await confirming.leave()
        console.issuer.login.forgery = forgery
        back = await console.come_back(address)
        # Keys are asked for again.
        console.clock.ticks += 600
        is_recent = confirming.listed()[0][2]
        assert (back.status_code, SESSION in cookies_of(back)) == ((200, True) if is_recent else (403, False)), forgery
        console.issuer.login.forgery = Forgery.NO_LOGIN_TIME
        if is_recent:
            confirmed.add(forgery)
            assert (await console.browser.post("/logout", data=await confirming.form("/logout"), headers=OWN)).status_code == 303
            await console.log_in()
    assert confirmed == ALLOWED - {Forgery.OTHER_SUBJECT, Forgery.ISSUED_LONG_AGO}


async def test_another_account_that_was_chosen_confirms_nobody_and_logs_nobody_in(confirming: Confirming) -> None:
    for user in (USERS["Super admin"], USERS["Viewer"], STRANGER):
        back = await confirming.console.come_back(await confirming.leave(), user)
        assert (back.status_code, SESSION in cookies_of(back)) == (403, False)
    assert [(email, is_recent) for email, _, is_recent in confirming.listed()] == [(ADMIN, False)]
    assert (await confirming.console.get("/tokens")).status_code == 200


def earlier(ticket: str) -> str:
    session, at, mac = ticket.split(".")
    return f"{session}.{int(at) - 1}.{mac}"


FORGED_TICKETS: list[Callable[[str], str]] = [
    earlier,
    str.upper,
    lambda ticket: ticket[:-1],
    lambda ticket: f"{ticket}0",
    lambda ticket: f"000000000000{ticket[12:]}",
    lambda ticket: f"{ticket[:-64]}{'0' * 64}",
    lambda _: "x",
]


async def test_a_ticket_that_the_console_did_not_write_confirms_nobody(confirming: Confirming) -> None:
    for change in FORGED_TICKETS:
        address = await confirming.leave()
        confirming.use(change(confirming.console.browser.cookies[TICKET]))
        back = await confirming.console.come_back(address)
        assert (back.status_code, SESSION in cookies_of(back)) == (403, False)
        assert [is_recent for _, _, is_recent in confirming.listed()] == [False]


async def test_a_ticket_is_for_one_login_and_without_one_a_login_is_a_plain_one(confirming: Confirming) -> None:
    cookies = confirming.console.browser.cookies
    await confirming.leave()
    first = cookies[TICKET]
    address = await confirming.leave()
    confirming.use(first)
    assert (await confirming.console.come_back(address)).status_code == 403
    address = await confirming.leave()
    cookies.delete(TICKET)
    assert (await confirming.console.come_back(address)).status_code == 200
    assert {is_recent for _, _, is_recent in confirming.listed()} == {False}


async def test_a_provider_that_does_not_answer_confirms_nobody_and_ends_no_session(confirming: Confirming) -> None:
    console, address = confirming.console, await confirming.leave()
    console.issuer.fail("/login/token", Fault.ERROR_500)
    back = await console.come_back(address)
    assert (back.status_code, SESSION in cookies_of(back)) == (503, False)
    console.issuer.heal()
    assert (await console.come_back(await confirming.leave())).status_code == 200
    assert [is_recent for _, _, is_recent in confirming.listed()] == [True]


async def test_a_plain_login_after_a_confirmation_that_was_given_up_is_one(confirming: Confirming) -> None:
    await confirming.leave()
    back = await confirming.console.log_in(USERS["Super admin"])
    assert (back.status_code, SESSION in cookies_of(back)) == (200, True)


async def test_a_session_that_ended_meanwhile_is_not_confirmed(confirming: Confirming) -> None:
    address = await confirming.leave()
    confirming.console.clock.wall += 700  # longer than a login may take, too
    assert (await confirming.console.come_back(address)).status_code == 403
    confirming.console.clock.wall -= 700
    address = await confirming.leave()
    administration, at = confirming.console.world.current.administration(), int(confirming.console.clock.now())
    listed = sessions.list_sessions(administration, FOUNDER, at, limits=LONG)
    assert isinstance(listed, tuple)
    sessions.end(administration, FOUNDER, listed[0].id, at)
    back = await confirming.console.come_back(address)
    assert (back.status_code, SESSION in cookies_of(back), confirming.listed()) == (403, False, [])


async def test_without_the_key_a_confirmation_neither_begins_nor_ends(confirming: Confirming) -> None:
    address = await confirming.leave()
    for value in (None, "auth_time"):
        confirming.configure(value)
        asked = await confirming.console.get("/confirm?next=/tokens")
        assert (asked.status_code, asked.headers["location"]) == (303, "/login/openid?again=1&next=%2Ftokens")
    back = await confirming.console.come_back(address)
    assert (back.status_code, confirming.listed()[0][2]) == (403, False)
