"""Lints of extauthz.yaml: scopes that nothing uses, act-as rules and providers that let everybody in."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.admin.route_map import routes_of, tables
from extauthz.config.cross_checks import provider_entries
from extauthz.config.document import Document
from extauthz.config.lints import Lint
from extauthz.config.oauth import ProviderEntry
from extauthz.config.presets import PRESETS
from extauthz.config.settings import Settings
from extauthz.core.policy import Policy
from extauthz.errors import Problem

_WITHOUT_DOMAINS = (
    "is missing: users of every domain that the provider vouches for come in. Write it, like domains: [acme.com]; "
    'domains: ["*"] says that this is meant'
)


def findings(settings: Settings, policy: Policy, source: Document) -> Iterator[Problem]:
    """Yield what the lints of the settings find; `source` is extauthz.yaml."""
    used = {scope for _, table in tables(policy) for route in routes_of(table) for scope in route.scopes}
    for index, scope in enumerate(settings.scopes):
        if scope not in used:
            message = f"no route asks for {scope}: remove it, or write the route that it is for"
            yield source.problem(("scopes", index), message, Lint.UNUSED_SCOPE)
    if settings.tokens is not None and settings.tokens.enabled:
        for index, pattern in enumerate(settings.act_as.allow):
            if _is_everybody(pattern):
                message = f"{pattern!r} lets GLOBAL tokens act for everybody: name your domains, like *@acme.com"
                yield source.problem(("act_as", "allow", index), message, Lint.ACT_AS_EVERYBODY)
    if settings.oauth is not None and settings.oauth.enabled:
        for (path, _), entry in zip(provider_entries(source), settings.oauth.entries, strict=True):
            if _has_users(entry) and entry.domains is None and entry.users is None and entry.hosted_domains is None:
                yield source.problem((*path, "domains"), _WITHOUT_DOMAINS, Lint.PROVIDER_WITHOUT_DOMAINS)


def _is_everybody(pattern: str) -> bool:
    """Tell whether an address pattern names neither a user nor a domain."""
    local, _, domain = pattern.rpartition("@")
    return set(local) == {"*"} and set(domain) <= {"*", "."}


def _has_users(entry: ProviderEntry) -> bool:
    """Tell whether tokens of this provider name people by an address, not only workloads and clients."""
    preset = PRESETS.get(entry.provider)
    names_some = preset is None or bool(preset.user_claims or entry.user_claim or entry.userinfo)
    return names_some and not entry.row.of_workloads
