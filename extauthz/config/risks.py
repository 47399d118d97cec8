"""What a configuration allows although it is worth a second look."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.config import console, database_address, upstream
from extauthz.config.cross_checks import provider_entries
from extauthz.config.document import Document
from extauthz.config.issuers import TENANT
from extauthz.config.lints import Lint
from extauthz.config.openid import accepts_every_client
from extauthz.config.settings import Settings
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE
from extauthz.core.policy import Policy
from extauthz.core.providers import Verification
from extauthz.errors import Problem

_LISTEN_WARNING = (
    "can be reached by other machines, which can then try tokens: listen on loopback or a unix socket, or write tls.client_ca"
)
_OPS_WARNING = "can be reached by other machines, which can then read metrics and readiness: listen on loopback or a unix socket"
_RULE_WARNING = (
    "is not the default: decoder_header_mutation_rules of your Envoy must allow these names, else it answers 500; "
    "extauthz envoy-config prints what fits"
)
_INTROSPECTION_WARNING = (
    "introspection asks as the first of these clients, and {provider} may know nothing of tokens of the others: "
)
_ONE_CLIENT = "name one client"
_OTHER_WAY = ", or write verification: {way}, which works for all, and leave client_secret out"
_EVERY_CLIENT_WARNING = (
    "any accepts the tokens of every client of this issuer, also of those that are registered later: name the clients, unless "
    "nobody else can register one"
)
_SHARED_WARNING = (
    "counts for each of `tenants`, so that whoever runs one can name users of the others: write one entry for each, unless they "
    "are all yours"
)
_EVERYBODY_WARNING = "lets in everybody who makes a Google account: hosted_domains or users would keep others out"
_TIMEOUT_WARNING = (
    "its tokens are verified by asking the issuer, which takes longer than server.check_timeout waits: "
    "write check_timeout: 900ms, and 1s as the ext_authz timeout in Envoy"
)
REMOTE_CHECK_TIMEOUT = 0.5
STORE = ("tokens", "store")
EVERYBODYS_DOMAINS = ("*", "gmail.com", "googlemail.com")


def risks(settings: Settings, policy: Policy, source: Document) -> list[Problem]:
    """List what is allowed but worth a look."""
    warnings = []
    tls = settings.server.tls
    addresses = [("ops", settings.server.ops, _OPS_WARNING, Lint.OPEN_OPS)]
    if tls is None or tls.client_ca is None:
        addresses.insert(0, ("listen", settings.server.listen, _LISTEN_WARNING, Lint.OPEN_LISTENER))
    for key, listening, warning, name in addresses:
        if listening is not None and not listening.is_local:
            warnings.append(source.problem(("server", key), warning, name))
    if settings.console is not None:
        warnings += console.risks(settings.console, source)
        if settings.console.ops is not None and not settings.console.ops.is_local:
            warnings.append(source.problem(("console", "ops"), _OPS_WARNING.removesuffix(" or a unix socket"), Lint.OPEN_OPS))
    warnings += upstream.kept_hosts(settings.identity.keep, policy, source)
    if set(settings.act_as.names) - set(ACT_AS_HEADERS):
        warnings.append(source.problem(("act_as", "headers"), _RULE_WARNING, Lint.ENVOY_HEADER_RULES))
    if settings.auth_type.header.lower() not in ("", AUTH_TYPE):
        warnings.append(source.problem(("auth_type", "header"), _RULE_WARNING, Lint.ENVOY_HEADER_RULES))
    if settings.tokens and settings.tokens.enabled and not settings.act_as.allow:
        message = "is empty: no GLOBAL token can act for anybody"
        warnings.append(source.problem(("act_as", "allow"), message, Lint.NOBODY_TO_ACT_FOR))
    if settings.tokens and settings.tokens.enabled and not settings.tokens.store.startswith("sqlite:"):
        warnings += [
            source.problem(STORE, risk, Lint.WEAK_DATABASE_CONNECTION)
            for risk in database_address.read(settings.tokens.store).risks
        ]
    if settings.oauth and settings.oauth.enabled:
        warnings += _oauth_risks(settings, source)
    if not policy.kinds:
        warnings.append(source.problem((), "neither oauth nor tokens is on: only public routes are open", Lint.NO_TOKENS))
    return warnings


def _oauth_risks(settings: Settings, source: Document) -> Iterator[Problem]:
    entries = settings.oauth.entries if settings.oauth else []
    for (path, _), entry in zip(provider_entries(source), entries, strict=True):
        if entry.row.opaque and entry.users is None and entry.hosted_domains is None:
            for domain in sorted({domain.lower() for domain in entry.domains or ()}.intersection(EVERYBODYS_DOMAINS)):
                yield source.problem((*path, "domains"), f"{domain!r} {_EVERYBODY_WARNING}", Lint.EVERYBODYS_DOMAIN)
        shares = len(entry.tenants or ()) > 1 and TENANT not in entry.row.fixed_claims.values()
        for key, has_some in (("users", entry.users is not None), ("domains", "*" not in (entry.domains or ("*",)))):
            if shares and has_some:
                yield source.problem((*path, key), _SHARED_WARNING, Lint.TENANTS_SHARE_USERS)
        if accepts_every_client(entry):
            yield source.problem((*path, "client_ids"), _EVERY_CLIENT_WARNING, Lint.EVERY_CLIENT)
        if entry.method is Verification.INTROSPECTION and len(entry.client_ids) > 1 and entry.introspection_client is None:
            other_ways = [way for way in entry.row.verifications if way is not Verification.INTROSPECTION]
            hint = _ONE_CLIENT + "".join(_OTHER_WAY.format(way=way) for way in other_ways)
            message = _INTROSPECTION_WARNING.format(provider=entry.provider) + hint
            yield source.problem((*path, "client_ids"), message, Lint.INTROSPECTION_OF_SEVERAL_CLIENTS)
        if (entry.method is not Verification.JWKS or entry.asks_userinfo) and settings.server.check_timeout < REMOTE_CHECK_TIMEOUT:
            yield source.problem((*path, "provider"), _TIMEOUT_WARNING, Lint.SHORT_CHECK_TIMEOUT)
