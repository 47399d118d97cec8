"""How the issuers of the providers are written: short and in full, for one tenant or several, and what is nearly one."""

from __future__ import annotations

import re

from extauthz.config.presets import ALL_PROVIDERS
from extauthz.core.providers import Provider, Verification

TENANT = "{tenant}"
"""What stands in the issuer of an entry for several tenants."""


def expand_issuer(name: str, issuer: str) -> str:
    """Write out the short issuer of the admin form; anything else is taken as it is."""
    pattern, template = ALL_PROVIDERS[name][0].short_issuer
    match = re.fullmatch(pattern, issuer)
    return match.expand(template) if match else issuer


def issuers_of(name: str, issuer: str, tenants: object) -> list[str]:
    """Write out the issuer of an entry: one, or one for each of its tenants."""
    parts = [part for part in tenants if isinstance(part, str)] if isinstance(tenants, list) and TENANT in issuer else []
    return [expand_issuer(name, issuer.replace(TENANT, part)) for part in parts] or [expand_issuer(name, issuer)]


def provider_of(name: str, issuer: str) -> Provider | None:
    """Return the row of an expanded issuer, or None when it is none of this provider's."""
    return next((row for row in ALL_PROVIDERS[name] if row.issuer.fullmatch(issuer)), None)


def not_an_issuer(name: str, issuer: str) -> str:
    """Say what to write instead; an address with a user in it may hold a password and is not repeated."""
    row = ALL_PROVIDERS[name][0]
    if row.opaque:
        return f"{name} has one issuer for everybody: leave the key out"
    if not issuer:
        return f"is missing: write it, like issuer: {row.issuer_form}"
    what = f"{'this' if '@' in issuer else repr(issuer)} is not an issuer of {name}"
    near = _near_issuer(name, issuer)
    if near:
        return f"{what}, did you mean {near!r}?"
    return f"{what}: write {row.issuer_form}" + (" (plain http is read from loopback only)" if issuer.startswith("http:") else "")


def _near_issuer(name: str, issuer: str) -> str:
    """Find an issuer that differs in what is easily overlooked: case, scheme, slash, version, the discovery document behind it."""
    for spelling in (issuer, issuer.lower()):
        base = spelling.removesuffix("/.well-known/openid-configuration").rstrip("/")
        for candidate in (base, f"https://{base}", f"{base}/", f"{base}/v2.0"):
            if provider_of(name, expand_issuer(name, candidate)):
                return candidate
    return ""


def usual_verification(row: Provider, *, with_secret: bool) -> Verification:
    """Return how tokens are verified when nothing is said: a client secret is for introspection."""
    introspects = with_secret and Verification.INTROSPECTION in row.verifications
    return Verification.INTROSPECTION if introspects else row.verifications[0]
