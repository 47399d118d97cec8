"""What a hot reload keeps, what it voids, and that nothing found out under old settings counts under new ones."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from extauthz.core.credentials import Kind
from extauthz.core.jwt import KeySet
from extauthz.core.providers import Verification
from extauthz.demo.issuer import CLIENT_ID, Fault
from tests.support.live import live
from tests.support.remote import GOOGLE, GOOGLE_CLIENT, Remote, check, tokeninfo
from tests.support.world import MakeWorld, StillKeys, World, bearer, claims, jwks, key_set, oauth, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "POST /chat", "scope": "CHAT"}]
OTHER_ROUTES = [{"match": "POST /search", "scope": "CHAT"}, {"match": "POST /feed", "scope": "FEED"}]
BOTH = ("okta", "azure")


class SlowKeys(StillKeys):
    """A key source that has nothing in memory until a test lets the keys come."""

    def __init__(self, keys: KeySet) -> None:
        super().__init__(None)
        self.asked, self.come = asyncio.Event(), asyncio.Event()
        self._keys = keys

    async def load(self) -> KeySet:
        self.asked.set()
        await self.come.wait()
        self.key_set = self._keys
        return self._keys


def remembers(world: World, token: str) -> bool:
    """Check an issued token; tell whether it was known."""
    cache = world.verdicts[Kind.ISSUED]
    missed = cache.misses
    assert world.check("POST /search", bearer(token)).reason == "allowed"
    return cache.misses == missed


# --- issued tokens


def test_other_routes_empty_no_memory_and_leave_no_answer_behind(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    token = world.token("USER", "SEARCH")
    assert world.check("POST /search", bearer(token)).reason == "allowed"
    before = world.reconfigure(OTHER_ROUTES)
    assert world.built.runtime.verifiers == before.runtime.verifiers
    missed = world.verdicts[Kind.ISSUED].misses
    assert world.check("POST /search", bearer(token)).reason == "scope_missing", "the verdict stands, the decision does not"
    assert world.verdicts[Kind.ISSUED].misses == missed
    assert world.check("POST /chat", bearer(token)).reason == "route_unknown"


SECTIONS: list[tuple[str, dict[str, Any]]] = [
    ("tokens", {"verdict_ttl": "30s"}),
    ("tokens", {"max_staleness": "1m"}),
    ("tokens", {"accept_prefixes": ["old"]}),
    ("limits", {"store_per_second": 7}),
    ("limits", {"verdicts": 5000}),
    ("scopes", {}),
]


@pytest.mark.parametrize(("section", "change"), SECTIONS, ids=lambda part: str(part)[:40])
def test_issued_tokens_are_read_again_when_their_settings_change(make_world: MakeWorld, section: str, change: Any) -> None:
    world = make_world(ROUTES)
    token = world.token("USER", "SEARCH")
    assert world.check("POST /search", bearer(token)).reason == "allowed"
    before = world.reconfigure(None, **{section: change or ["CHAT", "SEARCH", "FEED"]})
    assert world.built.runtime.verifiers[Kind.ISSUED] is not before.runtime.verifiers[Kind.ISSUED]
    assert not remembers(world, token)


UNRELATED: list[tuple[str, Any]] = [
    ("realm", "other"),
    ("act_as", {"deny": ["eve@acme.com"]}),
    ("identity", {"prefix": "x-acme-"}),
    ("envoy", {"error_response": True}),
    ("oauth", {"verdict_ttl": "1m"}),
]


@pytest.mark.parametrize(("section", "change"), UNRELATED, ids=lambda part: str(part)[:40])
def test_they_are_not_when_others_do(make_world: MakeWorld, section: str, change: Any) -> None:
    world = make_world(ROUTES)
    token = world.token("USER", "SEARCH")
    assert world.check("POST /search", bearer(token)).reason == "allowed"
    world.reconfigure(None, **{section: change})
    assert remembers(world, token)


def test_the_budget_is_not_filled_up_by_a_reload(make_world: MakeWorld) -> None:
    world = make_world(ROUTES, limits={"store_per_second": 3})
    reasons = []
    for _ in range(5):
        reasons.append(world.check("POST /search", bearer(world.token("USER", "SEARCH"))).reason)
        world.reconfigure(ROUTES, realm=f"realm {len(reasons)}")
    assert reasons == ["allowed"] * 3 + ["overloaded"] * 2


def test_switched_off_tokens_are_refused_from_the_next_check_on_and_taken_when_they_are_on_again(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    token = world.token("USER", "SEARCH")
    assert world.check("POST /search", bearer(token)).reason == "allowed"
    world.reconfigure(None, tokens={"enabled": False})
    assert world.check("POST /search", bearer(token)).reason == "credential_disabled"
    world.reconfigure(None, tokens={"enabled": True})
    assert world.check("POST /search", bearer(token)).reason == "allowed"


# --- OAuth providers


async def test_what_changed_of_one_provider_empties_no_memory_of_another(tmp_path: Path) -> None:
    async with live(tmp_path, *BOTH) as it:
        okta, azure = it.token("okta"), it.token("azure")
        assert [await it.check(token) for token in (okta, azure)] == ["allowed", "allowed"]
        asked = sum(it.issuer.requests.values())

        await it.reload(lambda settings: settings["oauth"]["providers"][0].update(client_ids=["another"]))

        assert it.known(azure)
        assert sum(it.issuer.requests.values()) == asked, "its keys are kept too"
        assert await it.check(okta) == "token_client"


async def test_what_is_common_to_all_providers_concerns_them_all(tmp_path: Path) -> None:
    async with live(tmp_path, *BOTH) as it:
        okta, azure = it.token("okta"), it.token("azure")
        assert [await it.check(token) for token in (okta, azure)] == ["allowed", "allowed"]
        before = await it.reload(lambda settings: settings["oauth"].update(refresh="5m"))
        assert not {id(source) for source in before.key_sources} & {id(source) for source in it.parts.key_sources}
        assert [await it.check(token) for token in (okta, azure)] == ["allowed", "allowed"]


async def test_an_unchanged_provider_is_the_same_object(tmp_path: Path) -> None:
    async with live(tmp_path, *BOTH) as it:
        assert await it.check(it.token("okta")) == "allowed"
        before = await it.reload(lambda settings: settings.update(realm="other"))
        assert it.parts.runtime.verifiers == before.runtime.verifiers
        assert it.parts.providers == before.providers
        assert it.parts.runtime.codec is not before.runtime.codec, "answers are not kept"


async def test_a_refusal_is_forgotten_when_its_provider_changes(tmp_path: Path) -> None:
    async with live(tmp_path, "okta") as it:
        token = it.token("okta")
        await it.reload(lambda settings: settings["oauth"]["providers"][0].update(client_ids=["another"]))
        assert await it.check(token) == "token_client"
        await it.reload(lambda settings: settings["oauth"]["providers"][0].update(client_ids=["another", CLIENT_ID]))
        assert await it.check(token) == "allowed"


async def test_the_cool_down_outlives_a_reload(tmp_path: Path) -> None:
    """Else whoever can make a configuration change, or waits for one, gets another fetch for each unknown key."""
    async with live(tmp_path, "okta") as it:
        assert await it.check(it.token("okta")) == "allowed"
        (source,) = it.parts.key_sources
        assert source.reload_for_unknown_key() is not None
        await it.reload(lambda settings: settings["oauth"].update(refresh="5m"))
        (renewed,) = it.parts.key_sources
        assert renewed is not source
        assert renewed.reload_for_unknown_key() is None


async def test_the_back_off_outlives_a_reload(tmp_path: Path) -> None:
    """Else each reload asks an issuer that fails once more."""
    async with live(tmp_path, "okta") as it:
        assert await it.check(it.token("okta")) == "allowed"
        it.issuer.use_next_key()
        it.issuer.fail("/", Fault.ERROR_500)
        assert await it.check(it.token("okta")) == "key_set_unavailable"
        asked = sum(it.issuer.requests.values())
        await it.reload(lambda settings: settings["oauth"].update(refresh="5m"))
        (renewed,) = it.parts.key_sources
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            assert sum(it.issuer.requests.values()) == asked
            it.issuer.heal()

        renewed._sleep = pause
        waiting = renewed.reload_for_unknown_key()
        assert waiting is not None
        assert len(await waiting) == 2
        assert pauses == [1.0]


async def test_a_changed_provider_is_asked_at_once(tmp_path: Path) -> None:
    """The change may be what the fetches failed for."""
    async with live(tmp_path, "okta") as it:
        it.issuer.fail("/", Fault.ERROR_500)
        assert await it.check(it.token("okta")) == "key_set_unavailable"
        it.issuer.heal()
        await it.reload(lambda settings: settings["oauth"].update(refresh="5m"))
        pauses: list[float] = []
        fetched = asyncio.Event()

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            if seconds:
                fetched.set()
                await asyncio.Event().wait()

        it.source()._sleep = pause
        refresh = asyncio.create_task(it.source().run())
        await fetched.wait()
        refresh.cancel()
        assert pauses == [0, 300]
        assert it.source().keys()


async def test_after_a_reload_too_a_fetch_that_failed_is_no_reason_to_cool_down(tmp_path: Path) -> None:
    async with live(tmp_path, "okta") as it:
        assert await it.check(it.token("okta")) == "allowed"
        it.issuer.use_next_key()
        it.issuer.fail("/", Fault.ERROR_500)
        assert await it.check(it.token("okta")) == "key_set_unavailable"
        await it.reload(lambda settings: settings["oauth"].update(refresh="5m"))
        it.issuer.heal()
        await it.source().load()
        it.issuer.use_next_key()
        assert await it.check(it.token("okta")) == "allowed"


async def test_the_breaker_outlives_a_reload(tmp_path: Path) -> None:
    async with live(tmp_path, "gsuite") as it:
        it.issuer.fail("/tokeninfo", Fault.ERROR_500)
        for _ in range(5):
            assert await it.check(it.token("gsuite")) == "issuer_unavailable"
        asked = it.issuer.requests["/tokeninfo"]
        await it.reload(lambda settings: settings["oauth"].update(remote_verdict_ttl="30s"))
        assert await it.check(it.token("gsuite")) == "issuer_unavailable"
        assert it.issuer.requests["/tokeninfo"] == asked


async def test_a_question_that_is_answered_after_a_reload_counts_only_for_who_asked(tmp_path: Path) -> None:
    """The check keeps its snapshot; what it found out under rules that are gone is not remembered."""
    remote = Remote(otherwise=tokeninfo())
    remote.go.clear()
    gsuite = {"provider": "gsuite", "client_ids": [GOOGLE_CLIENT], "domains": ["acme.com"], "issuer": None, "audience": None}
    world = World(tmp_path, ROUTES, {"oauth": gsuite, "tokens": None}, introspectors={(GOOGLE, Verification.TOKENINFO): remote})
    token = "ya29.a0AfH6SMBx"
    waiting = asyncio.ensure_future(check(world, token))
    await asyncio.sleep(0)
    world.reconfigure(None, oauth=gsuite | {"domains": ["other.com"]})
    remote.go.set()
    assert (await waiting).reason == "allowed"
    assert (await check(world, token)).reason == "token_user_not_allowed"


async def test_a_token_of_a_provider_that_is_gone_is_refused_from_the_next_check_on(tmp_path: Path) -> None:
    async with live(tmp_path, *BOTH) as it:
        okta, azure = it.token("okta"), it.token("azure")
        assert [await it.check(token) for token in (okta, azure)] == ["allowed", "allowed"]
        gone = it.settings["oauth"]["providers"][0]
        await it.reload(lambda settings: settings["oauth"]["providers"].pop(0))
        assert not it.known(okta)
        assert it.recorder.decisions[-1].reason.value == "token_issuer"
        assert it.known(azure)

        it.issuer.fail("/", Fault.ERROR_500)
        await it.reload(lambda settings: settings["oauth"]["providers"].insert(0, gone))
        assert await it.check(okta) == "key_set_unavailable", "what was found out before it went counts no more"


async def test_what_an_issuer_said_is_void_when_its_provider_changes(tmp_path: Path) -> None:
    remote = Remote(otherwise=tokeninfo())
    gsuite = {"provider": "gsuite", "client_ids": [GOOGLE_CLIENT], "domains": ["acme.com"], "issuer": None, "audience": None}
    world = World(tmp_path, ROUTES, {"oauth": gsuite, "tokens": None}, introspectors={(GOOGLE, Verification.TOKENINFO): remote})
    token = "ya29.a0AfH6SMBx"
    assert [(await check(world, token)).reason for _ in range(2)] == ["allowed", "allowed"]
    assert remote.asked == [token]
    world.reconfigure(None, oauth=gsuite | {"domains": ["other.com"]})
    assert (await check(world, token)).reason == "token_user_not_allowed"


async def test_keys_that_come_after_a_reload_make_no_verdict_of_the_rules_before(tmp_path: Path) -> None:
    """No verdict of this key was there to be voided when the rules went."""
    keys = SlowKeys(key_set(jwks()))
    world = World(tmp_path, ROUTES, {"tokens": None}, keys=keys)
    token = sign(claims())
    waiting = asyncio.ensure_future(check(world, token))
    await keys.asked.wait()
    world.reconfigure(None, oauth={"domains": ["other.com"]})
    keys.come.set()
    assert (await waiting).reason == "allowed", "the check keeps its snapshot"
    assert (await check(world, token)).reason == "token_user_not_allowed"


def test_a_token_of_dropped_rules_is_verified_anew(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    token = sign(claims())
    assert world.check("POST /search", oauth(token)).reason == "allowed"
    world.reconfigure(None, oauth={"domains": ["other.com"]})
    assert world.check("POST /search", oauth(token)).reason == "token_user_not_allowed"
    world.reconfigure(None, oauth={"domains": ["acme.com"]})
    assert world.check("POST /search", oauth(token)).reason == "allowed"


async def test_a_thousand_reloads_lose_no_check_and_leave_nothing(tmp_path: Path) -> None:
    """Reloads in one task, checks in another: none waits, none fails, and after a hundred nothing grows any more."""
    async with live(tmp_path, *BOTH) as it:
        tokens = [it.token(name) for name in BOTH]
        assert [await it.check(token) for token in tokens] == ["allowed", "allowed"]
        sizes: dict[int, int] = {}
        checks = 0
        for number in range(1, 1001):
            await it.reload(lambda settings, number=number: settings.update(realm=f"realm {number % 7}"))  # type: ignore[misc]
            checks += sum(it.known(token) for token in tokens)
            if number in (200, 1000):
                it.recorder.clear()
                gc.collect()
                sizes[number] = len(gc.get_objects())
        assert checks == 2000
        assert sizes[1000] <= sizes[200] + 200
        assert sum(it.issuer.requests.values()) == 3, "two sets of keys, and one discovery document"
