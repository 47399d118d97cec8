"""A connection that is kept for the next request, and that the other side ends just then."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.adapters.oauth.introspection import Introspection
from extauthz.core.providers import Verification
from extauthz.errors import FetchError, Unavailable
from extauthz.verifiers.throttling import Breaker, Budget
from tests.support.http_faults import listening
from tests.support.kept_connections import ConnectProxy, Ending, KeepingServer, Reaction
from tests.support.transports import Authority
from tests.support.virtual_time import in_virtual_time, now
from tests.support.world import StillClock

QUESTIONS: dict[str, dict[str, Any]] = {
    "no credential": {},
    "a bearer token": {"bearer": "a.b.c"},
    "a form": {"basic": ("id", "secret"), "form": {"token": "a.b.c"}},
}


def after_the_first(ending: Ending) -> Reaction:
    """Break every connection at its second request."""
    return lambda _, request: ending if request > 1 else None


@asynccontextmanager
async def keeping(react: Reaction, **fetching: Any) -> AsyncIterator[tuple[KeepingServer, JsonFetcher, str]]:
    """Serve, and ask: a server, a client, and the address."""
    server, fetcher = KeepingServer(react), JsonFetcher(**{"timeout": 20.0, **fetching})
    async with listening(server.answer) as server.port:
        try:
            yield server, fetcher, f"http://127.0.0.1:{server.port}/"
        finally:
            await fetcher.close()


@pytest.mark.parametrize("ending", [Ending.CLOSED, Ending.RESET])
@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_kept_connection_that_ends_without_an_answer_is_replaced(ending: Ending, question: str) -> None:
    async with keeping(after_the_first(ending)) as (server, fetcher, address):
        for _ in range(3):
            assert (await fetcher.ask(address, **QUESTIONS[question])).document == {"active": True}

    assert server.requests == [(1, 1), (1, 2), (2, 1), (3, 1)]
    assert len({(head.partition(b"\r\n")[0], body) for head, body in zip(server.heads, server.bodies, strict=True)}) == 1
    assert all((b"authorization: " in head.lower()) == bool(QUESTIONS[question]) for head in server.heads)


async def test_while_connections_are_kept_they_are_used() -> None:
    """For a minute: that is what the pool is told."""
    async with keeping(lambda *_: None) as (server, fetcher, address):
        for _ in range(3):
            await fetcher.get(address)
        assert fetcher._client._transport._pool._keepalive_expiry == 60.0  # type: ignore[attr-defined]

    assert server.requests == [(1, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize("ending", [Ending.CLOSED, Ending.RESET])
async def test_a_fresh_connection_that_ends_is_an_error(ending: Ending) -> None:
    async with keeping(lambda *_: ending) as (server, fetcher, address):
        with pytest.raises(FetchError):
            await fetcher.get(address)

    assert server.requests == [(1, 1)]


@pytest.mark.parametrize("ending", [Ending.CLOSED, Ending.RESET])
async def test_a_request_is_repeated_once(ending: Ending) -> None:
    async with keeping(lambda connection, request: ending if (connection, request) != (1, 1) else None) as (
        server,
        fetcher,
        address,
    ):
        await fetcher.get(address)
        with pytest.raises(FetchError):
            await fetcher.get(address)

    assert server.requests == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("ending", [Ending.GARBAGE, Ending.CUT])
async def test_an_answer_that_has_begun_is_not_asked_for_again(ending: Ending) -> None:
    async with keeping(after_the_first(ending)) as (server, fetcher, address):
        await fetcher.get(address)
        with pytest.raises(FetchError):
            await fetcher.get(address)

    assert server.requests == [(1, 1), (1, 2)]


async def test_a_silent_connection_is_not_replaced() -> None:
    async with keeping(after_the_first(Ending.SILENT)) as (server, fetcher, address):
        await fetcher.get(address)
        fetcher.timeout = 0.3
        with pytest.raises(FetchError, match=r"within 0\.3 s"):
            await fetcher.get(address)

    assert server.requests == [(1, 1), (1, 2)]


def test_both_attempts_have_one_deadline() -> None:
    def react(connection: int, request: int) -> Ending | None:
        return Ending.SILENT if connection > 1 else Ending.RESET if request > 1 else None

    async def work() -> tuple[float, list[tuple[int, int]]]:
        async with keeping(react) as (server, fetcher, address):
            await fetcher.get(address)
            server.pause, fetcher.timeout = 0.6, 0.8
            started = now()
            with pytest.raises(FetchError, match=r"within 0\.8 s"):
                await fetcher.get(address)
            return now() - started, server.requests

    lasted, requests = in_virtual_time(work)
    assert requests == [(1, 1), (1, 2), (2, 1)]
    assert lasted == pytest.approx(0.8, abs=0.01), "the second attempt has no deadline of its own"


async def test_the_breaker_counts_what_became_of_the_question() -> None:
    react: list[Reaction] = [after_the_first(Ending.RESET)]
    clock = StillClock()
    breaker = Breaker(clock=clock, failures=1)
    async with keeping(lambda connection, request: react[0](connection, request)) as (server, fetcher, address):
        discovery = Discovery("https://acme.okta.com", "https://acme.okta.com/x", fetcher, clock=clock)
        budgets = {"budget": Budget(100, clock=clock), "strangers": Budget(100, clock=clock)}
        asked = Introspection(
            Verification.INTROSPECTION,
            discovery,
            fetcher,
            clock=clock,
            breaker=breaker,
            uri=address,
            credentials=("a", "b"),
            **budgets,
        )
        for _ in range(2):
            assert await asked.ask("a.b.c") == {"active": True}
        assert server.requests == [(1, 1), (1, 2), (2, 1)]
        assert (breaker.closed, asked.outcomes) == (True, {"answered": 2, "failed": 0, "proxy_refused": 0, "shed": 0})

        await asked.ask("a.b.c")
        react[0] = lambda *_: Ending.RESET
        with pytest.raises(Unavailable):
            await asked.ask("a.b.c")
        assert (breaker.closed, asked.outcomes["failed"]) == (False, 1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("ending", [Ending.CLOSED, Ending.RESET])
async def test_the_same_through_a_proxy(authority: Authority, ending: Ending) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("server"))
    server, proxy = KeepingServer(after_the_first(ending)), ConnectProxy(0)
    async with listening(server.answer, tls) as proxy.target, listening(proxy.answer) as proxy.port:
        fetcher = JsonFetcher(timeout=20.0, proxy=proxy.address, trust=authority.file.read_bytes())
        try:
            for _ in range(2):
                answer = await fetcher.ask("https://localhost:8443/", basic=("id", "secret"), form={"token": "a.b.c"})
                assert answer.document == {"active": True}
        finally:
            await fetcher.close()

    assert server.requests == [(1, 1), (1, 2), (2, 1)]
    assert [head.split(b"\r\n")[0] for head in proxy.heads] == [b"CONNECT localhost:8443 HTTP/1.1"] * 2
