"""The keys of an issuer, from a real server that is sometimes wrong, slow, down or silent."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from extauthz.adapters.oauth import discovery
from extauthz.adapters.oauth.discovery import LIFETIME, Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.adapters.oauth.jwks import JwksSource
from extauthz.adapters.oauth.published_keys import KeyFlaw
from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from tests.support import http_faults
from tests.support.http_faults import DISCOVERY, FaultyServer, Page, document
from tests.support.waiting import settled, until
from tests.support.world import StillClock, base64url, ec_key, jwks, key_set, public_jwk, rsa_key

KEYS = "/v1/keys"
ALGORITHMS = ("RS256", "ES256")
DAY = 24 * 3600.0
HASTY, PATIENT = 0.4, 20.0
"""Seconds: for a server that does not answer, and for one that does."""


class Naps:
    """Pauses that pass at once on the clock of a test, and are noted; `begun` tells of the first. They last until `over` is set."""

    def __init__(self, clock: StillClock) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Event()
        self.over.set()
        self._clock = clock
        self.begun = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.begun.set()
        await asyncio.sleep(0)
        await self.over.wait()
        self._clock.advance(seconds)


@dataclass
class Issuer:
    """A key source and the server that it asks."""

    server: FaultyServer
    source: JwksSource
    clock: StillClock
    fetcher: JsonFetcher

    def publish(self, *keys: dict[str, Any]) -> None:
        """Serve a good discovery document and these keys, rsa-1 and ec-1 without any."""
        self.server.pages[DISCOVERY] = document({"issuer": self.server.origin, "jwks_uri": f"{self.server.origin}{KEYS}"})
        self.server.pages[KEYS] = document({"keys": list(keys)} if keys else jwks())

    async def fails(self) -> None:
        """Load, and get the one error that a key source has."""
        with pytest.raises(Unavailable) as caught:
            await self.source.load()
        assert caught.value.reason is Reason.KEY_SET_UNAVAILABLE


def source_of(issuer: str, fetcher: JsonFetcher, clock: StillClock, algorithms: Iterable[str] = ALGORITHMS) -> JwksSource:
    """Return a source that looks for the discovery document where OpenID Connect puts it."""
    discovery = Discovery(issuer, f"{issuer.rstrip('/')}/.well-known/openid-configuration", fetcher, clock=clock)
    return JwksSource(discovery, algorithms, fetcher, clock=clock)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    clock = StillClock()
    fetcher = JsonFetcher(timeout=PATIENT)
    async with http_faults.faulty_server() as server:
        yield Issuer(server, source_of(server.origin, fetcher, clock), clock, fetcher)
        await fetcher.close()


@pytest.fixture
def naps(issuer: Issuer) -> Naps:
    """Let the pauses of the source pass at once."""
    issuer.source._sleep = naps = Naps(issuer.clock)
    return naps


# --- the way there


async def test_keys_are_found_through_the_discovery_document(issuer: Issuer) -> None:
    issuer.publish()
    assert (issuer.source.keys(), issuer.source.fetched_at) == (None, 0.0)
    keys = await issuer.source.load()

    assert sorted(keys) == [("ec-1", "ES256"), ("rsa-1", "RS256")]
    assert issuer.source.keys() is keys
    assert issuer.source.fetched_at == issuer.clock.now()
    assert issuer.server.requests == {DISCOVERY: 1, KEYS: 1}


async def test_nothing_is_fetched_before_it_is_asked_for(issuer: Issuer) -> None:
    issuer.publish()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert issuer.server.connections == 0


async def test_an_issuer_may_end_with_a_slash(issuer: Issuer) -> None:
    """The document stands below the path without the slash (OpenID Connect Discovery 4), the names are compared as they are."""
    name = f"{issuer.server.origin}/"
    fetcher = JsonFetcher(timeout=PATIENT)
    source = source_of(name, fetcher, issuer.clock)
    issuer.publish()
    with pytest.raises(Unavailable):
        await source.load()
    issuer.server.pages[DISCOVERY] = document({"issuer": name, "jwks_uri": f"{issuer.server.origin}{KEYS}"})
    issuer.clock.advance(10)

    assert sorted(await source.load()) == [("ec-1", "ES256"), ("rsa-1", "RS256")]
    await fetcher.close()


Change = Callable[[Issuer], object]

WRONG_DISCOVERIES: dict[str, Change] = {
    "absent": lambda it: it.server.pages.pop(DISCOVERY),
    "another issuer": lambda it: {"issuer": "https://evil.example"},
    "an issuer with a slash": lambda it: {"issuer": f"{it.server.origin}/"},
    "no issuer": lambda it: {"issuer": None},
    "a list of issuers": lambda it: {"issuer": [it.server.origin]},
    "no address of keys": lambda it: {"jwks_uri": None},
    "an address that is a number": lambda it: {"jwks_uri": 5},
    "an address that is relative": lambda it: {"jwks_uri": KEYS},
    "an address that is empty": lambda it: {"jwks_uri": ""},
    "an address of a file": lambda it: {"jwks_uri": "file:///etc/passwd"},
    "an address with a password": lambda it: {"jwks_uri": f"http://user:password@127.0.0.1:{it.server.port}{KEYS}"},
    "plain http on another host": lambda it: {"jwks_uri": f"http://0.0.0.0:{it.server.port}{KEYS}"},
    "an address that is text only in JSON": lambda it: {"jwks_uri": "https://\ud800/"},
    "a path that is text only in JSON": lambda it: {"jwks_uri": f"{it.server.origin}/\ud800"},
    "a port that is none": lambda it: {"jwks_uri": "http://127.0.0.1:99999/"},
}


@pytest.mark.parametrize("name", WRONG_DISCOVERIES)
async def test_a_wrong_discovery_document_is_not_followed(issuer: Issuer, name: str) -> None:
    issuer.publish()
    change = WRONG_DISCOVERIES[name](issuer)
    if isinstance(change, dict):
        good = {"issuer": issuer.server.origin, "jwks_uri": f"{issuer.server.origin}{KEYS}"}
        issuer.server.pages[DISCOVERY] = document({key: value for key, value in (good | change).items() if value is not None})
    await issuer.fails()

    assert issuer.server.requests == {DISCOVERY: 1}
    assert issuer.source.keys() is None


WRONG_PAGES = {
    "500": Page(b"{}", 500),
    "404": Page(b"{}", 404),
    "a redirect": Page(b"{}", 302, (("location", "http://127.0.0.1:1/elsewhere"),)),
    "garbage": Page(b"\x00\xff garbage"),
    "HTML": Page(b"<html>"),
    "a list": document([]),
    "null": document(None),
    "a text": document("keys"),
    "truncated": Page(b'{"keys": []}', missing=100),
    "closed": Page(raw=b""),
    "huge": Page(b'{"keys": [' + b" " * 600 * 1024 + b"]}"),
    "silent": Page(wait=30),
    "slow": Page(b"{}" + b" " * 20_000, slowly=0.05),
}


@pytest.mark.parametrize("path", [DISCOVERY, KEYS])
@pytest.mark.parametrize("name", WRONG_PAGES)
async def test_a_wrong_page_gives_no_keys_and_takes_none_away(issuer: Issuer, name: str, path: str) -> None:
    issuer.publish()
    good = issuer.server.pages[path]
    limit = HASTY if name in ("silent", "slow") else PATIENT
    issuer.server.pages[path] = WRONG_PAGES[name]
    issuer.fetcher.timeout = limit
    await issuer.fails()
    assert issuer.source.keys() is None
    assert "/elsewhere" not in issuer.server.requests

    # The same once more, with good keys in memory: they stay.
    issuer.server.pages[path] = good
    issuer.fetcher.timeout = PATIENT
    issuer.clock.advance(10)
    keys = await issuer.source.load()
    fetched_at = issuer.source.fetched_at
    issuer.server.pages[path] = WRONG_PAGES[name]
    issuer.fetcher.timeout = limit
    issuer.clock.advance(LIFETIME + 1)
    if path == KEYS:
        await issuer.fails()
        assert issuer.source.keys() is keys
        assert issuer.source.fetched_at == fetched_at
    else:
        assert await issuer.source.load() == keys, "the last good document still says where the keys are"


async def test_where_the_keys_are_is_asked_again_when_they_are_not_there(issuer: Issuer) -> None:
    issuer.publish()
    await issuer.source.load()
    issuer.server.pages["/moved"] = issuer.server.pages.pop(KEYS)
    issuer.server.pages[DISCOVERY] = document({"issuer": issuer.server.origin, "jwks_uri": f"{issuer.server.origin}/moved"})
    issuer.clock.advance(10)
    await issuer.fails()
    issuer.clock.advance(10)
    await issuer.source.load()

    assert issuer.server.requests == {DISCOVERY: 2, KEYS: 2, "/moved": 1}


async def test_a_document_that_cannot_be_had_is_not_asked_for_at_every_turn(issuer: Issuer) -> None:
    issuer.publish()
    await issuer.source.load()
    issuer.server.pages[DISCOVERY] = Page(b"{}", 500)
    issuer.clock.advance(LIFETIME)
    for _ in range(4):
        await issuer.source.load()
        issuer.clock.advance(10)

    assert issuer.server.requests == {DISCOVERY: 3, KEYS: 5}


# --- keys

GOOD = public_jwk(rsa_key(), "good")
GOOD_MODULUS = rsa_key().public_key().public_numbers().n
P384 = ec.generate_private_key(ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
UNUSABLE: dict[str, tuple[KeyFlaw, object]] = {
    "no kid": (KeyFlaw.NO_ID, {name: value for name, value in GOOD.items() if name != "kid"}),
    "an empty kid": (KeyFlaw.NO_ID, GOOD | {"kid": ""}),
    "a kid that is a number": (KeyFlaw.NO_ID, GOOD | {"kid": 5}),
    "a kid of 257 characters": (KeyFlaw.NO_ID, GOOD | {"kid": "k" * 257}),
    "for encryption": (KeyFlaw.USE, GOOD | {"use": "enc"}),
    "a use that is a list": (KeyFlaw.USE, GOOD | {"use": ["sig"]}),
    "operations without verify": (KeyFlaw.USE, GOOD | {"key_ops": ["encrypt"]}),
    "another algorithm": (KeyFlaw.ALGORITHM, GOOD | {"alg": "RS512"}),
    "an algorithm of other keys": (KeyFlaw.ALGORITHM, GOOD | {"alg": "ES256"}),
    "an algorithm that is a list": (KeyFlaw.ALGORITHM, GOOD | {"alg": ["RS256"]}),
    "RSA-OAEP": (KeyFlaw.ALGORITHM, GOOD | {"alg": "RSA-OAEP"}),
    "another key type": (KeyFlaw.ALGORITHM, GOOD | {"kty": "EC"}),
    "no key type": (KeyFlaw.ALGORITHM, {name: value for name, value in GOOD.items() if name != "kty"}),
    "an unknown key type": (KeyFlaw.ALGORITHM, GOOD | {"kty": "LWE"}),
    "a symmetric key": (KeyFlaw.SECRET, HMACAlgorithm.to_jwk(b"secret" * 10, as_dict=True) | {"kid": "oct", "alg": "HS256"}),
    "a symmetric key that says RS256": (
        KeyFlaw.SECRET,
        HMACAlgorithm.to_jwk(b"secret" * 10, as_dict=True) | {"kid": "oct", "alg": "RS256"},
    ),
    "a private key": (KeyFlaw.SECRET, RSAAlgorithm.to_jwk(rsa_key(), as_dict=True) | {"kid": "private"}),
    "a private P-256 key": (KeyFlaw.SECRET, ECAlgorithm.to_jwk(ec_key(), as_dict=True) | {"kid": "private"}),
    "RSA of 1024 bits": (KeyFlaw.RSA_SIZE, public_jwk(rsa_key("small", 1024), "small")),
    "P-384": (KeyFlaw.CURVE, ECAlgorithm.to_jwk(P384.public_key(), as_dict=True) | {"kid": "p384"}),
    "P-384 that says ES256": (KeyFlaw.CURVE, ECAlgorithm.to_jwk(P384.public_key(), as_dict=True) | {"kid": "p384", "alg": "ES256"}),
    "Ed25519": (KeyFlaw.ALGORITHM, OKPAlgorithm.to_jwk(ED25519.public_key(), as_dict=True) | {"kid": "ed"}),
    "no modulus": (KeyFlaw.MALFORMED, {name: value for name, value in GOOD.items() if name != "n"}),
    "a modulus that is a number": (KeyFlaw.MALFORMED, GOOD | {"n": 5}),
    "a modulus of garbage": (KeyFlaw.MALFORMED, GOOD | {"n": "%%%"}),
    "an exponent of zero": (KeyFlaw.MALFORMED, GOOD | {"e": "AA"}),
    "an exponent that is null": (KeyFlaw.MALFORMED, GOOD | {"e": None}),
    "a point that is not on the curve": (KeyFlaw.MALFORMED, public_jwk(ec_key(), "ec") | {"y": "A" * 43}),
    "a point that is missing": (KeyFlaw.MALFORMED, public_jwk(ec_key(), "ec") | {"y": ""}),
    "an empty object": (KeyFlaw.NO_ID, {}),
    "null": (KeyFlaw.NO_KEY, None),
    "a text": (KeyFlaw.NO_KEY, "key"),
    "a list": (KeyFlaw.NO_KEY, [GOOD]),
    "operations that are null": (KeyFlaw.USE, GOOD | {"key_ops": None}),
    "operations that are a number": (KeyFlaw.USE, GOOD | {"key_ops": 5}),
    "an exponent of one": (KeyFlaw.MALFORMED, GOOD | {"e": "AQ"}),
    "an exponent of three": (KeyFlaw.EXPONENT, GOOD | {"e": "Aw"}),
    "an even exponent": (KeyFlaw.MALFORMED, GOOD | {"e": "AQAC"}),
    "an exponent of 257 bits": (KeyFlaw.EXPONENT, GOOD | {"e": base64url((2**256 + 1).to_bytes(33))}),
    "RSA of more than 8192 bits": (KeyFlaw.RSA_SIZE, GOOD | {"n": base64url((3**5170).to_bytes(1025))}),
    "a modulus with a small factor": (KeyFlaw.WEAK, GOOD | {"n": base64url((GOOD_MODULUS + 3 - GOOD_MODULUS % 3).to_bytes(257))}),
}


def left_out(caplog: pytest.LogCaptureFixture) -> list[list[str]]:
    """Return what each log line says of keys that are not used."""
    return [record.__dict__["keys"] for record in caplog.records if record.message == "keys left out"]


@pytest.mark.parametrize("name", UNUSABLE)
async def test_an_unusable_key_is_left_out(issuer: Issuer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    flaw, key = UNUSABLE[name]
    issuer.server.pages[KEYS] = document({"keys": [key]})
    issuer.server.pages[DISCOVERY] = document({"issuer": issuer.server.origin, "jwks_uri": f"{issuer.server.origin}{KEYS}"})
    await issuer.fails()
    assert issuer.source.keys() is None

    issuer.server.pages[KEYS] = document({"keys": [key, GOOD | {"kid": "other"}, key]})
    issuer.clock.advance(10)
    assert list(await issuer.source.load()) == [("other", "RS256")]
    ((line,),) = left_out(caplog)
    assert line.endswith(f": {flaw}")


@pytest.mark.parametrize(
    "more",
    [{"alg": None}, {"use": None}, {"key_ops": ["verify"]}, {"x5c": ["ignored"], "x5t": 5}, {"kid": "k" * 256}, {"kid": "ключ"}],
    ids=str,
)
async def test_what_is_left_unsaid_is_no_fault(issuer: Issuer, more: dict[str, object]) -> None:
    key = {name: value for name, value in (GOOD | more).items() if value is not None}
    issuer.publish(key)

    assert list(await issuer.source.load()) == [(key["kid"], "RS256")]


async def test_a_name_of_two_keys_of_one_algorithm_names_none(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    twice = public_jwk(rsa_key("second"), "good")
    issuer.publish(GOOD, twice, public_jwk(ec_key(), "ec-1"))
    assert list(await issuer.source.load()) == [("ec-1", "ES256")]

    issuer.publish(GOOD, twice)
    issuer.clock.advance(10)
    assert await issuer.source.load() == {}, "keys that a well-formed document no longer names are gone"
    assert left_out(caplog) == [[f"'good': {KeyFlaw.AMBIGUOUS}"]]


SAME = {
    "published twice": [GOOD, GOOD],
    "three times": [GOOD, GOOD, GOOD],
    "with and without alg": [GOOD, {name: value for name, value in GOOD.items() if name != "alg"}],
    "with a new certificate": [GOOD | {"x5c": ["old"], "x5t": "old"}, GOOD | {"x5c": ["new"], "x5t": "new"}],
    "written with a leading zero": [GOOD, GOOD | {"n": base64url(b"\0" + GOOD_MODULUS.to_bytes(256)), "e": "AAEAAQ"}],
}


@pytest.mark.parametrize("name", SAME)
async def test_a_key_that_is_published_twice_is_one_key(issuer: Issuer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    issuer.publish(*SAME[name])
    (key,) = (await issuer.source.load()).values()

    assert (key.name, left_out(caplog)) == (("good", "RS256"), [])


@pytest.mark.parametrize("turned", [False, True])
async def test_keys_of_two_algorithms_may_share_a_name(issuer: Issuer, turned: bool) -> None:
    keys = [GOOD, public_jwk(ec_key(), "good")]
    issuer.publish(*(reversed(keys) if turned else keys))

    assert sorted(await issuer.source.load()) == [("good", "ES256"), ("good", "RS256")]


async def test_what_is_left_out_is_logged_when_it_changes(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    small, for_encryption = public_jwk(rsa_key("small", 1024), "small"), GOOD | {"kid": "e\x1b[2J" * 50, "use": "enc"}
    for keys in ([GOOD, small], [GOOD, small], [small, GOOD, small], [GOOD, small, for_encryption], [GOOD], [GOOD], [GOOD, small]):
        issuer.publish(*keys)
        issuer.clock.advance(600)
        await issuer.source.load()

    one, two = f"'small': {KeyFlaw.RSA_SIZE}", f"{('e' + chr(27) + '[2J') * 16!r}: {KeyFlaw.USE}"
    assert left_out(caplog) == [[one], [one, two], [one]]
    assert [record.message for record in caplog.records].count("no key is left out any more") == 1


@pytest.mark.parametrize(
    ("keys", "level"),
    [
        ([GOOD | {"kid": "enc", "use": "enc"}, GOOD | {"kid": "other", "alg": "PS256"}], logging.INFO),
        ([GOOD | {"kid": "enc", "use": "enc"}, public_jwk(rsa_key("small", 1024), "small")], logging.WARNING),
    ],
    ids=["keys for something else", "a key that is no good"],
)
async def test_keys_for_something_else_are_no_reason_to_warn(
    issuer: Issuer, keys: list[dict[str, Any]], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issuer.publish(GOOD, *keys)
    await issuer.source.load()

    assert [record.levelno for record in caplog.records if record.message == "keys left out"] == [level]


async def test_of_many_keys_that_are_left_out_a_few_are_named(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    issuer.publish(GOOD, *(GOOD | {"kid": f"k{number}", "use": "enc"} for number in range(300)))
    await issuer.source.load()

    (lines,) = left_out(caplog)
    assert (len(lines), lines[0], lines[-1]) == (11, f"'k0': {KeyFlaw.USE}", "and 290 more")


async def test_a_first_document_without_a_usable_key_is_no_answer(issuer: Issuer) -> None:
    issuer.publish(public_jwk(rsa_key(), "rsa-1") | {"use": "enc"})
    await issuer.fails()
    assert issuer.source.keys() is None


async def test_an_issuer_behind_https_names_no_keys_that_are_not(issuer: Issuer) -> None:
    """A document of an https issuer must not send us to what listens on this machine."""
    issuer.publish()
    name = "https://acme.okta.com"
    issuer.server.pages[DISCOVERY] = document({"issuer": name, "jwks_uri": f"{issuer.server.origin}{KEYS}"})
    fetcher = JsonFetcher(timeout=PATIENT)
    discovery = Discovery(name, f"{issuer.server.origin}{DISCOVERY}", fetcher, clock=issuer.clock)
    source = JwksSource(discovery, ALGORITHMS, fetcher, clock=issuer.clock)
    try:
        with pytest.raises(Unavailable):
            await source.load()
    finally:
        await fetcher.close()


async def test_an_empty_key_set_takes_no_key_away(issuer: Issuer) -> None:
    issuer.publish()
    keys = await issuer.source.load()
    issuer.server.pages[KEYS] = document({"keys": []})
    issuer.clock.advance(10)
    await issuer.fails()

    assert issuer.source.keys() is keys


async def test_only_the_algorithms_of_the_provider_count(issuer: Issuer) -> None:
    fetcher = JsonFetcher(timeout=PATIENT)
    source = source_of(issuer.server.origin, fetcher, issuer.clock, ["ES256"])
    issuer.publish()

    assert list(await source.load()) == [("ec-1", "ES256")]
    await fetcher.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["kid", "kty", "alg", "use", "n", "e", "crv", "x", "y", "oth", "x5c", "key_ops"])


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.dictionaries(members, json_values, max_size=3), max_size=3), other=json_values)
def test_any_key_set_is_read_or_refused(changes: list[dict[str, object]], other: object) -> None:
    """Whatever JSON an issuer sends, the answer is keys or a ValueError."""
    good = [GOOD, public_jwk(ec_key(), "ec-1")]
    spoilt = [good[number % 2] | change for number, change in enumerate(changes)]
    for content in ({"keys": [*spoilt, other]}, {"keys": other}, other):
        try:
            keys = key_set(content, ALGORITHMS)
        except ValueError:
            continue
        assert keys.keys() == {key.name for key in keys.values()}
        assert {key.algorithm for key in keys.values()} <= set(ALGORITHMS)


# --- time


async def test_good_keys_serve_for_a_day(issuer: Issuer) -> None:
    issuer.publish()
    keys = await issuer.source.load()
    issuer.server.pages.clear()
    for _ in range(24):
        issuer.clock.advance(3600)
        await issuer.fails()
        assert issuer.source.keys() is keys
    issuer.clock.advance(1)

    assert issuer.source.keys() is None
    issuer.publish()
    issuer.clock.advance(10)
    assert await issuer.source.load() == issuer.source.keys()


async def test_the_age_of_keys_is_not_told_by_the_wall_clock(issuer: Issuer) -> None:
    issuer.publish()
    keys = await issuer.source.load()
    issuer.clock.wall += 10 * DAY
    assert issuer.source.keys() is keys

    issuer.clock.ticks += DAY + 1
    issuer.clock.wall -= 20 * DAY
    assert issuer.source.keys() is None


async def test_after_a_failure_nobody_asks_for_a_while(issuer: Issuer) -> None:
    issuer.server.pages[DISCOVERY] = Page(b"{}", 500)
    await issuer.fails()
    for _ in range(20):
        with pytest.raises(Unavailable):
            issuer.source.load()
        issuer.clock.advance(0.2)
    assert issuer.server.requests == {DISCOVERY: 1}

    issuer.clock.advance(1.1)
    await issuer.fails()
    assert issuer.server.requests == {DISCOVERY: 2}


async def test_a_hundred_that_ask_at_once_cause_one_fetch(issuer: Issuer) -> None:
    issuer.publish()
    issuer.server.pages[KEYS] = document(jwks(), wait=0.1)
    loads = [asyncio.ensure_future(issuer.source.load()) for _ in range(60)]
    await issuer.server.seen.wait()
    loads += [asyncio.ensure_future(issuer.source.load()) for _ in range(40)]
    unknown = issuer.source.reload_for_unknown_key()
    assert unknown is not None
    results = await asyncio.gather(*loads, unknown)

    assert issuer.server.requests == {DISCOVERY: 1, KEYS: 1}
    assert len(results) == 101
    assert all(keys is results[0] for keys in results)


async def test_a_hundred_that_ask_at_once_share_one_failure(issuer: Issuer) -> None:
    issuer.server.pages[DISCOVERY] = Page(b"{}", 500, wait=0.05)
    results = await asyncio.gather(*(issuer.source.load() for _ in range(100)), return_exceptions=True)

    assert {type(result) for result in results} == {Unavailable}
    assert issuer.server.requests == {DISCOVERY: 1}


async def test_an_unknown_key_causes_one_fetch_in_five_minutes(issuer: Issuer) -> None:
    issuer.publish()
    await issuer.source.load()
    issuer.publish(GOOD)
    pending, joined = issuer.source.reload_for_unknown_key(), issuer.source.reload_for_unknown_key()
    assert pending is not None
    assert joined is not None
    assert list(await pending) == list(await joined) == [("good", "RS256")]
    assert issuer.server.requests == {DISCOVERY: 1, KEYS: 2}, "the cool-down begins before the fetch"

    issuer.clock.advance(299)
    assert issuer.source.reload_for_unknown_key() is None
    issuer.clock.advance(1)
    again = issuer.source.reload_for_unknown_key()
    assert again is not None
    await again
    assert issuer.server.requests == {DISCOVERY: 1, KEYS: 3}, "where the keys are is known"


async def unknown_key(source: JwksSource, askers: int = 20) -> set[str]:
    """Ask for a key that the set lacks, so many times at once; return what became of that."""

    async def ask() -> str:
        pending = source.reload_for_unknown_key()
        if pending is None:
            return "none"
        try:
            await pending
        except Unavailable as unavailable:
            return unavailable.reason.value
        return "fetched"

    return set(await asyncio.gather(*(ask() for _ in range(askers))))


async def test_after_a_failure_the_attempts_for_unknown_keys_are_seconds_apart(issuer: Issuer, naps: Naps) -> None:
    """Whoever asks waits for the next attempt, so many as they are; none of them can make it come sooner, or use it up."""
    issuer.publish()
    keys = await issuer.source.load()
    issuer.server.pages[KEYS] = Page(b"{}", 500)
    for attempt in range(7):
        assert await unknown_key(issuer.source) == {"key_set_unavailable"}
        assert issuer.server.requests[KEYS] == 2 + attempt
    assert issuer.source.keys() is keys
    assert naps.asked == [1, 2, 4, 5, 5, 5]

    issuer.publish(GOOD)
    assert await unknown_key(issuer.source) == {"fetched"}
    assert list(issuer.source.keys() or ()) == [("good", "RS256")]
    assert (naps.asked.pop(), issuer.server.requests[KEYS]) == (5, 9)


async def test_the_cool_down_starts_at_the_fetch_that_succeeded(issuer: Issuer, naps: Naps) -> None:
    issuer.publish()
    await issuer.source.load()
    issuer.server.pages[KEYS] = Page(b"{}", 500)
    for _ in range(5):
        await unknown_key(issuer.source)
    issuer.clock.advance(200)
    issuer.publish()
    assert await unknown_key(issuer.source) == {"fetched"}
    assert naps.asked == [1, 2, 4, 5, 0], "whoever comes after the pause waits no longer"

    issuer.clock.advance(299)
    assert await unknown_key(issuer.source) == {"none"}
    issuer.clock.advance(1)
    issuer.server.pages[KEYS] = Page(b"{}", 500)
    assert await unknown_key(issuer.source) == {"key_set_unavailable"}
    assert await unknown_key(issuer.source) == {"key_set_unavailable"}
    assert naps.asked[5:] == [1], "the back-off begins anew"


async def test_a_refresh_starts_no_cool_down(issuer: Issuer) -> None:
    """Else a key that is published a moment after it would be unknown for five minutes."""
    issuer.publish()
    await issuer.source.load()
    for _ in range(2):
        assert await unknown_key(issuer.source) == {"fetched"}
        issuer.clock.advance(300)
        await issuer.source.load()
        issuer.clock.advance(1)


async def test_an_issuer_that_fails_is_asked_at_most_fifteen_times_a_minute(issuer: Issuer, naps: Naps) -> None:
    """By the background refresh, by tokens with unknown keys and by tokens that wait for the first keys, all together."""
    issuer.publish()
    issuer.server.pages[KEYS] = Page(b"{}", 500)
    refresh = asyncio.create_task(issuer.source.run())
    started = issuer.clock.ticks
    attempts: dict[float, int] = {}
    while issuer.clock.ticks < started + 120:
        await unknown_key(issuer.source)
        attempts[issuer.clock.ticks - started] = issuer.server.requests[KEYS]
        with contextlib.suppress(Unavailable):
            await issuer.source.load()
        attempts[issuer.clock.ticks - started] = issuer.server.requests[KEYS]
    await stopped(refresh)

    first, second = (max(count for moment, count in attempts.items() if moment <= end) for end in (60, 120))
    assert first <= 15
    assert second - first <= 12
    assert [nap for nap in naps.asked if nap][:5] == [1, 2, 4, 5, 5]


async def test_all_who_wait_after_a_failure_wait_for_the_same_attempt(issuer: Issuer, naps: Naps) -> None:
    issuer.publish()
    issuer.server.pages[KEYS] = Page(b"{}", 500)
    await issuer.fails()
    naps.over.clear()
    unknown = [asyncio.ensure_future(unknown_key(issuer.source)) for _ in range(10)]
    await naps.begun.wait()
    with pytest.raises(Unavailable):
        await issuer.source.load()
    refresh = asyncio.create_task(issuer.source.run())
    await settled()
    assert not any(waiter.done() for waiter in unknown)
    issuer.publish()
    naps.over.set()

    assert await asyncio.gather(*unknown) == [{"fetched"}] * 10
    await stopped(refresh)
    assert len(issuer.source.keys() or ()) == 2
    assert naps.asked[0] == 1
    assert issuer.source.outcomes == {"ok": 1, "failed": 1, "proxy_refused": 0}


async def test_the_keys_tell_that_a_token_named_a_later_one(issuer: Issuer, naps: Naps) -> None:
    issuer.publish()
    await issuer.source.load()
    assert not issuer.source.is_behind
    issuer.clock.advance(10)
    issuer.server.pages[KEYS] = Page(b"{}", 500)
    await unknown_key(issuer.source)
    assert issuer.source.is_behind
    issuer.publish()
    await unknown_key(issuer.source)
    assert not issuer.source.is_behind
    issuer.clock.advance(10)
    assert await unknown_key(issuer.source) == {"none"}
    assert issuer.source.is_behind, "within the cool-down"
    await issuer.source.load()
    assert not issuer.source.is_behind


async def test_a_waiter_that_leaves_takes_nothing_with_it(issuer: Issuer) -> None:
    issuer.publish()
    issuer.server.pages[DISCOVERY] = Page(issuer.server.pages[DISCOVERY].body, wait=0.1)
    first, second = (asyncio.ensure_future(issuer.source.load()) for _ in range(2))
    await issuer.server.seen.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    assert sorted(await second) == [("ec-1", "ES256"), ("rsa-1", "RS256")]
    assert issuer.server.requests == {DISCOVERY: 1, KEYS: 1}


async def test_keys_land_when_every_waiter_has_left(issuer: Issuer) -> None:
    issuer.publish()
    issuer.server.pages[DISCOVERY] = Page(issuer.server.pages[DISCOVERY].body, wait=0.1)
    waiter = asyncio.ensure_future(issuer.source.load())
    await issuer.server.seen.wait()
    waiter.cancel()
    await asyncio.wait([waiter])
    joined = issuer.source.load()
    await joined

    assert issuer.source.keys() is not None
    assert issuer.server.requests == {DISCOVERY: 1, KEYS: 1}


async def test_a_failure_that_nobody_waits_for_is_no_noise(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """The next test would see "Task exception was never retrieved"; here it is asked for at once."""
    issuer.server.pages[DISCOVERY] = Page(b"{}", 500, wait=0.05)
    waiter = asyncio.ensure_future(issuer.source.load())
    await issuer.server.seen.wait()
    waiter.cancel()
    await until(lambda: issuer.source.outcomes["failed"], seconds=10)
    await settled()
    gc.collect()

    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


# --- the background refresh


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, naps: Naps) -> None:
    """Let minutes pass at once."""
    monkeypatch.setattr(discovery, "FIRST_RETRY", 0.0)


async def test_the_background_refresh_keeps_to_its_intervals(issuer: Issuer, naps: Naps) -> None:
    issuer.publish()
    task = asyncio.create_task(issuer.source.run())
    await until(lambda: issuer.server.requests[KEYS] >= 3, seconds=10)
    issuer.server.pages[KEYS] = Page(b"{}", 500)
    failed = len(naps.asked)
    await until(lambda: issuer.source.outcomes["failed"] >= 6, seconds=10)
    issuer.publish()
    healed = len(naps.asked)
    await until(lambda: naps.asked[-1] == 600, seconds=10)
    await stopped(task)

    assert set(naps.asked[1:failed]) == {600}
    assert [nap for nap in naps.asked[failed:healed] if nap not in (0, 600)][:5] == [1, 2, 4, 5, 5]


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.usefixtures("quick")
async def test_keys_are_refreshed_in_the_background(issuer: Issuer) -> None:
    issuer.publish()
    task = asyncio.create_task(issuer.source.run())
    await until(lambda: issuer.server.requests[KEYS] >= 3, seconds=10)
    issuer.publish(GOOD)
    await until(lambda: list(issuer.source.keys() or ()) == [("good", "RS256")], seconds=10)

    assert not task.done()
    await stopped(task)


@pytest.mark.parametrize(
    "page",
    [
        Page(b"{}", 500),
        Page(b"garbage"),
        document({"issuer": "https://evil.example"}),
        # An error of any other kind than Unavailable would end the refresh, without a word, until the next restart.
        document({"issuer": "ORIGIN", "jwks_uri": "http://127.0.0.1:99999/"}),
        document({"issuer": "ORIGIN", "jwks_uri": "ORIGIN/odd"}),
    ],
    ids=["500", "garbage", "another issuer", "a bad port", "odd operations"],
)
@pytest.mark.usefixtures("quick")
async def test_the_refresh_outlives_every_failure(issuer: Issuer, page: Page) -> None:
    issuer.publish()
    good = issuer.server.pages[DISCOVERY]
    issuer.server.pages["/odd"] = document({"keys": [GOOD | {"key_ops": None}]})
    issuer.server.pages[DISCOVERY] = Page(page.body.replace(b"ORIGIN", issuer.server.origin.encode()), page.status)
    task = asyncio.create_task(issuer.source.run())
    await until(lambda: task.done() or issuer.server.requests[DISCOVERY] >= 3, seconds=10)
    ended = task.done()
    issuer.server.pages[DISCOVERY] = good
    if not ended:
        await until(lambda: issuer.source.keys() is not None, seconds=10)
    await stopped(task)

    assert not ended


async def test_what_went_wrong_is_logged_once_per_fetch(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    issuer.server.pages[DISCOVERY] = Page(b"a secret of theirs", 500)
    with caplog.at_level(logging.INFO):
        await issuer.fails()
    (record,) = (record for record in caplog.records if record.name.startswith("extauthz"))

    assert (record.levelname, record.__dict__["issuer"]) == ("WARNING", issuer.server.origin)
    assert "status 500" in record.__dict__["cause"]
    assert "secret" not in str(record.__dict__)


# --- a mirror of the keys


async def test_a_named_address_is_used_in_place_of_the_discovered_one(issuer: Issuer) -> None:
    issuer.publish()
    issuer.server.pages["/mirror"] = document({"keys": [jwks()["keys"][0]]})
    fetcher = JsonFetcher(timeout=PATIENT)
    mirror = f"{issuer.server.origin}/mirror"
    discovery = Discovery("https://acme.okta.com", "https://acme.okta.com/x", fetcher, clock=issuer.clock)
    source = JwksSource(discovery, ALGORITHMS, fetcher, clock=issuer.clock, jwks_uri=mirror)
    try:
        assert set(await source.load()) == {("rsa-1", "RS256")}
    finally:
        await fetcher.close()


async def test_the_age_of_keys_is_bounded_by_the_setting(issuer: Issuer) -> None:
    issuer.publish()
    fetcher = JsonFetcher(timeout=PATIENT)
    discovery = Discovery(issuer.server.origin, f"{issuer.server.origin}{DISCOVERY}", fetcher, clock=issuer.clock)
    source = JwksSource(discovery, ALGORITHMS, fetcher, clock=issuer.clock, max_key_age=60.0)
    try:
        await source.load()
        issuer.clock.advance(60)
        assert source.keys()
        issuer.clock.advance(1)
        assert source.keys() is None
    finally:
        await fetcher.close()
