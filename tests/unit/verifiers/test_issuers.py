"""An issuer of OAuth tokens: whom it asks, which tokens are shown to it, and what becomes of its verdicts when it is dropped."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest

from extauthz.core import jwt
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import ProviderRules, Verification
from extauthz.errors import Unavailable
from extauthz.verifiers.oauth import MAX_PENDING, Issuer, OAuthVerifier
from extauthz.verifiers.throttling import Budget
from extauthz.verifiers.verdicts import VerdictCache
from tests.support.world import CLIENT, ISSUER, NOW, StillClock, StillKeys, claims, jwks, key_set, rsa_key, sign

OKTA = ProviderRules(
    name="okta",
    provider=PROVIDERS["okta"][0],
    issuer=ISSUER,
    client_ids=frozenset({CLIENT}),
    audience=frozenset({"api://default"}),
    scopes=frozenset({"SEARCH"}),
    user_claims=("sub",),
)
GOOGLE = replace(
    OKTA,
    name="gsuite",
    provider=PROVIDERS["gsuite"][0],
    issuer="https://accounts.google.com",
    audience=None,
    user_claims=("email",),
    verification=Verification.TOKENINFO,
)


class Answering:
    """Somebody to ask, who answers when told to, and keeps what was asked."""

    def __init__(self, answer: Mapping[str, Any] | Reason) -> None:
        self.answer = answer
        self.asked: list[tuple[str, bool]] = []
        self.may_answer = asyncio.Event()

    def ask(self, token: str, *, is_known: bool) -> Coroutine[None, None, Mapping[str, Any] | Reason]:
        self.asked.append((token, is_known))

        async def answered() -> Mapping[str, Any] | Reason:
            await self.may_answer.wait()
            return self.answer

        return answered()


@pytest.mark.parametrize(
    ("keys", "introspector"), [(None, None), (StillKeys(None), Answering({}))], ids=["nobody to ask", "both to ask"]
)
def test_an_issuer_has_either_keys_or_somebody_to_ask(keys: StillKeys | None, introspector: Answering | None) -> None:
    with pytest.raises(ValueError, match="okta: either keys or an introspector"):
        Issuer(OKTA, keys, introspector)


@pytest.mark.parametrize("differs", [*itertools.product([False, True], repeat=2)])
@pytest.mark.parametrize("by_keys", [True, False])
def test_issuers_ask_the_same_only_if_all_that_they_ask_is_the_same(by_keys: bool, differs: tuple[bool, bool]) -> None:
    source, userinfo = (StillKeys(None) if by_keys else Answering({})), Answering({})
    other_source = (StillKeys(None) if by_keys else Answering({})) if differs[0] else source
    other_userinfo = Answering({}) if differs[1] else userinfo
    one, another = (
        Issuer(OKTA, keys=asked, userinfo=user) if isinstance(asked, StillKeys) else Issuer(OKTA, introspector=asked, userinfo=user)
        for asked, user in ((source, userinfo), (other_source, other_userinfo))
    )
    assert one.asks_the_same(another) is not any(differs)


def verifier_of(*issuers: Issuer) -> tuple[OAuthVerifier, VerdictCache, StillClock]:
    clock = StillClock()
    verdicts = VerdictCache(Kind.OAUTH, bytes(32), lifetime=300.0, clock=clock)
    return OAuthVerifier(issuers, verdicts, clock=clock, signatures=Budget(1000, clock=clock)), verdicts, clock


GOOD = sign(claims())
KEYS = key_set(jwks(), ("RS256", "ES256"))


def test_a_dropped_issuer_leaves_no_verdict_behind() -> None:
    issuer = Issuer(OKTA, StillKeys(KEYS))
    verifier, verdicts, _ = verifier_of(issuer)
    assert isinstance(verifier.verify(GOOD, NOW), Identity)
    (signer,) = issuer.signers.values()
    assert (signer.published, issuer.standing.published, issuer.dropped) == (True, True, False)
    issuer.drop()
    assert (signer.published, issuer.standing.published, issuer.dropped) == (False, False, True)
    # What it finds out from now on is an answer to who waits for it, and to nobody later.
    verdicts.clear()
    assert isinstance(verifier.verify(GOOD, NOW), Identity)
    assert verdicts.recall(GOOD) is None


async def test_an_answer_that_comes_after_the_issuer_was_dropped_is_not_remembered() -> None:
    userinfo = Answering({"sub": "ana@acme.com"})
    issuer = Issuer(replace(OKTA, userinfo=True), StillKeys(KEYS), userinfo=userinfo)
    verifier, verdicts, _ = verifier_of(issuer)
    first = verifier.verify(GOOD, NOW)
    second = verifier.verify(GOOD, NOW)
    assert not isinstance(first, Identity | Reason)
    assert not isinstance(second, Identity | Reason)
    assert userinfo.asked == [(GOOD, False)]  # who asks for the same token shares the question
    issuer.drop()
    userinfo.may_answer.set()
    assert [type(answer) for answer in await asyncio.gather(first, second)] == [Identity, Identity]
    assert verdicts.recall(GOOD) is None
    assert issuer.pending == 0


async def test_a_user_is_asked_about_again_after_the_lifetime_of_what_was_asked() -> None:
    userinfo = Answering({"sub": "ana@acme.com"})
    userinfo.may_answer.set()
    verifier, _, clock = verifier_of(Issuer(replace(OKTA, userinfo=True), StillKeys(KEYS), userinfo=userinfo))

    async def verify() -> object:
        found = verifier.verify(GOOD, NOW)
        return found if isinstance(found, Identity | Reason) else await found

    assert isinstance(await verify(), Identity)
    clock.ticks += 59.9
    assert isinstance(await verify(), Identity)
    assert userinfo.asked == [(GOOD, False)]
    clock.ticks += 0.1
    assert isinstance(await verify(), Identity)
    assert userinfo.asked == [(GOOD, False), (GOOD, True)]  # no stranger any more


OPAQUE = "ya29.a0Afexample"
GOOD_ANSWER = {
    "aud": CLIENT,
    "azp": CLIENT,
    "sub": "108",
    "email": "ana@acme.com",
    "email_verified": "true",
    "scope": "openid email profile",
    "exp": str(NOW + 3600),
}


async def test_a_token_is_shown_to_the_issuer_of_its_form_and_to_no_other() -> None:
    """A JWT, whatever issuer it claims, never leaves the house for one that writes opaque tokens."""
    google = Answering(Reason.TOKEN_INACTIVE)
    google.may_answer.set()
    verifier, _, _ = verifier_of(Issuer(OKTA, StillKeys(KEYS)), Issuer(GOOGLE, introspector=google))
    assert verifier.verify(sign(claims(iss="https://accounts.google.com")), NOW) is Reason.TOKEN_ISSUER
    assert verifier.verify(sign(claims(iss=["https://accounts.google.com"])), NOW) is Reason.TOKEN_ISSUER
    assert verifier.verify(f"x{OPAQUE}", NOW) is Reason.TOKEN_MALFORMED
    assert isinstance(verifier.verify(GOOD, NOW), Identity)
    assert google.asked == []
    found = verifier.verify(OPAQUE, NOW)
    assert not isinstance(found, Identity | Reason)
    assert await found is Reason.TOKEN_INACTIVE
    assert google.asked == [(OPAQUE, False)]


def test_a_key_that_stays_keeps_its_verdicts() -> None:
    keys = StillKeys(KEYS)
    issuer = Issuer(OKTA, keys)
    verifier, _, _ = verifier_of(issuer)
    first = verifier.verify(GOOD, NOW)
    keys.key_set = {name: key for name, key in KEYS.items() if name[0] == "rsa-1"}
    assert verifier.verify(GOOD, NOW) is first
    assert {name: signer.published for name, signer in issuer.signers.items()} == {("rsa-1", "RS256"): True}


async def test_a_verdict_that_userinfo_shares_in_falls_with_the_key_at_once() -> None:
    keys, userinfo = StillKeys(KEYS), Answering({"sub": "ana@acme.com"})
    userinfo.may_answer.set()
    verifier, _, _ = verifier_of(Issuer(replace(OKTA, userinfo=True), keys, userinfo=userinfo))
    found = verifier.verify(GOOD, NOW)
    assert not isinstance(found, Identity | Reason)
    assert isinstance(await found, Identity)
    keys.key_set = {name: key for name, key in KEYS.items() if name[0] != "rsa-1"}
    keys.fetched_at = NOW + 120
    assert verifier.verify(GOOD, NOW) is Reason.TOKEN_KEY_UNKNOWN


def test_userinfo_is_not_asked_about_a_token_that_its_key_did_not_sign() -> None:
    userinfo = Answering({"sub": "ana@acme.com"})
    verifier, _, _ = verifier_of(Issuer(replace(OKTA, userinfo=True), StillKeys(KEYS), userinfo=userinfo))
    forged = sign(claims(), key=rsa_key("rsa-2"), header={"kid": "rsa-1"})
    assert verifier.verify(forged, NOW) is Reason.TOKEN_SIGNATURE
    assert userinfo.asked == []


@pytest.mark.parametrize(("after", "known"), [(60, True), (659, True), (660, False)])
async def test_a_token_is_no_stranger_for_ten_minutes_after_its_verdict(after: float, known: bool) -> None:
    userinfo, google = Answering({"sub": "ana@acme.com"}), Answering(GOOD_ANSWER)
    userinfo.may_answer.set()
    google.may_answer.set()
    issuers = Issuer(replace(OKTA, userinfo=True), StillKeys(KEYS), userinfo=userinfo), Issuer(GOOGLE, introspector=google)
    verifier, _, clock = verifier_of(*issuers)

    async def verify(token: str) -> object:
        found = verifier.verify(token, NOW)
        return found if isinstance(found, Identity | Reason) else await found

    for token, asked in ((GOOD, userinfo), (OPAQUE, google)):
        assert isinstance(await verify(token), Identity)
        assert isinstance(await verify(token), Identity)
        assert asked.asked == [(token, False)]
    clock.ticks += after
    for token, asked in ((GOOD, userinfo), (OPAQUE, google)):
        assert isinstance(await verify(token), Identity)
        assert asked.asked == [(token, False), (token, known)]


class ArrivingKeys(StillKeys):
    """A key source that has nothing until it is loaded, or loads another set for an unknown key."""

    def __init__(self, before: jwt.KeySet | None, after: jwt.KeySet) -> None:
        super().__init__(before)
        self.after = after

    async def load(self) -> jwt.KeySet:
        self.key_set = self.after
        return self.after

    def reload_for_unknown_key(self) -> Coroutine[None, None, jwt.KeySet]:  # type: ignore[override]
        return self.load()


async def test_userinfo_is_asked_after_the_keys_have_arrived() -> None:
    userinfo = Answering({"sub": "ana@acme.com"})
    userinfo.may_answer.set()
    issuer = Issuer(replace(OKTA, userinfo=True), ArrivingKeys(None, KEYS), userinfo=userinfo)
    verifier, _, _ = verifier_of(issuer)
    found = verifier.verify(GOOD, NOW)
    assert not isinstance(found, Identity | Reason)
    assert isinstance(await found, Identity)
    assert issuer.pending == 0


@pytest.mark.parametrize("before", [None, {}], ids=["no keys yet", "other keys"])
async def test_a_key_that_is_not_among_those_that_arrive_costs_no_signature(before: jwt.KeySet | None) -> None:
    other = {name: key for name, key in KEYS.items() if name[0] != "rsa-1"}
    issuer = Issuer(OKTA, ArrivingKeys(before, other))
    clock = StillClock()
    signatures = Budget(1, clock=clock)
    verdicts = VerdictCache(Kind.OAUTH, bytes(32), lifetime=300.0, clock=clock)
    verifier = OAuthVerifier([issuer], verdicts, clock=clock, signatures=signatures)
    found = verifier.verify(GOOD, NOW)
    assert not isinstance(found, Identity | Reason)
    assert await found is Reason.TOKEN_KEY_UNKNOWN
    assert issuer.signers == {}
    signatures.take()  # none was taken: the only one is still there


@pytest.mark.parametrize("before", [None, {}], ids=["no keys yet", "other keys"])
async def test_so_many_verifications_wait_for_the_keys_of_an_issuer_and_no_more(before: jwt.KeySet | None) -> None:
    issuer = Issuer(OKTA, ArrivingKeys(before, KEYS))
    verifier, _, _ = verifier_of(issuer)
    issuer.pending = MAX_PENDING
    with pytest.raises(Unavailable) as refused:
        verifier.verify(GOOD, NOW)
    assert refused.value.reason is Reason.OVERLOADED
    issuer.pending = MAX_PENDING - 1
    found = verifier.verify(GOOD, NOW)
    assert not isinstance(found, Identity | Reason)
    assert issuer.pending == MAX_PENDING
    assert isinstance(await found, Identity)


@pytest.mark.parametrize(("fetched_at", "expected"), [(60, None), (60.1, Reason.TOKEN_KEY_UNKNOWN)])
def test_a_token_without_iat_counts_as_an_old_one(fetched_at: float, expected: Reason | None) -> None:
    changes = claims()
    del changes["iat"]
    verifier, _, _ = verifier_of(Issuer(OKTA, StillKeys({}, fetched_at)))
    if expected is None:
        with pytest.raises(Unavailable):
            verifier.verify(sign(changes), NOW)
    else:
        assert verifier.verify(sign(changes), NOW) is expected


def test_a_verdict_that_rests_on_nothing_is_none() -> None:
    verifier, verdicts, _ = verifier_of(Issuer(OKTA, StillKeys(KEYS)))
    identity = Identity(AuthType.OAUTH, "oauth:okta:other", "eva@acme.com", frozenset(), NOW + 3600)
    verdicts.put(GOOD, identity, basis=None)
    found = verifier.verify(GOOD, NOW)
    assert isinstance(found, Identity)
    assert found.user == "ana@acme.com"


@pytest.mark.parametrize("change", [{"nbf": NOW + 61}, {"iat": NOW + 61}])
def test_a_refusal_that_time_takes_back_is_not_remembered(change: dict[str, float]) -> None:
    verifier, verdicts, clock = verifier_of(Issuer(OKTA, StillKeys(KEYS)))
    token = sign(claims(**change))
    assert verifier.verify(token, NOW) is Reason.TOKEN_NOT_YET_VALID
    assert verdicts.recall(token) is None
    clock.wall += 1
    assert isinstance(verifier.verify(token, clock.now()), Identity)


@pytest.mark.parametrize("first", ["one that is asked", "one whose keys stay"])
def test_a_key_that_is_gone_is_noticed_whichever_issuer_stands_before(first: str) -> None:
    keys = StillKeys(KEYS)
    elsewhere = replace(OKTA, name="elsewhere", issuer="https://elsewhere.okta.com/oauth2/default")
    before = Issuer(GOOGLE, introspector=Answering({})) if first == "one that is asked" else Issuer(elsewhere, StillKeys(KEYS))
    verifier, _, _ = verifier_of(before, Issuer(OKTA, keys))
    assert isinstance(verifier.verify(GOOD, NOW), Identity)
    keys.key_set, keys.fetched_at = {name: key for name, key in KEYS.items() if name[0] != "rsa-1"}, NOW + 120
    assert verifier.verify(GOOD, NOW) is Reason.TOKEN_KEY_UNKNOWN


async def answer_of(google: Answering, userinfo: Answering) -> object:
    """Verify an opaque token with an issuer that is asked twice: about the token, and about its user."""
    issuer = Issuer(replace(GOOGLE, userinfo=True), introspector=google, userinfo=userinfo)
    verifier, _, _ = verifier_of(issuer)
    google.may_answer.set()
    userinfo.may_answer.set()
    found = verifier.verify(OPAQUE, NOW)
    assert not isinstance(found, Identity | Reason)
    evidence = await found
    # It is remembered, whatever it is.
    assert verifier.verify(OPAQUE, NOW) is evidence
    assert google.asked == [(OPAQUE, False)]
    return evidence


@pytest.mark.parametrize(
    ("changes", "userinfo", "expected", "asked"),
    [
        ({}, {"sub": "108"}, "ana@acme.com", 1),
        ({"aud": "another", "azp": "another"}, {"sub": "108"}, Reason.TOKEN_CLIENT, 0),
        ({"exp": str(NOW)}, {"sub": "108"}, Reason.TOKEN_EXPIRED, 0),
        ({}, {"sub": "109"}, Reason.TOKEN_USER_INVALID, 1),
        ({}, {}, Reason.TOKEN_USER_INVALID, 1),
        ({}, Reason.TOKEN_INACTIVE, Reason.TOKEN_INACTIVE, 1),
    ],
)
async def test_the_user_is_asked_about_once_the_token_is_good(
    changes: dict[str, str], userinfo: dict[str, str] | Reason, expected: str | Reason, asked: int
) -> None:
    about_user = Answering(userinfo)
    evidence = await answer_of(Answering(GOOD_ANSWER | changes), about_user)
    assert (evidence.user if isinstance(evidence, Identity) else evidence) == expected
    assert about_user.asked == [(OPAQUE, False)] * asked
