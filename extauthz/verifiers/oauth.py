"""Who holds an OAuth access token: memory first, then the issuer's keys, or the issuer itself."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from extauthz.core import claims, jwt
from extauthz.core.jwt import KeyName, KeySet
from extauthz.core.model import Identity, Reason
from extauthz.core.providers import ProviderRules, Verification
from extauthz.errors import Unavailable
from extauthz.ports import Clock, Evidence, Introspector, KeySource, Verdict, Verdicts
from extauthz.verifiers import issuer_answers
from extauthz.verifiers.own_tokens import OwnTokens
from extauthz.verifiers.single_flight import Flights
from extauthz.verifiers.throttling import Budget

MAX_PENDING = 64
"""Verifications of one issuer that may wait for its keys; each holds a token that anybody may have sent."""
COSTS = {"ES384": 4}
"""Checks of ES256, the slowest of the others, that one of this algorithm takes as long as."""
KEY_DELAY = 60.0
"""Seconds that an issuer may sign with a key before it publishes it."""
ACQUAINTED = 600.0
"""Seconds after which a token that the issuer vouched for is a stranger again, for the budget of questions."""

_UNSETTLED = frozenset({Reason.TOKEN_KEY_UNKNOWN, Reason.TOKEN_NOT_YET_VALID})
"""Refusals that time may turn into an identity: they are not remembered."""

Answer = Coroutine[None, None, Mapping[str, Any] | Reason]


@dataclass(slots=True, eq=False)
class Signer:
    """A key that signed tokens; its `issuer` for as long as that publishes it, then None, which voids what rests on the key."""

    issuer: Issuer | None

    @property
    def published(self) -> bool:
        """Return whether what rests on the key counts."""
        return self.issuer is not None


@dataclass(frozen=True, slots=True)
class RemoteVerification:
    """What a remote verdict rests on: a key if one was looked at, or the issuer, which is asked again at `ask_at`."""

    signer: Signer
    ask_at: float


@dataclass(slots=True, eq=False)
class Issuer:
    """One configured provider, and whom to ask: `keys` for its JWTs, or `introspector`; `userinfo` for the user besides.

    `standing` is what verdicts rest on that no key signed. `dropped` is set when another configuration takes the place of this one.
    """

    rules: ProviderRules
    keys: KeySource | None = None
    introspector: Introspector | None = None
    userinfo: Introspector | None = None
    pending: int = 0
    known_keys: KeySet = field(default_factory=dict)
    signers: dict[KeyName, Signer] = field(default_factory=dict)
    standing: Signer = field(init=False)
    dropped: bool = False

    def __post_init__(self) -> None:
        """Refuse an issuer that nobody could be asked about."""
        if (self.keys is None) == (self.introspector is None):
            raise ValueError(f"{self.rules.name}: either keys or an introspector")
        self.standing = Signer(self)

    def asks_the_same(self, other: Issuer) -> bool:
        """Tell whether both would ask the same objects."""
        return self.keys is other.keys and self.introspector is other.introspector and self.userinfo is other.userinfo

    def drop(self) -> None:
        """Void every verdict, also those that are still to come from verifications under way."""
        self.dropped = True
        for signer in (self.standing, *self.signers.values()):
            signer.issuer = None


@dataclass(frozen=True, slots=True, repr=False)
class _PendingToken:
    """One token under verification: whose it claims to be, what it claims, and whether it was good a while ago."""

    token: str
    issuer: Issuer
    is_known: bool
    unverified: jwt.Unverified | None = None


class OAuthVerifier:
    """Verifies access tokens with the one issuer that they name; a text of the opaque form goes to the one that writes such."""

    def __init__(
        self,
        issuers: Iterable[Issuer],
        verdicts: Verdicts,
        *,
        clock: Clock,
        signatures: Budget,
        remote_lifetime: float = 60.0,
        prefixes: Iterable[str] = (),
    ) -> None:
        """Take issuers that differ, and prefixes of issued tokens, which are shown to none of them.

        `signatures` bounds checks of signatures, `remote_lifetime` is that of remote verdicts.
        """
        self._issuers = tuple(issuers)
        self._by_issuer = {
            issuer.rules.issuer: issuer for issuer in self._issuers if issuer.rules.verification is not Verification.TOKENINFO
        }
        self._opaque = tuple(issuer for issuer in self._issuers if issuer.rules.provider.opaque)
        self._verdicts = verdicts
        self._clock = clock
        self._signatures = signatures
        self._remote_lifetime = remote_lifetime
        self._flights = Flights()
        self._own_tokens = OwnTokens(prefixes)

    @property
    def shed(self) -> int:
        """How many checks of signatures were refused because of the budget."""
        return self._signatures.refused

    def verify(self, token: str, now: float) -> Evidence | Awaitable[Evidence]:
        """Answer at once when memory or a key in memory suffices; checks of one token share the work. Raises Unavailable."""
        verdict = self._verdicts.recall(token)
        if isinstance(verdict, Verdict) and self._stands(verdict.basis):
            return verdict.identity
        has_new_keys = [issuer for issuer in self._issuers if self._notice_new_keys(issuer)]
        if isinstance(verdict, Reason):
            if not has_new_keys:
                return verdict
            verdict = None
        if token in self._own_tokens:
            return Reason.TOKEN_MALFORMED
        flight = self._flights.join(token)
        if flight is not None:
            return flight
        for writer in self._opaque:
            if writer.rules.provider.opaque and writer.rules.provider.opaque.fullmatch(token):
                return self._ask(_PendingToken(token, writer, verdict is not None))
        unverified = jwt.read(token)
        if isinstance(unverified, Reason):
            return unverified
        issuer = self._issuer_of(unverified.claims)
        if issuer is None:
            return Reason.TOKEN_ISSUER
        refusal = claims.precheck(unverified.claims, issuer.rules, now) or jwt.header_refusal(unverified, issuer.rules)
        case = _PendingToken(token, issuer, verdict is not None, unverified)
        return refusal or (self._verify_signature(case, unverified) if issuer.keys is not None else self._ask(case))

    def _issuer_of(self, token_claims: claims.Claims) -> Issuer | None:
        """Return the issuer that a token names: by `iss`, or as a JWT-SVID by its trust domain, whatever its `iss` is."""
        name = token_claims.get("iss")
        issuer = self._by_issuer.get(name) if isinstance(name, str) else None
        return issuer or self._by_issuer.get(claims.trust_domain(token_claims) or "")

    def _stands(self, basis: object) -> bool:
        """Tell whether a verdict counts: a local one rests on its key alone, which the verdicts of that key share."""
        match basis:
            case Signer():
                return self._is_published(basis)
            case RemoteVerification(signer, ask_at):
                return self._clock.monotonic() < ask_at and self._is_published(signer)
            case _:
                return False

    def _is_published(self, signer: Signer) -> bool:
        """Look at the keys of the one issuer first; a check that looked at all of them would cost more with each."""
        if signer.issuer is not None:
            self._notice_new_keys(signer.issuer)
        return signer.published

    def _verify_signature(self, case: _PendingToken, unverified: jwt.Unverified) -> Evidence | Awaitable[Evidence]:
        source, name = case.issuer.keys, jwt.key_name(unverified)
        if source is None:
            return Reason.TOKEN_ISSUER
        keys = source.keys()
        if keys is None:
            if case.issuer.pending >= MAX_PENDING:
                raise Unavailable(Reason.OVERLOADED)
            return self._own(case, self._with_keys(case, unverified, source.load()))
        if name in keys:
            return self._with_known_keys(case, unverified)
        refusal = claims.time_refusal(unverified.claims, case.issuer.rules, self._clock.now())
        if refusal or name is None:
            return refusal or Reason.TOKEN_KEY_UNKNOWN
        if case.issuer.pending >= MAX_PENDING:
            raise Unavailable(Reason.OVERLOADED)
        pending = source.reload_for_unknown_key()
        if pending is not None:
            return self._own(case, self._with_keys(case, unverified, pending))
        if source.fetched_at > (claims.moment(unverified.claims.get("iat")) or 0.0) + KEY_DELAY:
            return Reason.TOKEN_KEY_UNKNOWN
        raise Unavailable(Reason.KEY_SET_UNAVAILABLE)

    async def _with_keys(self, case: _PendingToken, unverified: jwt.Unverified, pending: Awaitable[KeySet]) -> Evidence:
        await pending
        self._notice_new_keys(case.issuer)
        evidence = self._with_known_keys(case, unverified)
        return evidence if isinstance(evidence, (Identity, Reason)) else await evidence

    def _with_known_keys(self, case: _PendingToken, unverified: jwt.Unverified) -> Evidence | Awaitable[Evidence]:
        issuer, name = case.issuer, jwt.key_name(unverified)
        if name is None or name not in issuer.known_keys:
            return Reason.TOKEN_KEY_UNKNOWN
        self._signatures.take(COSTS.get(name[1], 1))
        refusal = jwt.signature_refusal(unverified, issuer.known_keys)
        signer = issuer.signers.setdefault(name, Signer(issuer))
        if refusal or issuer.userinfo is None:
            return self._settled(case, refusal or claims.verify(unverified.claims, issuer.rules, self._clock.now()), signer)
        question = issuer.userinfo.ask(case.token, is_known=case.is_known)
        return self._own(case, self._with_user(case, unverified.claims, question, signer))

    def _ask(self, case: _PendingToken) -> Evidence | Awaitable[Evidence]:
        if case.issuer.introspector is None:
            return Reason.TOKEN_ISSUER
        return self._own(case, self._introspected(case, case.issuer.introspector.ask(case.token, is_known=case.is_known)))

    async def _introspected(self, case: _PendingToken, question: Answer) -> Evidence:
        answer, issuer = await question, case.issuer
        payload = case.unverified.claims if case.unverified else {}
        token_claims = answer if isinstance(answer, Reason) else issuer_answers.vouched(payload, answer, issuer.rules)
        if isinstance(token_claims, Reason):
            return self._settled(case, token_claims)
        if issuer.userinfo is None:
            return self._settled(case, claims.verify(token_claims, issuer.rules, self._clock.now()))
        refusal = claims.precheck(token_claims, issuer.rules, self._clock.now())
        if refusal:
            return self._settled(case, refusal)
        return await self._with_user(case, token_claims, issuer.userinfo.ask(case.token, is_known=case.is_known))

    async def _with_user(
        self, case: _PendingToken, token_claims: claims.Claims, question: Answer, signer: Signer | None = None
    ) -> Evidence:
        answer, rules = await question, case.issuer.rules
        full = answer if isinstance(answer, Reason) else issuer_answers.with_user(token_claims, answer, rules)
        evidence = full if isinstance(full, Reason) else claims.verify(full, rules, self._clock.now())
        return self._settled(case, evidence, signer, remote=True)

    def _settled(self, case: _PendingToken, evidence: Evidence, signer: Signer | None = None, *, remote: bool = False) -> Evidence:
        """Remember the evidence: an issuer's answer for a shorter time, after which the issuer is asked again."""
        if evidence in _UNSETTLED or case.issuer.dropped:
            return evidence
        if remote or case.issuer.introspector is not None:
            basis = RemoteVerification(signer or case.issuer.standing, self._clock.monotonic() + self._remote_lifetime)
            self._verdicts.put(case.token, evidence, lifetime=self._remote_lifetime + ACQUAINTED, basis=basis)
        else:
            self._verdicts.put(case.token, evidence, basis=signer)
        return evidence

    def _notice_new_keys(self, issuer: Issuer) -> bool:
        """Void the verdicts of every key that was removed or replaced since the last look; return whether the keys are others."""
        if issuer.keys is None:
            return False
        before, now = issuer.known_keys, issuer.keys.keys() or {}
        if now is before:
            return False
        issuer.known_keys = now
        for name in [name for name, key in before.items() if now.get(name) != key]:
            issuer.signers.pop(name, Signer(None)).issuer = None
        if now == before:
            return False
        self._verdicts.forget_refusals()
        return True

    def _own(self, case: _PendingToken, work: Coroutine[None, None, Evidence]) -> Awaitable[Evidence]:
        case.issuer.pending += 1

        def landed() -> None:
            case.issuer.pending -= 1

        return self._flights.start(case.token, work, landed)
