"""From settings to objects: what decides, and what has to run beside it; and the same again from the next configuration."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from extauthz.adapters.oauth.introspection import Introspection
from extauthz.adapters.oauth.jwks import JwksSource
from extauthz.adapters.store.following import PostgresFollower, SqliteFollower
from extauthz.config.loader import Configuration
from extauthz.config.secrets import Secrets
from extauthz.core.credentials import Kind
from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.errors import StoreError
from extauthz.ports import Clock, TokenStore, UsageStore, Verifier
from extauthz.responses.internal_tokens import InternalTokens
from extauthz.runtime.codec import build_codec, build_internal_tokens
from extauthz.runtime.oauth import Issuers, ProviderSources
from extauthz.runtime.store import OpenedStore, feed_memory, open_store, verifier_of
from extauthz.service import Runtime
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.oauth import Issuer, OAuthVerifier
from extauthz.verifiers.throttling import Budget
from extauthz.verifiers.unknown_settings import UnknownSettings
from extauthz.verifiers.verdicts import VerdictCache

if TYPE_CHECKING:
    from extauthz.adapters.tracing.checks import Tracing


@dataclass(slots=True)
class VerifierSources:
    """What the verifiers need: store, its change feed and peppers, and the sources of each provider."""

    store: TokenStore | None = None
    feed: Feed | None = None
    peppers: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    providers: tuple[ProviderSources, ...] = ()
    internal_tokens: InternalTokens | None = None
    tracing: Tracing | None = None


@dataclass(slots=True)
class BuiltRuntime:
    """The snapshot that decides, its memories of verdicts, and the digest of the settings that each part was built from."""

    runtime: Runtime
    verdicts: Mapping[Kind, VerdictCache]
    digests: Mapping[Kind, bytes] = field(default_factory=dict)
    issuers: Mapping[bytes, Issuer] = field(default_factory=dict)


@dataclass(slots=True)
class RuntimeParts(BuiltRuntime):
    """A runtime, and what has to run beside it."""

    providers: tuple[ProviderSources, ...] = ()
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    store: OpenedStore | None = None
    internal_tokens: InternalTokens | None = None

    @property
    def key_sources(self) -> tuple[JwksSource, ...]:
        """The keys of each issuer whose tokens are verified by keys."""
        return tuple(sources.jwks for sources in self.providers if sources.jwks)

    @property
    def introspections(self) -> tuple[Introspection, ...]:
        """Every remote verification at an issuer."""
        return tuple(one for sources in self.providers for one in sources.introspections)

    @property
    def feed(self) -> Feed | None:
        """The change feed of the store."""
        return self.store.feed if self.store else None

    @property
    def follower(self) -> SqliteFollower | PostgresFollower | None:
        """The reader of the feed."""
        return self.store.follower if self.store else None

    @property
    def usage(self) -> UsageStore | None:
        """Where last uses are written."""
        return self.store.usage if self.store else None


def build_runtime(
    configuration: Configuration, outside: VerifierSources, *, clock: Clock, before: BuiltRuntime | None = None
) -> BuiltRuntime:
    """Build the snapshot that decides from settings and what they need of the world, with its memories of verdicts.

    A part whose digest is the same as `before` is used again, with all that it remembers.
    """
    settings = configuration.settings
    issuers: dict[bytes, Issuer] = {}
    verifiers: dict[Kind, Verifier] = {}
    verdicts: dict[Kind, VerdictCache] = {}
    digests: dict[Kind, bytes] = {}
    if settings.tokens and settings.tokens.enabled and outside.store is not None and outside.feed is not None:
        digests[Kind.ISSUED] = _section(configuration, Kind.ISSUED, outside.peppers)
        if before is not None and before.digests.get(Kind.ISSUED) == digests[Kind.ISSUED]:
            verifiers[Kind.ISSUED] = before.runtime.verifiers[Kind.ISSUED]
            verdicts[Kind.ISSUED] = before.verdicts[Kind.ISSUED]
        else:
            verdicts[Kind.ISSUED] = _memory(configuration, Kind.ISSUED, digests[Kind.ISSUED], feed_memory(settings.tokens), clock)
            verifiers[Kind.ISSUED] = verifier_of(
                configuration, outside.store, outside.feed, outside.peppers, verdicts[Kind.ISSUED], clock=clock
            )
    if settings.oauth and settings.oauth.enabled:
        issuers = _issuers(outside, before)
        tokens = settings.tokens
        prefixes = sorted({tokens.prefix, *tokens.accept_prefixes}) if tokens else []
        digests[Kind.OAUTH] = hashlib.sha256(b"".join((*issuers, " ".join(prefixes).encode()))).digest()
        if before is not None and before.digests.get(Kind.OAUTH) == digests[Kind.OAUTH] and before.issuers == issuers:
            verifiers[Kind.OAUTH], verdicts[Kind.OAUTH] = before.runtime.verifiers[Kind.OAUTH], before.verdicts[Kind.OAUTH]
        else:
            previous = before.verdicts.get(Kind.OAUTH) if before else None
            fresh = _memory(configuration, Kind.OAUTH, bytes(32), settings.oauth.verdict_ttl, clock)
            verdicts[Kind.OAUTH] = previous if previous is not None and previous.limits == fresh.limits else fresh
            verifiers[Kind.OAUTH] = OAuthVerifier(
                issuers.values(),
                verdicts[Kind.OAUTH],
                clock=clock,
                signatures=Budget(settings.limits.signatures_per_second, clock=clock),
                remote_lifetime=settings.oauth.remote_verdict_ttl,
                prefixes=prefixes,
            )
    if isinstance(configuration.saved, Reason):
        verifiers[Kind.OAUTH] = UnknownSettings(configuration.saved)
    server = settings.server
    runtime = Runtime(
        configuration.policy,
        verifiers,
        build_codec(configuration, outside.internal_tokens, outside.tracing, clock=clock),
        check_timeout=server.check_timeout,
        max_in_flight=server.max_in_flight,
    )
    return BuiltRuntime(runtime, verdicts, digests, issuers)


def void_what_changed(before: BuiltRuntime, now: BuiltRuntime) -> None:
    """Void what was verified with settings that no longer count; to be called when the new snapshot serves."""
    for digest, issuer in before.issuers.items():
        if now.issuers.get(digest) is not issuer:
            issuer.drop()
    oauth = now.verdicts.get(Kind.OAUTH)
    if oauth is not None and before.digests.get(Kind.OAUTH) != now.digests.get(Kind.OAUTH):
        # A refusal rests on nothing that could be voided.
        oauth.forget_refusals()


class RuntimeBuilder:
    """Builds parts from configurations, one after the other; what outlives them belongs to it."""

    def __init__(self, *, clock: Clock, environment: Mapping[str, str] | None = None, tracing: Tracing | None = None) -> None:
        """Begin with nothing open; `tracing` traces each check and its requests."""
        self._clock = clock
        self._environment = os.environ if environment is None else environment
        self._tracing = tracing
        self._issuers = Issuers(clock, tracing)
        self._store: OpenedStore | None = None
        self._look_ups: TokenStore | None = None

    async def open(self, configuration: Configuration, stack: contextlib.AsyncExitStack) -> RuntimeParts:
        """Open store and issuers, to be closed by the stack; raises StoreError and ConfigurationError."""
        secrets = configuration.read_secrets(self._environment)
        self._store = await open_store(configuration, secrets, stack, clock=self._clock)
        self._look_ups = self._store.reader if self._store else None
        if self._tracing is not None and self._look_ups is not None:
            system = "sqlite" if isinstance(configuration.store_place, Path) else "postgresql"
            self._look_ups = self._tracing.store(self._look_ups, system=system)
        stack.push_async_callback(self._issuers.retire, None, secrets)
        return self._parts(configuration, secrets, None)

    async def prepare(self, configuration: Configuration, before: RuntimeParts) -> RuntimeParts:
        """Build the parts of the next configuration; raises StoreError and ConfigurationError, and then nothing has changed."""
        secrets = configuration.read_secrets(self._environment)
        if configuration.store_place is not None:
            if self._store is None:
                raise StoreError("issued tokens were off when this process began: restart it to switch them on")
            await self._store.check(secrets.peppers, self._clock.now())
        return self._parts(configuration, secrets, before)

    def adopt(self, configuration: Configuration, before: RuntimeParts, now: RuntimeParts) -> None:
        """Void what prepared parts take the place of, and go on with them; to be called just before their runtime serves."""
        void_what_changed(before, now)
        self._issuers.served = now.providers
        tokens = configuration.settings.tokens
        if self._store is not None and tokens is not None and configuration.store_place is not None:
            self._store.renew(tokens, configuration.settings.limits, now.secrets)

    async def retire(self, configuration: Configuration, parts: RuntimeParts) -> None:
        """Close what these parts, which belong to this configuration, do not need any more."""
        await self._issuers.retire(configuration, parts.secrets)

    def _parts(self, configuration: Configuration, secrets: Secrets, before: RuntimeParts | None) -> RuntimeParts:
        providers = self._issuers.prepare(configuration, secrets)
        if before is None:
            self._issuers.served = providers
        outside = VerifierSources(
            store=self._look_ups,
            feed=self._store.feed if self._store else None,
            peppers=secrets.peppers,
            providers=providers,
            internal_tokens=build_internal_tokens(
                configuration, secrets.internal_token_keys, previous=before.internal_tokens if before else None
            ),
            tracing=self._tracing,
        )
        built = build_runtime(configuration, outside, clock=self._clock, before=before)
        return RuntimeParts(
            built.runtime,
            built.verdicts,
            built.digests,
            built.issuers,
            providers=providers,
            secrets=secrets,
            store=self._store,
            internal_tokens=outside.internal_tokens,
        )


def _section(configuration: Configuration, kind: Kind, secrets: Mapping[str, bytes]) -> bytes:
    limits = configuration.settings.limits.model_dump_json().encode()
    return hashlib.sha256(configuration.section_digest(kind, secrets) + limits).digest()


def _memory(configuration: Configuration, kind: Kind, digest: bytes, lifetime: float, clock: Clock) -> VerdictCache:
    return VerdictCache(kind, digest, lifetime=lifetime, clock=clock, capacity=configuration.settings.limits.verdicts)


def _issuers(outside: VerifierSources, before: BuiltRuntime | None) -> dict[bytes, Issuer]:
    """Return the providers by the digest of their settings; one that is unchanged, and asks the same, is the one of before."""
    issuers: dict[bytes, Issuer] = {}
    for sources in outside.providers:
        issuer, previous = _issuer(sources), before.issuers.get(sources.digest) if before else None
        issuers[sources.digest] = previous if previous is not None and previous.asks_the_same(issuer) else issuer
    return issuers


def _issuer(sources: ProviderSources) -> Issuer:
    rules, by_keys = sources.rules, sources.rules.verification is Verification.JWKS
    return Issuer(
        rules,
        keys=sources.keys if by_keys else None,
        introspector=None if by_keys else sources.introspectors[rules.verification],
        userinfo=sources.introspectors[Verification.USERINFO] if rules.userinfo else None,
    )
