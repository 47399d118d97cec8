"""The promises about issuers that rotate, fail and are flooded, with the real issuer, over HTTP."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import jwt as pyjwt
import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.core.credentials import Kind
from extauthz.demo.issuer import Fault
from extauthz.serve.figures import of_issuers
from extauthz.telemetry.conditions import ConditionKey
from tests.support.live import ISSUED_BY, ROLES, Live, live
from tests.support.waiting import until
from tests.support.world import base64url, check_request, oauth

OKTA_KEYS = "/oauth2/default/v1/keys"
MINUTE, LONGEST_RETRY = 60.0, 5.0
UNAVAILABLE = dict.fromkeys(("okta", "azure", "onelogin"), "key_set_unavailable") | dict.fromkeys(
    ("gsuite", "okta-org", "okta-userinfo"), "issuer_unavailable"
)
"""What is told of an issuer that does not answer: where keys are fetched, it is they that are missing."""
HARMLESS = (Fault.REDIRECT_SAME, Fault.WRONG_ISSUER, Fault.EMPTY_KEYS)
"""Faults that keep not every provider's tokens from being verified."""


def with_random_key_id(token: str, issued_at: float) -> str:
    """Return a token that nothing but a look at the key set tells from a genuine one."""
    claims = pyjwt.decode(token, options={"verify_signature": False}) | {"iat": issued_at, "jti": f"AT.{secrets.token_hex(8)}"}
    header = {"alg": "RS256", "kid": secrets.token_urlsafe(16)}
    return ".".join(
        base64url(part) for part in (json.dumps(header).encode(), json.dumps(claims).encode(), secrets.token_bytes(256))
    )


def readiness(it: Live) -> dict[ConditionKey, bool]:
    """Return what /readyz says of the one issuer."""
    return {condition.key: condition.met for condition in of_issuers(it.parts)}


@pytest.mark.parametrize("name", ROLES)
async def test_a_token_is_verified_and_then_known(tmp_path: Path, name: str) -> None:
    async with live(tmp_path, name) as it:
        token = it.token(name)
        assert await it.check(token) == "allowed"
        asked = sum(it.issuer.requests.values())
        assert it.known(token)
        assert it.recorder.decisions[-1].user == "ana@acme.com"
        assert sum(it.issuer.requests.values()) == asked
        assert it.issuer.leaks == 0


@pytest.mark.parametrize("name", ISSUED_BY)
@pytest.mark.parametrize(
    "fault",
    [Fault.ERROR_500, Fault.GARBAGE, Fault.TRUNCATED, Fault.REDIRECT, Fault.HUGE, Fault.TOO_MANY, Fault.MISSING, Fault.SLOW],
)
async def test_an_issuer_in_trouble_is_503_and_its_tokens_work_again_when_it_is_well(
    tmp_path: Path, name: str, fault: Fault
) -> None:
    timeout = "300ms" if fault is Fault.SLOW else "60s"
    async with live(tmp_path, name, server={"listen": "127.0.0.1:9001", "check_timeout": timeout}) as it:
        token = it.token(name)
        it.issuer.slow_seconds = 0.7
        it.issuer.fail("/", fault)
        assert await it.check(token) == ("check_timeout" if fault is Fault.SLOW else UNAVAILABLE[name])
        assert len(it.parts.verdicts[Kind.OAUTH]) == 0
        it.issuer.heal()
        it.clock.advance(10)

        async def is_allowed() -> bool:
            """Ask: a question that the slow issuer was asked before may be waited for once more."""
            reasons.append(await it.check(token))
            return reasons[-1] == "allowed"

        reasons: list[str] = []
        await until(is_allowed, seconds=5)
        if fault is not Fault.SLOW:
            assert reasons == ["allowed"]


@pytest.mark.parametrize("fault", [Fault.WRONG_ISSUER, Fault.EMPTY_KEYS])
async def test_keys_of_a_wrong_document_are_not_used(tmp_path: Path, fault: Fault) -> None:
    async with live(tmp_path, "okta") as it:
        it.issuer.fail("/", fault)
        assert await it.check(it.token("okta")) == "key_set_unavailable"
        it.issuer.heal()
        it.clock.advance(10)
        assert await it.check(it.token("okta")) == "allowed"


@pytest.mark.parametrize("fault", list(Fault))
async def test_known_tokens_and_known_keys_outlast_the_trouble(tmp_path: Path, fault: Fault) -> None:
    async with live(tmp_path, "okta", "gsuite") as it:
        tokens = [it.token("okta"), it.token("gsuite")]
        assert [await it.check(token) for token in tokens] == ["allowed", "allowed"]
        it.issuer.slow_seconds = 0.1
        it.issuer.fail("/", fault)
        it.clock.advance(30)
        await it.refresh()
        assert [it.known(token) for token in tokens] == [True, True]
        assert await it.check(it.token("okta")) == "allowed"


async def test_ten_thousand_random_key_ids_in_a_minute_cause_one_fetch(tmp_path: Path) -> None:
    async with live(tmp_path, "okta", "gsuite") as it:
        genuine = it.token("okta")
        assert await it.check(genuine) == "allowed"
        reasons = set()
        for number in range(10_000):
            it.clock.advance(MINUTE / 10_000)
            reasons.add(await it.check(with_random_key_id(genuine, it.clock.now())))
            if number % 100 == 0:
                await asyncio.sleep(0)  # why: the issuer is in this loop too; on a slow machine it closes its idle connection
        assert reasons <= {"key_set_unavailable", "token_key_unknown"}
        assert it.issuer.requests[OKTA_KEYS] == 2, "the first, and one more for a key that might have been new"
        assert it.issuer.requests["/oauth2/default/.well-known/openid-configuration"] == 1
        assert it.issuer.requests["/tokeninfo"] == 0

        # A key that is really new finds the fetch used up: 503, never 401, until the next refresh.
        it.issuer.use_next_key()
        it.clock.advance(1)
        fresh = it.token("okta", iat=it.clock.now())
        assert await it.check(fresh) == "key_set_unavailable"
        assert it.known(genuine)
        await it.refresh()
        assert await it.check(fresh) == "allowed"


async def test_the_next_five_minutes_bring_one_more_fetch(tmp_path: Path) -> None:
    async with live(tmp_path, "okta") as it:
        genuine = it.token("okta")
        await it.check(genuine)
        for _ in range(100):
            it.clock.advance(10)
            await it.check(with_random_key_id(genuine, it.clock.now()))
        assert it.issuer.requests[OKTA_KEYS] == 1 + 4, "1,000 seconds: at 10, 310, 610 and 910"


async def test_a_rotation_under_load_loses_nothing(tmp_path: Path) -> None:
    """The next key is published, one refresh passes, then it signs; old tokens go on until the old key is withdrawn."""
    async with live(tmp_path, "okta") as it:
        old = [it.token("okta") for _ in range(20)]
        assert {await it.check(token) for token in old} == {"allowed"}
        reasons: list[str] = []

        async def load() -> None:
            while True:
                reasons.append(await it.check(it.token("okta")))
                reasons.extend([await it.check(token) for token in old])
                await asyncio.sleep(0)  # why: a load without end, and the test in the same loop

        loading = asyncio.create_task(load())
        for step in (it.issuer.publish_next_key, it.issuer.use_next_key, lambda: None):
            step()
            for _ in range(5):
                enough = len(reasons) + 10
                await until(lambda enough=enough: len(reasons) >= enough)  # type: ignore[misc]
                it.clock.advance(2)
            await it.refresh()
        loading.cancel()
        await asyncio.wait([loading])
        assert len(reasons) > 100
        assert set(reasons) == {"allowed"}

        it.issuer.withdraw_old_keys()
        assert it.known(old[0]), "until the refresh nobody knows"
        await it.refresh()
        assert await it.check(old[0]) == "token_key_unknown"
        assert await it.check(it.token("okta")) == "allowed"


async def test_a_rotation_that_is_met_while_the_issuer_is_away_is_over_when_it_is_back(tmp_path: Path) -> None:
    """Strangers ask for made-up keys all the while; that takes the next attempt from nobody."""
    async with live(tmp_path, "okta") as it:
        genuine = it.token("okta")
        assert await it.check(genuine) == "allowed"
        it.issuer.use_next_key()
        it.issuer.withdraw_old_keys()
        it.issuer.fail("/", Fault.ERROR_500)
        it.clock.advance(MINUTE)
        fresh = it.token("okta")
        assert readiness(it)[ConditionKey.ISSUER_KEYS_CURRENT]
        for _ in range(3):
            strangers = [it.check(with_random_key_id(genuine, it.clock.now())) for _ in range(5)]
            assert set(await asyncio.gather(it.check(fresh), *strangers)) == {"key_set_unavailable"}
            assert it.known(genuine), "the keys in memory go on"
            assert readiness(it) == {ConditionKey.ISSUER_KEYS: True, ConditionKey.ISSUER_KEYS_CURRENT: False}
            it.clock.advance(LONGEST_RETRY)
        tried = it.issuer.requests[OKTA_KEYS]
        it.issuer.heal()

        assert await it.check(fresh) == "allowed"
        assert readiness(it)[ConditionKey.ISSUER_KEYS_CURRENT]
        assert it.issuer.requests[OKTA_KEYS] == tried + 1
        assert tried == 1 + 3, "the first, and one each time that the back-off had passed"
        assert {await it.check(with_random_key_id(genuine, it.clock.now())) for _ in range(20)} == {"key_set_unavailable"}
        assert it.issuer.requests[OKTA_KEYS] == tried + 1, "a fetch that succeeded starts the cool-down"


async def test_a_flood_of_opaque_tokens_asks_no_more_than_the_budget_and_leaves_known_tokens_alone(tmp_path: Path) -> None:
    async with live(tmp_path, "okta", "gsuite") as it:
        known = [it.token("gsuite"), it.token("okta")]
        for token in known:
            assert await it.check(token) == "allowed"
        before = it.issuer.requests["/tokeninfo"]
        seconds, a_second = 5, 200
        for _ in range(seconds * a_second):
            it.clock.advance(1 / a_second)
            answer = asyncio.ensure_future(it.check("ya29." + secrets.token_urlsafe(40)))
            assert all(it.known(token) for token in known)
            await answer
        asked = it.issuer.requests["/tokeninfo"] - before
        assert 10 <= asked <= 10 * (seconds + 1), "strangers get half of 20 a second, and of a burst of 20"
        assert it.parts.introspections[0].outcomes["shed"] == seconds * a_second - asked


async def test_a_flood_of_one_opaque_token_asks_once_in_ten_seconds(tmp_path: Path) -> None:
    async with live(tmp_path, "gsuite") as it:
        token = "ya29." + secrets.token_urlsafe(40)
        for _ in range(95):
            assert await it.check(token) == "token_inactive"
            it.clock.advance(0.2)
        assert it.issuer.requests["/tokeninfo"] == 2


async def test_a_flood_of_forged_tokens_costs_a_bounded_number_of_signatures(tmp_path: Path) -> None:
    async with live(tmp_path, "okta", limits={"signatures_per_second": 50}) as it:
        genuine = it.token("okta")
        assert await it.check(genuine) == "allowed"
        head, payload, _ = genuine.split(".")
        reasons: list[str] = []
        for _ in range(1000):
            it.clock.advance(0.002)
            forged = f"{head}.{payload}.{base64url(secrets.token_bytes(256))}"
            reasons.append(await it.check(forged))
            assert it.known(genuine)
        assert reasons.count("token_signature") <= 50 * 3
        assert set(reasons) == {"token_signature", "overloaded"}
        assert len(it.parts.verdicts[Kind.OAUTH]) == 1


async def test_tokens_that_wait_for_keys_are_bounded_too(tmp_path: Path) -> None:
    async with live(tmp_path, "okta") as it:
        tokens = [it.token("okta", jti=f"AT.{number}") for number in range(70)]
        it.issuer.slow_seconds = 0.3
        it.issuer.fail(OKTA_KEYS, Fault.SLOW)
        reasons = await asyncio.gather(*(_decided(it, token) for token in tokens))
        assert reasons.count("overloaded") == 70 - 64
        assert reasons.count("allowed") == 64
        assert it.issuer.requests[OKTA_KEYS] == 1


async def _decided(it: Live, token: str) -> str:
    answer = it.authorizer.check(check_request("POST", "/search", oauth(token).items()))
    message = pb.CheckResponse.FromString(answer if isinstance(answer, bytes) else await answer)
    return message.dynamic_metadata.fields["reason"].string_value
