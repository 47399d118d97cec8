"""Where an issuer's addresses are: from a real server that is sometimes wrong, slow or down; and how long its keys are kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from extauthz.adapters.oauth import jwks as keys_module
from extauthz.adapters.oauth.discovery import LIFETIME, RETRY, Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.adapters.oauth.jwks import MIN_REFRESH, UNKNOWN_KEY_COOL_DOWN, JwksSource
from extauthz.errors import FetchError
from tests.support.http_faults import DISCOVERY, FaultyServer, Page, document, faulty_server
from tests.support.waiting import settled, until
from tests.support.world import StillClock, jwks

ACME = "https://acme.okta.com"
KEYS = "/v1/keys"
TIMEOUT, PATIENT = 0.3, 20.0
MOMENT = 5.0


@dataclass
class Found:
    """A discovery and the server that it asks."""

    server: FaultyServer
    fetcher: JsonFetcher
    clock: StillClock
    discovery: Discovery

    def publish(self, **changes: object) -> None:
        """Serve a good document with these members; None removes one."""
        members: dict[str, object] = {"issuer": self.discovery.issuer, "userinfo_endpoint": f"{self.server.origin}/me"}
        told = {name: value for name, value in (members | changes).items() if value is not None}
        self.server.pages[DISCOVERY] = document(told)

    @property
    def fetches(self) -> int:
        """How often the document was asked for."""
        return self.server.requests[DISCOVERY]

    async def endpoint(self, name: str = "userinfo_endpoint") -> str:
        """Return an address without the server's origin, when a fetch that is under way for it has ended."""
        return (await self._settled(name)).removeprefix(self.server.origin)

    async def _settled(self, name: str) -> str:
        address = await self.discovery.endpoint(name)
        if self.discovery._flight is None:
            return address
        await asyncio.wait({self.discovery._flight})
        return await self.discovery.endpoint(name)

    async def fails(self, name: str = "userinfo_endpoint") -> str:
        """Ask for an address that cannot be told; return the cause. A moment later it may be asked for anew."""
        with pytest.raises(FetchError) as caught:
            await self._settled(name)
        self.clock.advance(MOMENT)
        return str(caught.value)


@asynccontextmanager
async def finding(seconds: float) -> AsyncIterator[Found]:
    clock, fetcher = StillClock(), JsonFetcher(timeout=seconds)
    async with faulty_server() as server:
        yield Found(server, fetcher, clock, Discovery(server.origin, f"{server.origin}{DISCOVERY}", fetcher, clock=clock))
        await fetcher.close()


@pytest.fixture
async def found() -> AsyncIterator[Found]:
    async with finding(PATIENT) as it:
        yield it


@pytest.fixture
def behind_https(found: Found) -> Found:
    """A document of an issuer behind https, which no test can be, at an address of this machine."""
    discovery = Discovery(ACME, f"{found.server.origin}{DISCOVERY}", found.fetcher, clock=found.clock)
    return Found(found.server, found.fetcher, found.clock, discovery)


# --- one document


async def test_one_document_tells_every_address(found: Found) -> None:
    found.publish(jwks_uri=f"{found.server.origin}{KEYS}")
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing is fetched before it is asked for"

    assert await found.endpoint() == "/me"
    assert await found.endpoint("jwks_uri") == KEYS
    assert await found.endpoint() == "/me"
    assert found.server.requests == {DISCOVERY: 1}


async def test_the_document_is_asked_for_without_any_credential(found: Found) -> None:
    found.publish()
    await found.endpoint()
    (head,) = found.server.heads

    assert head.startswith(f"GET {DISCOVERY} HTTP/1.1\r\n".encode())
    assert b"authorization" not in head.lower()
    assert b"cookie" not in head.lower()


@pytest.mark.parametrize(
    "issuer",
    ["https://evil.example", "ORIGIN/", "ORIGIN/oauth2/default", "origin", "", None, 5, True, ["ORIGIN"], {"issuer": "ORIGIN"}],
    ids=str,
)
async def test_a_document_of_another_issuer_tells_nothing(found: Found, issuer: Any) -> None:
    origin = found.server.origin
    told = issuer.replace("ORIGIN", origin).replace("origin", origin.upper()) if isinstance(issuer, str) else issuer
    found.publish(issuer=[origin] if issuer == ["ORIGIN"] else told)

    assert "another issuer" in await found.fails()
    found.publish()
    assert await found.endpoint() == "/me"
    assert found.fetches == 2


@pytest.mark.parametrize("data", [None, [], ["issuer"], "issuer", 5, True, {}], ids=str)
async def test_what_is_no_document_tells_nothing(found: Found, data: object) -> None:
    found.server.pages[DISCOVERY] = document(data)
    await found.fails()
    found.publish()

    assert await found.endpoint() == "/me"


@pytest.mark.parametrize("address", [None, 5, True, ["https://acme.okta.com/me"], {"https://acme.okta.com/me": 1}], ids=str)
async def test_an_address_that_is_missing_is_looked_for_anew(found: Found, address: object) -> None:
    found.publish(userinfo_endpoint=address, jwks_uri=f"{found.server.origin}{KEYS}")
    assert "userinfo_endpoint" in await found.fails()
    assert await found.endpoint("jwks_uri") == KEYS, "the others are good"
    await found.fails()
    found.publish()

    assert await found.endpoint() == "/me"
    assert found.fetches == 3


async def test_an_address_in_the_clear_does_not_follow_from_https(behind_https: Found) -> None:
    """Else whoever can write to the document reads tokens on the wire, or sends them to what listens on this machine."""
    found = behind_https
    for address in ("http://acme.okta.com/me", f"{found.server.origin}/me", "HTTP://acme.okta.com/me", "/me", "", "ftp://acme/"):
        before = found.fetches
        found.publish(userinfo_endpoint=address)
        assert "https" in await found.fails()
        assert found.fetches == before + 1
    found.publish(userinfo_endpoint=f"{ACME}/me")

    assert await found.discovery.endpoint("userinfo_endpoint") == f"{ACME}/me"
    assert set(found.server.requests) == {DISCOVERY}


# --- time


async def test_a_document_lives_for_an_hour(found: Found) -> None:
    found.publish()
    await found.endpoint()
    found.publish(userinfo_endpoint=f"{found.server.origin}/moved")
    found.clock.advance(LIFETIME - 1)
    assert await found.endpoint() == "/me"
    found.clock.advance(1)

    assert await found.endpoint() == "/moved"
    assert found.fetches == 2
    found.clock.advance(LIFETIME - 1)
    await found.endpoint()
    assert found.fetches == 2


async def test_the_wall_clock_ends_no_document(found: Found) -> None:
    found.publish()
    await found.endpoint()
    for change in (10 * LIFETIME, -20 * LIFETIME):
        found.clock.wall += change
        await found.endpoint()

    assert found.fetches == 1


async def test_an_expired_document_is_fetched_once(found: Found) -> None:
    found.publish()
    await found.endpoint()
    found.publish(userinfo_endpoint=f"{found.server.origin}/moved")
    for _ in range(3):
        found.discovery.expire()
    assert found.fetches == 1, "not before somebody asks"

    assert [await found.endpoint() for _ in range(3)] == ["/moved"] * 3
    assert found.fetches == 2


WRONG: dict[str, Page] = {
    "500": Page(b"{}", 500),
    "404": Page(b"{}", 404),
    "429": Page(b"{}", 429, (("retry-after", "30"),)),
    "garbage": Page(b"<html>"),
    "truncated": Page(b'{"issuer": "', missing=100),
    "closed": Page(raw=b""),
    "huge": Page(b'{"a": "' + b" " * 600 * 1024 + b'"}'),
    "a list": document([]),
    "another issuer": document({"issuer": "https://evil.example", "userinfo_endpoint": "https://evil.example/me"}),
    "no issuer": document({"userinfo_endpoint": "https://evil.example/me"}),
    "a redirect": Page(b"{}", 302, (("location", "https://evil.example/"),)),
    "silent": Page(wait=30),
}


@pytest.mark.parametrize("name", WRONG)
async def test_the_last_good_document_serves_while_no_other_can_be_had(
    found: Found, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    found.publish()
    await found.endpoint()
    found.server.pages[DISCOVERY] = WRONG[name]
    found.fetcher.timeout = TIMEOUT if name == "silent" else PATIENT
    found.clock.advance(LIFETIME)
    caplog.clear()

    assert [await found.endpoint() for _ in range(5)] == ["/me"] * 5
    assert found.fetches == 2, "not asked for at every turn"
    (record,) = (record for record in caplog.records if record.name.startswith("extauthz"))
    assert (record.levelno, record.__dict__["issuer"]) == (logging.WARNING, found.discovery.issuer)
    assert record.__dict__["cause"]
    found.clock.advance(RETRY - 1)
    await found.endpoint()
    assert found.fetches == 2
    found.clock.advance(1)
    assert await found.endpoint() == "/me"
    assert found.fetches == 3

    found.fetcher.timeout = PATIENT
    found.publish(userinfo_endpoint=f"{found.server.origin}/moved")
    found.clock.advance(RETRY)
    assert await found.endpoint() == "/moved"


@pytest.mark.parametrize("name", WRONG)
async def test_without_any_document_there_is_no_address(found: Found, name: str) -> None:
    found.server.pages[DISCOVERY] = WRONG[name]
    found.fetcher.timeout = TIMEOUT if name == "silent" else PATIENT
    cause = await found.fails()
    assert found.server.origin in cause
    assert "evil.example" not in cause
    found.fetcher.timeout = PATIENT
    found.publish()

    assert await found.endpoint() == "/me"


async def test_the_document_that_replaces_a_good_one_must_be_whole(found: Found) -> None:
    """A good document without the address is the issuer's word: the old address is no longer told."""
    found.publish()
    await found.endpoint()
    found.publish(userinfo_endpoint=None)
    found.clock.advance(LIFETIME)

    assert "userinfo_endpoint" in await found.fails()


# --- several at once


async def test_callers_at_one_time_share_one_fetch(found: Found) -> None:
    found.publish(jwks_uri=f"{found.server.origin}{KEYS}")
    found.server.pages[DISCOVERY] = Page(found.server.pages[DISCOVERY].body, wait=0.1)
    names = ["userinfo_endpoint", "jwks_uri"] * 25

    assert await asyncio.gather(*(found.endpoint(name) for name in names)) == ["/me", KEYS] * 25
    assert found.server.requests == {DISCOVERY: 1}


async def test_callers_at_one_time_share_one_replacement(found: Found) -> None:
    found.publish()
    await found.endpoint()
    found.server.pages[DISCOVERY] = Page(b"{}", 500, wait=0.1)
    found.clock.advance(LIFETIME)

    assert await asyncio.gather(*(found.endpoint() for _ in range(20))) == ["/me"] * 20
    assert found.fetches == 2


@pytest.mark.parametrize("page", [Page(b"{}", 500, wait=0.05), Page(wait=30)], ids=["500", "silent"])
async def test_callers_at_one_time_share_one_failure(found: Found, page: Page) -> None:
    """One after the other they would wait for as many time-outs as there are callers, each with a place that is bounded."""
    found.server.pages[DISCOVERY] = page
    found.fetcher.timeout = TIMEOUT if page.wait == 30 else PATIENT
    started = time.monotonic()
    results = await asyncio.gather(*(found.endpoint() for _ in range(6)), return_exceptions=True)

    assert {type(result) for result in results} == {FetchError}
    assert found.fetches == 1
    assert time.monotonic() - started < 5 * TIMEOUT


async def test_a_first_document_that_cannot_be_had_is_not_asked_for_at_every_turn(found: Found) -> None:
    found.server.pages[DISCOVERY] = Page(b"{}", 500)
    for _ in range(20):
        with pytest.raises(FetchError):
            await found.endpoint()
        found.discovery.expire()
        found.clock.advance(0.05)
    assert found.fetches == 1
    found.clock.advance(MOMENT)
    found.publish()

    assert await found.endpoint() == "/me"


@pytest.mark.parametrize("leaving", [(0,), (1,), (0, 1), (0, 1, 2, 3)], ids=str)
async def test_a_caller_that_leaves_takes_no_address_from_the_others(found: Found, leaving: tuple[int, ...]) -> None:
    found.publish()
    found.server.pages[DISCOVERY] = Page(found.server.pages[DISCOVERY].body, wait=0.1)
    callers = [asyncio.create_task(found.endpoint()) for _ in range(5)]
    await found.server.seen.wait()
    for index in leaving:
        callers[index].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)

    for index, result in enumerate(results):
        if index in leaving:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == "/me"
    assert found.fetches <= 2


async def test_when_every_caller_has_left_the_next_one_is_served(found: Found) -> None:
    found.publish()
    found.server.pages[DISCOVERY] = Page(found.server.pages[DISCOVERY].body, wait=0.1)
    callers = [asyncio.create_task(found.endpoint()) for _ in range(3)]
    await found.server.seen.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)

    assert await found.endpoint() == "/me"
    assert found.fetches <= 2


async def test_who_leaves_a_silent_server_keeps_no_keys_from_others(found: Found) -> None:
    """A question about a user, whose time is short, and a fetch of keys that begins meanwhile."""
    found.publish(jwks_uri=f"{found.server.origin}{KEYS}")
    found.server.pages[DISCOVERY] = Page(found.server.pages[DISCOVERY].body, wait=0.15)
    found.server.pages[KEYS] = document(jwks())
    source = JwksSource(found.discovery, ("RS256",), found.fetcher, clock=found.clock)
    question = asyncio.create_task(found.endpoint())
    await found.server.seen.wait()
    loading = asyncio.ensure_future(source.load())
    await settled()
    question.cancel()
    await asyncio.wait([question])

    assert sorted(await loading) == [("rsa-1", "RS256")]


# --- how long keys are kept


@dataclass
class Keys:
    """A key source beside a discovery."""

    found: Found
    source: JwksSource

    def publish(self, cache_control: str | None = None) -> None:
        """Serve the document and the keys, with this header."""
        self.found.publish(jwks_uri=f"{self.found.server.origin}{KEYS}")
        headers = (("cache-control", cache_control),) if cache_control is not None else ()
        self.found.server.pages[KEYS] = document(jwks(), headers=headers)

    @property
    def fetches(self) -> int:
        """How often the keys were asked for."""
        return self.found.server.requests[KEYS]


MakeKeys = Callable[..., Keys]


@pytest.fixture
def make_keys(found: Found) -> MakeKeys:
    def make(*, refresh: float = 600.0, **more: Any) -> Keys:
        algorithms = ("RS256", "ES256")
        return Keys(found, JwksSource(found.discovery, algorithms, found.fetcher, clock=found.clock, refresh=refresh, **more))

    return make


@pytest.mark.parametrize(
    ("cache_control", "refresh", "pause"),
    [
        (None, 600.0, 600.0),
        ("max-age=90", 600.0, 90.0),
        ("public, max-age=599, must-revalidate", 600.0, 599.0),
        ("max-age=601", 600.0, 600.0),
        ("max-age=86400", 600.0, 600.0),
        ("max-age=999999999", 3600.0, 3600.0),
        ("max-age=61", 600.0, 61.0),
        ("max-age=59", 600.0, MIN_REFRESH),
        ("max-age=0", 600.0, MIN_REFRESH),
        ("no-store", 600.0, MIN_REFRESH),
        ("no-cache, max-age=86400", 600.0, MIN_REFRESH),
        ("max-age=0", 60.0, 60.0),
        ("max-age=-1", 600.0, 600.0),
        ("max-age=soon", 600.0, 600.0),
        ("immutable", 600.0, 600.0),
    ],
    ids=str,
)
async def test_the_issuer_may_shorten_the_pause_and_never_lengthen_it(
    make_keys: MakeKeys, cache_control: str | None, refresh: float, pause: float
) -> None:
    keys = make_keys(refresh=refresh)
    keys.publish(cache_control)
    await keys.source.load()

    assert keys.source._pause == pause


async def test_each_answer_says_anew_how_long_it_may_be_kept(make_keys: MakeKeys) -> None:
    keys = make_keys()
    for cache_control, pause in (("max-age=90", 90.0), ("max-age=300", 300.0), (None, 600.0), ("no-store", 60.0)):
        keys.publish(cache_control)
        await keys.source.load()
        assert keys.source._pause == pause
        keys.found.clock.advance(10)


@pytest.mark.parametrize(
    ("refresh", "cache_control"),
    [(60.0, "max-age=0"), (60.0, "no-store"), (0.03, "max-age=86400"), (0.03, None)],
    ids=["shortened", "not to be kept", "not lengthened", "nothing said"],
)
async def test_the_background_refresh_keeps_to_the_pause(
    make_keys: MakeKeys, monkeypatch: pytest.MonkeyPatch, refresh: float, cache_control: str | None
) -> None:
    """A minute here is a few hundredths of a second."""
    monkeypatch.setattr(keys_module, "MIN_REFRESH", 0.03)
    keys = make_keys(refresh=refresh)
    keys.publish(cache_control)
    task = asyncio.create_task(keys.source.run())
    await until(lambda: task.done() or keys.fetches >= 3, seconds=10)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert keys.found.fetches == 1, "where the keys are is known"


async def test_no_header_makes_the_background_refresh_hurry(make_keys: MakeKeys) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if seconds:
            await asyncio.Event().wait()

    keys = make_keys(sleep=pause)
    keys.publish("no-store, max-age=0")
    task = asyncio.create_task(keys.source.run())
    await until(lambda: len(pauses) == 2, seconds=10)
    task.cancel()
    await asyncio.wait([task])

    assert pauses == [0, MIN_REFRESH]
    assert keys.fetches == 1


async def test_unknown_keys_do_not_ask_where_the_keys_are(make_keys: MakeKeys) -> None:
    keys = make_keys()
    keys.publish()
    await keys.source.load()
    for _ in range(10):
        keys.found.clock.advance(UNKNOWN_KEY_COOL_DOWN)
        pending = keys.source.reload_for_unknown_key()
        assert pending is not None
        await pending
        assert [keys.source.reload_for_unknown_key() for _ in range(50)] == [None] * 50

    assert keys.found.server.requests == {DISCOVERY: 1, KEYS: 11}
    keys.found.clock.advance(LIFETIME)
    pending = keys.source.reload_for_unknown_key()
    assert pending is not None
    await pending
    assert keys.found.server.requests == {DISCOVERY: 2, KEYS: 12}, "its own lifetime, and nothing else, ends the document"


async def test_keys_and_users_of_one_issuer_share_the_document(make_keys: MakeKeys) -> None:
    keys = make_keys()
    keys.publish()
    results = await asyncio.gather(keys.source.load(), keys.found.endpoint())

    assert results[1] == "/me"
    assert keys.found.server.requests == {DISCOVERY: 1, KEYS: 1}


# --- the second address (RFC 8414 3.1)

OTHER = "/.well-known/oauth-authorization-server"


def with_other(found: Found) -> Found:
    origin = found.server.origin
    other = Discovery(origin, f"{origin}{DISCOVERY}", found.fetcher, clock=found.clock, other=f"{origin}{OTHER}")
    return Found(found.server, found.fetcher, found.clock, other)


async def test_the_second_address_is_asked_where_the_first_has_nothing(found: Found) -> None:
    found = with_other(found)
    found.server.pages[OTHER] = document({"issuer": found.server.origin, "userinfo_endpoint": f"{found.server.origin}/other"})

    assert await found.endpoint() == "/other"
    assert found.server.requests == {DISCOVERY: 1, OTHER: 1}


async def test_the_second_address_is_not_asked_where_the_first_answers(found: Found) -> None:
    found = with_other(found)
    found.publish()

    assert await found.endpoint() == "/me"
    assert found.server.requests == {DISCOVERY: 1}


async def test_the_second_document_must_be_that_of_the_issuer_too(found: Found) -> None:
    found = with_other(found)
    found.server.pages[OTHER] = document({"issuer": f"{found.server.origin}/evil", "userinfo_endpoint": f"{found.server.origin}/x"})

    assert await found.fails() == f"{found.server.origin}{DISCOVERY}: status 404"


async def test_an_issuer_that_lacks_its_slash_is_told_so(found: Found) -> None:
    found.publish(issuer=f"{found.server.origin}/")

    assert (await found.fails()).endswith(f"write it as {found.server.origin}/, because a slash at the end is part of it")
