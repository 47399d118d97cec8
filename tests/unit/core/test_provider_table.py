"""The table of providers: which short names of an issuer it completes, and what it says where a text is no issuer."""

from __future__ import annotations

import pytest

from extauthz.config.oauth import expand_issuer
from extauthz.core.provider_table import PROVIDERS

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
