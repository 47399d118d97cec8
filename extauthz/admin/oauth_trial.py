"""OAuth settings tried out before they are saved: the issuer is asked for its addresses and keys, and nothing else is."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import MAX_CAUSE, JsonFetcher
from extauthz.adapters.oauth.introspection import endpoint_of
from extauthz.adapters.oauth.public_addresses import AddressRule, Resolver, resolve
from extauthz.adapters.oauth.published_keys import descriptions, usable_keys
from extauthz.admin.oauth_settings import CheckedSettings, Values, check
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor
from extauthz.config.loader import Configuration
from extauthz.config.oauth import ProviderEntry
from extauthz.config.openid import other_discovery
from extauthz.core.providers import ProviderRules, Verification
from extauthz.errors import ConfigurationError, FetchError
from extauthz.ports import Clock

TIMEOUT = 5.0
"""Seconds for each answer of the issuer."""


@dataclass(frozen=True, slots=True)
class TrialFinding:
    """What the issuer answered to one question, and whether tokens can be verified with it."""

    is_good: bool
    text: str

    def __post_init__(self) -> None:
        """Bound what others wrote: addresses and names of keys are theirs."""
        text = "".join(letter if letter.isprintable() else "?" for letter in self.text)
        object.__setattr__(self, "text", text if len(text) <= MAX_CAUSE else f"{text[:MAX_CAUSE]}…")


async def try_out(
    configuration: Configuration,
    actor: Actor,
    wanted: Values,
    *,
    clock: Clock,
    environment: Mapping[str, str],
    resolver: Resolver = resolve,
) -> tuple[TrialFinding, ...] | Refused:
    """Ask the issuer of settings what verifying its tokens needs; no token is sent.

    Only an issuer that the provider may have is asked, through proxy and authorities of the file, at a public address or in
    `console.issuer_networks`, and no redirect is followed: whoever writes the settings chooses whom the console asks. The fields of
    refusals are those of `check`.
    """
    match check(configuration, actor, {**wanted, "enabled": True}):
        case Refused() as refused:
            return refused
        case CheckedSettings(_, checked):
            pass
    section = checked.settings.oauth
    if section is None:
        return ()
    try:
        trust = checked.files.read(checked.file.parent / section.ca_file) if section.ca_file else None
        proxy, auth = section.proxy.url if section.proxy else None, checked.proxy_auth(environment)
        networks = checked.settings.console.issuer_networks if checked.settings.console else ()
        rule = AddressRule(tuple(map(ipaddress.ip_network, networks)), resolver)
        fetcher = JsonFetcher(timeout=TIMEOUT, proxy=proxy, proxy_auth=auth, trust=trust, rule=rule)
    except (ConfigurationError, FetchError, OSError, ValueError) as error:
        return (TrialFinding(False, f"the issuer cannot be asked: {error}"),)
    try:
        pairs = zip(section.of_each_tenant, checked.providers, strict=True)
        return tuple([finding for entry, rules in pairs for finding in await _asked(entry, rules, fetcher, clock)])
    finally:
        await fetcher.close()


async def _asked(entry: ProviderEntry, rules: ProviderRules, fetcher: JsonFetcher, clock: Clock) -> list[TrialFinding]:
    discovery = Discovery(rules.issuer, rules.discovery, fetcher, clock=clock, other=other_discovery(rules))
    uris = {
        Verification.JWKS: entry.jwks_uri,
        Verification.TOKENINFO: entry.tokeninfo_uri,
        Verification.INTROSPECTION: entry.introspection_uri,
        Verification.USERINFO: entry.userinfo_uri,
    }
    methods = sorted({rules.verification} | ({Verification.USERINFO} if rules.userinfo else set()))
    findings = []
    if not all(uris[method] for method in methods):
        try:
            findings.append(
                TrialFinding(True, f"{rules.discovery} is the discovery document of {await discovery.endpoint('issuer')}")
            )
        except FetchError as error:
            return [TrialFinding(False, str(error))]
    for method in methods:
        member, fixed = ("jwks_uri", None) if method is Verification.JWKS else endpoint_of(method)
        try:
            address = uris[method] or fixed or await discovery.endpoint(member)
            if method is Verification.JWKS:
                findings.append(_keys(rules, address, (await fetcher.get(address)).document))
            else:
                findings.append(TrialFinding(True, f"tokens are verified by {method} at {address}"))
        except FetchError as error:
            findings.append(TrialFinding(False, str(error)))
    return findings


def _keys(rules: ProviderRules, address: str, document: object) -> TrialFinding:
    try:
        keys, unused = usable_keys(document, rules.provider.algorithms, uses=rules.provider.key_uses)
    except ValueError as error:
        return TrialFinding(False, f"{address}: {error}")
    others = f"; left out: {'; '.join(descriptions(unused))}" if unused else ""
    algorithms = ", ".join(sorted(rules.provider.algorithms))
    return TrialFinding(bool(keys), f"{address}: usable keys for {algorithms}: {len(keys)}{others}")
