"""Who holds a token: what comes out of memory, what is asked anew, and for how long an answer counts."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.config.patterns import compile_patterns
from extauthz.core import jwt
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import ProviderRules
from extauthz.core.tokens import TokenRecord, digest, fingerprint, mint
from extauthz.errors import Unavailable
from extauthz.ports import Evidence, FeedBatch, Verdict
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.oauth import KEY_DELAY, Issuer, OAuthVerifier
from extauthz.verifiers.throttling import Budget
from extauthz.verifiers.verdicts import REFUSAL_LIFETIME, VerdictCache
from tests.support.memory_store import MemoryTokenStore
from tests.support.waiting import settled
from tests.support.world import (
    CLIENT,
    ISSUER,
    NOW,
    PEPPER,
    MakeWorld,
    StillClock,
    bearer,
    claims,
    ec_key,
    oauth,
    public_jwk,
    rsa_key,
    sign,
)
from tests.support.world import key_set as read_key_set

FRESH, STALE = 60.0, 600.0
RULES = TokenRules("glean", frozenset({"SEARCH", "CHAT"}), 1e9, ActAs(allow=compile_patterns(["*@acme.com"])))


def holder(evidence: object) -> tuple[AuthType, str | None]:
    """Return kind and user of good evidence."""
    assert isinstance(evidence, Identity), evidence
    return evidence.auth_type, evidence.user


# --- issued tokens


class WatchedStore(MemoryTokenStore):
    """A store in memory that counts look-ups and can be out of reach."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups = 0
        self.reachable = True

    def find(self, token_id: str) -> TokenRecord | None:
        self.lookups += 1
        if not self.reachable:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        return super().find(token_id)

    def read_feed(self, after: int) -> FeedBatch:
        if not self.reachable:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        return super().read_feed(after)

    def put(self, record: TokenRecord) -> None:
        """Replace a record behind the back of every rule, as whoever can write to the database could."""
        self._records[record.id] = record
        self._changes += 1


class Issued:
    """A verifier of issued tokens with everything around it."""

    def __init__(self) -> None:
        self.clock = StillClock()
        self.store = WatchedStore()
        self.verdicts = VerdictCache(Kind.ISSUED, bytes(32), lifetime=FRESH + STALE, clock=self.clock)
        self.feed = Feed(clock=self.clock, memory=FRESH + STALE)
        self.budget = Budget(1000, 64, clock=self.clock)
        self.verifier = self.another()
        self._made = 0

    def poll(self) -> bool:
        """Read the feed, as a follower does; tell whether that was possible."""
        try:
            self.feed.apply(self.store.read_feed(self.feed.position))
        except Unavailable:
            return False
        return True

    def another(
        self, *, peppers: dict[str, bytes] | None = None, prefixes: tuple[str, ...] = ("glean",), max_staleness: float = STALE
    ) -> IssuedVerifier:
        """Return a verifier on the same store and memory."""
        known = {"p1": PEPPER} if peppers is None else peppers
        return IssuedVerifier(
            self.store,
            self.verdicts,
            self.feed,
            peppers=known,
            prefixes=frozenset(prefixes),
            clock=self.clock,
            budget=self.budget,
            fresh=FRESH,
            max_staleness=max_staleness,
            contact=3.0,
        )

    def token(self, permission: AuthType = AuthType.USER, expires_at: int = NOW + 3600) -> tuple[str, TokenRecord]:
        """Put a token into the store; return its text and record."""
        self._made += 1
        user = "ana@acme.com" if permission is AuthType.USER else None
        order = TokenRequest("a token", permission, frozenset({"SEARCH"}), NOW - 60, "root", expires_at, user)
        entropy = hashlib.sha384(str(self._made).encode()).digest()
        text, record = issue(order, RULES, pepper_id="p1", pepper=PEPPER, entropy=entropy)
        self.store.add(record, fingerprint(PEPPER))
        return text.text, record

    def verify(self, token: str) -> Evidence:
        return self.verifier.verify(token, self.clock.now())

    def lookups_of(self, token: str, times: int = 3) -> int:
        """Verify a token several times; return how often the store was asked."""
        before = self.store.lookups
        for _ in range(times):
            self.verify(token)
        return self.store.lookups - before


@pytest.fixture
def issued() -> Issued:
    return Issued()


@pytest.mark.parametrize("permission", [AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS])
def test_a_good_token_tells_what_is_recorded(issued: Issued, permission: AuthType) -> None:
    token, record = issued.token(permission)
    evidence = issued.verify(token)

    assert isinstance(evidence, Identity)
    assert (evidence.auth_type, evidence.user, evidence.scopes) == (permission, record.user, record.scopes)
    assert (evidence.actor, evidence.expires_at, evidence.client_id) == (f"token:{record.id}", record.expires_at, None)


def test_before_the_first_read_of_the_feed_the_store_is_asked_each_time(issued: Issued) -> None:
    token, _ = issued.token()

    assert issued.lookups_of(token) == 3


def test_in_contact_a_verdict_is_fresh_for_a_while(issued: Issued) -> None:
    token, _ = issued.token()
    assert issued.poll() is True
    assert issued.lookups_of(token) == 1
    for _ in range(int(FRESH) - 1):
        issued.clock.advance(1)
        issued.poll()
        assert issued.lookups_of(token) == 0
    issued.clock.advance(1)
    issued.poll()

    assert issued.lookups_of(token) == 1


def test_a_revocation_is_seen_with_the_next_read_of_the_feed(issued: Issued) -> None:
    token, record = issued.token()
    other, _ = issued.token()
    issued.poll()
    issued.verify(token)
    issued.verify(other)
    issued.store.revoke(record.id, at=NOW, by="root")
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com"), "until the feed tells, the verdict stands"
    issued.poll()

    before = issued.store.lookups
    assert issued.verify(token) is Reason.TOKEN_REVOKED
    assert holder(issued.verify(other)) == (AuthType.USER, "ana@acme.com")
    assert issued.store.lookups == before + 1, "the other verdict stands"


def test_a_revocation_that_was_read_is_not_undone_by_a_store_out_of_reach(issued: Issued) -> None:
    token, record = issued.token()
    issued.poll()
    issued.verify(token)
    issued.store.revoke(record.id, at=NOW, by="root")
    issued.clock.advance(FRESH)
    assert issued.verify(token) is Reason.TOKEN_REVOKED, "read again before the feed told"
    issued.store.reachable = False
    issued.clock.advance(11)
    with pytest.raises(Unavailable):
        issued.verify(token)


def test_a_look_up_between_the_revocation_and_the_feed_brings_nothing_back(issued: Issued) -> None:
    token, record = issued.token()
    issued.poll()
    issued.store.revoke(record.id, at=NOW, by="root")
    assert issued.verify(token) is Reason.TOKEN_REVOKED
    issued.poll()

    assert issued.verify(token) is Reason.TOKEN_REVOKED


def test_a_read_without_a_change_forgets_nothing(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    issued.verify(token)
    for _ in range(5):
        issued.poll()

    assert issued.lookups_of(token) == 0


def test_a_revoked_token_is_not_saved_by_a_store_that_cannot_be_read(issued: Issued) -> None:
    """The feed said that it changed; what it is now nobody knows."""
    token, record = issued.token()
    issued.poll()
    issued.verify(token)
    issued.store.revoke(record.id, at=NOW, by="root")
    issued.poll()
    issued.store.reachable = False
    with pytest.raises(Unavailable) as caught:
        issued.verify(token)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE


def test_an_old_verdict_serves_while_the_feed_was_heard_lately(issued: Issued) -> None:
    token, _ = issued.token(expires_at=NOW + 10_000)
    issued.poll()
    issued.verify(token)
    issued.store.reachable = False
    for _ in range(9):
        issued.clock.advance(FRESH)
        assert issued.poll() is False, "a read that fails is no contact"
        assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")
    issued.clock.advance(STALE - 9 * FRESH)
    with pytest.raises(Unavailable) as caught:
        issued.verify(token)
    assert caught.value.reason is Reason.STORE_STALE

    issued.store.reachable = True
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")
    assert issued.poll() is True
    assert issued.lookups_of(token) == 0


def test_an_old_verdict_does_not_outlive_what_the_feed_remembers(issued: Issued) -> None:
    """Look-ups fail and the feed works: a change that it has forgotten must not make an old verdict good again."""
    token, record = issued.token(expires_at=NOW + 10_000)
    issued.poll()
    issued.verify(token)
    issued.store.revoke(record.id, at=NOW, by="root")
    issued.poll()
    find, issued.store.find = issued.store.find, _out_of_reach  # type: ignore[method-assign]
    for _ in range(14):
        issued.clock.advance(FRESH)
        issued.poll()
        with pytest.raises(Unavailable):
            issued.verify(token)
    issued.store.find = find  # type: ignore[method-assign]
    assert issued.verify(token) is Reason.TOKEN_REVOKED


def _out_of_reach(token_id: str) -> TokenRecord | None:
    raise Unavailable(Reason.STORE_UNAVAILABLE)


def test_contact_is_measured_by_the_monotonic_clock(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    issued.verify(token)
    issued.clock.wall -= 1000
    assert issued.lookups_of(token) == 0
    issued.clock.ticks += FRESH
    assert issued.lookups_of(token) == 1


def test_strict_means_that_every_check_reads(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    issued.verifier = issued.another(max_staleness=0.0)
    assert issued.lookups_of(token) == 3
    issued.store.reachable = False
    with pytest.raises(Unavailable) as caught:
        issued.verify(token)
    assert caught.value.reason is Reason.STORE_STALE


def test_a_store_that_was_rewound_is_no_answer_until_the_restore_is_accepted(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    issued.verify(token)
    issued.feed.apply(FeedBatch(0, 0, 1))
    with pytest.raises(Unavailable) as caught:
        issued.verify(token)
    assert caught.value.reason is Reason.STORE_REWOUND
    issued.feed.apply(FeedBatch(1, 100, 101))

    assert issued.lookups_of(token) == 1


@pytest.mark.parametrize("reachable", [True, False], ids=["store there", "store away"])
def test_a_revocation_behind_a_long_row_of_changes_is_honoured_within_a_second(issued: Issued, reachable: bool) -> None:
    """Whether its turn in the feed has come by then or not; while the store is away too, as long as nothing is known of it."""
    token, record = issued.token()
    issued.poll()
    assert isinstance(issued.verify(token), Identity)
    issued.store.revoke(record.id, at=NOW, by="root")
    position = issued.feed.position
    issued.store.reachable = reachable
    issued.feed.apply(FeedBatch(0, position + 9, 1, ((position + 1, "another"),), more=True))
    issued.clock.advance(1)
    assert issued.lookups_of(token, 1) == 0
    issued.clock.advance(0.1)
    if reachable:
        assert issued.verify(token) is Reason.TOKEN_REVOKED
        return
    assert isinstance(issued.verify(token), Identity)
    issued.clock.advance(STALE)
    with pytest.raises(Unavailable) as caught:
        issued.verify(token)
    assert caught.value.reason is Reason.STORE_STALE


def test_a_long_row_of_changes_makes_each_token_be_read_once(issued: Issued) -> None:
    """What was read since the store told of them has seen them all."""
    tokens = [issued.token()[0] for _ in range(3)]
    issued.poll()
    for token in tokens:
        assert isinstance(issued.verify(token), Identity)
    position = issued.feed.position
    issued.feed.apply(FeedBatch(0, position + 9, 1, ((position + 1, "another"),), more=True))
    issued.clock.advance(1.1)
    assert [issued.lookups_of(token) for token in tokens] == [1, 1, 1]


def test_a_gap_in_the_feed_makes_every_token_be_read_again(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    issued.verify(token)
    issued.feed.apply(FeedBatch(0, 50, 40))

    assert issued.lookups_of(token) == 1


def test_refusals_are_remembered_until_anything_changes(issued: Issued) -> None:
    unknown = mint("glean", b"\x01" * 48).text
    issued.poll()
    assert issued.verify(unknown) is Reason.TOKEN_UNKNOWN
    assert issued.lookups_of(unknown) == 0
    issued.token()
    issued.poll()
    assert issued.lookups_of(unknown) == 1
    issued.clock.advance(REFUSAL_LIFETIME)
    assert issued.lookups_of(unknown) == 1


def test_a_wrong_secret_does_not_lock_out_the_right_one(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    for number in range(50):
        assert (
            issued.verify(mint("glean", hashlib.sha384(b"1").digest()[:16] + number.to_bytes(32)).text) is Reason.TOKEN_SECRET_WRONG
        )
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")


def test_look_ups_of_unknown_tokens_are_bounded_and_known_ones_are_not(issued: Issued) -> None:
    known, _ = issued.token()
    issued.poll()
    issued.verify(known)
    issued.budget = Budget(10, 64, clock=issued.clock)
    issued.verifier = issued.another()
    reasons = []
    for number in range(100):
        try:
            reasons.append(issued.verify(mint("glean", number.to_bytes(48)).text))
        except Unavailable as unavailable:
            reasons.append(unavailable.reason)
    assert reasons.count(Reason.TOKEN_UNKNOWN) == 10
    assert reasons.count(Reason.OVERLOADED) == 90
    issued.clock.advance(FRESH)
    issued.poll()
    issued.budget.take()
    assert holder(issued.verify(known)) == (AuthType.USER, "ana@acme.com"), "read again, whatever strangers do"
    assert issued.budget.under_way == 1


def test_an_unreachable_store_is_no_answer_for_a_new_token(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    issued.store.reachable = False
    with pytest.raises(Unavailable):
        issued.verify(token)
    with pytest.raises(Unavailable):
        issued.verify(mint("glean", bytes(48)).text)


@pytest.mark.parametrize("text", ["", "glean", "glean_x_y", "other_000000000000_" + "0" * 49, "eyJ.eyJ.sig", "a" * 16384])
def test_what_is_no_token_asks_nobody(issued: Issued, text: str) -> None:
    assert issued.verify(text) is Reason.TOKEN_MALFORMED
    assert issued.store.lookups == 0


def test_a_wrong_checksum_asks_nobody(issued: Issued) -> None:
    token, _ = issued.token()

    assert issued.verify(token[:-1] + ("0" if token[-1] != "0" else "1")) is Reason.TOKEN_CHECKSUM
    assert issued.store.lookups == 0


def test_the_secret_counts(issued: Issued) -> None:
    """Two tokens of one id: what the store knows of the first says nothing about the second."""
    token, record = issued.token()
    entropy = hashlib.sha384(b"1").digest()
    forged = mint("glean", entropy[:16] + bytes(32))
    assert forged.id == record.id
    issued.poll()
    issued.verify(token)

    assert issued.verify(forged.text) is Reason.TOKEN_SECRET_WRONG


@pytest.mark.parametrize(
    "change",
    [
        {"permission": AuthType.GLOBAL, "user": None},
        {"user": "ceo@acme.com"},
        {"user": None},
        {"scopes": frozenset({"SEARCH", "CHAT"})},
        {"scopes": frozenset()},
        {"created_at": NOW},
        {"expires_at": NOW + 3601},
        {"pepper_id": "p2"},
        {"pepper_id": "unknown"},
        {"digest": bytes(32)},
        {"digest": b""},
    ],
    ids=lambda change: " and ".join(change),
)
def test_a_record_that_somebody_changed_verifies_nothing(issued: Issued, change: dict[str, Any]) -> None:
    token, record = issued.token()
    issued.verifier = issued.another(peppers={"p1": PEPPER, "p2": b"another pepper of thirty-two bytes"})
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")
    issued.store.put(replace(record, **change))

    assert issued.verify(token) is Reason.TOKEN_SECRET_WRONG


def test_a_life_that_was_made_shorter_is_as_good_as_any(issued: Issued) -> None:
    token, record = issued.token()
    issued.store.put(replace(record, expires_at=NOW + 10))
    evidence = issued.verify(token)
    assert isinstance(evidence, Identity)
    assert evidence.expires_at == NOW + 10


def test_a_digest_of_the_first_form_knows_no_latest_expiry(issued: Issued) -> None:
    """Such a token verifies as it did; a digest of another length is nobody's."""
    token, record = issued.token()
    fixed = {name: getattr(record, name) for name in ("permission", "user", "scopes", "created_at")}
    of_old = digest(token, PEPPER, **fixed, latest=None)
    issued.store.put(replace(record, digest=of_old, expires_at=NOW + 10**6))
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")
    for other in (of_old[:31], of_old + bytes(1), of_old + bytes(8), record.digest[:32], record.digest + b"x"):
        issued = Issued()
        token, record = issued.token()
        issued.store.put(replace(record, digest=other))
        assert issued.verify(token) is Reason.TOKEN_SECRET_WRONG


@pytest.mark.parametrize("peppers", [{"p1": PEPPER}, {"p1": b""}, {}], ids=["another pepper", "an empty pepper", "no pepper"])
def test_no_pepper_is_not_a_pepper(issued: Issued, peppers: dict[str, bytes]) -> None:
    """Whoever can write to the store knows the empty key: a record that verifies with it is worth nothing."""
    token, record = issued.token()
    fixed = {name: getattr(record, name) for name in ("permission", "user", "scopes", "created_at")}
    made = digest(token, b"", **fixed, latest=None)
    for name in ("p1", "p0"):
        issued.store.put(replace(record, pepper_id=name, digest=made))
        issued.verifier = issued.another(peppers=peppers)
        assert issued.verify(token) is Reason.TOKEN_SECRET_WRONG


def test_without_its_pepper_no_token_is_good(issued: Issued) -> None:
    token, _ = issued.token()
    for peppers in ({}, {"p1": b"x" * 32}, {"p2": PEPPER}, {"p1": b""}):
        issued.verifier = issued.another(peppers=peppers)
        assert issued.verify(token) is Reason.TOKEN_SECRET_WRONG


def test_a_pepper_that_is_not_the_newest_still_counts(issued: Issued) -> None:
    token, _ = issued.token()
    issued.verifier = issued.another(peppers={"p2": b"x" * 32, "p1": PEPPER})

    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")


def test_prefixes_are_those_that_are_accepted(issued: Issued) -> None:
    token, _ = issued.token()
    issued.verifier = issued.another(prefixes=("acme", "glean"))
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")
    issued.verifier = issued.another(prefixes=("acme",))
    assert issued.verify(token) is Reason.TOKEN_MALFORMED


def test_expiry_is_told_only_to_who_knows_the_secret(issued: Issued) -> None:
    token, _ = issued.token(expires_at=NOW)
    forged = mint("glean", hashlib.sha384(b"1").digest()[:16] + bytes(32)).text

    assert issued.verify(token) is Reason.TOKEN_EXPIRED
    assert issued.verify(forged) is Reason.TOKEN_SECRET_WRONG


def test_a_token_ends_at_its_second(issued: Issued) -> None:
    token, _ = issued.token(expires_at=NOW + 10)
    issued.clock.advance(9.999)
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")
    issued.clock.advance(0.001)
    assert issued.verify(token) is Reason.TOKEN_EXPIRED


# --- verdicts never outlive the token


def test_a_remembered_issued_token_expires_on_time(make_world: MakeWorld) -> None:
    world = make_world([{"match": "POST /search", "scope": "SEARCH"}])
    token = world.token("USER", lifetime=70)
    assert world.check("POST /search", bearer(token)).allowed
    world.clock.wall = NOW + 9.9
    assert world.check("POST /search", bearer(token)).allowed
    world.clock.wall = NOW + 10

    assert world.check("POST /search", bearer(token)).reason == "token_expired"


def test_a_remembered_oauth_token_expires_on_time(make_world: MakeWorld) -> None:
    world = make_world([{"match": "POST /search", "scope": "SEARCH"}])
    token = sign(claims(exp=NOW + 10.5))
    assert world.check("POST /search", oauth(token)).allowed
    world.clock.wall = NOW + 10.4
    assert world.check("POST /search", oauth(token)).allowed
    world.clock.wall = NOW + 10.5

    assert world.check("POST /search", oauth(token)).reason == "token_expired"


# --- OAuth tokens


def rules(**changes: Any) -> ProviderRules:
    plain = ProviderRules(
        name="okta",
        provider=PROVIDERS["okta"][0],
        issuer=ISSUER,
        client_ids=frozenset({CLIENT}),
        audience=frozenset({"api://default"}),
        scopes=frozenset({"SEARCH"}),
        user_claims=("sub",),
    )
    return replace(plain, **changes)


def key_set(*names: str) -> jwt.KeySet:
    """Return a key set with these of the keys rsa-1, rsa-2 and ec-1."""
    keys = {"rsa-1": rsa_key(), "rsa-2": rsa_key("rsa-2"), "ec-1": ec_key()}
    return read_key_set({"keys": [public_jwk(keys[name], name) for name in names]}, ("RS256", "ES256"))


class Keys:
    """A key source whose fetches end when a test says so; it counts them."""

    def __init__(self, keys: jwt.KeySet | None, *, fetched_at: float = NOW) -> None:
        self.held = keys
        self.fetched_at = fetched_at if keys is not None else 0.0
        self.may_reload = False
        self.loads = 0
        self.reloads = 0
        self.fetch: asyncio.Future[jwt.KeySet] | None = None

    def keys(self) -> jwt.KeySet | None:
        return self.held

    def load(self) -> Awaitable[jwt.KeySet]:
        self.loads += 1
        return self._fetched()

    def reload_for_unknown_key(self) -> Awaitable[jwt.KeySet] | None:
        if not self.may_reload:
            return None
        self.may_reload = False
        self.reloads += 1
        return self._fetched()

    def arrive(self, keys: jwt.KeySet, at: float = NOW) -> None:
        """End the fetch under way well."""
        self.held, self.fetched_at = keys, at
        assert self.fetch is not None
        self.fetch.set_result(keys)

    def fail(self) -> None:
        """End the fetch under way badly."""
        assert self.fetch is not None
        self.fetch.set_exception(Unavailable(Reason.KEY_SET_UNAVAILABLE))
        self.fetch.exception()

    def _fetched(self) -> Awaitable[jwt.KeySet]:
        if self.fetch is None or self.fetch.done():
            self.fetch = asyncio.get_running_loop().create_future()
        return asyncio.shield(self.fetch)


class ClosedKeys(Keys):
    """A key source that failed a moment ago and does not try again yet."""

    def load(self) -> Awaitable[jwt.KeySet]:
        self.loads += 1
        raise Unavailable(Reason.KEY_SET_UNAVAILABLE)


class WaitedFor(Keys):
    """A key source that lets everybody wait for the next attempt, as after a failure."""

    def reload_for_unknown_key(self) -> Awaitable[jwt.KeySet]:
        return self._fetched()


class OAuth:
    """A verifier of OAuth tokens with everything around it."""

    def __init__(self, source: Keys) -> None:
        self.clock = StillClock()
        self.source = source
        self.verdicts = VerdictCache(Kind.OAUTH, bytes(32), lifetime=300.0, clock=self.clock)
        self.signatures = Budget(1000, clock=self.clock)
        self.verifier = OAuthVerifier([Issuer(rules(), source)], self.verdicts, clock=self.clock, signatures=self.signatures)

    def verify(self, token: str) -> Evidence | Awaitable[Evidence]:
        return self.verifier.verify(token, self.clock.now())


GOOD = sign(claims())
NEW = sign(claims(), key=rsa_key("rsa-2"), header={"kid": "rsa-2"})
ANA = (AuthType.OAUTH, "ana@acme.com")


def test_with_a_key_in_memory_nobody_waits() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    evidence = it.verify(GOOD)

    assert isinstance(evidence, Identity)
    assert (holder(evidence), evidence.actor, evidence.client_id) == (ANA, "oauth:okta:ana@acme.com", CLIENT)
    assert (evidence.scopes, evidence.expires_at) == (frozenset({"SEARCH"}), NOW + 3600)
    assert (it.source.loads, it.source.reloads) == (0, 0)


def test_a_verdict_is_remembered_for_its_lifetime() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    first = it.verify(GOOD)
    it.clock.ticks += 299
    assert it.verify(GOOD) is first
    it.clock.ticks += 1
    assert it.verify(GOOD) is not first


# The decisions say: a verdict remembers the key that signed it; when a refresh removes or replaces the key it is void at once.
@pytest.mark.parametrize("now_held", ["rsa-2", ""], ids=["another key", "no key"])
def test_a_verdict_is_void_when_its_key_is_gone(now_held: str) -> None:
    it = OAuth(Keys(key_set("rsa-1", "ec-1")))
    assert holder(it.verify(GOOD)) == ANA
    it.source.held = key_set("ec-1", *filter(None, [now_held]))
    it.source.fetched_at = NOW + 1

    assert it.verify(GOOD) is Reason.TOKEN_KEY_UNKNOWN


# The same for a key of the same name.
def test_a_verdict_is_void_when_its_key_is_replaced() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    assert holder(it.verify(GOOD)) == ANA
    it.source.held = read_key_set({"keys": [public_jwk(rsa_key("rsa-2"), "rsa-1")]}, ("RS256",))

    assert it.verify(GOOD) is Reason.TOKEN_SIGNATURE


# Two keys may share a name when their algorithms differ (RFC 7517 4.5); each has its own verdicts.
@pytest.mark.parametrize("gone", ["RS256", "ES256"])
def test_a_verdict_dies_with_its_key_and_not_with_another_of_that_name(gone: str) -> None:
    jwks = {"RS256": public_jwk(rsa_key(), "both"), "ES256": public_jwk(ec_key(), "both")}
    tokens = {algorithm: sign(claims(), algorithm=algorithm, header={"kid": "both"}) for algorithm in jwks}
    it = OAuth(Keys(read_key_set({"keys": list(jwks.values())})))
    verdicts = {algorithm: it.verify(token) for algorithm, token in tokens.items()}
    assert [holder(verdict) for verdict in verdicts.values()] == [ANA, ANA]
    it.source.held = read_key_set({"keys": [jwk for algorithm, jwk in jwks.items() if algorithm != gone]})
    it.source.fetched_at = NOW + 1

    assert {algorithm for algorithm, token in tokens.items() if it.verify(token) is verdicts[algorithm]} == {*jwks} - {gone}
    assert it.verify(tokens[gone]) is Reason.TOKEN_KEY_UNKNOWN


def test_a_verdict_outlives_what_else_is_published_with_its_key() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    verdict = it.verify(GOOD)
    it.source.held = read_key_set({"keys": [public_jwk(rsa_key(), "rsa-1") | {"x5c": ["renewed"]}]})

    assert it.verify(GOOD) is verdict


async def test_a_key_of_another_algorithm_is_looked_for_like_an_unknown_one() -> None:
    """Its issuer may just have published it beside the one of that name."""
    it = OAuth(Keys(read_key_set({"keys": [public_jwk(ec_key(), "rsa-1")]})))
    it.source.may_reload = True
    pending = it.verify(GOOD)
    assert not isinstance(pending, Identity | Reason)
    waiter = asyncio.ensure_future(pending)
    await asyncio.sleep(0)
    it.source.arrive(read_key_set({"keys": [public_jwk(ec_key(), "rsa-1"), public_jwk(rsa_key(), "rsa-1")]}))

    assert holder(await waiter) == ANA


async def test_the_first_token_waits_for_the_keys() -> None:
    it = OAuth(Keys(None))
    pending = it.verify(GOOD)
    assert not isinstance(pending, Identity | Reason)
    waiter = asyncio.ensure_future(pending)
    await asyncio.sleep(0)
    assert not waiter.done()
    it.source.arrive(key_set("rsa-1"))

    assert holder(await waiter) == ANA
    assert it.verify(GOOD) is waiter.result(), "the verdict is remembered"
    assert (it.source.loads, it.source.reloads) == (1, 0)


async def test_keys_that_do_not_come_are_no_answer_and_leave_none() -> None:
    it = OAuth(Keys(None))
    pending = it.verify(GOOD)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    it.source.fail()
    with pytest.raises(Unavailable) as caught:
        await pending

    assert caught.value.reason is Reason.KEY_SET_UNAVAILABLE
    assert len(it.verdicts) == 0


async def test_a_source_that_does_not_try_is_no_answer() -> None:
    it = OAuth(ClosedKeys(None))
    with pytest.raises(Unavailable):
        it.verify(GOOD)


async def test_the_token_that_waited_is_judged_by_the_time_when_the_keys_came() -> None:
    it = OAuth(Keys(None))
    pending = it.verify(GOOD)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    it.clock.wall = NOW + 3600
    it.source.arrive(key_set("rsa-1"))

    assert await pending is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("", "token_malformed"),
        ("glean_x", "token_malformed"),
        ("a.b.c", "token_malformed"),
        (sign(claims(iss="https://evil.example")), "token_issuer"),
        (sign(claims(iss=None)), "token_issuer"),
        (sign(claims(iss=[ISSUER])), "token_issuer"),
        (sign(claims(iss=ISSUER + "/")), "token_issuer"),
        (sign(claims(cid="other")), "token_client"),
        (sign(claims(exp=NOW)), "token_expired"),
        (sign(claims(exp=None)), "token_claims_malformed"),
        (sign(claims(jti="ID.1")), "token_kind_wrong"),
        (sign(claims(nonce="n")), "token_kind_wrong"),
    ],
)
async def test_what_no_key_could_save_asks_for_none(token: str, expected: str) -> None:
    it = OAuth(Keys(None))
    it.source.may_reload = True

    assert it.verify(token) == expected
    assert (it.source.loads, it.source.reloads) == (0, 0)


async def test_a_stranger_with_an_unknown_key_makes_one_fetch_and_no_more() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    it.source.may_reload = True
    pending = it.verify(sign(claims(iat=NOW - 61), header={"kid": "made up"}))
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    it.source.arrive(key_set("rsa-1"), at=NOW)
    assert await pending is Reason.TOKEN_KEY_UNKNOWN

    assert it.verify(sign(claims(iat=NOW - 61), header={"kid": "another"})) is Reason.TOKEN_KEY_UNKNOWN
    assert it.source.reloads == 1


async def test_a_new_key_is_found_by_one_more_fetch() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    it.source.may_reload = True
    pending = it.verify(NEW)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    it.source.arrive(key_set("rsa-1", "rsa-2"))

    assert holder(await pending) == ANA
    assert holder(it.verify(NEW)) == ANA


async def test_tokens_that_wait_for_an_unknown_key_are_bounded_and_known_ones_are_not() -> None:
    it = OAuth(WaitedFor(key_set("rsa-1")))
    strangers = [sign(claims(), header={"kid": f"made up {number}"}) for number in range(64)]
    waiting = [it.verify(stranger) for stranger in strangers]
    with pytest.raises(Unavailable) as caught:
        it.verify(NEW)
    assert caught.value.reason is Reason.OVERLOADED
    assert holder(it.verify(GOOD)) == ANA
    await asyncio.sleep(0)
    it.source.arrive(key_set("rsa-1", "rsa-2"))
    assert {await pending for pending in waiting if not isinstance(pending, Identity | Reason)} == {Reason.TOKEN_KEY_UNKNOWN}
    assert holder(it.verify(NEW)) == ANA


async def test_while_that_fetch_is_under_way_known_keys_answer() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    it.source.may_reload = True
    pending = it.verify(NEW)

    assert holder(it.verify(GOOD)) == ANA
    it.source.arrive(key_set("rsa-1", "rsa-2"))
    assert not isinstance(pending, Identity | Reason)
    await pending


async def test_a_fetch_for_an_unknown_key_that_fails_is_no_answer() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    it.source.may_reload = True
    pending = it.verify(NEW)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    it.source.fail()
    with pytest.raises(Unavailable):
        await pending


@pytest.mark.parametrize(
    ("issued_before", "expected"),
    [
        (KEY_DELAY + 0.5, Reason.TOKEN_KEY_UNKNOWN),
        (KEY_DELAY + 1000, Reason.TOKEN_KEY_UNKNOWN),
        (KEY_DELAY, None),
        (0.0, None),
        (-30.0, None),
    ],
)
def test_without_a_fetch_the_age_of_the_keys_decides(issued_before: float, expected: Reason | None) -> None:
    """401 if the key set is so young that it would hold the key, else 503 (docs/decisions.md, FRESHNESS-6)."""
    it = OAuth(Keys(key_set("rsa-1"), fetched_at=NOW))
    token = sign(claims(iat=NOW - issued_before), key=rsa_key("rsa-2"), header={"kid": "rsa-2"})
    if expected is None:
        with pytest.raises(Unavailable) as caught:
            it.verify(token)
        assert caught.value.reason is Reason.KEY_SET_UNAVAILABLE
    else:
        assert it.verify(token) is expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iat": NOW + 61}, "token_not_yet_valid"),
        ({"nbf": NOW + 61}, "token_not_yet_valid"),
        ({"iat": "soon"}, "token_claims_malformed"),
        ({"iat": True}, "token_claims_malformed"),
    ],
)
async def test_an_unknown_key_of_a_token_from_the_future_causes_no_fetch(change: dict[str, Any], expected: str) -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    it.source.may_reload = True

    assert it.verify(sign(claims(**change), key=rsa_key("rsa-2"), header={"kid": "rsa-2"})) == expected
    assert it.source.reloads == 0


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, Reason.TOKEN_ALGORITHM),
        ({"alg": "HS256"}, Reason.TOKEN_ALGORITHM),
        ({"crit": ["x"]}, Reason.TOKEN_HEADER_FORBIDDEN),
        ({"typ": "JOSE"}, Reason.TOKEN_HEADER_FORBIDDEN),
    ],
    ids=str,
)
async def test_a_forbidden_header_with_an_unknown_key_causes_no_fetch(header: dict[str, Any], reason: Reason) -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    it.source.may_reload = True

    assert it.verify(sign(claims(), header={"kid": "made up"} | header)) is reason
    assert it.source.reloads == 0


def test_a_forged_token_costs_one_signature_in_ten_seconds() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    forged = sign(claims(), key=rsa_key("rsa-2"))
    for _ in range(5):
        assert it.verify(forged) is Reason.TOKEN_SIGNATURE
    assert (it.signatures.under_way, it.verdicts.refusals, len(it.verdicts)) == (1, 4, 0)

    it.clock.advance(REFUSAL_LIFETIME)
    assert it.verify(forged) is Reason.TOKEN_SIGNATURE
    assert it.signatures.under_way == 2


def test_a_refusal_is_forgotten_with_the_keys_that_it_was_found_with() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    early = sign(claims(), key=rsa_key("rsa-2"))
    assert it.verify(early) is Reason.TOKEN_SIGNATURE
    it.source.held = read_key_set({"keys": [public_jwk(rsa_key("rsa-2"), "rsa-1")]}, ("RS256",))

    assert holder(it.verify(early)) == ANA


@pytest.mark.parametrize("change", [{"iat": NOW + 61}, {"nbf": NOW + 70}])
def test_a_token_that_is_not_yet_valid_is_asked_about_again(change: dict[str, Any]) -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    token = sign(claims(**change))
    assert it.verify(token) is Reason.TOKEN_NOT_YET_VALID
    it.clock.wall += 11

    assert holder(it.verify(token)) == ANA


def test_signatures_beyond_the_budget_are_503_and_known_tokens_are_not() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    assert holder(it.verify(GOOD)) == ANA
    it.signatures._balance = 1.0
    assert it.verify(sign(claims(), key=rsa_key("rsa-2"))) is Reason.TOKEN_SIGNATURE
    with pytest.raises(Unavailable) as caught:
        it.verify(sign(claims(jti="AT.2")))
    assert caught.value.reason is Reason.OVERLOADED
    assert holder(it.verify(GOOD)) == ANA
    it.clock.ticks += 1
    assert holder(it.verify(sign(claims(jti="AT.2")))) == ANA


async def test_each_issuer_has_keys_of_its_own() -> None:
    """A token is verified with the keys of the issuer that it names and of no other."""
    other = "https://other.okta.com/oauth2/default"
    mine, theirs = Keys(key_set("rsa-1")), Keys(read_key_set({"keys": [public_jwk(rsa_key("rsa-2"), "rsa-1")]}, ("RS256",)))
    clock = StillClock()
    verdicts = VerdictCache(Kind.OAUTH, bytes(32), lifetime=300.0, clock=clock)
    issuers = [Issuer(rules(), mine), Issuer(rules(issuer=other, name="other"), theirs)]
    verifier = OAuthVerifier(issuers, verdicts, clock=clock, signatures=Budget(1000, clock=clock))

    assert holder(verifier.verify(GOOD, NOW)) == ANA
    assert verifier.verify(sign(claims(iss=other)), NOW) is Reason.TOKEN_SIGNATURE
    evidence = verifier.verify(sign(claims(iss=other), key=rsa_key("rsa-2")), NOW)
    assert isinstance(evidence, Identity)
    assert evidence.actor == "oauth:other:ana@acme.com"


async def test_a_failure_that_nobody_collects_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    it = OAuth(Keys(None))
    it.verify(GOOD)
    await asyncio.sleep(0)
    it.source.fail()
    await settled()
    gc.collect()

    assert caplog.records == []


# ports.Verifier promises "an awaitable that nobody's cancellation ends", whoever waits for it and however.
async def test_a_waiter_that_leaves_does_not_end_the_verification() -> None:
    it = OAuth(Keys(None))

    async def wait() -> Evidence:
        pending = it.verify(GOOD)
        assert not isinstance(pending, Identity | Reason)
        return await pending

    waiter = asyncio.ensure_future(wait())
    await settled()
    waiter.cancel()
    await asyncio.wait([waiter])
    it.source.arrive(key_set("rsa-1"))
    await settled()

    assert len(it.verdicts) == 1


# --- the memory of verdicts


def an_identity(name: str = "one") -> Identity:
    return Identity(AuthType.USER, f"token:{name}", "ana@acme.com", frozenset(), NOW + 3600, token_id=name)


def identity_of(verdict: Verdict | Reason | None) -> Identity:
    assert isinstance(verdict, Verdict)
    return verdict.identity


def test_a_refusal_takes_the_place_of_an_identity(clock: StillClock) -> None:
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock)
    cache.put("a", an_identity())
    cache.put("a", Reason.TOKEN_REVOKED)
    assert cache.recall("a") is Reason.TOKEN_REVOKED
    clock.ticks += REFUSAL_LIFETIME
    assert cache.recall("a") is None


@pytest.mark.parametrize(
    ("reason", "step", "remembered"),
    [
        (Reason.TOKEN_EXPIRED, 0.0, True),
        (Reason.TOKEN_EXPIRED, 3600.0, True),
        (Reason.TOKEN_EXPIRED, -0.5, False),
        (Reason.TOKEN_EXPIRED, -3600.0, False),
        (Reason.TOKEN_NOT_YET_VALID, 0.0, False),
        (Reason.TOKEN_NOT_YET_VALID, 3600.0, False),
        (Reason.TOKEN_NOT_YET_VALID, -3600.0, False),
        (Reason.TOKEN_SIGNATURE, -3600.0, True),
        (Reason.TOKEN_REVOKED, 3600.0, True),
    ],
)
def test_a_refusal_that_names_a_time_ends_where_the_clock_takes_it_back(
    clock: StillClock, reason: Reason, step: float, remembered: bool
) -> None:
    """What has expired stays so while time goes on; what is not yet valid may be so at any moment."""
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock)
    cache.put("a", reason)
    clock.wall += step
    assert cache.recall("a") is (reason if remembered else None)


def test_a_refusal_that_is_not_remembered_forgets_the_identity_too(clock: StillClock) -> None:
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock)
    cache.put("a", an_identity())
    cache.put("a", Reason.TOKEN_NOT_YET_VALID)
    assert cache.recall("a") is None


def test_an_issued_token_is_good_again_when_the_clock_was_ahead(issued: Issued) -> None:
    token, _ = issued.token(expires_at=NOW + 100)
    issued.poll()
    issued.clock.wall += 1000
    assert issued.verify(token) is Reason.TOKEN_EXPIRED
    assert issued.lookups_of(token) == 0, "while time goes on, it is known"
    issued.clock.wall -= 1000
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")


async def test_an_oauth_token_is_good_again_when_the_clock_was_ahead() -> None:
    it = OAuth(Keys(None))
    pending = it.verify(GOOD)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    it.clock.wall += 10_000
    it.source.arrive(key_set("rsa-1"))
    assert await pending is Reason.TOKEN_EXPIRED
    assert it.verify(GOOD) is Reason.TOKEN_EXPIRED
    it.clock.wall -= 10_000
    assert holder(it.verify(GOOD)) == ANA


def test_garbage_pushes_out_nothing_but_garbage(clock: StillClock) -> None:
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock, capacity=100)
    for number in range(100):
        cache.put(f"token {number}", an_identity(str(number)))
    for number in range(1000):
        cache.put(f"garbage {number}", Reason.TOKEN_UNKNOWN)
        assert len(cache._refusals) <= 10
    assert len(cache) == 100
    assert cache.recall("token 0")


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def test_the_memory_is_bounded(clock: StillClock) -> None:
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock, capacity=10)
    for number in range(100):
        cache.put(f"token {number}", an_identity(str(number)))
        assert len(cache) <= 10

    kept = [number for number in range(100) if cache.recall(f"token {number}")]
    assert kept == list(range(90, 100))


def test_what_is_used_stays_longest(clock: StillClock) -> None:
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock, capacity=3)
    for name in "abc":
        cache.put(name, an_identity(name))
    cache.recall("a")
    cache.put("b", an_identity("b"))
    cache.put("d", an_identity("d"))

    assert [name for name in "abcd" if cache.recall(name)] == ["a", "b", "d"]


def test_a_verdict_ends_with_its_lifetime_on_the_monotonic_clock(clock: StillClock) -> None:
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock)
    verdict = an_identity()
    cache.put("a", verdict)
    clock.wall += 1_000_000
    clock.ticks += 59.999
    assert identity_of(cache.recall("a")) is verdict
    clock.ticks += 0.001
    assert cache.recall("a") is None
    assert len(cache) == 0, "an old verdict takes no room"


def test_reading_does_not_prolong_but_a_new_verification_does(clock: StillClock) -> None:
    cache = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=clock)
    cache.put("a", an_identity())
    for _ in range(59):
        clock.ticks += 1
        assert cache.recall("a")
    cache.put("a", an_identity())
    clock.ticks += 59
    assert cache.recall("a")
    clock.ticks += 1
    assert cache.recall("a") is None


def test_the_key_is_kind_section_and_token(clock: StillClock) -> None:
    """Three caches that shared one table would still not answer for each other."""
    section, other = bytes(32), b"\x01" * 32
    caches = [
        VerdictCache(kind, digest, lifetime=60.0, clock=clock) for kind, digest in ((Kind.ISSUED, section), (Kind.OAUTH, section))
    ]
    caches.append(VerdictCache(Kind.ISSUED, other, lifetime=60.0, clock=clock))
    for cache in caches:
        cache._entries = caches[0]._entries
    verdict = an_identity()
    caches[0].put("token", verdict)

    assert identity_of(caches[0].recall("token")) is verdict
    assert [cache.recall("token") for cache in caches[1:]] == [None, None]
    assert [caches[0].recall(text) for text in ("Token", "token ", "toke", "")] == [None] * 4


def test_the_token_itself_is_not_kept(clock: StillClock) -> None:
    cache = VerdictCache(Kind.OAUTH, bytes(32), lifetime=60.0, clock=clock)
    cache.put(GOOD, an_identity())

    assert GOOD not in repr(vars(cache))
    assert [len(key) for key in cache._entries] == [32]


def test_forgetting_is_complete(clock: StillClock) -> None:
    cache = VerdictCache(Kind.OAUTH, bytes(32), lifetime=60.0, clock=clock)
    cache.put("a", an_identity())
    cache.clear()

    assert (len(cache), cache.recall("a")) == (0, None)


async def test_a_token_without_a_key_id_burns_no_fetch() -> None:
    it = OAuth(Keys(key_set("rsa-1")))
    assert it.verify(sign(claims(), header={"kid": None})) is Reason.TOKEN_KEY_UNKNOWN
    assert it.source.reloads == 0


def test_a_store_that_breaks_gives_its_place_back(issued: Issued) -> None:
    token, _ = issued.token()

    def broken(_: str) -> TokenRecord | None:
        raise RuntimeError("the store broke")

    issued.store.find = broken  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(RuntimeError):
            issued.verify(token)
    assert issued.budget.under_way == 0


class WaitingStore(WatchedStore):
    """A store whose answers come when a test says so, as those of a database do."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[asyncio.Future[TokenRecord | None]] = []

    def find(self, token_id: str) -> Any:
        self.lookups += 1
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


@pytest.fixture
async def waiting() -> Issued:
    it = Issued()
    it.store = WaitingStore()
    it.verifier = it.another()
    return it


async def test_a_revocation_that_the_feed_tells_during_a_look_up_is_not_missed(waiting: Issued) -> None:
    """The row was read before the revocation and comes after the feed told of it: it is read again."""
    token, record = waiting.token()
    waiting.poll()
    pending = waiting.verify(token)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    waiting.store.revoke(record.id, at=NOW, by="root")
    waiting.poll()
    answers = waiting.store.answers  # type: ignore[attr-defined]
    answers[0].set_result(record)
    await settled()
    assert len(answers) == 2
    answers[1].set_result(MemoryTokenStore.find(waiting.store, record.id))
    assert await pending is Reason.TOKEN_REVOKED
    assert waiting.budget.under_way == 0


async def test_the_second_look_up_may_be_answered_at_once(waiting: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that answers from memory the second time is asked for the same token, and its record is judged by the time then."""
    token, record = waiting.token(expires_at=NOW + 100)
    waiting.poll()
    pending = waiting.verify(token)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    answers = waiting.store.answers  # type: ignore[attr-defined]
    monkeypatch.setattr(waiting.store, "find", lambda token_id: MemoryTokenStore.find(waiting.store, token_id))
    waiting.feed.apply(FeedBatch(0, 2, 1, ((2, record.id),)))
    waiting.clock.wall += 99
    answers[0].set_result(None)
    evidence = await pending
    assert holder(evidence) == (AuthType.USER, "ana@acme.com")
    assert waiting.verify(token) is evidence, "it is remembered, and no change came after it"
    waiting.feed.apply(FeedBatch(2, 3, 1, ((3, record.id),)))
    waiting.clock.wall += 1
    assert waiting.verify(token) is Reason.TOKEN_EXPIRED


async def test_a_gap_during_a_look_up_makes_it_be_asked_again(waiting: Issued) -> None:
    token, record = waiting.token()
    waiting.poll()
    pending = waiting.verify(token)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    waiting.feed.apply(FeedBatch(0, 1000, 900))
    answers = waiting.store.answers  # type: ignore[attr-defined]
    answers[0].set_result(record)
    await settled()
    answers[1].set_result(None)
    assert await pending is Reason.TOKEN_UNKNOWN


async def test_a_record_of_a_store_that_was_found_rewound_meanwhile_lets_nobody_in(waiting: Issued) -> None:
    """The record may be from before its revocation, which the older store knows nothing of."""
    token, record = waiting.token()
    waiting.poll()
    pending = waiting.verify(token)
    assert not isinstance(pending, Identity | Reason)
    await asyncio.sleep(0)
    waiting.feed.apply(FeedBatch(0, 0, 1))
    assert waiting.feed.rewound
    waiting.store.answers[0].set_result(record)  # type: ignore[attr-defined]
    with pytest.raises(Unavailable) as caught:
        await pending
    assert caught.value.reason is Reason.STORE_REWOUND
    assert waiting.verdicts.recall(token) is None, "nothing of it is remembered for the time after the restore"


async def test_what_was_known_does_not_count_when_the_store_was_found_rewound_before_it_failed(waiting: Issued) -> None:
    token, record = waiting.token()
    waiting.poll()
    first = waiting.verify(token)
    waiting.store.answers[0].set_result(record)  # type: ignore[attr-defined]
    assert not isinstance(first, Identity | Reason)
    assert holder(await first) == (AuthType.USER, "ana@acme.com")
    waiting.clock.advance(FRESH)
    waiting.poll()
    again = waiting.verify(token)
    assert not isinstance(again, Identity | Reason)
    await asyncio.sleep(0)
    waiting.feed.apply(FeedBatch(0, 0, 1))
    assert waiting.feed.rewound
    waiting.store.answers[1].set_exception(Unavailable(Reason.STORE_UNAVAILABLE))  # type: ignore[attr-defined]
    with pytest.raises(Unavailable) as caught:
        await again
    assert caught.value.reason is Reason.STORE_STALE


async def test_a_record_that_keeps_changing_is_no_answer(waiting: Issued) -> None:
    token, record = waiting.token()
    waiting.poll()
    pending = waiting.verify(token)
    assert not isinstance(pending, Identity | Reason)
    answers = waiting.store.answers  # type: ignore[attr-defined]
    for number in range(3):
        await settled()
        waiting.feed.apply(FeedBatch(0, 2 + number, 1, ((2 + number, record.id),)))
        answers[number].set_result(record)
    with pytest.raises(Unavailable) as caught:
        await pending
    assert caught.value.reason is Reason.STORE_UNAVAILABLE


async def test_checks_of_one_token_share_one_look_up(waiting: Issued) -> None:
    token, record = waiting.token()
    waiting.poll()
    checks = [asyncio.ensure_future(waiting.verify(token)) for _ in range(4)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    checks[0].cancel()
    await asyncio.sleep(0)
    waiting.store.answers[0].set_result(record)  # type: ignore[attr-defined]
    assert [holder(evidence) for evidence in await asyncio.gather(*checks[1:])] == [(AuthType.USER, "ana@acme.com")] * 3
    assert waiting.store.lookups == 1


async def test_a_store_that_fails_later_leaves_what_was_known(waiting: Issued) -> None:
    token, record = waiting.token()
    waiting.poll()
    first = waiting.verify(token)
    waiting.store.answers[0].set_result(record)  # type: ignore[attr-defined]
    assert not isinstance(first, Identity | Reason)
    await first
    waiting.clock.advance(FRESH)
    again = waiting.verify(token)
    assert not isinstance(again, Identity | Reason)
    waiting.store.answers[1].set_exception(Unavailable(Reason.STORE_UNAVAILABLE))  # type: ignore[attr-defined]
    assert holder(await again) == (AuthType.USER, "ana@acme.com")


def test_a_known_token_is_read_again_also_when_the_budget_of_look_ups_is_spent(issued: Issued) -> None:
    token, _ = issued.token()
    issued.poll()
    assert holder(issued.verify(token)) == (AuthType.USER, "ana@acme.com")
    issued.clock.advance(FRESH)
    issued.poll()
    while True:
        try:
            issued.budget.take()
        except Unavailable:
            break
    assert issued.lookups_of(token, times=1) == 1
    other, _ = issued.token()
    with pytest.raises(Unavailable):
        issued.verify(other)


def test_look_ups_are_counted_by_how_they_ended(issued: Issued) -> None:
    assert issued.verifier.queries == {"ok": 0, "failed": 0}
    issued.poll()
    tokens = [issued.token()[0] for _ in range(2)]
    for token in tokens:
        issued.verify(token)
    assert issued.verifier.queries == {"ok": 2, "failed": 0}
    issued.store.reachable = False
    issued.clock.advance(FRESH)
    for token in tokens:
        assert isinstance(issued.verify(token), Identity)
    assert issued.verifier.queries == {"ok": 2, "failed": 2}
