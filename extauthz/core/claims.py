"""What a token claims, checked in one way whoever vouches for it: the issuer's key, or the issuer itself when it is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from extauthz.core.act_as import address
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.providers import ProviderRules

MAX_MOMENT = 2**53
_CLIENT_CLAIMS = ("azp", "client_id", "cid", "appid")

_SPIFFE_ID = re.compile(r"(spiffe://[a-z0-9._-]{1,255})(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._-]+)+")

Claims = Mapping[str, Any]


def precheck(claims: Claims, rules: ProviderRules, now: float) -> Reason | None:
    """Refuse what nobody's word could save: issuer, kind, client, expiry. Run before any work that costs."""
    provider = rules.provider
    fixed = provider.fixed_claims.items()
    named = trust_domain(claims) if rules.issuer.startswith("spiffe:") else claims.get("iss")
    if named != rules.issuer or any(claims.get(name) != value.format(tenant=rules.tenant) for name, value in fixed):
        return Reason.TOKEN_ISSUER
    token_id = claims.get("jti", "")
    by_name = bool(provider.id_token_jti) and (not isinstance(token_id, str) or token_id.startswith(provider.id_token_jti))
    by_kind = any(claims.get(name) != kind for name, kind in provider.kind_claims.items())
    if by_name or by_kind or not provider.id_token_claims.isdisjoint(claims):
        return Reason.TOKEN_KIND_WRONG
    client = _client(claims, rules)
    second = claims.get(provider.second_client_claim, client)
    if client is None or not isinstance(second, str) or (rules.client_ids is not None and second not in rules.client_ids):
        return Reason.TOKEN_CLIENT
    expires_at = moment(claims.get("exp"))
    if expires_at is None:
        return Reason.TOKEN_CLAIMS_MALFORMED
    return Reason.TOKEN_EXPIRED if now >= expires_at else None


def time_refusal(claims: Claims, rules: ProviderRules, now: float) -> Reason | None:
    """Refuse a token that starts later than `now` plus the leeway (RFC 7519 4.1.5, 4.1.6)."""
    for name in ("nbf", "iat"):
        if name in claims:
            starts_at = moment(claims[name])
            if starts_at is None:
                return Reason.TOKEN_CLAIMS_MALFORMED
            if starts_at > now + rules.leeway:
                return Reason.TOKEN_NOT_YET_VALID
    return None


def verify(claims: Claims, rules: ProviderRules, now: float) -> Identity | Reason:
    """Find out who holds a token whose claims somebody vouches for."""
    return precheck(claims, rules, now) or time_refusal(claims, rules, now) or _refusal(claims, rules) or _identity(claims, rules)


def _refusal(claims: Claims, rules: ProviderRules) -> Reason | None:
    if "cnf" in claims:  # sender-constrained, so no Bearer token (RFC 8705 3, RFC 9449 7)
        return Reason.TOKEN_HEADER_FORBIDDEN
    provider = rules.provider
    # A mark of another type says nothing that could be relied on.
    marks = [(claims[name], values) for name, values in provider.foreign_marks.items() if name in claims]
    marked = any(not isinstance(mark, str) or mark.casefold() in values for mark, values in marks)
    has_user = all(isinstance(claims.get(name), str) and claims[name] for name in provider.user_token_claims)
    names = (*provider.user_claims, "sub")
    robot = any(provider.app_users.fullmatch(text) for name in names for text in strings(claims.get(name)))
    clients = (*_clients(claims, rules), *(text for name in _CLIENT_CLAIMS for text in strings(claims.get(name))))
    if marked or not has_user or robot or (not provider.of_workloads and claims.get("sub") in clients):
        return Reason.TOKEN_KIND_WRONG
    scopes = {word for text in strings(claims.get(provider.scope_claim)) for word in text.split(" ") if word}
    if (provider.has_scopes and not scopes) or any(spellings.isdisjoint(scopes) for spellings in provider.required_scopes):
        return Reason.TOKEN_KIND_WRONG
    if rules.audience is not None and rules.audience.isdisjoint(strings(claims.get("aud"))):
        return Reason.TOKEN_AUDIENCE
    for name, values in rules.required_claims.items():
        members = strings(claims.get(name)) or (claims.get(name),)
        if not any(type(member) is type(value) and member == value for member in members for value in values):
            return Reason.TOKEN_USER_NOT_ALLOWED
    has_home = bool(provider.home_claim) and provider.home_claim in claims
    if has_home and not rules.guests and not _is_at_home(claims[provider.home_claim], rules):
        return Reason.TOKEN_USER_NOT_ALLOWED
    verified = claims.get(provider.verified_claim, not provider.must_verify)
    if rules.users is None and not any(type(verified) is type(good) and verified == good for good in provider.verified_values):
        return Reason.TOKEN_USER_INVALID
    hosted = claims.get("hd")
    if rules.hosted_domains is not None and (not isinstance(hosted, str) or hosted not in rules.hosted_domains):
        return Reason.TOKEN_USER_NOT_ALLOWED
    return None


def _identity(claims: Claims, rules: ProviderRules) -> Identity | Reason:
    subject, user = claims.get("sub"), _user(claims, rules)
    if isinstance(user, Reason):
        return user
    if not isinstance(subject, str) or not subject or subject.encode(errors="ignore").decode() != subject:
        return Reason.TOKEN_CLAIMS_MALFORMED
    if rules.domains is not None and user.rpartition("@")[2] not in rules.domains:
        return Reason.TOKEN_USER_NOT_ALLOWED
    return Identity(
        auth_type=AuthType.OAUTH,
        actor=f"oauth:{rules.name}:{subject}",
        user=user,
        scopes=_scopes(claims, rules),
        expires_at=float(claims["exp"]),
        client_id=_client(claims, rules),
    )


def _scopes(claims: Claims, rules: ProviderRules) -> frozenset[str]:
    """Return what a token may do: never more than what it may do at most."""
    if rules.scope_claims is None:
        return rules.scopes
    # A text of scopes is a list with spaces (RFC 9068 2.2.3, RFC 8693 4.2); names of groups may hold some, like "not admins".
    lists, values = {"scope", "scp", rules.provider.scope_claim}, [(name, _claim(claims, name)) for name in rules.scope_claims]
    names = {
        word
        for name, value in values
        for word in (value.split(" ") if name in lists and isinstance(value, str) else strings(value))
    }
    if rules.scope_map is None:
        return _kept(rules.scopes & names)
    return _kept(rules.scopes.intersection(scope for name in names for scope in rules.scope_map.get(name, ())))


@lru_cache(maxsize=4096)
def _kept(scopes: frozenset[str]) -> frozenset[str]:
    """Return one object for all tokens that hold the same."""
    return scopes


def _claim(claims: Claims, name: str) -> object:
    """Return a claim, or, where none has the name, a member of one: realm_access.roles; * is the names of those granted."""
    first, _, rest = name.partition(".")
    inner = claims.get(first)
    if name in claims or not rest or not isinstance(inner, dict):
        return claims.get(name)
    if rest == "*":
        return [member for member, value in inner.items() if value is True or (isinstance(value, dict) and value)]
    return _claim(inner, rest)


def _is_at_home(issuer: object, rules: ProviderRules) -> bool:
    home = rules.provider.homes.fullmatch(issuer) if isinstance(issuer, str) else None
    return home is not None and home["tenant"] == rules.tenant


def _user(claims: Claims, rules: ProviderRules) -> str | Reason:
    """Return the address of the user, whom the first claim that is there names; what is wrong with it is not made up by another."""
    claim = next((claims[name] for name in rules.user_claims if name in claims), None)
    if not isinstance(claim, str):
        return Reason.TOKEN_USER_INVALID
    if rules.users is not None:
        user = rules.users.get(claim, rules.users.get("*"))
        return Reason.TOKEN_USER_NOT_ALLOWED if user is None else address(user) or Reason.TOKEN_USER_INVALID
    mark = rules.provider.guest_mark
    if not mark or mark not in claim:
        return address(claim) or Reason.TOKEN_USER_INVALID
    guest = next((parts for form in rules.provider.guest_names if (parts := form.fullmatch(claim))), None)
    home = address("@".join(guest.groups())) if guest else None
    if home is None:
        return Reason.TOKEN_USER_INVALID
    return home if rules.guests else Reason.TOKEN_USER_NOT_ALLOWED


def _clients(claims: Claims, rules: ProviderRules) -> tuple[str, ...]:
    claim = next((claims[name] for name in rules.provider.client_claims if name in claims), None)
    return strings(claim) if rules.provider.client_in_audience or isinstance(claim, str) else ()


def _client(claims: Claims, rules: ProviderRules) -> str | None:
    """Return the allowed client of a token, the first one where it may name several, or None."""
    clients = _clients(claims, rules)
    if rules.client_ids is None:
        return next(iter(clients), None) or None
    # The configured text, which is kept once however many tokens name it.
    return next((client_id for client in clients for client_id in rules.client_ids if client_id == client), None)


def trust_domain(claims: Claims) -> str | None:
    """Return the trust domain of a SPIFFE id, as spiffe://acme.org (SPIFFE-ID 2): what a JWT-SVID names its issuer by."""
    subject = claims.get("sub")
    found = _SPIFFE_ID.fullmatch(subject) if isinstance(subject, str) else None
    return found[1] if found else None


def moment(value: object) -> float | None:
    """Return a time in seconds since the epoch (RFC 7519 2), or None when it is no number, or one that floats do not tell apart."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < MAX_MOMENT else None


def strings(value: object) -> tuple[str, ...]:
    """Return the strings of a claim that is one string or a list of them; nothing when anything else is in it."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return ()
