"""Logins at the real local issuer, over HTTP: who comes in, and everything that keeps somebody out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx2
import pytest

from extauthz.adapters.oauth.jwks import UNKNOWN_KEY_COOL_DOWN
from extauthz.config.console import LoginSection
from extauthz.console.id_tokens import LEEWAY, LoginRefusal
from extauthz.console.login_cookie import LIFETIME
from extauthz.console.openid import KEY_AGE, Authenticated, OpenIdLogin
from extauthz.demo.faults import Fault
from extauthz.demo.forgeries import OTHER_CLIENT, Forgery
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.login import CONSOLE_CLIENT, CONSOLE_SECRET
from extauthz.errors import Unavailable
from tests.support.served_issuer import IssuerServer, issuer_server
from tests.support.world import StillClock

REDIRECT = "http://127.0.0.1:9003/login/callback"
PUBLIC_CLIENT = "0oa1public"
AWKWARD_CLIENT, AWKWARD_SECRET = "console:acme +1", "a%2B+b:c/ü"
ANA = "ana@acme.com"
CLIENTS = {CONSOLE_CLIENT: CONSOLE_SECRET, PUBLIC_CLIENT: None, AWKWARD_CLIENT: AWKWARD_SECRET, OTHER_CLIENT: "other"}


@dataclass
class World:
    """A running issuer, a browser, and consoles that ask the issuer."""

    issuer: DemoIssuer
    browser: httpx2.AsyncClient
    clock: StillClock
    stack: contextlib.AsyncExitStack = field(repr=False)

    def login(self, client_id: str = CONSOLE_CLIENT, *, secret: bytes | None = None, **changes: Any) -> OpenIdLogin:
        """Return what a console logs people in with."""
        known = CLIENTS.get(client_id)
        secret = known.encode() if secret is None and known is not None else secret
        timeout = changes.pop("timeout", 5.0)
        issuer = changes.pop("issuer", self.issuer.login.issuer)
        section = LoginSection.model_validate({"issuer": issuer, "client_id": client_id, **changes})
        made = OpenIdLogin(section, REDIRECT, secret=secret, trust=None, clock=self.clock, timeout=timeout)
        self.stack.push_async_callback(made.close)
        return made

    @property
    def now(self) -> float:
        return self.clock.now()

    async def come_back(self, address: str, user: str = ANA) -> str:
        """Log in at the page of the provider; return the query that the browser comes back with."""
        page = await self.browser.get(address)
        assert (page.status_code, user in page.text) == (200, True), page.text
        answer = await self.browser.post(address, data={"user": user})
        assert answer.status_code == 303
        found, _, query = answer.headers["location"].partition("?")
        assert found == REDIRECT
        return str(query)

    async def try_to(self, login: OpenIdLogin, user: str = ANA, **more: Any) -> Authenticated | LoginRefusal:
        """Go the whole way."""
        begun = await login.begin("/tokens", self.now, **more)
        return await login.finish(await self.come_back(begun.address, user), begun.cookie, self.now)


@pytest.fixture(scope="module")
def server() -> Iterator[IssuerServer]:
    with issuer_server() as made:
        yield made


@pytest.fixture
async def world(server: IssuerServer) -> AsyncIterator[World]:
    server.issuer = issuer = DemoIssuer(server.base)
    for client_id, secret in CLIENTS.items():
        issuer.login.register(client_id, secret, [REDIRECT])
    async with contextlib.AsyncExitStack() as stack:
        browser = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False))
        yield World(issuer, browser, StillClock(time.time()), stack)  # noqa: TID251 - the issuer's tokens live now


def entered(ended: Authenticated | LoginRefusal, path: str = "/tokens") -> bool:
    """Tell whether Ana came in, just now by the clock of the issuer."""
    if not isinstance(ended, Authenticated):
        return False
    assert (ended.email, ended.path) == (ANA, path)
    assert ended.authenticated_at is not None
    assert abs(ended.authenticated_at - time.time()) < LEEWAY  # noqa: TID251 - when the issuer saw her
    return True


# --- who comes in


@pytest.mark.parametrize("client_id", [CONSOLE_CLIENT, PUBLIC_CLIENT, AWKWARD_CLIENT])
async def test_a_user_logs_in_through_each_kind_of_client(world: World, client_id: str) -> None:
    assert entered(await world.try_to(world.login(client_id)))
    assert world.issuer.requests["/login/userinfo"] == 0, "the ID token says it all"


async def test_a_user_authenticates_again(world: World) -> None:
    login = world.login()
    begun = await login.begin("/", world.now, again=True, hint=ANA)
    asked = httpx2.URL(begun.address).params
    assert (asked["prompt"], asked["max_age"], asked["login_hint"]) == ("login", "0", ANA)
    assert entered(await login.finish(await world.come_back(begun.address), begun.cookie, world.now), "/")


async def test_two_consoles_share_a_login_without_sharing_memory(world: World) -> None:
    one, other = world.login(), world.login()
    path = "/audit?user=ana%40acme.com"
    begun = await one.begin(path, world.now)
    query = await world.come_back(begun.address)
    assert entered(await other.finish(query, begun.cookie, world.now), path)
    assert await one.finish(query, begun.cookie, world.now) is LoginRefusal.CODE


async def test_a_token_that_names_no_key_needs_a_provider_with_only_one(world: World) -> None:
    world.issuer.login.forgery = Forgery.NO_KEY_ID
    world.issuer.login.names_keys = False
    login = world.login()
    assert entered(await world.try_to(login))
    world.issuer.publish_next_key()
    with pytest.raises(Unavailable):
        # Neither of two keys without a name can be told from the other.
        await world.try_to(world.login())
    world.issuer.login.names_keys = True
    assert await world.try_to(world.login()) is LoginRefusal.KEY


async def test_keys_are_fetched_again_for_one_that_is_new(world: World) -> None:
    login = world.login()
    for fetches in (1, 2):
        assert entered(await world.try_to(login))
        assert world.issuer.requests["/login/keys"] == fetches
        world.issuer.use_next_key()
    assert await world.try_to(login) is LoginRefusal.KEY
    world.clock.ticks += UNKNOWN_KEY_COOL_DOWN
    assert entered(await world.try_to(login))


async def test_keys_are_fetched_again_after_their_time_and_serve_while_the_provider_keeps_none(world: World) -> None:
    login = world.login()
    assert entered(await world.try_to(login))
    world.issuer.fail("/login/keys", Fault.ERROR_500)
    world.clock.ticks += KEY_AGE + 1
    assert entered(await world.try_to(login))
    assert world.issuer.requests["/login/keys"] == 2
    world.clock.ticks += 2 * 86400
    with pytest.raises(Unavailable):
        await world.try_to(login)


# --- who does not: forged ID tokens

REFUSED = {
    Forgery.ALG_NONE: LoginRefusal.ALGORITHM,
    Forgery.HS256: LoginRefusal.ALGORITHM,
    Forgery.OTHER_KEY: LoginRefusal.SIGNATURE,
    Forgery.UNKNOWN_KEY: LoginRefusal.KEY,
    Forgery.ACCESS_TOKEN: LoginRefusal.HEADER,
    Forgery.CRITICAL_HEADER: LoginRefusal.HEADER,
    Forgery.NOT_A_TOKEN: LoginRefusal.MALFORMED,
    Forgery.NO_ID_TOKEN: LoginRefusal.NO_ID_TOKEN,
    Forgery.WRONG_ISSUER: LoginRefusal.ISSUER,
    Forgery.WRONG_AUDIENCE: LoginRefusal.AUDIENCE,
    Forgery.SEVERAL_AUDIENCES: LoginRefusal.AUDIENCE,
    Forgery.SEVERAL_AUDIENCES_OTHER_PARTY: LoginRefusal.AUDIENCE,
    Forgery.WRONG_PARTY: LoginRefusal.AUDIENCE,
    Forgery.WRONG_NONCE: LoginRefusal.NONCE,
    Forgery.NO_NONCE: LoginRefusal.NONCE,
    Forgery.EXPIRED: LoginRefusal.EXPIRED,
    Forgery.NO_EXPIRY: LoginRefusal.CLAIMS,
    Forgery.EXPIRY_IS_TEXT: LoginRefusal.CLAIMS,
    Forgery.FROM_THE_FUTURE: LoginRefusal.NOT_YET_VALID,
    Forgery.NO_ISSUE_TIME: LoginRefusal.CLAIMS,
    Forgery.NOT_YET_VALID: LoginRefusal.NOT_YET_VALID,
    Forgery.NO_SUBJECT: LoginRefusal.CLAIMS,
    Forgery.NO_ADDRESS: LoginRefusal.NO_ADDRESS,
    Forgery.NOT_AN_ADDRESS: LoginRefusal.NO_ADDRESS,
    Forgery.UNVERIFIED_ADDRESS: LoginRefusal.UNVERIFIED_ADDRESS,
    Forgery.UNSAID_VERIFICATION: LoginRefusal.UNVERIFIED_ADDRESS,
    Forgery.OTHER_USERINFO: LoginRefusal.OTHER_USER,
    Forgery.OLD_LOGIN: LoginRefusal.NOT_AGAIN,
    Forgery.FUTURE_LOGIN: LoginRefusal.NOT_YET_VALID,
    Forgery.NO_LOGIN_TIME: LoginRefusal.NOT_AGAIN,
}
ALLOWED = {
    Forgery.SEVERAL_AUDIENCES_RIGHT_PARTY,
    Forgery.ADDRESS_IN_USERINFO,
    Forgery.VERIFIED_IN_USERINFO,
    Forgery.NO_KEY_ID,
    Forgery.OTHER_SUBJECT,
    Forgery.ISSUED_LONG_AGO,
}
AT_ANY_TIME = {Forgery.OLD_LOGIN, Forgery.NO_LOGIN_TIME}
"""What matters only where the user was asked to log in again."""


def test_every_forgery_has_its_row() -> None:
    assert REFUSED.keys() | ALLOWED == set(Forgery)


@pytest.mark.parametrize("client_id", [CONSOLE_CLIENT, PUBLIC_CLIENT])
async def test_a_forged_id_token_lets_nobody_in_and_says_why(world: World, client_id: str) -> None:
    login = world.login(client_id)
    ended = {}
    for forgery in Forgery:
        world.issuer.login.forgery = forgery
        ended[forgery] = await world.try_to(login, again=True)
        world.clock.ticks += UNKNOWN_KEY_COOL_DOWN
    assert {forgery for forgery, each in ended.items() if entered_or_refused(each)} == ALLOWED
    assert {forgery: each for forgery, each in ended.items() if forgery not in ALLOWED} == REFUSED


def entered_or_refused(ended: Authenticated | LoginRefusal) -> bool:
    return isinstance(ended, Authenticated) and entered(ended)


async def test_an_old_login_counts_where_nobody_was_asked_to_log_in_again(world: World) -> None:
    login = world.login()
    moments = {}
    for forgery in AT_ANY_TIME:
        world.issuer.login.forgery = forgery
        ended = await world.try_to(login)
        assert isinstance(ended, Authenticated)
        moments[forgery] = ended.authenticated_at
    assert moments[Forgery.NO_LOGIN_TIME] is None
    assert moments[Forgery.OLD_LOGIN] == pytest.approx(world.now - 3600, abs=LEEWAY)


async def test_an_unverified_address_counts_where_the_configuration_says_so(world: World) -> None:
    world.issuer.login.forgery = Forgery.UNSAID_VERIFICATION
    assert entered(await world.try_to(world.login(unverified_addresses=True)))


# --- who does not: answers of the provider


async def test_the_answer_must_be_that_of_this_login(world: World) -> None:
    login = world.login()
    begun, other = await login.begin("/audit", world.now), await login.begin("/audit", world.now)
    query = await world.come_back(begun.address)
    fields = parse_qs(query)
    code, state, issuer = (fields[name][0] for name in ("code", "state", "iss"))
    other_state = httpx2.URL(other.address).params["state"]

    def answer(**changes: str | None) -> str:
        all_fields = {"code": code, "state": state, "iss": issuer} | changes
        return urlencode({name: value for name, value in all_fields.items() if value is not None})

    cases = [
        (query, "", LoginRefusal.NOT_BEGUN),
        (query, begun.cookie.replace(f".{int(world.now)}.", f".{int(world.now) + 60}."), LoginRefusal.STATE),
        (query, begun.cookie.replace(".0.", ".1."), LoginRefusal.STATE),
        (query, begun.cookie.replace("L2F1ZGl0", "L290aGVy"), LoginRefusal.STATE),
        (query, f"{begun.cookie}=", LoginRefusal.NOT_BEGUN),
        (query, other.cookie, LoginRefusal.STATE),
        (answer(state=other_state), begun.cookie, LoginRefusal.STATE),
        (answer(state=None), begun.cookie, LoginRefusal.STATE),
        (f"{query}&code={code}", begun.cookie, LoginRefusal.ANSWER_MALFORMED),
        ("", begun.cookie, LoginRefusal.STATE),
        ("code", begun.cookie, LoginRefusal.ANSWER_MALFORMED),
        (f"{query}&note=%ff", begun.cookie, LoginRefusal.ANSWER_MALFORMED),
        (f"{query}&note={'x' * 9000}", begun.cookie, LoginRefusal.ANSWER_MALFORMED),
        (answer(iss=f"{issuer}/"), begun.cookie, LoginRefusal.ANSWER_ISSUER),
        (answer(iss=None), begun.cookie, LoginRefusal.ANSWER_ISSUER),
        (answer(code=None), begun.cookie, LoginRefusal.ANSWER_MALFORMED),
        (answer(code=""), begun.cookie, LoginRefusal.ANSWER_MALFORMED),
        (answer(error="access_denied"), begun.cookie, LoginRefusal.DENIED),
        (answer(error="server_error", code=None), begun.cookie, LoginRefusal.PROVIDER_ERROR),
        (answer(error="access_denied", iss="https://other.acme.com"), begun.cookie, LoginRefusal.ANSWER_ISSUER),
        (answer(code="made-up"), begun.cookie, LoginRefusal.CODE),
    ]
    ended = [await login.finish(asked, cookie, world.now) for asked, cookie, _ in cases]
    assert ended == [refusal for _, _, refusal in cases]
    for late in (LIFETIME + 1, -LEEWAY - 1):
        assert await login.finish(query, begun.cookie, world.now + late) is LoginRefusal.TOO_LATE
    assert entered(await login.finish(query, begun.cookie, world.now + LIFETIME - 400), "/audit")


async def test_a_provider_that_does_not_name_itself_need_not(world: World) -> None:
    world.issuer.login.names_itself = False
    login = world.login()
    begun = await login.begin("/tokens", world.now)
    query = await world.come_back(begun.address)
    assert "iss" not in parse_qs(query)
    assert await login.finish(f"{query}&iss=https://other.acme.com", begun.cookie, world.now) is LoginRefusal.ANSWER_ISSUER
    assert entered(await login.finish(query, begun.cookie, world.now))


async def test_a_cookie_that_was_changed_proves_no_new_login(world: World) -> None:
    """Whoever holds a browser may write cookies, and leave out what asks for a login: the time in the ID token still tells."""
    world.issuer.login.forgery = Forgery.OLD_LOGIN
    login = world.login()
    begun = await login.begin("/", world.now - LIFETIME + 1, again=True)
    assert await login.finish(await world.come_back(begun.address), begun.cookie, world.now) is LoginRefusal.NOT_AGAIN


async def test_a_code_of_another_client_or_verifier_is_worth_nothing(world: World) -> None:
    mine, others = world.login(), world.login(OTHER_CLIENT)
    begun, elsewhere = await mine.begin("/", world.now), await others.begin("/", world.now)
    code = parse_qs(await world.come_back(elsewhere.address))["code"][0]
    query = urlencode({**{name: value[0] for name, value in parse_qs(await world.come_back(begun.address)).items()}, "code": code})
    assert await mine.finish(query, begun.cookie, world.now) is LoginRefusal.CODE


@pytest.mark.parametrize("secret", [b"wrong", b""])
async def test_a_wrong_secret_is_told_as_what_it_is(world: World, secret: bytes) -> None:
    assert await world.try_to(world.login(secret=secret)) is LoginRefusal.CLIENT


# --- a provider that does not work

UNUSABLE = [Fault.ERROR_500, Fault.GARBAGE, Fault.TRUNCATED, Fault.REDIRECT, Fault.HUGE, Fault.TOO_MANY, Fault.MISSING, Fault.SLOW]


@pytest.mark.parametrize("path", ["/login/.well-known", "/login/token", "/login/keys", "/login/userinfo"])
async def test_a_provider_that_cannot_be_asked_is_no_refusal(world: World, path: str) -> None:
    """The user can try again, and nobody is let in meanwhile."""
    world.issuer.slow_seconds = 2.0
    world.issuer.login.forgery = Forgery.ADDRESS_IN_USERINFO
    for fault in UNUSABLE:
        login = world.login(timeout=0.3 if fault is Fault.SLOW else 5.0)
        world.issuer.fail(path, fault)
        with pytest.raises(Unavailable):
            raise AssertionError(f"{path} {fault}: {await world.try_to(login)}")
        world.issuer.heal()
        world.clock.ticks += 60
        # A login with so little time might fail on a busy machine.
        assert entered(await world.try_to(world.login() if fault is Fault.SLOW else login))


async def test_a_provider_of_another_name_is_not_asked(world: World) -> None:
    world.issuer.fail("/login/.well-known", Fault.WRONG_ISSUER)
    with pytest.raises(Unavailable):
        await world.login().begin("/", world.now)


@pytest.mark.parametrize(
    "address", [None, 1, "javascript:alert(1)", "http://acme.com/authorize", "//acme.com/authorize", "http://127.0.0.1/authorize#x"]
)
async def test_nobody_is_sent_to_an_address_that_is_none(world: World, address: object) -> None:
    world.issuer.login.changes = {"authorization_endpoint": address}
    with pytest.raises(Unavailable):
        await world.login().begin("/", world.now)


async def test_the_address_keeps_what_the_provider_has_in_it(world: World) -> None:
    page = f"{world.issuer.login.issuer}/authorize?tenant=acme"
    world.issuer.login.changes = {"authorization_endpoint": page}
    asked = httpx2.URL((await world.login(email_claim="upn").begin("/", world.now)).address).params
    assert (asked["tenant"], asked["response_type"], asked["response_mode"]) == ("acme", "code", "query")
    assert asked["scope"] == "openid email profile"
    plain = await world.login().begin("/", world.now)
    assert httpx2.URL(plain.address).params["scope"] == "openid email"


async def test_a_provider_without_userinfo_must_put_the_address_into_the_token(world: World) -> None:
    world.issuer.login.changes = {"userinfo_endpoint": None}
    assert entered(await world.try_to(world.login()))
    world.issuer.login.forgery = Forgery.ADDRESS_IN_USERINFO
    assert await world.try_to(world.login()) is LoginRefusal.NO_ADDRESS


async def test_addresses_that_do_not_answer_are_read_anew(world: World) -> None:
    login = world.login()
    world.issuer.login.changes = {"token_endpoint": f"{world.issuer.login.issuer}/moved"}
    with pytest.raises(Unavailable):
        await world.try_to(login)
    world.issuer.login.changes = {}
    assert entered(await world.try_to(login))


async def test_no_secret_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    login = world.login()
    seen = [CONSOLE_SECRET]
    for fault in (None, Fault.ERROR_500):
        begun = await login.begin("/", world.now)
        query = await world.come_back(begun.address)
        if fault is None:
            world.issuer.login.forgery = Forgery.OTHER_KEY
        else:
            world.issuer.fail("/login/token", fault)
        seen += [begun.cookie, parse_qs(query)["code"][0], parse_qs(query)["state"][0]]
        with contextlib.suppress(Unavailable):
            await login.finish(query, begun.cookie, world.now)
    records = "\n".join(str(vars(record)) for record in caplog.records if record.name.startswith("extauthz"))
    assert records.count("extauthz.console.openid") >= 2
    assert [secret for secret in seen if secret in records] == []
