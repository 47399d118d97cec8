"""From the providers of the oauth section to the rules that their tokens are verified by."""

from __future__ import annotations

from extauthz.config.oauth import ProviderEntry
from extauthz.config.openid import accepts_every_client, openid_provider
from extauthz.config.presets import PRESETS
from extauthz.config.settings import Settings
from extauthz.core.providers import ProviderRules, Verification


def provider_rules(settings: Settings) -> tuple[ProviderRules, ...]:
    """Return what counts for the tokens of each provider, none when OAuth is off."""
    section = settings.oauth
    return tuple(_rules(entry, settings) for entry in section.of_each_tenant) if section and section.enabled else ()


def _rules(entry: ProviderEntry, settings: Settings) -> ProviderRules:
    row, verification, preset = entry.row, entry.method, PRESETS.get(entry.provider)
    tenant = row.issuer.fullmatch(entry.issuer)
    usual_claims = ("username",) if verification is Verification.INTROSPECTION else row.user_claims
    if preset is not None:
        usual_claims = preset.user_claims or (("email",) if entry.userinfo else ())
    open_to_all = entry.domains is None or "*" in entry.domains
    hosted = entry.hosted_domains
    return ProviderRules(
        name=entry.name or entry.provider,
        provider=row if preset is None else openid_provider(entry),
        issuer=entry.issuer,
        tenant=tenant.groupdict().get("tenant", "") if tenant else "",
        client_ids=None if accepts_every_client(entry) else frozenset(entry.client_ids),
        audience=_audience(entry),
        scopes=frozenset(entry.scopes if isinstance(entry.scopes, list) else settings.scopes),
        scope_claims=tuple(entry.scope_claim or (row.scope_claim,)) if entry.reads_scopes else None,
        scope_map=None if entry.scope_map is None else {name: frozenset(scopes) for name, scopes in entry.scope_map.items()},
        user_claims=tuple(entry.user_claim or ((row.subject_claim,) if entry.users else usual_claims)),
        verification=verification,
        domains=None if open_to_all else frozenset(domain.lower() for domain in entry.domains or ()),
        hosted_domains=None if hosted is None else frozenset(domain.lower() for domain in hosted),
        leeway=entry.leeway,
        guests=entry.guests,
        required_claims={
            name: tuple(value) if isinstance(value, list) else (value,) for name, value in (entry.required_claims or {}).items()
        },
        users=entry.users,
        userinfo=entry.asks_userinfo,
    )


def _audience(entry: ProviderEntry) -> frozenset[str] | None:
    """Return the audiences that count; None where the client id alone tells whom a token is for."""
    row = entry.row
    names_none = row.name in PRESETS and not PRESETS[row.name].audience
    if entry.audience is None and (names_none or row.opaque or Verification.JWKS not in row.verifications):
        return None
    own = entry.client_ids if row.own_audience else []
    app_uris = [f"api://{client}" for client in own] if row.name == "azure" else []
    return frozenset(entry.audience or [*own, *app_uris])
