"""What is asked of the OAuth providers: keys, and the ways of asking about a token; each lives as long as its settings do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from extauthz.adapters.discovery import Discovery
from extauthz.adapters.fetch import FetchError, JsonFetcher
from extauthz.adapters.introspection import Introspection
from extauthz.adapters.jwks import FIRST_RETRY, RETRY, UNKNOWN_KEY_COOL_DOWN, JwksSource
from extauthz.budgets import Backoff, Breaker, Budget, CoolDown
from extauthz.config.document import ConfigurationError
from extauthz.config.loader import Configuration
from extauthz.config.oauth import OAuthListSection, OAuthSection, ProviderEntry
from extauthz.config.settings import LimitsSection
from extauthz.core.providers import ProviderRules, Verification
from extauthz.ports import Clock, Introspector, KeySource

if TYPE_CHECKING:
    from extauthz.adapters.tracing.checks import Tracing


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked about the tokens of one provider; verifiers ask them through the ports, which may be traced."""

    keys: JwksSource | None
    introspections: tuple[Introspection, ...]
    key_port: KeySource | None
    introspectors: tuple[tuple[Verification, Introspector], ...]


@dataclass(slots=True)
class Issuers:
    """Makes whom to ask from configurations, one after the other.

    What a change of the settings must not reset is kept by the issuer's address: breakers, and cool-downs and back-offs of
    fetches of keys. HTTP clients are kept as long as a configuration needs them. The `environment` may hold the password of a
    proxy.
    """

    clock: Clock
    tracing: Tracing | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    asked: dict[bytes, Asked] = field(default_factory=dict)
    _fetchers: dict[bytes, JsonFetcher] = field(default_factory=dict)
    _breakers: dict[tuple[str, Verification], Breaker] = field(default_factory=dict)
    _cool_downs: dict[str, CoolDown] = field(default_factory=dict)
    _backoffs: dict[str, Backoff] = field(default_factory=dict)

    def prepare(self, configuration: Configuration, secrets: Mapping[str, bytes]) -> dict[bytes, Asked]:
        """Return whom to ask, by the digest of each provider's settings; what is unchanged is the same as before.

        Raises ConfigurationError for a bundle of certificates that is none, and for a password that cannot be read.
        """
        oauth = configuration.settings.oauth
        if oauth is None or not oauth.enabled:
            return {}
        for_keys = self._fetcher(configuration, oauth, timeout=5.0)
        for_tokens = self._fetcher(configuration, oauth, timeout=oauth.remote_timeout)
        prepared: dict[bytes, Asked] = {}
        for entry, rules in zip(oauth.entries, configuration.providers, strict=True):
            secret = secrets.get(rules.name)
            # Another password for the proxy makes another HTTP client, and so somebody else who asks.
            digest = _digest(provider_digest(configuration, entry, rules, secret), self._fetcher_digest(configuration, oauth, 0.0))
            if digest in self.asked:
                prepared[digest] = self.asked[digest]
                continue
            discovery = Discovery(rules.issuer, rules.discovery, for_keys, clock=self.clock)
            keys = self._keys(oauth, entry, rules, discovery, for_keys) if rules.verification is Verification.JWKS else None
            limits = configuration.settings.limits
            prepared[digest] = self._asked(keys, self._introspections(entry, rules, secret, discovery, for_tokens, limits))
        return prepared

    async def retire(self, configuration: Configuration | None) -> None:
        """Close the HTTP clients that a configuration does not need, all of them without one."""
        oauth = configuration.settings.oauth if configuration else None
        timeouts = (5.0, oauth.remote_timeout) if oauth and oauth.enabled else ()
        needed = {self._fetcher_digest(configuration, oauth, timeout) for timeout in timeouts if configuration and oauth}
        # All at once: a configuration that is prepared meanwhile must not be given one of them.
        retired = [self._fetchers.pop(digest) for digest in self._fetchers.keys() - needed]
        for fetcher in retired:
            await fetcher.close()

    def _asked(self, keys: JwksSource | None, introspections: tuple[Introspection, ...]) -> Asked:
        tracing = self.tracing
        if tracing is None:
            return Asked(keys, introspections, keys, tuple((one.method, one) for one in introspections))
        traced = tuple(
            (one.method, tracing.introspector(one, issuer=one.issuer, method=one.method.value)) for one in introspections
        )
        return Asked(keys, introspections, tracing.keys(keys, issuer=keys.issuer) if keys else None, traced)

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
        fetcher: JsonFetcher,
        limits: LimitsSection,
    ) -> tuple[Introspection, ...]:
        """Return the ways in which this provider is asked; half of what each may do is for tokens that were good before."""
        clock, most, at_once = self.clock, limits.remote_per_second, limits.remote_in_flight
        methods = {rules.verification} - {Verification.JWKS} | ({Verification.USERINFO} if rules.userinfo else set())
        uris = {
            Verification.TOKENINFO: entry.tokeninfo_uri,
            Verification.INTROSPECTION: entry.introspection_uri,
            Verification.USERINFO: entry.userinfo_uri,
        }
        return tuple(
            Introspection(
                method,
                discovery,
                fetcher,
                clock=clock,
                budget=Budget(most, at_once, clock=clock),
                strangers=Budget(max(1.0, most / 2), max(1, at_once // 2), clock=clock),
                breaker=self._breakers.setdefault((rules.issuer, method), Breaker(clock=clock)),
                uri=uris[method],
                credentials=None if secret is None else (entry.client_ids[0], secret.decode()),
            )
            for method in sorted(methods)
        )

    def _fetcher(self, configuration: Configuration, oauth: OAuthSection | OAuthListSection, *, timeout: float) -> JsonFetcher:
        digest = self._fetcher_digest(configuration, oauth, timeout)
        if digest not in self._fetchers:
            try:
                trust = _bundle(configuration, oauth) if oauth.ca_file else None
                proxy, auth = oauth.proxy.url if oauth.proxy else None, configuration.proxy_auth(self.environment)
                self._fetchers[digest] = JsonFetcher(timeout=timeout, proxy=proxy, proxy_auth=auth, trust=trust)
            except FetchError as error:
                message = f"{_ca_file(configuration, oauth)}: {error}"
                raise ConfigurationError([configuration.mistake(("oauth", "ca_file"), message)]) from error
        return self._fetchers[digest]

    def _fetcher_digest(self, configuration: Configuration, oauth: OAuthSection | OAuthListSection, timeout: float) -> bytes:
        """Hash what an HTTP client is made from."""
        proxy = (oauth.proxy.url if oauth.proxy else "", *(configuration.proxy_auth(self.environment) or ()))
        return _digest(repr(timeout).encode(), *(part.encode() for part in proxy), _bundle(configuration, oauth))


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
    return _digest(*(part.encode() for part in parts), secret or b"", b"" if secret is None else b"\1", bundle)


def _digest(*parts: bytes) -> bytes:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(hashlib.sha256(part).digest())
    return hasher.digest()


def _ca_file(configuration: Configuration, oauth: OAuthSection | OAuthListSection) -> Path | None:
    return configuration.file.parent / oauth.ca_file if oauth.ca_file else None


def _bundle(configuration: Configuration, oauth: OAuthSection | OAuthListSection | None) -> bytes:
    path = _ca_file(configuration, oauth) if oauth else None
    return configuration.files.read(path) if path else b""
