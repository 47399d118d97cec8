"""Introspection whose answers are signed (RFC 9701): what counts as one, and that anything else is no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.adapters.oauth.introspection import Introspection
from extauthz.adapters.oauth.jwks import JwksSource
from extauthz.adapters.oauth.signed_answers import MAX_AGE, MEDIA_TYPE, SignedAnswerFetcher, SignedAnswers
from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.errors import Unavailable
from extauthz.verifiers.throttling import Breaker, Budget
from tests.support.http_faults import FaultyServer, Page, document, faulty_server
from tests.support.world import NOW, StillClock, ec_key, jwks, public_jwk, rsa_key, sign

ASK, KEYS, CLIENT, TOKEN = "/ask", "/keys", "api", "opaque-token-text"
GOOD = {"active": True, "client_id": "web", "token_type": "Bearer"}
HEADER = {"typ": "token-introspection+jwt"}


@dataclass
class Asker:
    """Introspection at a server whose answers a test writes."""

    server: FaultyServer
    asked: Introspection

    async def told(self, text: str) -> Any:
        """Ask, and get this text as the answer."""
        self.server.pages[ASK] = Page(text.encode(), headers=(("content-type", MEDIA_TYPE),))
        return await self.asked.ask(TOKEN)

    def answer(self, told: Any = GOOD, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good answer, with changes; None removes one."""
        plain = {"iss": self.server.origin, "aud": CLIENT, "iat": NOW, "token_introspection": told} | changes
        return {name: value for name, value in plain.items() if value is not None}


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    clock, fetcher, signed_fetcher = StillClock(), JsonFetcher(), SignedAnswerFetcher()
    async with faulty_server() as server:
        server.pages[KEYS] = document(jwks())
        discovery = Discovery(server.origin, f"{server.origin}/discovery", fetcher, clock=clock)
        keys = JwksSource(discovery, ["RS256", "ES256"], fetcher, clock=clock, jwks_uri=f"{server.origin}{KEYS}")
        asked = Introspection(
            Verification.INTROSPECTION,
            discovery,
            signed_fetcher,
            clock=clock,
            budget=Budget(1000, 16, clock=clock),
            strangers=Budget(1000, 16, clock=clock),
            breaker=Breaker(clock=clock),
            uri=f"{server.origin}{ASK}",
            credentials=(CLIENT, "secret"),
            signed=SignedAnswers(CLIENT, keys, ["RS256", "ES256"], clock=clock),
        )
        yield Asker(server, asked)
    await fetcher.close()
    await signed_fetcher.close()


async def test_a_signed_answer_is_asked_for_and_read(asker: Asker) -> None:
    assert await asker.told(sign(asker.answer(), header=HEADER)) == GOOD
    assert f"accept: {MEDIA_TYPE}\r\n".encode() in asker.server.heads[0].lower()
    assert await asker.told(sign(asker.answer(aud=["x", CLIENT]), algorithm="ES256", header={"typ": MEDIA_TYPE})) == GOOD
    assert await asker.told(sign(asker.answer({"active": False}), header=HEADER)) is Reason.TOKEN_INACTIVE
    assert asker.server.requests[KEYS] == 1


def forged(answer: dict[str, Any]) -> str:
    """Change what was signed."""
    head, _, signature = sign(answer, header=HEADER).split(".")
    return f"{head}.{sign(answer | {'jti': 'x'}).split('.')[1]}.{signature}"


BAD: dict[str, Any] = {
    "plain JSON": lambda it: '{"active": true, "client_id": "web", "token_type": "Bearer"}',
    "nothing": lambda it: "",
    "text that is not ASCII": lambda it: "ä.ä.ä",
    "an access token": lambda it: sign(it.answer(), header={"typ": "at+jwt"}),
    "no type": lambda it: sign(it.answer()),
    "crit": lambda it: sign(it.answer(), header=HEADER | {"crit": ["x"]}),
    "alg none": lambda it: sign(it.answer(), header=HEADER | {"alg": "none"}),
    "HS256": lambda it: sign(it.answer(), header=HEADER | {"alg": "HS256"}),
    "another issuer": lambda it: sign(it.answer(iss="https://evil.example"), header=HEADER),
    "no issuer": lambda it: sign(it.answer(iss=None), header=HEADER),
    "another client": lambda it: sign(it.answer(aud="web"), header=HEADER),
    "no client": lambda it: sign(it.answer(aud=None), header=HEADER),
    "an old one": lambda it: sign(it.answer(iat=NOW - MAX_AGE - 1), header=HEADER),
    "one of the future": lambda it: sign(it.answer(iat=NOW + MAX_AGE + 1), header=HEADER),
    "no time": lambda it: sign(it.answer(iat=None), header=HEADER),
    "nothing about a token": lambda it: sign(it.answer(token_introspection=None, active=True), header=HEADER),
    "text about a token": lambda it: sign(it.answer("active"), header=HEADER),
    "a stranger's key": lambda it: sign(it.answer(), key=rsa_key("other"), header=HEADER),
    "an unknown key": lambda it: sign(it.answer(), key=rsa_key("other"), header=HEADER | {"kid": "other"}),
    "no key id": lambda it: sign(it.answer(), header=HEADER | {"kid": None}),
    "another payload": lambda it: forged(it.answer()),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_is_no_signed_answer_says_nothing_of_a_token(asker: Asker, what: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await asker.told(BAD[what](asker))
    assert caught.value.reason is Reason.ISSUER_UNAVAILABLE
    assert asker.asked.outcomes["failed"] == 1
    assert await asker.told(sign(asker.answer(), header=HEADER)) == GOOD


async def test_keys_that_cannot_be_fetched_are_no_answer(asker: Asker) -> None:
    asker.server.pages[KEYS] = Page(b"{}", 500)
    with pytest.raises(Unavailable) as caught:
        await asker.told(sign(asker.answer(), header=HEADER))
    assert caught.value.reason is Reason.ISSUER_UNAVAILABLE


async def test_a_key_that_is_new_is_fetched(asker: Asker) -> None:
    assert await asker.told(sign(asker.answer(), header=HEADER)) == GOOD
    asker.server.pages[KEYS] = document({"keys": [*jwks()["keys"], public_jwk(ec_key("new"), "new")]})
    answer = sign(asker.answer(), algorithm="ES256", key=ec_key("new"), header=HEADER | {"kid": "new"})
    assert await asker.told(answer) == GOOD
    assert asker.server.requests[KEYS] == 2
