"""What is made of claims and answers of issuers: nothing that nobody vouches for says who holds a token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from extauthz.core import claims
from extauthz.core.model import Identity, Reason
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import ProviderRules, Verification
from extauthz.verifiers import issuer_answers
from tests.support.world import CLIENT, ISSUER, NOW
from tests.support.world import claims as good_claims

OKTA = ProviderRules(
    name="okta",
    provider=PROVIDERS["okta"][0],
    issuer=ISSUER,
    client_ids=frozenset({CLIENT}),
    audience=None,
    scopes=frozenset({"SEARCH"}),
    user_claims=("sub",),
)
ASKED = replace(OKTA, verification=Verification.INTROSPECTION, user_claims=("email",))
ACTIVE = {"active": True, "token_type": "Bearer", "client_id": CLIENT, "exp": NOW + 60, "sub": "ana@acme.com"}


@pytest.mark.parametrize("issuer", ["https://acme.okta.com", "https://acme.okta.com/oauth2/X"])
def test_the_discovery_document_stands_behind_one_slash(issuer: str) -> None:
    """OpenID Connect Discovery 4: a slash at the end of the issuer is removed before."""
    for end in ("", "/"):
        assert replace(OKTA, issuer=issuer + end).discovery == f"{issuer}/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"exp": NOW + 30}, NOW + 30),
        ({"exp": NOW + 90}, NOW + 60),
        ({}, NOW + 60),
    ],
)
def test_a_token_ends_when_the_first_of_its_two_ends_comes(payload: dict[str, float], expected: float) -> None:
    told = issuer_answers.vouched(payload, ACTIVE, ASKED)
    assert not isinstance(told, Reason)
    assert told["exp"] == expected


def test_who_holds_a_token_is_said_by_the_answer_alone() -> None:
    payload = {"email": "ceo@acme.com", "ver": 1}
    told = issuer_answers.vouched(payload, ACTIVE, ASKED)
    assert not isinstance(told, Reason)
    assert "email" not in told
    assert told["ver"] == 1
    told = issuer_answers.vouched(payload, ACTIVE | {"email": "ana@acme.com"}, ASKED)
    assert not isinstance(told, Reason)
    assert told["email"] == "ana@acme.com"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"active": 1}, Reason.TOKEN_INACTIVE),
        ({"active": "true"}, Reason.TOKEN_INACTIVE),
        ({"active": False}, Reason.TOKEN_INACTIVE),
        ({"token_type": "DPoP"}, Reason.TOKEN_KIND_WRONG),
        ({"token_type": None}, Reason.TOKEN_KIND_WRONG),
        ({"token_type": ["Bearer"]}, Reason.TOKEN_KIND_WRONG),
    ],
)
def test_an_answer_that_is_no_clear_yes_is_a_no(answer: dict[str, Any], expected: Reason) -> None:
    assert issuer_answers.vouched({}, ACTIVE | answer, ASKED) is expected


BARE = {name: value for name, value in good_claims().items() if name != "uid"}


@pytest.mark.parametrize(
    ("held", "subject", "is_the_user"),
    [
        (good_claims(uid="00u1"), "00u1", True),
        (good_claims(uid="00u1"), "ana@acme.com", True),
        (good_claims(uid="00u1"), "00u2", False),
        (good_claims(uid="00u1"), None, False),
        (BARE, None, False),  # no claim is not the same as no subject
        (BARE, [], False),
        (BARE, 5, False),
    ],
)
def test_userinfo_is_about_the_user_of_the_token(held: dict[str, Any], subject: object, is_the_user: bool) -> None:
    told = issuer_answers.with_user(held, {"sub": subject} if subject is not None else {}, OKTA)
    assert (told is not Reason.TOKEN_USER_INVALID) is is_the_user


def test_userinfo_says_the_address_or_nobody_does() -> None:
    rules = replace(OKTA, provider=PROVIDERS["okta"][1], user_claims=("email",), userinfo=True)
    held = good_claims(email="ceo@acme.com", email_verified=True)
    told = issuer_answers.with_user(held, {"sub": held["sub"]}, rules)
    assert not isinstance(told, Reason)
    assert "email" not in told
    assert "email_verified" not in told
    told = issuer_answers.with_user(held, {"sub": held["sub"], "email": "ana@acme.com", "email_verified": False}, rules)
    assert not isinstance(told, Reason)
    assert (told["email"], told["email_verified"]) == ("ana@acme.com", False)


def test_where_users_are_listed_userinfo_changes_nothing() -> None:
    rules = replace(OKTA, user_claims=("email",), userinfo=True, users={"ana": "ana@acme.com"})
    held = good_claims(email="ana")
    assert issuer_answers.with_user(held, {"sub": held["sub"], "email": "eva"}, rules) == held


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"uid": ""}, Reason.TOKEN_KIND_WRONG),
        ({"uid": None}, Reason.TOKEN_KIND_WRONG),
        ({"uid": 1}, Reason.TOKEN_KIND_WRONG),
    ],
)
def test_a_token_of_a_user_names_the_user(changes: dict[str, object], expected: Reason | None) -> None:
    found = claims.verify(good_claims(**changes), OKTA, NOW)
    assert (None if isinstance(found, Identity) else found) is expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"ana@acme.com": "eva@acme.com"}, "eva@acme.com"),
        ({"ana@acme.com": "no address"}, Reason.TOKEN_USER_INVALID),
        ({"other": "eva@acme.com"}, Reason.TOKEN_USER_NOT_ALLOWED),
    ],
)
def test_a_listed_user_has_an_address_or_is_nobody(listed: dict[str, str], expected: str | Reason) -> None:
    found = claims.verify(good_claims(), replace(OKTA, users=listed), NOW)
    assert (found.user if isinstance(found, Identity) else found) == expected
