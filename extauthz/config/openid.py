"""Entries of the providers by OpenID Connect: what their keys make of a preset, and what is missing or fits nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from extauthz.config import document
from extauthz.config.document import Document
from extauthz.config.issuers import issuers_of
from extauthz.config.oauth import EVERY_CLIENT, ProviderEntry
from extauthz.config.presets import PRESETS, PUBLIC_ISSUERS, Preset
from extauthz.config.values import one_or_many
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import Provider, ProviderRules
from extauthz.errors import Problem

# Anything of a Bearer token but what a JWT and a Google token look like (RFC 6750 2.1).
_OPAQUE = re.compile(r"(?!ya29\.)(?!(?:[^.]*\.){2}[^.]*$)[A-Za-z0-9._~+/-]{8,4096}=*")
_AT_JWT = frozenset({"at+jwt", "application/at+jwt"})

ONLY_HERE = ("algorithms", "client_claim", "introspection_client", "jwt_type", "userinfo", "opaque_tokens", "signed_introspection")
"""Keys that only these providers use: what others write into their tokens is known."""


def accepts_every_client(entry: ProviderEntry) -> bool:
    """Tell whether the tokens of every client are accepted."""
    return entry.provider in PRESETS and entry.client_ids == [EVERY_CLIENT]


def openid_provider(entry: ProviderEntry) -> Provider:
    """Return what an entry makes of its preset."""
    row = entry.row
    # An ID token is for its client: where an audience may be one, only a mark or a scope tells an access token.
    for_clients = accepts_every_client(entry) or not set(entry.client_ids).isdisjoint(entry.audience or ())
    is_marked = entry.jwt_type is not None or bool(row.kind_claims) or row.of_workloads
    tells_email = "email" in (entry.user_claim or row.user_claims)
    return replace(
        row,
        algorithms=frozenset(entry.algorithms or row.algorithms),
        client_claims=tuple(entry.client_claim or row.client_claims),
        header_types=_AT_JWT if entry.jwt_type else row.header_types,
        has_scopes=row.has_scopes or (for_clients and not is_marked),
        opaque=_OPAQUE if entry.opaque_tokens else None,
        verified_claim=row.verified_claim if tells_email else "",
        must_verify=row.must_verify and tells_email,
    )


def other_discovery(rules: ProviderRules) -> str | None:
    """Return where RFC 8414 3.1 has the document of an issuer, with the well-known part between host and path; None if unused."""
    if rules.provider.name not in PRESETS:
        return None
    return re.sub(r"(https?://[^/]+)(.*)", r"\1/.well-known/oauth-authorization-server\2", rules.issuer.rstrip("/"))


def problems(source: Document, path: document.KeyPath, entry: dict[str, object], name: str) -> Iterator[Problem]:
    """List what an entry of one of these providers lacks, or says in vain."""
    preset = PRESETS[name]
    yield from _missing(source, path, entry, preset)
    for row in (row for rows in PROVIDERS.values() for row in rows if row.home_claim):
        if any(row.issuer.fullmatch(issuer) for issuer in issuers_of(name, str(entry.get("issuer")), entry.get("tenants"))):
            message = (
                f"this is an issuer of {row.name}, whose guests and tenants need rules of their own: write provider: {row.name}"
            )
            yield source.problem((*path, "issuer"), message)
    clients = one_or_many(entry.get("client_ids"))
    every_client = isinstance(clients, list) and EVERY_CLIENT in clients
    if every_client and clients != [EVERY_CLIENT]:
        yield source.problem((*path, "client_ids"), f"{EVERY_CLIENT} stands for all clients: write it alone, or leave it out")
    elif every_client and (_is_public(entry) or not preset.audience):
        why = "everybody can get tokens of this issuer" if preset.audience else f"{name} tokens need name no audience"
        yield source.problem((*path, "client_ids"), f"{EVERY_CLIENT} would let in strangers, because {why}: name your clients")
    audience = one_or_many(entry.get("audience"))
    for index, text in enumerate(audience if isinstance(audience, list) else ()):
        if isinstance(text, str) and preset.common_audience.fullmatch(text):
            message = f"{text!r} is in many tokens of {name} that are not for your API: write the audience of the API itself"
            yield source.problem(
                (*path, "audience", index) if isinstance(entry["audience"], list) else (*path, "audience"), message
            )
    if entry.get("opaque_tokens") is True and _is_local(entry):
        message = "only introspection reads opaque tokens: write verification: introspection with a client_secret, or leave it out"
        yield source.problem((*path, "opaque_tokens"), message)
    for key in ("introspection_client", "signed_introspection"):
        if entry.get(key) not in (None, False) and _is_local(entry):
            yield source.problem((*path, key), "nothing uses it, because the keys verify the tokens: leave it out")
    if every_client and not _is_local(entry) and entry.get("introspection_client") is None:
        message = "is missing: write the client whose client_secret this is, because client_ids names none"
        yield source.problem((*path, "introspection_client"), message)


def _missing(source: Document, path: document.KeyPath, entry: dict[str, object], preset: Preset) -> Iterator[Problem]:
    if preset.audience and entry.get("audience") is None:
        message = f"is missing: write it, like audience: {preset.audience} (the keys of the issuer sign tokens for others too)"
        yield source.problem((*path, "audience"), message)
    if preset.keys_elsewhere and entry.get("jwks_uri") is None:
        message = "is missing: write where the keys of the trust domain are, like jwks_uri: https://spire.acme.com/keys"
        yield source.problem((*path, "jwks_uri"), message)
    names_user = entry.get("users") is not None or entry.get("user_claim") is not None or entry.get("userinfo") is True
    if not preset.user_claims and not names_user:
        asks = "" if preset.provider.of_workloads else ", or userinfo: true"
        message = (
            f"is missing: {preset.provider.name} tokens hold no address that could be relied on: write user_claim with a claim of "
            f"yours that holds one, or users with an address for each {preset.provider.subject_claim}{asks}"
        )
        yield source.problem((*path, "user_claim"), message)


def _is_public(entry: dict[str, object]) -> bool:
    issuer = entry.get("issuer")
    named = isinstance(issuer, str) and PUBLIC_ISSUERS.fullmatch(issuer) is not None
    return named or PRESETS[str(entry.get("provider"))].is_public


def _is_local(entry: dict[str, object]) -> bool:
    return entry.get("verification", "introspection" if entry.get("client_secret") is not None else "jwks") == "jwks"
