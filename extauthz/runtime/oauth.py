"""The sources of the OAuth providers: keys, and remote verifications of tokens; each lives as long as its settings do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.adapters.oauth.introspection import Introspection
from extauthz.adapters.oauth.jwks import FIRST_RETRY, RETRY, UNKNOWN_KEY_COOL_DOWN, JwksSource
from extauthz.adapters.oauth.signed_answers import SignedAnswerFetcher, SignedAnswers
from extauthz.config.digests import digest
from extauthz.config.loader import Configuration
from extauthz.config.oauth import OAuthListSection, OAuthSection, ProviderEntry
from extauthz.config.openid import other_discovery
from extauthz.config.secrets import Secrets
from extauthz.config.settings import LimitsSection
from extauthz.core.providers import ProviderRules, Verification
from extauthz.errors import ConfigurationError, FetchError
from extauthz.ports import Clock, Introspector, KeySource
from extauthz.verifiers.throttling import Backoff, Breaker, Budget, CoolDown

if TYPE_CHECKING:
    from extauthz.adapters.tracing.checks import Tracing

KEY_TIMEOUT = 5.0
"""Seconds for an answer to a question about keys."""


@dataclass(frozen=True, slots=True)
class ProviderSources:
    """One provider: the digest of all that its tokens are verified with, its rules, and its sources behind the ports.

    Behind the ports, which may be traced, are `jwks` and `introspections`.
    """

    digest: bytes
    rules: ProviderRules
    keys: KeySource | None = None
    introspectors: Mapping[Verification, Introspector] = field(default_factory=dict)
    jwks: JwksSource | None = None
    introspections: tuple[Introspection, ...] = ()


@dataclass(slots=True)
class Issuers:
    """Makes the sources of providers from configurations, one after the other.

    What a change of the settings must not reset is kept by the issuer's address: breakers, and cool-downs and back-offs of
    fetches of keys. HTTP clients are kept as long as a configuration needs them.
    """

    clock: Clock
    tracing: Tracing | None = None
    served: tuple[ProviderSources, ...] = ()
    _fetchers: dict[bytes, JsonFetcher] = field(default_factory=dict)
    _breakers: dict[tuple[str, Verification], Breaker] = field(default_factory=dict)
    _cool_downs: dict[str, CoolDown] = field(default_factory=dict)
    _backoffs: dict[str, Backoff] = field(default_factory=dict)

    def prepare(self, configuration: Configuration, secrets: Secrets) -> tuple[ProviderSources, ...]:
        """Return the sources of each provider in their order; those that are served and unchanged stay.

        Raises ConfigurationError for a bundle of certificates that is none.
        """
        oauth = configuration.settings.oauth
        if oauth is None or not oauth.enabled:
            return ()
        for_keys = self._fetcher(configuration, oauth, secrets, timeout=KEY_TIMEOUT)
        for_tokens = self._fetcher(configuration, oauth, secrets, timeout=oauth.remote_timeout)
        served = {sources.digest: sources for sources in self.served}
        prepared: list[ProviderSources] = []
        for entry, rules in entries_of(configuration):
            secret = secrets.client_secrets.get(rules.name)
            # Another password for the proxy makes another HTTP client, and so another source.
            key = digest(provider_digest(configuration, entry, rules, secret), _fetcher_digest(configuration, oauth, secrets, 0.0))
            if key in served:
                prepared.append(served[key])
                continue
            discovery = Discovery(rules.issuer, rules.discovery, for_keys, clock=self.clock, other=other_discovery(rules))
            needs_keys = rules.verification is Verification.JWKS or entry.signed_introspection
            jwks = self._keys(oauth, entry, rules, discovery, for_keys) if needs_keys else None
            asking = for_tokens
            if entry.signed_introspection:
                asking = self._fetcher(configuration, oauth, secrets, timeout=oauth.remote_timeout, signed=True)
            limits = configuration.settings.limits
            introspections = self._introspections(entry, rules, secret, discovery, (asking, for_tokens), limits, jwks)
            prepared.append(self._sources(key, rules, jwks, introspections))
        return tuple(prepared)

    async def retire(self, configuration: Configuration | None, secrets: Secrets) -> None:
        """Close the HTTP clients that a configuration does not need, all of them without one."""
        oauth = configuration.settings.oauth if configuration else None
        needed = set[bytes]()
        if configuration and oauth and oauth.enabled:
            needed = {_fetcher_digest(configuration, oauth, secrets, timeout) for timeout in (KEY_TIMEOUT, oauth.remote_timeout)}
            if any(entry.signed_introspection for entry in oauth.entries):
                needed.add(_fetcher_digest(configuration, oauth, secrets, oauth.remote_timeout, signed=True))
        # All at once: a configuration that is prepared meanwhile must not be given one of them.
        retired = [self._fetchers.pop(key) for key in self._fetchers.keys() - needed]
        for fetcher in retired:
            await fetcher.close()

    def _sources(
        self, key: bytes, rules: ProviderRules, jwks: JwksSource | None, introspections: tuple[Introspection, ...]
    ) -> ProviderSources:
        # Keys of signed answers verify no tokens.
        keys: KeySource | None = jwks if rules.verification is Verification.JWKS else None
        introspectors: dict[Verification, Introspector] = {each.method: each for each in introspections}
        if self.tracing is not None:
            keys = self.tracing.keys(jwks, issuer=jwks.issuer) if jwks and keys else None
            for each in introspections:
                introspectors[each.method] = self.tracing.introspector(each, issuer=each.issuer, method=each.method.value)
        return ProviderSources(key, rules, keys, introspectors, jwks, introspections)

    def _keys(
        self,
        oauth: OAuthSection | OAuthListSection,
        entry: ProviderEntry,
        rules: ProviderRules,
        discovery: Discovery,
        fetcher: JsonFetcher,
    ) -> JwksSource:
        cool_down = self._cool_downs.setdefault(rules.issuer, CoolDown(UNKNOWN_KEY_COOL_DOWN, clock=self.clock))
        backoff = self._backoffs.setdefault(rules.issuer, Backoff(first=FIRST_RETRY, longest=RETRY, clock=self.clock))
        return JwksSource(
            discovery,
            rules.provider.algorithms,
            fetcher,
            clock=self.clock,
            jwks_uri=entry.jwks_uri,
            uses=rules.provider.key_uses,
            refresh=oauth.refresh,
            max_key_age=oauth.max_key_age,
            cool_down=cool_down,
            backoff=backoff,
        )

    def _introspections(
        self,
        entry: ProviderEntry,
        rules: ProviderRules,
        secret: bytes | None,
        discovery: Discovery,
        fetchers: tuple[JsonFetcher, JsonFetcher],
        limits: LimitsSection,
        jwks: JwksSource | None,
    ) -> tuple[Introspection, ...]:
        """Return the remote verifications at this provider; half of what each may do is for tokens that were good before.

        The first of the HTTP clients is for introspection, whose answers may be signed.
        """
        clock, most, at_once = self.clock, limits.remote_per_second, limits.remote_in_flight
        methods = {rules.verification} - {Verification.JWKS} | ({Verification.USERINFO} if rules.userinfo else set())
        uris = {
            Verification.TOKENINFO: entry.tokeninfo_uri,
            Verification.INTROSPECTION: entry.introspection_uri,
            Verification.USERINFO: entry.userinfo_uri,
        }
        credentials = None if secret is None else (entry.introspection_client or entry.client_ids[0], secret.decode())
        signed = None
        if entry.signed_introspection and jwks is not None and credentials is not None:
            signed = SignedAnswers(credentials[0], jwks, rules.provider.algorithms, clock=clock)
        return tuple(
            Introspection(
                method,
                discovery,
                fetchers[0 if method is Verification.INTROSPECTION else 1],
                clock=clock,
                budget=Budget(most, at_once, clock=clock),
                strangers=Budget(max(1.0, most / 2), max(1, at_once // 2), clock=clock),
                breaker=self._breakers.setdefault((rules.issuer, method), Breaker(clock=clock)),
                uri=uris[method],
                credentials=credentials,
                signed=signed if method is Verification.INTROSPECTION else None,
            )
            for method in sorted(methods)
        )

    def _fetcher(
        self,
        configuration: Configuration,
        oauth: OAuthSection | OAuthListSection,
        secrets: Secrets,
        *,
        timeout: float,
        signed: bool = False,
    ) -> JsonFetcher:
        key = _fetcher_digest(configuration, oauth, secrets, timeout, signed=signed)
        if key not in self._fetchers:
            try:
                trust = _bundle(configuration, oauth) if oauth.ca_file else None
                proxy = oauth.proxy.url if oauth.proxy else None
                kind = SignedAnswerFetcher if signed else JsonFetcher
                self._fetchers[key] = kind(timeout=timeout, proxy=proxy, proxy_auth=secrets.proxy_auth, trust=trust)
            except FetchError as error:
                message = f"{_ca_file(configuration, oauth)}: {error}"
                raise ConfigurationError([configuration.problem(("oauth", "ca_file"), message)]) from error
        return self._fetchers[key]


def entries_of(configuration: Configuration) -> Iterator[tuple[ProviderEntry, ProviderRules]]:
    """Yield the providers of a configuration as they are written, each with its rules."""
    oauth = configuration.settings.oauth
    if oauth is not None and oauth.enabled:
        yield from zip(oauth.of_each_tenant, configuration.providers, strict=True)


def provider_digest(configuration: Configuration, entry: ProviderEntry, rules: ProviderRules, secret: bytes | None) -> bytes:
    """Hash all that verifying the tokens of one provider is built from."""
    settings, oauth = configuration.settings, configuration.settings.oauth
    # With one provider its own keys stand among the common ones.
    common = {"providers"} if isinstance(oauth, OAuthListSection) else None
    parts = (
        oauth.model_dump_json(exclude=common) if oauth else "",
        entry.model_dump_json(),
        rules.issuer,
        rules.name,
        " ".join(sorted(rules.scopes)),
        settings.limits.model_dump_json(),
    )
    bundle = _bundle(configuration, oauth)
    return digest(*(part.encode() for part in parts), secret or b"", b"" if secret is None else b"\1", bundle)


def _fetcher_digest(
    configuration: Configuration, oauth: OAuthSection | OAuthListSection, secrets: Secrets, timeout: float, *, signed: bool = False
) -> bytes:
    """Hash what an HTTP client is made from."""
    proxy = (oauth.proxy.url if oauth.proxy else "", *(secrets.proxy_auth or ()))
    kind = (b"signed",) if signed else ()
    return digest(repr(timeout).encode(), *kind, *(part.encode() for part in proxy), _bundle(configuration, oauth))


def _ca_file(configuration: Configuration, oauth: OAuthSection | OAuthListSection) -> Path | None:
    return configuration.file.parent / oauth.ca_file if oauth.ca_file else None


def _bundle(configuration: Configuration, oauth: OAuthSection | OAuthListSection | None) -> bytes:
    path = _ca_file(configuration, oauth) if oauth else None
    return configuration.files.read(path) if path else b""
