"""The table of providers: which short names of an issuer it completes, and what it says where a text is no issuer."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from extauthz.config.issuers import expand_issuer
from extauthz.config.oauth import ProviderEntry
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import Provider, ProviderRules, Verification

SHORT = [
    ("okta", "https://acme", "https://acme.okta.com"),
    ("onelogin", "https://acme", "https://acme.onelogin.com/oidc/2"),
    ("onelogin", "https://acme.onelogin.com", "https://acme.onelogin.com/oidc/2"),
]
FORMS = {
    "azure": "<directory_ID>/v2.0, or https://sts.windows.net/<directory_ID>/ for tokens of version 1.0",
    "gsuite": "https://accounts.google.com",
    "okta": "https://<org>.okta.com/oauth2/<id> for a custom authorization server, or https://<org>.okta.com",
    "onelogin": "https://<subdomain>, or https://<subdomain>.onelogin.com/oidc/2",
}


@pytest.mark.parametrize(("provider", "short", "issuer"), SHORT)
def test_a_short_issuer_is_completed(provider: str, short: str, issuer: str) -> None:
    assert expand_issuer(provider, short) == issuer


def test_each_provider_says_how_its_issuer_is_written() -> None:
    assert {name: rows[0].issuer_form for name, rows in PROVIDERS.items()} == FORMS


def test_keys_for_signatures_alone_verify_tokens() -> None:
    assert {row.key_uses for rows in PROVIDERS.values() for row in rows} == {("sig",)}


def test_each_row_has_the_title_of_its_provider() -> None:
    titles = {name: {row.title for row in rows} for name, rows in PROVIDERS.items()}
    assert titles == {"azure": {"Azure"}, "gsuite": {"GSuite"}, "okta": {"Okta"}, "onelogin": {"OneLogin"}}


PLAIN = Provider(
    title="Plain",
    name="plain",
    issuer=re.compile("https://sso.acme.com"),
    issuer_form="https://sso.acme.com",
    short_issuer=("", ""),
    client_claims=("azp",),
    user_claims=("email",),
    scope_claim="scope",
)


def test_a_row_that_names_nothing_else_is_of_the_usual_kind() -> None:
    """What a row does not name is not looked at: no claim has an empty name, and no text is a mark or a robot."""
    named = [PLAIN.second_client_claim, PLAIN.id_token_jti, PLAIN.home_claim, PLAIN.guest_mark, PLAIN.verified_claim]
    assert named == [""] * 5
    assert [PLAIN.client_in_audience, PLAIN.own_audience, PLAIN.userinfo_user, PLAIN.must_verify] == [False] * 4
    assert (PLAIN.subject_claim, PLAIN.verifications) == ("sub", (Verification.JWKS,))
    assert not any(pattern.search(text) for pattern in (PLAIN.app_users, PLAIN.homes) for text in ("", "ana@acme.com"))


@pytest.mark.parametrize("row", [PLAIN, *(row for rows in PROVIDERS.values() for row in rows)], ids=lambda row: row.name)
def test_every_provider_tells_id_tokens_by_what_openid_connect_puts_into_them(row: Provider) -> None:
    """OpenID Connect Core 2 and 3.3.2.11; an access token has none of them."""
    assert row.id_token_claims >= {"nonce", "at_hash", "c_hash"}


def test_an_address_is_verified_by_a_boolean_or_its_text_and_at_azure_by_a_number_too() -> None:
    found = {row.name: row.verified_values for rows in PROVIDERS.values() for row in rows}
    usual = (True, "true")
    assert found == {"okta": usual, "gsuite": usual, "onelogin": usual, "azure": (*usual, 1, "1")}
    assert PLAIN.verified_values == usual


def test_rules_that_say_nothing_else_are_for_users_of_one_tenant_within_a_minute() -> None:
    everybody = {"audience": None, "scopes": frozenset({"SEARCH"}), "user_claims": ("email",)}
    rules = ProviderRules(name="plain", provider=PLAIN, issuer="https://sso.acme.com", client_ids=frozenset({"x"}), **everybody)
    assert (rules.tenant, rules.leeway, rules.guests, rules.userinfo) == ("", 60.0, False, False)


def test_the_ways_to_verify_are_named_as_in_the_configuration() -> None:
    (literal,) = (each for each in get_args(ProviderEntry.model_fields["verification"].annotation) if get_args(each))
    assert [way.value for way in Verification] == list(get_args(literal))
