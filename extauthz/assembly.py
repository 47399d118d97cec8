"""From settings to objects: what decides, and what has to run beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extauthz.adapters.discovery import Discovery
from extauthz.adapters.envoy import EnvoyCodec
from extauthz.adapters.fetch import FetchError, JsonFetcher
from extauthz.adapters.introspection import Introspection
from extauthz.adapters.jwks import JwksSource
from extauthz.adapters.store.following import PostgresFollower, SqliteFollower
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.usage import SqliteUsage
from extauthz.adapters.verdicts import VerdictCache
from extauthz.budgets import Breaker, Budget
from extauthz.config.document import ConfigurationError
from extauthz.config.loader import Configuration
from extauthz.config.oauth import OAuthListSection, OAuthSection, ProviderEntry
from extauthz.config.settings import LimitsSection, TokensSection
from extauthz.core.credentials import Kind
from extauthz.core.providers import ProviderRules, Verification
from extauthz.feed import Feed
from extauthz.issued_verifier import IssuedVerifier
from extauthz.oauth_verifier import Issuer, OAuthVerifier
from extauthz.ports import Clock, Introspector, KeySource, TokenStore, UsageStore, Verifier
from extauthz.service import Runtime


@dataclass(slots=True)
class Outside:
    """What the verifiers ask: store, its change feed and peppers; key sources by issuer, introspectors by issuer and method."""

    store: TokenStore | None = None
    feed: Feed | None = None
    peppers: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    keys: Mapping[str, KeySource] = field(default_factory=dict)
    introspectors: Mapping[tuple[str, Verification], Introspector] = field(default_factory=dict)
    client_secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class Inside:
    """The snapshot that decides, with what is measured of it."""

    runtime: Runtime
    verdicts: Mapping[Kind, VerdictCache]


@dataclass(slots=True)
class Parts(Inside):
    """A runtime, and what has to run beside it."""

    key_sources: tuple[JwksSource, ...]
    introspections: tuple[Introspection, ...]
    feed: Feed | None = None
    follower: SqliteFollower | PostgresFollower | None = None
    usage: UsageStore | None = None


def build_runtime(configuration: Configuration, outside: Outside, *, clock: Clock) -> Inside:
    """Build the snapshot that decides from settings and what they need of the world, with its memories of verdicts."""
    settings = configuration.settings
    verifiers: dict[Kind, Verifier] = {}
    verdicts: dict[Kind, VerdictCache] = {}
    if settings.tokens and settings.tokens.enabled and outside.store is not None and outside.feed is not None:
        digest = configuration.section_digest(Kind.ISSUED, outside.peppers)
        lifetime, capacity = feed_memory(settings.tokens), settings.limits.verdicts
        verdicts[Kind.ISSUED] = VerdictCache(Kind.ISSUED, digest, lifetime=lifetime, clock=clock, capacity=capacity)
        verifiers[Kind.ISSUED] = IssuedVerifier(
            outside.store,
            verdicts[Kind.ISSUED],
            outside.feed,
            peppers=outside.peppers,
            prefixes=frozenset((settings.tokens.prefix, *settings.tokens.accept_prefixes)),
            clock=clock,
            budget=Budget(settings.limits.store_per_second, settings.limits.store_in_flight, clock=clock),
            fresh=settings.tokens.verdict_ttl,
            max_staleness=settings.tokens.max_staleness,
        )
    if settings.oauth and settings.oauth.enabled:
        digest = configuration.section_digest(Kind.OAUTH, outside.client_secrets)
        lifetime, capacity = settings.oauth.verdict_ttl, settings.limits.verdicts
        verdicts[Kind.OAUTH] = VerdictCache(Kind.OAUTH, digest, lifetime=lifetime, clock=clock, capacity=capacity)
        verifiers[Kind.OAUTH] = OAuthVerifier(
            (_issuer(rules, outside) for rules in configuration.providers),
            verdicts[Kind.OAUTH],
            clock=clock,
            signatures=Budget(settings.limits.signatures_per_second, clock=clock),
            remote_lifetime=settings.oauth.remote_verdict_ttl,
        )
    codec = EnvoyCodec(realm=settings.realm, error_response=settings.envoy.error_response)
    return Inside(Runtime(configuration.policy, verifiers, codec, settings.server.check_timeout), verdicts)


def feed_memory(tokens: TokensSection) -> float:
    """Return for how many seconds a verdict on an issued token can be used at all, and a change has to be remembered."""
    return tokens.verdict_ttl + tokens.max_staleness


async def open_parts(configuration: Configuration, stack: contextlib.AsyncExitStack, *, clock: Clock) -> Parts:
    """Open store, key sources and introspectors, to be closed by the stack; raises StoreError and ConfigurationError."""
    outside = Outside()
    follower, usage = await _open_store(configuration, outside, stack, clock=clock)
    sources: dict[str, JwksSource] = {}
    introspections: dict[tuple[str, Verification], Introspection] = {}
    oauth = configuration.settings.oauth
    if oauth is not None and oauth.enabled:
        outside.client_secrets = configuration.client_secrets(os.environ)
        for_keys = _fetcher(configuration, oauth, stack)
        for_tokens = _fetcher(configuration, oauth, stack, timeout=oauth.remote_timeout)
        for entry, rules in zip(oauth.entries, configuration.providers, strict=True):
            discovery = Discovery(rules.issuer, rules.discovery, for_keys, clock=clock)
            if rules.verification is Verification.JWKS:
                sources[rules.issuer] = JwksSource(
                    discovery,
                    rules.provider.algorithms,
                    for_keys,
                    clock=clock,
                    jwks_uri=entry.jwks_uri,
                    refresh=oauth.refresh,
                    max_key_age=oauth.max_key_age,
                )
            secret = outside.client_secrets.get(rules.name)
            limits = configuration.settings.limits
            asked = _introspections(entry, rules, secret, discovery, for_tokens, limits, clock=clock)
            introspections |= {(rules.issuer, one.method): one for one in asked}
    outside.keys, outside.introspectors = sources, introspections
    built = build_runtime(configuration, outside, clock=clock)
    fetched, asked_about = tuple(sources.values()), tuple(introspections.values())
    return Parts(built.runtime, built.verdicts, fetched, asked_about, outside.feed, follower, usage)


async def _open_store(
    configuration: Configuration, outside: Outside, stack: contextlib.AsyncExitStack, *, clock: Clock
) -> tuple[SqliteFollower | PostgresFollower | None, UsageStore | None]:
    """Open the token store for look-ups; return the follower of its changes and who is told of uses, if issued tokens are on."""
    place, tokens = configuration.store_place, configuration.settings.tokens
    if place is None or tokens is None:
        return None, None
    outside.peppers = configuration.peppers(os.environ)
    outside.feed = feed = Feed(clock=clock, memory=feed_memory(tokens))

    def position() -> int:
        return feed.position

    if isinstance(place, Path):
        reader = SqliteReader(place)
        stack.callback(reader.close)
        reader.check_peppers(outside.peppers, int(clock.now()))
        outside.store = reader
        file = SqliteFollower(reader, position=position, apply=feed.apply, poll_interval=tokens.poll_interval)
        return file, SqliteUsage(reader)
    # Eight megabytes that a SQLite store has no use for.
    from extauthz.adapters.store.link import Link
    from extauthz.adapters.store.postgres import PostgresReader, PostgresUsage

    password, listen = configuration.store_password(os.environ), tokens.feed == "notify"
    outside.store = database = PostgresReader(place, password=password, peppers=outside.peppers, clock=clock, prepare=listen)
    await database.open()
    stack.push_async_callback(database.close)
    usage = PostgresUsage(place, password=password)
    stack.push_async_callback(usage.close)
    link = Link(place, password, prepare=listen)
    server = PostgresFollower(link, position=position, apply=feed.apply, poll_interval=tokens.poll_interval, listen=listen)
    return server, usage


def _issuer(rules: ProviderRules, outside: Outside) -> Issuer:
    by_keys = rules.verification is Verification.JWKS
    return Issuer(
        rules,
        keys=outside.keys[rules.issuer] if by_keys else None,
        introspector=None if by_keys else outside.introspectors[rules.issuer, rules.verification],
        userinfo=outside.introspectors[rules.issuer, Verification.USERINFO] if rules.userinfo else None,
    )


def _introspections(
    entry: ProviderEntry,
    rules: ProviderRules,
    secret: bytes | None,
    discovery: Discovery,
    fetcher: JsonFetcher,
    limits: LimitsSection,
    *,
    clock: Clock,
) -> list[Introspection]:
    """Return the ways in which this provider is asked; half of what each may do is for tokens that were good before."""
    most, at_once = limits.remote_per_second, limits.remote_in_flight
    methods = {rules.verification} - {Verification.JWKS} | ({Verification.USERINFO} if rules.userinfo else set())
    uris = {
        Verification.TOKENINFO: entry.tokeninfo_uri,
        Verification.INTROSPECTION: entry.introspection_uri,
        Verification.USERINFO: entry.userinfo_uri,
    }
    return [
        Introspection(
            method,
            discovery,
            fetcher,
            clock=clock,
            budget=Budget(most, at_once, clock=clock),
            strangers=Budget(max(1.0, most / 2), max(1, at_once // 2), clock=clock),
            breaker=Breaker(clock=clock),
            uri=uris[method],
            credentials=None if secret is None else (entry.client_ids[0], secret.decode()),
        )
        for method in sorted(methods)
    ]


def _fetcher(
    configuration: Configuration,
    oauth: OAuthSection | OAuthListSection,
    stack: contextlib.AsyncExitStack,
    *,
    timeout: float = 5.0,
) -> JsonFetcher:
    ca_file = configuration.file.parent / oauth.ca_file if oauth.ca_file else None
    try:
        fetcher = JsonFetcher(timeout=timeout, proxy=oauth.proxy, ca_file=ca_file)
    except FetchError as error:
        raise ConfigurationError([configuration.mistake(("oauth", "ca_file"), str(error))]) from error
    stack.push_async_callback(fetcher.close)
    return fetcher
