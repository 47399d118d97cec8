"""Asking an issuer about a token: what is sent, what counts as an answer, and what is done when there is none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from extauthz.adapters.oauth.discovery import LIFETIME, Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.adapters.oauth.introspection import Introspection
from extauthz.addresses import Address
from extauthz.config.loader import load
from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.demo.issuer import CLIENT_ID, CLIENT_SECRET, GOOGLE_CLIENT, DemoIssuer, Fault
from extauthz.errors import Unavailable
from extauthz.runtime.build import RuntimeBuilder, RuntimeParts
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from extauthz.verifiers.throttling import MAX_REST, Breaker, Budget
from tests.support.http_faults import DISCOVERY, FaultyServer, Page, document, faulty_server
from tests.support.live import live
from tests.support.waiting import until
from tests.support.world import StillClock, ec_key

ANA = "ana@acme.com"
TOKEN = "eyJzZWNyZXQiOjF9.c2VjcmV0LXBheWxvYWQ.c2VjcmV0LXNpZ25hdHVyZQ"
CREDENTIALS = ("0oa1:client", "s3cr t/+%~&=")
TIMEOUT, PATIENT, PAUSE, FAILURES = 0.3, 20.0, 5.0, 5
NOBODY = (0, 0)
ASK = "/ask"
INTROSPECT, TOKENINFO, USERINFO = "/oauth2/v1/introspect", "/tokeninfo", "/oauth2/v1/userinfo"
METHODS = (Verification.TOKENINFO, Verification.INTROSPECTION, Verification.USERINFO)
GOOD: dict[Verification, dict[str, object]] = {
    Verification.TOKENINFO: {"aud": GOOGLE_CLIENT, "email": ANA},
    Verification.INTROSPECTION: {"active": True, "client_id": CLIENT_ID},
    Verification.USERINFO: {"sub": "00u1", "email": ANA},
}
PATHS = {Verification.TOKENINFO: TOKENINFO, Verification.INTROSPECTION: INTROSPECT, Verification.USERINFO: USERINFO}
each_method = pytest.mark.parametrize("method", METHODS, ids=[method.value for method in METHODS])


@dataclass
class Asker:
    """One way to ask, and all that it holds."""

    asked: Introspection
    clock: StillClock
    budget: Budget
    strangers: Budget
    breaker: Breaker
    discovery: Discovery
    fetcher: JsonFetcher

    async def fails(self, token: str = TOKEN) -> Unavailable:
        """Ask in vain; there is one error, of one reason."""
        with pytest.raises(Unavailable) as caught:
            await self.asked.ask(token)
        assert caught.value.reason is Reason.ISSUER_UNAVAILABLE
        return caught.value

    def refused(self, reason: Reason) -> None:
        """Ask, and be refused before anything is sent."""
        refused(self.asked, reason)

    @property
    def under_way(self) -> tuple[int, int]:
        """How many places are taken: of all, and of strangers."""
        return self.budget.under_way, self.strangers.under_way

    @property
    def outcomes(self) -> tuple[int, int, int]:
        """How many were answered, failed, and shed."""
        counted = self.asked.outcomes
        assert set(counted) == {"answered", "failed", "proxy_refused", "shed"}
        return counted["answered"], counted["failed"], counted["shed"]


def refused(asked: Introspection, reason: Reason, *, known: bool = False) -> None:
    """Ask, and be refused at once."""
    with pytest.raises(Unavailable) as caught:
        asked.ask(TOKEN, is_known=known).close()
    assert caught.value.reason is reason


MakeAsker = Callable[..., Asker]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one certificate, because that of the system takes longer to read than a test to run."""
    key, name = ec_key(), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    begins = datetime(2020, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begins, begins + timedelta(days=36500))
    file = tmp_path_factory.mktemp("trust") / "nobody.pem"
    file.write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return file


@pytest.fixture
async def make_asker(trusted: Path) -> AsyncIterator[MakeAsker]:
    """Return a maker of askers: the method, the issuer's address, and what differs from the usual."""
    fetchers: list[JsonFetcher] = []

    def make(
        method: Verification,
        base: str,
        *,
        uri: str | None = "",
        credentials: tuple[str, str] = CREDENTIALS,
        timeout: float = PATIENT,
        per_second: float = 1000,
        at_once: int = 16,
        strangers_per_second: float | None = None,
        strangers_at_once: int | None = None,
        failures: int = FAILURES,
    ) -> Asker:
        clock, fetcher = StillClock(), JsonFetcher(timeout=timeout, trust=trusted.read_bytes())
        fetchers.append(fetcher)
        discovery = Discovery(base, f"{base}{DISCOVERY}", fetcher, clock=clock)
        budget, breaker = Budget(per_second, at_once, clock=clock), Breaker(clock=clock, failures=failures, pause=PAUSE)
        strangers = Budget(strangers_per_second or per_second, strangers_at_once or at_once, clock=clock)
        asked = Introspection(
            method,
            discovery,
            fetcher,
            clock=clock,
            budget=budget,
            strangers=strangers,
            breaker=breaker,
            uri=f"{base}{ASK}" if uri == "" else uri,
            credentials=credentials if method is Verification.INTROSPECTION else None,
        )
        return Asker(asked, clock, budget, strangers, breaker, discovery, fetcher)

    yield make
    for fetcher in fetchers:
        await fetcher.close()


@pytest.fixture
async def server() -> AsyncIterator[FaultyServer]:
    async with faulty_server() as served:
        yield served


# --- the issuer that plays the providers


@dataclass
class Sent:
    """One request as it came."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def header(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.headers if key == name.encode()]

    @property
    def form(self) -> list[tuple[str, str]]:
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)


@dataclass
class Door:
    """The issuer, and every request that came to it."""

    base: str
    issuer: DemoIssuer
    sent: list[Sent] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        came = Sent(scope["method"], scope["path"], scope["query_string"], scope["headers"])
        self.sent.append(came)

        async def heard() -> Any:
            message = await receive()
            came.body += message.get("body", b"")
            return message

        await self.issuer(scope, heard, send)

    def reset(self) -> None:
        """Begin anew, with the keys of before: making some takes a while."""
        self.issuer.heal()
        self.issuer.requests.clear()
        self.issuer.seen_tokens_at.clear()
        self.issuer.leaks = 0
        self.issuer.slow_seconds = 5.0
        self.sent.clear()

    def token(self, method: Verification, **changes: Any) -> str:
        """Issue a token that can be asked about in this way."""
        issue = self.issuer.gsuite_token if method is Verification.TOKENINFO else self.issuer.okta_org_token
        return issue(ANA, **changes)

    def asker(self, make: MakeAsker, method: Verification, **more: Any) -> Asker:
        """Ask it as it wants to be asked: where it publishes, with the credentials that it knows."""
        uri = f"{self.base}{TOKENINFO}" if method is Verification.TOKENINFO else None
        return make(method, self.base, **{"uri": uri, "credentials": (CLIENT_ID, CLIENT_SECRET), "timeout": PATIENT} | more)


@pytest.fixture(scope="module")
def running() -> Iterator[Door]:
    opened = open_port(Address(host="127.0.0.1", port=0))
    base = f"http://127.0.0.1:{opened.getsockname()[1]}"
    door = Door(base, DemoIssuer(base))
    http = HttpServer(door)
    thread = threading.Thread(target=asyncio.run, args=[http.run_on(opened)])
    thread.start()
    yield door
    http.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.fixture
def door(running: Door) -> Iterator[Door]:
    running.reset()
    yield running
    assert running.issuer.leaks == 0
    assert not any(sent.query for sent in running.sent)  # why: not every test has the issuer asked


# --- what is sent


@each_method
async def test_a_question_is_one_request_with_what_it_needs_and_nothing_else(
    door: Door, make_asker: MakeAsker, method: Verification
) -> None:
    token = door.token(method)
    await door.asker(make_asker, method).asked.ask(token)
    *before, sent = door.sent

    assert [(it.method, it.path, it.header("authorization"), it.body) for it in before] == (
        [] if method is Verification.TOKENINFO else [("GET", DISCOVERY, [], b"")]
    )
    assert door.issuer.seen_tokens_at == {PATHS[method]: {token}}
    assert (sent.path, sent.query, sent.header("accept"), sent.header("cookie")) == (PATHS[method], b"", ["application/json"], [])
    match method:
        case Verification.TOKENINFO:
            assert (sent.method, sent.header("authorization"), sent.body) == ("POST", [f"Bearer {token}"], b"")
        case Verification.USERINFO:
            assert (sent.method, sent.header("authorization"), sent.body) == ("GET", [f"Bearer {token}"], b"")
        case _:
            assert (sent.method, sent.form) == ("POST", [("token", token), ("token_type_hint", "access_token")])
            assert sent.header("content-type") == ["application/x-www-form-urlencoded"]
            (authorization,) = sent.header("authorization")
            assert authorization == "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
            assert CLIENT_SECRET.encode() not in sent.body


@pytest.mark.parametrize(
    ("client", "secret"),
    [CREDENTIALS, ("a", ":"), ("a:b:c", "d"), ("%3A", "%2F+"), (" ", " "), ("ключ", "пароль"), ("a&b=c", "x" * 300)],
    ids=["specimen", "a colon", "colons", "percent", "spaces", "Cyrillic", "long"],
)
async def test_credentials_are_encoded_as_a_form_before_they_are_joined(
    server: FaultyServer, make_asker: MakeAsker, client: str, secret: str
) -> None:
    """RFC 6749 2.3.1: so that a colon in either is not the one between them."""
    server.pages[ASK] = document(GOOD[Verification.INTROSPECTION])
    await make_asker(Verification.INTROSPECTION, server.origin, credentials=(client, secret)).asked.ask(TOKEN)
    (head,) = server.heads
    (line,) = (line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization:"))
    name, _, value = line.partition(b": ")[2].partition(b" ")
    sent = base64.b64decode(value, validate=True).decode("ascii")

    assert name == b"Basic"
    assert [unquote_plus(part) for part in sent.split(":")] == [client, secret]


@each_method
async def test_a_named_address_replaces_the_discovered_one(
    server: FaultyServer, make_asker: MakeAsker, method: Verification
) -> None:
    server.pages[ASK] = document(GOOD[method])

    assert await make_asker(method, server.origin).asked.ask(TOKEN) == GOOD[method]
    assert server.requests == {ASK: 1}


async def test_without_a_name_tokeninfo_is_google_s(server: FaultyServer) -> None:
    """Seen from a proxy, which learns the host and no token."""
    clock, fetcher = StillClock(), JsonFetcher(timeout=PATIENT, proxy=server.origin)
    discovery = Discovery("https://accounts.google.com", "https://accounts.google.com/x", fetcher, clock=clock)
    budget, breaker = Budget(10, 10, clock=clock), Breaker(clock=clock)
    asked = Introspection(Verification.TOKENINFO, discovery, fetcher, clock=clock, budget=budget, strangers=budget, breaker=breaker)
    with pytest.raises(Unavailable):
        await asked.ask(TOKEN)
    await fetcher.close()
    (head,) = server.heads

    assert head.startswith(b"CONNECT oauth2.googleapis.com:443 HTTP/1.1\r\n")
    assert TOKEN.encode() not in head


@each_method
async def test_what_one_answer_sets_is_not_sent_with_the_next_token(
    server: FaultyServer, make_asker: MakeAsker, method: Verification
) -> None:
    """A cookie of one user's session beside the token of another: the issuer could answer for the wrong one."""
    server.pages[ASK] = document(GOOD[method], headers=(("set-cookie", "sid=session-of-ana; Path=/"),))
    it = make_asker(method, server.origin)
    await it.asked.ask(TOKEN)
    await it.asked.ask(TOKEN[::-1])

    assert len(server.heads) == 2
    assert b"session-of-ana" not in server.heads[1]


async def test_an_answer_that_sets_an_odd_cookie_spoils_no_later_question(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = document(GOOD[Verification.USERINFO], headers=(("set-cookie", "\xff=\xfe; Path=/"),))
    it = make_asker(Verification.USERINFO, server.origin)
    await it.asked.ask(TOKEN)

    assert await it.asked.ask(TOKEN) == GOOD[Verification.USERINFO]


# --- answers


@each_method
async def test_a_genuine_token_is_told_with_its_claims(door: Door, make_asker: MakeAsker, method: Verification) -> None:
    it = door.asker(make_asker, method)
    answer = await it.asked.ask(door.token(method))

    assert isinstance(answer, dict)
    match method:
        case Verification.TOKENINFO:
            assert (answer["aud"], answer["email"], answer["email_verified"]) == (GOOGLE_CLIENT, ANA, "true")
        case Verification.INTROSPECTION:
            assert (answer["active"], answer["client_id"], answer["username"]) == (True, CLIENT_ID, ANA)
        case _:
            assert (answer["email"], answer["email_verified"]) == (ANA, True)
    assert (it.outcomes, it.under_way, it.asked.answers) == ((1, 0, 0), NOBODY, True)


BAD_TOKENS: dict[str, Callable[[Door, Verification], str]] = {
    "revoked": lambda door, method: _revoked(door, door.token(method)),
    "expired": lambda door, method: door.token(method, lifetime=-1),
    "forged": lambda door, method: door.issuer.forged(door.token(method)),
    "of another provider": lambda door, method: door.issuer.token(ANA),
    "garbage": lambda door, method: "garbage",
}


def _revoked(door: Door, token: str) -> str:
    door.issuer.revoke(token)
    return token


@each_method
@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_bad_token_is_inactive(door: Door, make_asker: MakeAsker, method: Verification, kind: str) -> None:
    it = door.asker(make_asker, method, failures=1)
    answer = await it.asked.ask(BAD_TOKENS[kind](door, method))

    assert answer is Reason.TOKEN_INACTIVE
    assert (it.outcomes, it.under_way, it.asked.answers) == ((1, 0, 0), NOBODY, True), "that is an answer"


@pytest.mark.parametrize("kind", ["revoked", "forged"])
@pytest.mark.parametrize("name", ["gsuite", "okta-org", "okta-userinfo"])
async def test_the_verifier_refuses_a_bad_token_as_inactive(tmp_path: Path, name: str, kind: str) -> None:
    async with live(tmp_path, name) as it:
        token = it.token(name)
        if kind == "forged":
            token = it.issuer.forged(token)
        else:
            it.issuer.revoke(token)

        assert await it.check(token) == "token_inactive"
        assert it.issuer.leaks == 0


REFUSALS = {
    Verification.TOKENINFO: {400, 401},
    Verification.INTROSPECTION: set[int](),
    Verification.USERINFO: {400, 401},
}
STATUSES = (201, 204, 304, 400, 401, 403, 404, 407, 431, 500, 503, 599)


@each_method
@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_refuses_the_token_or_nothing_is_known(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, status: int
) -> None:
    body = b"" if status in (204, 304) else document(GOOD[method]).body
    server.pages[ASK] = Page(body, status)
    it = make_asker(method, server.origin, failures=1)
    if status in REFUSALS[method]:
        assert await it.asked.ask(TOKEN) is Reason.TOKEN_INACTIVE
        assert (it.outcomes, it.asked.answers) == ((1, 0, 0), True)
    else:
        await it.fails()
        assert (it.outcomes, it.asked.answers) == ((0, 1, 0), status < 500), "only 5xx counts for the breaker"
    assert it.under_way == NOBODY


CHALLENGE = 'Bearer realm="x", error="insufficient_scope", scope="openid"'


@each_method
@pytest.mark.parametrize("challenge", [CHALLENGE, 'Bearer error="access_denied"', ""])
async def test_403_refuses_a_token_without_the_scope_and_nothing_else(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, challenge: str
) -> None:
    """A wall in front of the issuer answers with 403 too: that says nothing of the token."""
    server.pages[ASK] = Page(b"{}", 403, (("www-authenticate", challenge),))
    it = make_asker(method, server.origin, failures=1)
    if challenge == CHALLENGE and method is not Verification.INTROSPECTION:
        assert await it.asked.ask(TOKEN) is Reason.TOKEN_INACTIVE
    else:
        await it.fails()
    assert it.asked.answers


# --- what is no answer

Faulty = Callable[[FaultyServer, Verification], Page]


def changed(**changes: object) -> Faulty:
    """Return the good answer with these members; None removes one."""

    def page(_: FaultyServer, method: Verification) -> Page:
        return document({name: value for name, value in (GOOD[method] | changes).items() if value is not None})

    return page


def redirect(to: str, status: int = 302) -> Faulty:
    return lambda server, _: Page(b"{}", status, (("location", to.replace("PORT", str(server.port))),))


def cut(server: FaultyServer, method: Verification) -> Page:
    body = document(GOOD[method]).body
    return Page(body[:-5], missing=5)


FAULTS: dict[str, Faulty] = {
    "silent": lambda *_: Page(wait=30),
    "slow": lambda server, method: Page(document(GOOD[method]).body + b" " * 20_000, slowly=0.05),
    "closed": lambda *_: Page(raw=b""),
    "garbage": lambda *_: Page(b"\x00\xff garbage"),
    "HTML": lambda *_: Page(b"<html>"),
    "empty": lambda *_: Page(b""),
    "truncated": cut,
    "elsewhere": redirect("http://localhost:PORT/elsewhere"),
    "elsewhere 307": redirect("http://localhost:PORT/elsewhere", 307),
    "same host": redirect("/elsewhere"),
    "same host 308": redirect("/elsewhere", 308),
    "huge": changed(padding="x" * 600 * 1024),
    "null": lambda *_: document(None),
    "a list": lambda server, method: document([GOOD[method]]),
    "true": lambda *_: document(True),
    "an empty object": lambda *_: document({}),
    "deep": lambda *_: Page(b"[" * 100_000),
}
MARKS = {Verification.TOKENINFO: "aud", Verification.INTROSPECTION: "active", Verification.USERINFO: "sub"}
NO_TEXTS: list[object] = [None, True, 5, 1.5, ["a"], {"a": "a"}]
NO_BOOLEANS: list[object] = [None, "true", "false", "", 1, 0, 1.0, [True], [], {}]
MARK_FAULTS = [
    pytest.param(method, mark, id=f"{method.value}-{mark!r}")
    for method in METHODS
    for mark in (NO_BOOLEANS if method is Verification.INTROSPECTION else NO_TEXTS)
]


ANSWERED_WRONGLY = {
    *("elsewhere", "elsewhere 307", "same host", "same host 308"),
    *("null", "a list", "true", "an empty object"),
}
"""Faults of an issuer that is there: they say nothing about the token, and do not keep others from being asked about."""


async def is_no_answer(server: FaultyServer, it: Asker, *, counts: bool) -> None:
    """Ask what will not be answered, see whether it counts for the breaker, and that it is all over afterwards."""
    server.pages["/elsewhere"] = document(GOOD[it.asked.method])
    assert it.asked.answers
    await it.fails()
    assert server.requests == {ASK: 1}
    assert it.outcomes == (0, 1, 0)
    assert it.under_way == NOBODY
    it.clock.advance(MAX_REST)
    assert it.breaker.closed is not counts, "time alone does not make up for it"

    server.pages[ASK] = document(GOOD[it.asked.method])
    assert await it.asked.ask(TOKEN) == GOOD[it.asked.method], "nothing is remembered of it"
    assert it.breaker.closed
    assert it.outcomes == (1, 1, 0)


@each_method
@pytest.mark.parametrize("name", FAULTS)
async def test_no_answer_is_unavailable_and_counts_when_nobody_is_there(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, name: str
) -> None:
    server.pages[ASK] = FAULTS[name](server, method)
    it = make_asker(method, server.origin, failures=1, timeout=TIMEOUT if name in ("silent", "slow") else PATIENT)
    await is_no_answer(server, it, counts=name not in ANSWERED_WRONGLY)


@pytest.mark.parametrize(("method", "mark"), MARK_FAULTS)
async def test_an_answer_without_its_mark_is_none(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, mark: object
) -> None:
    server.pages[ASK] = changed(**{MARKS[method]: mark})(server, method)
    await is_no_answer(server, make_asker(method, server.origin, failures=1), counts=False)


@each_method
async def test_nobody_listening_is_unavailable_and_counts(make_asker: MakeAsker, method: Verification) -> None:
    async with faulty_server() as gone:
        base = gone.origin
    it = make_asker(method, base, failures=1)
    await it.fails()

    assert (it.outcomes, it.under_way, it.asked.answers) == ((0, 1, 0), NOBODY, False)


@pytest.mark.parametrize("method", [Verification.INTROSPECTION, Verification.USERINFO], ids=["introspection", "userinfo"])
@pytest.mark.parametrize("name", ["absent", "another issuer", "no address", "an address of this machine's files", "plain http"])
async def test_no_address_is_unavailable_and_counts(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, name: str
) -> None:
    member = f"{method.value}_endpoint"
    good = {"issuer": server.origin, member: f"{server.origin}{ASK}"}
    change: dict[str, object] = {
        "absent": {},
        "another issuer": {"issuer": "https://evil.example"},
        "no address": {member: None},
        "an address of this machine's files": {member: "file:///etc/passwd"},
        "plain http": {member: f"http://0.0.0.0:{server.port}{ASK}"},
    }[name]  # type: ignore[assignment]
    if name != "absent":
        server.pages[DISCOVERY] = document(good | change)
    server.pages[ASK] = document(GOOD[method])
    it = make_asker(method, server.origin, uri=None, failures=1)
    await it.fails()
    assert (it.outcomes, it.under_way, it.asked.answers) == ((0, 1, 0), NOBODY, False)
    assert server.requests == {DISCOVERY: 1}

    it.clock.advance(PAUSE)
    server.pages[DISCOVERY] = document(good)
    assert await it.asked.ask(TOKEN) == GOOD[method], "the document is fetched anew"


async def test_an_endpoint_that_moved_is_looked_for_after_one_failure(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[DISCOVERY] = document({"issuer": server.origin, "userinfo_endpoint": f"{server.origin}{ASK}"})
    server.pages[ASK] = document(GOOD[Verification.USERINFO])
    it = make_asker(Verification.USERINFO, server.origin, uri=None)
    await it.asked.ask(TOKEN)
    server.pages["/moved"] = server.pages.pop(ASK)
    server.pages[DISCOVERY] = document({"issuer": server.origin, "userinfo_endpoint": f"{server.origin}/moved"})
    await it.fails()

    assert await it.asked.ask(TOKEN) == GOOD[Verification.USERINFO]
    assert server.requests == {DISCOVERY: 2, ASK: 2, "/moved": 1}


ISSUER_FAULTS = (
    *(Fault.SLOW, Fault.ERROR_500, Fault.GARBAGE, Fault.TRUNCATED, Fault.REDIRECT, Fault.REDIRECT_SAME, Fault.HUGE, Fault.TOO_MANY),
    Fault.MISSING,
)


@each_method
@pytest.mark.parametrize("fault", ISSUER_FAULTS)
async def test_an_issuer_in_trouble_is_unavailable_until_it_is_well(
    door: Door, make_asker: MakeAsker, method: Verification, fault: Fault
) -> None:
    it = door.asker(make_asker, method, failures=1, timeout=TIMEOUT if fault is Fault.SLOW else PATIENT)
    token = door.token(method)
    door.issuer.fail(PATHS[method], fault)
    await it.fails(token)
    assert door.issuer.requests[PATHS[method]] == 1
    assert set(door.issuer.seen_tokens_at) == {PATHS[method]}, "no redirect gets the token"
    there = fault in (Fault.REDIRECT, Fault.REDIRECT_SAME, Fault.MISSING)
    assert (it.outcomes, it.under_way, it.asked.answers) == ((0, 1, 0), NOBODY, there)
    door.issuer.heal()
    it.clock.advance(PAUSE)

    assert isinstance(await it.asked.ask(token), dict)
    assert it.breaker.closed


# --- 429


@each_method
@pytest.mark.parametrize(
    ("told", "pause"),
    [("30", 30.0), ("2", 2.0), ("3600", 3600.0), ("86400", MAX_REST), (None, PAUSE), ("soon", PAUSE), ("-5", PAUSE)],
    ids=str,
)
async def test_429_pauses_as_long_as_is_wanted_and_is_no_failure(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, told: str | None, pause: float
) -> None:
    server.pages[ASK] = Page(b"{}", 429, (("retry-after", told),) if told is not None else ())
    it = make_asker(method, server.origin, failures=1)
    await it.fails()
    assert not it.asked.answers
    it.clock.advance(pause - 0.5)
    it.refused(Reason.ISSUER_UNAVAILABLE)
    assert server.requests == {ASK: 1}
    it.clock.advance(0.5)

    assert it.asked.answers
    server.pages[ASK] = document(GOOD[method])
    assert await it.asked.ask(TOKEN) == GOOD[method]
    assert (it.outcomes, it.under_way) == ((1, 1, 1), NOBODY)


@pytest.mark.parametrize("late", [None, "1", "0"], ids=str)
async def test_the_longest_pause_counts_of_several(server: FaultyServer, make_asker: MakeAsker, late: str | None) -> None:
    """Two questions are under way: one is told a minute, the one that ends later less or nothing."""
    server.pages[ASK] = Page(b"{}", 429, (("retry-after", late),) if late is not None else (), wait=0.15)
    it = make_asker(Verification.TOKENINFO, server.origin)
    slow = asyncio.create_task(it.fails())
    await server.seen.wait()
    server.pages[ASK] = Page(b"{}", 429, (("retry-after", "60"),))
    await it.fails()
    await slow
    it.clock.advance(59)

    it.refused(Reason.ISSUER_UNAVAILABLE)


async def test_an_answer_that_was_under_way_ends_no_pause(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = document(GOOD[Verification.TOKENINFO], wait=0.15)
    it = make_asker(Verification.TOKENINFO, server.origin)
    slow = asyncio.create_task(it.asked.ask(TOKEN))
    await server.seen.wait()
    server.pages[ASK] = Page(b"{}", 429, (("retry-after", "60"),))
    await it.fails()
    assert await slow == GOOD[Verification.TOKENINFO]

    it.refused(Reason.ISSUER_UNAVAILABLE)


# --- our own credentials


async def test_an_issuer_that_refuses_us_says_nothing_about_the_token(
    door: Door, make_asker: MakeAsker, caplog: pytest.LogCaptureFixture
) -> None:
    it = door.asker(make_asker, Verification.INTROSPECTION, credentials=(CLIENT_ID, "a wrong secret"), failures=3)
    token = door.token(Verification.INTROSPECTION)
    for _ in range(10):
        await it.fails(token)

    assert (it.outcomes, it.under_way, it.asked.answers) == ((0, 10, 0), NOBODY, True), "the issuer answers"
    assert door.issuer.requests == {DISCOVERY: 1, INTROSPECT: 10}
    records = [record for record in caplog.records if record.name.startswith("extauthz")]
    assert len(records) == 10
    for record in records:
        assert (record.levelno, record.__dict__["issuer"]) == (logging.WARNING, door.base)
        assert record.__dict__["method"] == "introspection"
        assert "client_ids" in record.__dict__["cause"]
        assert "client_secret" in record.__dict__["cause"]
        assert "a wrong secret" not in str(record.__dict__)


@each_method
@pytest.mark.parametrize("status", [400, 401])
async def test_a_refusal_forgets_failures_like_any_answer(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, status: int
) -> None:
    """Of the token, or of our credentials."""
    it = make_asker(method, server.origin, failures=2)
    for page in (Page(b"{}", 500), Page(b"{}", status)) * 3:
        server.pages[ASK] = page
        if page.status == 500 or method is Verification.INTROSPECTION:
            await it.fails()
        else:
            assert await it.asked.ask(TOKEN) is Reason.TOKEN_INACTIVE

    assert it.asked.answers


# --- counts


@each_method
async def test_seconds_are_those_of_every_question(server: FaultyServer, make_asker: MakeAsker, method: Verification) -> None:
    it = make_asker(method, server.origin)
    pages = (document(GOOD[method], wait=0.05), Page(b"{}", 500, wait=0.05), Page(b"{}", 401, wait=0.05), Page(wait=30))
    for number, page in enumerate(pages, start=1):
        server.pages[ASK] = page
        server.seen.clear()
        it.fetcher.timeout = TIMEOUT if page.wait == 30 else PATIENT
        asking = asyncio.ensure_future(it.asked.ask(TOKEN))
        await server.seen.wait()
        it.clock.advance(3)
        await asyncio.wait([asking])
        asking.exception()
        assert it.asked.seconds == 3 * number
    answered = 1 if method is Verification.INTROSPECTION else 2

    assert it.outcomes == (answered, 4 - answered, 0)


async def test_what_is_shed_took_no_time(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = document(GOOD[Verification.USERINFO])
    it = make_asker(Verification.USERINFO, server.origin, per_second=1)
    await it.asked.ask(TOKEN)
    for _ in range(5):
        it.refused(Reason.OVERLOADED)

    assert (it.outcomes, it.asked.seconds) == ((1, 0, 5), 0.0)
    assert it.asked.answers, "what we hold back is no failure of theirs"


# --- secrets


def secrets_of(token: str, credentials: tuple[str, str]) -> set[str]:
    """Return every form in which a token or a secret could be told."""
    client, secret = credentials
    basic = base64.b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()
    parts = [part for part in token.split(".") if len(part) > 8]
    return {token, quote(token), token[::-1], secret, quote_plus(secret), quote(secret), basic, *parts}


@each_method
async def test_no_log_line_error_or_text_tells_a_token_or_a_secret(
    server: FaultyServer, make_asker: MakeAsker, method: Verification, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = secrets_of(TOKEN, CREDENTIALS)
    for name in ("", *logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, logger=name)
    asyncio.get_running_loop().set_debug(True)
    server.pages[DISCOVERY] = document(
        {"issuer": server.origin, **{f"{one}_endpoint": f"{server.origin}{ASK}" for one in ("introspection", "userinfo")}}
    )
    told: list[str] = []
    for page in (
        document(GOOD[method]),
        *(fault(server, method) for name, fault in FAULTS.items() if name not in ("slow", "huge", "deep")),
        *(Page(b"{}", status) for status in (400, 401, 403, 404, 429, 500, 502)),
    ):
        server.pages[ASK] = page
        uri = f"{server.origin}{ASK}" if method is Verification.TOKENINFO else None
        it = make_asker(method, server.origin, uri=uri, timeout=TIMEOUT if page.wait == 30 else PATIENT)
        question = it.asked.ask(TOKEN)
        told += [repr(it.asked), repr(question), repr(vars(it.asked).keys()), repr(it.fetcher), repr(it.discovery)]
        try:
            await question
        except Unavailable as unavailable:
            told += traceback.format_exception(unavailable)
            error: BaseException | None = unavailable
            while error is not None:
                told += [str(error), repr(error), repr(error.args)]
                error = error.__cause__ or error.__context__
    asyncio.get_running_loop().set_debug(False)
    assert len(caplog.records) > 50, "everybody talks"
    told += [f"{record.getMessage()} {record.__dict__} {record.exc_info}" for record in caplog.records]

    assert len(secrets) > 1
    for text in told:
        assert not any(secret in text for secret in secrets), text


async def test_a_log_line_names_issuer_method_and_cause(
    server: FaultyServer, make_asker: MakeAsker, caplog: pytest.LogCaptureFixture
) -> None:
    causes = {
        "502": Page(b"{}", 502),
        "'sub'": document({}),
        "no whole answer": Page(wait=30),
        "429": Page(b"{}", 429),
        "JSON": Page(b"<"),
    }
    for cause, page in causes.items():
        caplog.clear()
        server.pages[ASK] = page
        await make_asker(Verification.USERINFO, server.origin, timeout=TIMEOUT if page.wait == 30 else PATIENT).fails()
        (record,) = (record for record in caplog.records if record.name.startswith("extauthz"))
        assert record.levelno == logging.WARNING
        assert (record.__dict__["issuer"], record.__dict__["method"]) == (server.origin, "userinfo")
        assert cause in record.__dict__["cause"]


# --- limits


@each_method
async def test_only_so_many_are_asked_at_once(server: FaultyServer, make_asker: MakeAsker, method: Verification) -> None:
    server.pages[ASK] = document(GOOD[method], wait=0.1)
    it = make_asker(method, server.origin, at_once=3)
    under_way = [asyncio.create_task(it.asked.ask(TOKEN)) for _ in range(3)]
    for _ in range(20):
        it.refused(Reason.OVERLOADED)
    assert await asyncio.gather(*under_way) == [GOOD[method]] * 3
    assert server.requests == {ASK: 3}

    assert await it.asked.ask(TOKEN) == GOOD[method]
    assert (it.outcomes, it.under_way, it.asked.answers) == ((4, 0, 20), NOBODY, True)


@each_method
async def test_only_so_many_are_asked_a_second(server: FaultyServer, make_asker: MakeAsker, method: Verification) -> None:
    server.pages[ASK] = document(GOOD[method])
    it = make_asker(method, server.origin, per_second=4)
    for _ in range(4):
        await it.asked.ask(TOKEN)
    for _ in range(20):
        it.refused(Reason.OVERLOADED)
    it.clock.advance(0.25)
    await it.asked.ask(TOKEN)
    it.refused(Reason.OVERLOADED)

    assert server.requests == {ASK: 5}
    assert (it.outcomes, it.under_way, it.asked.answers) == ((5, 0, 21), NOBODY, True)


async def test_strangers_leave_places_for_tokens_that_were_good_before(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = document(GOOD[Verification.TOKENINFO], wait=0.1)
    it = make_asker(Verification.TOKENINFO, server.origin, at_once=4, strangers_at_once=2)
    under_way = [asyncio.create_task(it.asked.ask(TOKEN)) for _ in range(2)]
    it.refused(Reason.OVERLOADED)
    assert it.under_way == (2, 2)
    under_way += [asyncio.create_task(it.asked.ask(TOKEN, is_known=True)) for _ in range(2)]
    assert it.under_way == (4, 2)
    refused(it.asked, Reason.OVERLOADED, known=True)
    await asyncio.gather(*under_way)

    assert (it.outcomes, it.under_way) == ((4, 0, 2), NOBODY)
    assert server.requests == {ASK: 4}


async def test_strangers_leave_questions_of_every_second_too(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = document(GOOD[Verification.TOKENINFO])
    it = make_asker(Verification.TOKENINFO, server.origin, per_second=4, strangers_per_second=2)
    for _ in range(2):
        await it.asked.ask(TOKEN)
    for _ in range(10):
        it.refused(Reason.OVERLOADED)
    for _ in range(2):
        await it.asked.ask(TOKEN, is_known=True)
    refused(it.asked, Reason.OVERLOADED, known=True)

    assert server.requests == {ASK: 4}


async def test_a_stranger_without_a_place_among_all_keeps_none_among_strangers(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = document(GOOD[Verification.TOKENINFO], wait=0.1)
    it = make_asker(Verification.TOKENINFO, server.origin, at_once=1, strangers_at_once=1)
    known = asyncio.create_task(it.asked.ask(TOKEN, is_known=True))
    for _ in range(5):
        it.refused(Reason.OVERLOADED)
    assert it.under_way == (1, 0)
    await known

    assert await it.asked.ask(TOKEN) == GOOD[Verification.TOKENINFO]


@each_method
async def test_a_question_that_is_cancelled_gives_its_place_back(
    server: FaultyServer, make_asker: MakeAsker, method: Verification
) -> None:
    server.pages[ASK] = Page(wait=30)
    it = make_asker(method, server.origin, at_once=2, timeout=30.0, failures=1)
    for _ in range(5):
        server.seen.clear()
        asking = asyncio.create_task(it.asked.ask(TOKEN))
        await server.seen.wait()
        assert it.under_way == (1, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert it.under_way == NOBODY

    assert it.asked.answers, "that we leave is no failure of theirs"
    server.pages[ASK] = document(GOOD[method])
    assert await it.asked.ask(TOKEN) == GOOD[method]


async def test_time_outs_leave_no_place_and_no_connection_behind(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = Page(wait=30)
    it = make_asker(Verification.USERINFO, server.origin, failures=100)
    it.fetcher.timeout = 0.1
    for _ in range(3):
        results = await asyncio.gather(*(it.asked.ask(TOKEN) for _ in range(16)), return_exceptions=True)
        assert {str(result) for result in results} == {"issuer_unavailable"}
    assert it.under_way == NOBODY
    assert len(it.fetcher._client._transport._pool.connections) == 0  # type: ignore[attr-defined]

    it.fetcher.timeout = PATIENT
    server.pages[ASK] = document(GOOD[Verification.USERINFO])
    assert await it.asked.ask(TOKEN) == GOOD[Verification.USERINFO]


# --- the breaker


@each_method
async def test_after_five_failures_nobody_is_asked_for_a_while_and_then_one(
    server: FaultyServer, make_asker: MakeAsker, method: Verification
) -> None:
    server.pages[ASK] = Page(b"{}", 502)
    it = make_asker(method, server.origin)
    for _ in range(FAILURES):
        await it.fails()
    for _ in range(20):
        it.refused(Reason.ISSUER_UNAVAILABLE)
        it.clock.advance(0.2)
    assert server.requests == {ASK: FAILURES}

    it.clock.advance(PAUSE - 4)
    server.pages[ASK] = document(GOOD[method], wait=0.05)
    only = asyncio.create_task(it.asked.ask(TOKEN))
    for _ in range(20):
        it.refused(Reason.ISSUER_UNAVAILABLE)
    assert await only == GOOD[method]
    assert server.requests == {ASK: FAILURES + 1}
    assert it.asked.answers

    assert await asyncio.gather(*(it.asked.ask(TOKEN) for _ in range(10))) == [GOOD[method]] * 10
    assert (it.outcomes, it.under_way) == ((11, FAILURES, 40), NOBODY)


async def test_one_failure_more_and_the_wait_begins_anew(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = Page(b"{}", 502)
    it = make_asker(Verification.TOKENINFO, server.origin)
    for _ in range(FAILURES):
        await it.fails()
    for asked in range(1, 5):
        it.clock.advance(PAUSE)
        await it.fails()
        it.refused(Reason.ISSUER_UNAVAILABLE)
        assert server.requests == {ASK: FAILURES + asked}


async def test_a_first_question_that_is_cancelled_leaves_the_next_one_its_turn(server: FaultyServer, make_asker: MakeAsker) -> None:
    server.pages[ASK] = Page(wait=30)
    it = make_asker(Verification.TOKENINFO, server.origin, failures=1, timeout=30.0)
    it.breaker.fail()
    it.clock.advance(PAUSE)
    only = asyncio.create_task(it.asked.ask(TOKEN))
    await server.seen.wait()
    only.cancel()
    await asyncio.wait([only])
    it.refused(Reason.ISSUER_UNAVAILABLE)
    it.clock.advance(PAUSE)
    server.pages[ASK] = document(GOOD[Verification.TOKENINFO])

    assert await it.asked.ask(TOKEN) == GOOD[Verification.TOKENINFO]


async def test_a_question_without_a_place_takes_nobody_s_turn(server: FaultyServer, make_asker: MakeAsker) -> None:
    """The one question that may pass after a pause is spent by what is sent, not by what the budget refuses."""
    server.pages[ASK] = Page(wait=30)
    it = make_asker(Verification.TOKENINFO, server.origin, at_once=1, failures=1, timeout=30.0)
    slow = asyncio.create_task(it.asked.ask(TOKEN))
    await server.seen.wait()
    it.breaker.fail()
    it.clock.advance(PAUSE)
    it.refused(Reason.OVERLOADED)
    slow.cancel()
    await asyncio.wait([slow])
    server.pages[ASK] = document(GOOD[Verification.TOKENINFO])

    assert await it.asked.ask(TOKEN) == GOOD[Verification.TOKENINFO]


async def test_while_nobody_is_asked_the_budget_is_not_spent(server: FaultyServer, make_asker: MakeAsker) -> None:
    """And the reason stays the true one: it is the issuer that is away, there is not too much work."""
    it = make_asker(Verification.TOKENINFO, server.origin, per_second=3)
    it.breaker.rest(0.001)
    for _ in range(10):
        it.refused(Reason.ISSUER_UNAVAILABLE)
    it.clock.advance(0.001)
    server.pages[ASK] = document(GOOD[Verification.TOKENINFO])
    assert [await it.asked.ask(TOKEN) for _ in range(3)] == [GOOD[Verification.TOKENINFO]] * 3
    it.refused(Reason.OVERLOADED)
    assert it.outcomes == (3, 0, 11)


@each_method
async def test_a_good_answer_in_between_keeps_it_closed(server: FaultyServer, make_asker: MakeAsker, method: Verification) -> None:
    it = make_asker(method, server.origin, failures=2)
    for _ in range(4):
        server.pages[ASK] = Page(b"{}", 500)
        await it.fails()
        server.pages[ASK] = document(GOOD[method])
        await it.asked.ask(TOKEN)

    assert it.asked.answers


# --- put together as the process does


@dataclass
class Assembled:
    """The ways to ask that a configuration makes."""

    server: FaultyServer
    clock: StillClock
    parts: RuntimeParts

    def of(self, issuer: str, method: Verification) -> Introspection:
        """Return one of them."""
        (found,) = [it for it in self.parts.introspections if (it.issuer, it.method) == (issuer, method)]
        return found


GOOGLE = "https://accounts.google.com"


async def _assemble(
    folder: Path, server: FaultyServer, stack: AsyncExitStack, *, remote_timeout: str = "10s", **more: Any
) -> Assembled:
    """Build a provider of which tokeninfo and userinfo are asked, and another one that answers at the same place."""
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "oauth": {
            "remote_timeout": remote_timeout,
            "providers": [
                {
                    "provider": "gsuite",
                    "client_ids": [GOOGLE_CLIENT],
                    "domains": ["acme.com"],
                    "hosted_domains": ["acme.com"],
                    "tokeninfo_uri": f"{server.origin}/tokeninfo",
                    "userinfo_uri": f"{server.origin}/google-userinfo",
                },
                {"provider": "okta", "issuer": server.origin, "client_ids": [CLIENT_ID]},
            ],
        },
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
        **more,
    }
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(settings))
    clock = StillClock()
    server.pages |= {
        "/tokeninfo": document(GOOD[Verification.TOKENINFO]),
        "/google-userinfo": document(GOOD[Verification.USERINFO]),
        "/okta-userinfo": document(GOOD[Verification.USERINFO]),
        DISCOVERY: document({"issuer": server.origin, "userinfo_endpoint": f"{server.origin}/okta-userinfo"}),
    }
    return Assembled(server, clock, await RuntimeBuilder(clock=clock).open(load(file), stack))


async def test_half_of_what_each_way_may_ask_is_for_tokens_that_were_good_before(tmp_path: Path, server: FaultyServer) -> None:
    async with AsyncExitStack() as stack:
        it = await _assemble(tmp_path, server, stack, limits={"remote_per_second": 8, "remote_in_flight": 4})
        assert len(it.parts.introspections) == 3
        for way in it.parts.introspections:
            for _ in range(4):
                await way.ask(TOKEN)
            refused(way, Reason.OVERLOADED)
            for _ in range(4):
                await way.ask(TOKEN, is_known=True)
            refused(way, Reason.OVERLOADED, known=True)
        it.clock.advance(1)
        for path in ("/tokeninfo", "/google-userinfo", "/okta-userinfo"):
            server.pages[path] = Page(server.pages[path].body, wait=0.1)
        for way in it.parts.introspections:
            under_way = [asyncio.create_task(way.ask(TOKEN)) for _ in range(2)]
            refused(way, Reason.OVERLOADED)
            under_way += [asyncio.create_task(way.ask(TOKEN, is_known=True)) for _ in range(2)]
            refused(way, Reason.OVERLOADED, known=True)
            await asyncio.gather(*under_way)


@pytest.mark.parametrize("most", [1, 2, 3], ids=str)
async def test_the_smallest_budget_still_asks_about_strangers(tmp_path: Path, server: FaultyServer, most: int) -> None:
    async with AsyncExitStack() as stack:
        it = await _assemble(tmp_path, server, stack, limits={"remote_per_second": most, "remote_in_flight": most})
        for _ in range(3):
            answers = [await way.ask(TOKEN) for way in it.parts.introspections]
            assert answers == [GOOD[way.method] for way in it.parts.introspections]
            assert len(answers) == 3
            it.clock.advance(1)


async def test_one_way_that_is_down_stops_no_other(tmp_path: Path, server: FaultyServer) -> None:
    async with AsyncExitStack() as stack:
        it = await _assemble(tmp_path, server, stack)
        down = it.of(GOOGLE, Verification.USERINFO)
        others = [way for way in it.parts.introspections if way is not down]
        server.pages["/google-userinfo"] = Page(b"{}", 502)
        for _ in range(FAILURES):
            with pytest.raises(Unavailable):
                await down.ask(TOKEN)
        refused(down, Reason.ISSUER_UNAVAILABLE, known=True)
        assert len(others) == 2
        assert all([await way.ask(TOKEN) for way in others])
        assert [way.answers for way in others] == [True, True]


async def test_the_time_out_of_the_configuration_counts(tmp_path: Path, server: FaultyServer) -> None:
    async with AsyncExitStack() as stack:
        it = await _assemble(tmp_path, server, stack, remote_timeout="250ms")
        server.pages["/tokeninfo"] = Page(wait=30)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await it.of(GOOGLE, Verification.TOKENINFO).ask(TOKEN)

        assert it.of(GOOGLE, Verification.TOKENINFO)._fetcher.timeout == 0.25
        assert 0.2 < time.monotonic() - started < 15


async def test_the_time_out_bounds_a_whole_question_the_way_to_the_address_included(tmp_path: Path, server: FaultyServer) -> None:
    """A place in the budget is held as long as the question takes."""
    async with AsyncExitStack() as stack:
        it = await _assemble(tmp_path, server, stack, remote_timeout="250ms")
        server.pages[DISCOVERY] = Page(wait=30)
        asking = asyncio.ensure_future(it.of(server.origin, Verification.USERINFO).ask(TOKEN))
        done, _ = await asyncio.wait([asking], timeout=20.0)
        asking.cancel()
        await asyncio.wait([asking])

        assert done, "the time-out is 250 ms"
        assert isinstance(asking.exception(), Unavailable)


async def test_a_way_to_the_address_that_takes_longer_than_a_question_is_found_all_the_same(
    tmp_path: Path, server: FaultyServer
) -> None:
    """The question ends, the fetch that it began does not: the next one has the address."""
    async with AsyncExitStack() as stack:
        it = await _assemble(tmp_path, server, stack, remote_timeout="250ms")
        server.pages[DISCOVERY] = Page(server.pages[DISCOVERY].body, wait=0.5)
        asked = it.of(server.origin, Verification.USERINFO)
        with pytest.raises(Unavailable):
            await asked.ask(TOKEN)
        found: list[object] = []

        async def is_answered() -> bool:
            it.clock.advance(PAUSE)
            with contextlib.suppress(Unavailable):
                found.append(await asked.ask(TOKEN))
            return bool(found)

        await until(is_answered, seconds=6)
        assert found == [GOOD[Verification.USERINFO]]


async def test_a_silent_document_does_not_keep_from_asking_where_the_last_one_said(server: FaultyServer, trusted: Path) -> None:
    """The issuer answers questions; its document is an hour old, and the server of the next one says nothing for long."""
    clock = StillClock()
    trust = await asyncio.to_thread(trusted.read_bytes)
    patient, hasty = (JsonFetcher(timeout=PATIENT, trust=trust) for _ in range(2))
    discovery = Discovery(server.origin, f"{server.origin}{DISCOVERY}", patient, clock=clock)
    budget, breaker = Budget(100, clock=clock), Breaker(clock=clock)
    method = Verification.USERINFO
    asked = Introspection(method, discovery, hasty, clock=clock, budget=budget, strangers=budget, breaker=breaker)
    server.pages[DISCOVERY] = document({"issuer": server.origin, "userinfo_endpoint": f"{server.origin}{ASK}"})
    server.pages[ASK] = document(GOOD[method])
    await asked.ask(TOKEN)
    server.pages[DISCOVERY] = Page(wait=30)
    clock.advance(LIFETIME)
    patient.timeout, hasty.timeout = 0.8, 0.2
    with contextlib.suppress(Unavailable):
        await asked.ask(TOKEN)
    await until(lambda: discovery._flight is None, seconds=5)
    # Enough for a question, and too little to wait for that server once more.
    hasty.timeout = 0.7
    clock.advance(PAUSE)
    later = await asyncio.gather(asked.ask(TOKEN), return_exceptions=True)
    await hasty.close()
    await patient.close()

    assert later[0] == GOOD[method]
