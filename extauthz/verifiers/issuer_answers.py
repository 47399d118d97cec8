"""What an issuer answers about a token, put together with what the token itself claims: both are checked as one by the core."""

from __future__ import annotations

import re

from extauthz.core.claims import Claims, moment
from extauthz.core.model import Reason
from extauthz.core.providers import ProviderRules, Verification


def vouched(payload: Claims, answer: Claims, rules: ProviderRules) -> Claims | Reason:
    """Return what the issuer's answer says about the token, over the payload that the token itself brought.

    The answer is that of tokeninfo, which writes numbers as texts, of introspection (RFC 7662 2.2), or of userinfo, which accepts
    exactly this token and so confirms its payload.
    """
    expiry, provider = answer.get("exp"), rules.provider
    if rules.verification is Verification.TOKENINFO:
        return {"iss": rules.issuer, **answer, **{name: _number(answer[name]) for name in ("exp", "iat", "nbf") if name in answer}}
    if rules.verification is Verification.USERINFO:
        return with_user(payload, answer, rules)
    if answer.get("active") is not True:
        return Reason.TOKEN_INACTIVE
    kind = answer.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return Reason.TOKEN_KIND_WRONG
    other_claims = _kept(payload, rules)
    answer_claims = {
        provider.client_claims[0]: answer.get("client_id"),
        provider.scope_claim: answer.get("scope", other_claims.get(provider.scope_claim)),
        "exp": None if moment(expiry) is None else min(expiry, payload.get("exp", expiry)),
    }
    return {"iss": rules.issuer, **other_claims, **answer, **answer_claims}


def _kept(payload: Claims, rules: ProviderRules) -> Claims:
    """Return the claims of a payload that count beside introspection: who holds the token is said by the answer alone.

    Where the answer decides, what is kept can only refuse the token, because nobody verified who wrote it.
    """
    provider = rules.provider
    if not provider.answer_decides:
        return {name: value for name, value in payload.items() if name not in rules.user_claims}
    marks = {"cnf", "iat", "nbf", *provider.foreign_marks, *provider.kind_claims, *provider.id_token_claims}
    if not provider.must_verify:
        marks.add(provider.verified_claim)
    marks -= {*rules.user_claims, *rules.required_claims, *(rules.scope_claims or ())}
    return {name: value for name, value in payload.items() if name in marks}


def with_user(claims: Claims, answer: Claims, rules: ProviderRules) -> Claims | Reason:
    """Add what userinfo says about the user, who must be the token's (OpenID Connect Core 5.3.2)."""
    provider, subject = rules.provider, answer.get("sub")
    if not isinstance(subject, str) or subject not in [claims.get(name) for name in ("sub", *provider.user_token_claims)]:
        return Reason.TOKEN_USER_INVALID
    user_claims = (
        {"hd"}
        if rules.verification is Verification.TOKENINFO
        else {*rules.user_claims, provider.verified_claim}
        if rules.users is None
        else set()
    )
    # A token that calls the address unverified is not overruled by an answer that says nothing of that.
    is_verified = claims.get(provider.verified_claim) in provider.verified_values
    replaced = user_claims if is_verified else user_claims - {provider.verified_claim}
    other_claims = {name: value for name, value in claims.items() if name not in replaced}
    return other_claims | {name: answer[name] for name in user_claims if name in answer}


def _number(value: object) -> object:
    """Read a text of digits as the number that it stands for; anything else stays what it is."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,15}", value) else value
