"""Callers in words, and what requests of theirs come to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from extauthz.core.credentials import Kind
from extauthz.core.model import Allow, Deny, Identity, Reason
from extauthz.errors import CallerError
from extauthz.tools.callers import caller
from extauthz.tools.calls import Call, decided_call, headers_for_upstream, request_of
from tests.support import vectors
from tests.support.world import NOW

VOCABULARY = ("SEARCH", "CHAT", "items:read")

READ = {
    "GLOBAL scopes=SEARCH,chat": ("GLOBAL", "token:000000000000", None, "SEARCH CHAT", math.inf),
    "global scopes=* token=abc expires=2027-01-31": ("GLOBAL", "token:abc", None, " ".join(VOCABULARY), 1801353600.0),
    "USER user=Ana@acme.com scopes=items:read": ("USER", "token:000000000000", "ana@acme.com", "items:read", math.inf),
    "ANONYMOUS scopes=CHAT": ("ANONYMOUS", "token:000000000000", None, "CHAT", math.inf),
    "oauth user=ana@acme.com": ("OAUTH", "oauth:described:ana@acme.com", "ana@acme.com", " ".join(VOCABULARY), math.inf),
    "OAuth user=a@b.example subject=7 scopes=CHAT": ("OAUTH", "oauth:described:7", "a@b.example", "CHAT", math.inf),
}
REFUSED = {
    "": "unknown kind of caller '': write 'GLOBAL scopes=SEARCH,CHAT', 'oauth user=ana@acme.com' or 'nobody'",
    "globl scopes=CHAT": "unknown kind of caller 'globl', did you mean 'GLOBAL'?",
    "GLOBAL": "GLOBAL needs scopes: write scopes=SEARCH,CHAT, or scopes=* for all",
    "GLOBAL scope=CHAT": "GLOBAL does not take 'scope', did you mean 'scopes'?",
    "GLOBAL user=ana@acme.com scopes=CHAT": "GLOBAL does not take 'user': it takes scopes, token, expires, reason",
    "GLOBAL scopes=CHATT": "unknown scope 'CHATT', did you mean 'CHAT'?",
    "GLOBAL scopes=": "scopes has no value: write scopes=…",
    "GLOBAL scopes=CHAT scopes=CHAT": "scopes is written twice: keep one",
    "GLOBAL scopes=CHAT expires=soon": "expires=soon is not a time: write one like 2027-01-31T12:00:00Z",
    "USER scopes=CHAT": "USER needs the user that it acts for: write user=ana@acme.com",
    "USER user=ana scopes=CHAT": "'ana' is not one e-mail address",
    "oauth": "oauth needs the user of the token: write user=ana@acme.com",
    "oauth user=ana@acme.com provider=okta": "no provider 'okta': the configuration has none",
    "oauth reason=token_revokd": "verifying a token does not come to 'token_revokd', did you mean 'token_revoked'?",
    "oauth reason=scope_missing": "verifying a token does not come to 'scope_missing': write one like token_revoked",
    "nobody scopes=CHAT": "nobody does not take 'scopes': it takes nothing",
    "GLOBAL 'scopes": "No closing quotation: write 'GLOBAL scopes=SEARCH,CHAT', 'oauth user=ana@acme.com' or 'nobody'",
}


@pytest.mark.parametrize("text", READ)
def test_a_description_is_an_identity(text: str) -> None:
    found = caller(text, VOCABULARY)
    assert isinstance(found.evidence, Identity)
    one = found.evidence
    kind, actor, user, scopes, expires_at = READ[text]
    assert (one.auth_type.value, one.actor, one.user, one.expires_at) == (kind, actor, user, expires_at)
    assert one.scopes == set(scopes.split())
    assert found.kind is (Kind.OAUTH if one.auth_type == "OAUTH" else Kind.ISSUED)
    again = caller(found.description, VOCABULARY)
    assert (again.kind, repr(again.evidence)) == (found.kind, repr(found.evidence))


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_read_says_what_to_write(text: str) -> None:
    with pytest.raises(CallerError) as caught:
        caller(text, VOCABULARY)
    assert str(caught.value) == REFUSED[text]


def test_a_refused_token_is_described_by_its_reason() -> None:
    found = caller("USER reason=token_revoked", VOCABULARY)
    assert (found.kind, found.evidence) == (Kind.ISSUED, Reason.TOKEN_REVOKED)


@pytest.mark.parametrize("auth_type", ["by_token", None])
def test_calls_are_decided_by_the_steps_that_serve(tmp_path: Path, auth_type: str | None) -> None:
    settings = {"auth_type": auth_type} if auth_type else {}
    configuration = vectors.build(
        tmp_path, {"routes": [{"match": "GET /a/{id}", "scope": "CHAT"}]} | settings, {}
    ).world.configuration
    policy, scopes = configuration.policy, configuration.settings.scopes
    cases = {
        "nobody": Reason.CREDENTIAL_MISSING,
        "GLOBAL scopes=CHAT": Reason.ALLOWED,
        "GLOBAL scopes=SEARCH": Reason.SCOPE_MISSING,
        "oauth reason=token_issuer": Reason.TOKEN_ISSUER,
    }
    for text, reason in cases.items():
        call = Call("GET", "/a/7?q=1", headers={"x-scio-actas": "ana@acme.com", "accept": "*/*"}, caller=caller(text, scopes))
        decision = decided_call(policy, call, NOW)
        assert decision.reason is reason, text
        headers = headers_for_upstream(request_of(policy, call), decision)
        if isinstance(decision, Allow):
            assert headers is not None
            assert (headers["accept"], headers["x-extauthz-user"]) == ("*/*", "ana@acme.com")
            assert {"authorization", "x-scio-actas"}.isdisjoint(headers)
        else:
            assert isinstance(decision, Deny)
            assert headers is None
