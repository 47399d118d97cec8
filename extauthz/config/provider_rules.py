"""From the providers of the oauth section to the rules that their tokens are verified by."""

from __future__ import annotations

from extauthz.config.oauth import ProviderEntry
from extauthz.config.settings import Settings
from extauthz.core.providers import ProviderRules, Verification


def provider_rules(settings: Settings) -> tuple[ProviderRules, ...]:
    """Return what counts for the tokens of each provider, none when OAuth is off."""
    section = settings.oauth
    return tuple(_rules(entry, settings) for entry in section.entries) if section and section.enabled else ()


def _rules(entry: ProviderEntry, settings: Settings) -> ProviderRules:
    row, verification = entry.row, entry.method
    tenant = row.issuer.fullmatch(entry.issuer)
    usual_claims = ("username",) if verification is Verification.INTROSPECTION else row.user_claims
    open_to_all = entry.domains is None or "*" in entry.domains
    hosted = entry.hosted_domains
    return ProviderRules(
        name=entry.name or entry.provider,
        provider=row,
        issuer=entry.issuer,
        tenant=tenant.groupdict().get("tenant", "") if tenant else "",
        client_ids=frozenset(entry.client_ids),
        audience=_audience(entry),
        scopes=frozenset(entry.scopes or settings.scopes),
        user_claims=tuple(entry.user_claim or ((row.subject_claim,) if entry.users else usual_claims)),
        verification=verification,
        domains=None if open_to_all else frozenset(domain.lower() for domain in entry.domains or ()),
        hosted_domains=None if hosted is None else frozenset(domain.lower() for domain in hosted),
        leeway=entry.leeway,
        guests=entry.guests,
        users=entry.users,
        userinfo=entry.asks_userinfo,
    )


def _audience(entry: ProviderEntry) -> frozenset[str] | None:
    """Return the audiences that count; None where the client id alone tells whom a token is for."""
    row = entry.row
    if entry.audience is None and (row.opaque or Verification.JWKS not in row.verifications):
        return None
    own = entry.client_ids if row.own_audience else []
    app_uris = [f"api://{client}" for client in own] if row.name == "azure" else []
    return frozenset(entry.audience or [*own, *app_uris])
