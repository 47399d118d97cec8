"""Entries of providers by OpenID Connect: what their keys make of a preset, and what is worth a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extauthz.config.loader import Configuration, load
from extauthz.config.openid import other_discovery
from extauthz.config.presets import PRESETS
from extauthz.config.saved_settings import SavedSettings
from extauthz.core.providers import Provider, ProviderRules, Verification
from extauthz.errors import ConfigurationError
from tests.support import vectors

VECTORS: dict[str, dict[str, Any]] = {each["of"]: each for each in vectors.load("openid")["providers"]}
ROUTES = "routes: [{match: GET /a, scope: SEARCH}]\n"
OIDC = VECTORS["oidc"]["entry"]


def loaded(folder: Path, *entries: dict[str, Any], **more: Any) -> Configuration:
    """Load a configuration with these providers."""
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
        "oauth": {"providers": [{**entry, "name": f"p{index}"} for index, entry in enumerate(entries)]},
    }
    (folder / "routes.yaml").write_text(ROUTES)
    file = folder / "extauthz.yaml"
    file.write_text(json.dumps({**settings, **more}))
    return load(file)


def rules_of(folder: Path, **changes: Any) -> ProviderRules:
    (rules,) = loaded(folder, {name: value for name, value in (OIDC | changes).items() if value is not None}).providers
    return rules


def provider_of(folder: Path, **changes: Any) -> Provider:
    return rules_of(folder, **changes).provider


def test_an_entry_that_says_nothing_has_what_is_usual(tmp_path: Path) -> None:
    rules = rules_of(tmp_path)
    assert (rules.client_ids, rules.audience) == (frozenset({"web", "phone"}), frozenset({"https://api.acme.com"}))
    assert (rules.user_claims, rules.verification, rules.userinfo) == (("email",), Verification.JWKS, False)
    assert rules.provider.algorithms == {"RS256", "ES256"}
    assert (rules.provider.client_claims, rules.provider.opaque) == (("azp", "client_id", "cid"), None)
    assert rules.required_claims == {}


def test_keys_of_an_entry_replace_what_is_usual(tmp_path: Path) -> None:
    provider = provider_of(tmp_path, algorithms=["EdDSA"], client_claim="app", jwt_type="at+jwt")
    assert (provider.algorithms, provider.client_claims) == (frozenset({"EdDSA"}), ("app",))
    assert provider.header_types == {"at+jwt", "application/at+jwt"}
    assert rules_of(tmp_path, client_ids="any").client_ids is None
    assert rules_of(tmp_path, required_claims={"a": 1, "b": ["x", True]}).required_claims == {"a": (1,), "b": ("x", True)}


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"audience": "web"}, True),
        ({"audience": ["https://api.acme.com", "phone"]}, True),
        ({"client_ids": "any"}, True),
        ({"audience": "web", "jwt_type": "at+jwt"}, False),
        ({"client_ids": "any", "jwt_type": "at+jwt"}, False),
    ],
)
def test_a_scope_is_needed_where_the_audience_may_be_that_of_an_id_token(
    tmp_path: Path, changes: dict[str, Any], needed: bool
) -> None:
    assert provider_of(tmp_path, **changes).has_scopes is needed


def test_whether_an_address_is_verified_is_asked_of_email_alone(tmp_path: Path) -> None:
    assert provider_of(tmp_path).verified_claim == "email_verified"
    assert provider_of(tmp_path, user_claim=["upn", "email"]).verified_claim == "email_verified"
    assert provider_of(tmp_path, user_claim="upn").verified_claim == ""


FOUR = {
    "azure": {"issuer": "11111111-1111-1111-1111-111111111111/v2.0"},
    "okta": {"issuer": "https://acme.okta.com/oauth2/default", "audience": "x"},
    "onelogin": {"issuer": "https://acme.onelogin.com/oidc/2"},
    "gsuite": {"domains": ["acme.com"]},
}


@pytest.mark.parametrize("clients", ["any", ["web", "any"]])
@pytest.mark.parametrize("name", FOUR)
def test_every_client_is_for_providers_by_openid_connect(tmp_path: Path, name: str, clients: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        loaded(tmp_path, {"provider": name, "client_ids": clients, **FOUR[name]})
    assert [(each.path, each.message) for each in raised.value.problems] == [
        ("oauth.providers[0].client_ids", f"any stands for no client here: name the clients of {name} whose tokens are yours")
    ]


@pytest.mark.parametrize("name", ["github", "gitlab", "google", "spiffe"])
def test_there_is_no_user_to_ask_about_a_workload(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        loaded(tmp_path, VECTORS[name]["entry"] | {"userinfo": True})
    assert [(each.path, each.message) for each in raised.value.problems] == [
        ("oauth.providers[0].userinfo", "nothing uses it, because a workload is no user that could be asked about: leave it out")
    ]


@pytest.mark.parametrize("claims", [{"tenant": []}, {"tenant": ["acme"], "mfa": []}])
def test_a_required_claim_without_a_value_is_an_error(tmp_path: Path, claims: dict[str, Any]) -> None:
    name = next(name for name, values in claims.items() if not values)
    with pytest.raises(ConfigurationError) as raised:
        rules_of(tmp_path, required_claims=claims)
    assert [(each.path, each.message) for each in raised.value.problems] == [
        (
            f"oauth.providers[0].required_claims.{name}",
            "lists no value, so that no token could have one: write some, or leave it out",
        )
    ]


def test_every_client_is_a_warning(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, OIDC | {"client_ids": "any"}, VECTORS["keycloak"]["entry"])
    found = [(each.path, each.message) for each in configuration.warnings if "client_ids" in each.path]
    assert [path for path, _ in found] == ["oauth.providers[0].client_ids"]
    assert found[0][1].startswith("any accepts the tokens of every client of this issuer")


def test_a_client_of_its_own_asks_for_all_clients(tmp_path: Path) -> None:
    secret = {"client_secret": {"env": "A"}}
    asked, own = (OIDC | secret, OIDC | secret | {"issuer": "https://other.acme.com", "introspection_client": "api"})
    paths = [each.path for each in loaded(tmp_path, asked, own).warnings if "introspection asks as" in each.message]
    assert paths == ["oauth.providers[0].client_ids"]


@pytest.mark.parametrize(
    ("issuer", "address"),
    [
        ("https://sso.acme.com", "https://sso.acme.com/.well-known/oauth-authorization-server"),
        ("https://sso.acme.com/", "https://sso.acme.com/.well-known/oauth-authorization-server"),
        ("https://sso.acme.com:8443/a/b", "https://sso.acme.com:8443/.well-known/oauth-authorization-server/a/b"),
        ("https://sso.acme.com/a/", "https://sso.acme.com/.well-known/oauth-authorization-server/a"),
    ],
)
def test_the_second_address_of_a_document_has_its_own_part_first(tmp_path: Path, issuer: str, address: str) -> None:
    rules = rules_of(tmp_path, issuer=issuer)
    assert other_discovery(rules) == address
    assert rules.discovery == f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def test_the_four_have_one_address(tmp_path: Path) -> None:
    entry = {"provider": "okta", "issuer": "https://acme.okta.com/oauth2/default", "client_ids": "x", "audience": "x"}
    (rules,) = loaded(tmp_path, entry).providers
    assert other_discovery(rules) is None


@pytest.mark.parametrize(
    "issuer", ["https://sso.acme.com", "https://SSO.acme.com/A/", "https://sso.acme.com:8443/a/b", "http://127.0.0.1:1/x"]
)
def test_an_issuer_is_kept_to_the_letter(tmp_path: Path, issuer: str) -> None:
    assert rules_of(tmp_path, issuer=issuer).issuer == issuer


@pytest.mark.parametrize(
    "issuer",
    [
        "http://sso.acme.com",
        "https://",
        "https://user@sso.acme.com",
        "https://sso.acme.com/a?b",
        "https://sso.acme.com/#a",
        "https://sso.acme.com/a//b",
        "https://sso.acme.com/.well-known/openid-configuration",
        "https://sso.acme.com/a b",
        "sso.acme.com",
        "spiffe://acme.org",
        "",
    ],
)
def test_what_is_no_https_issuer_is_an_error(tmp_path: Path, issuer: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        rules_of(tmp_path, issuer=issuer)
    assert [problem.path for problem in raised.value.problems] == ["oauth.providers[0].issuer"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_for_the_file(tmp_path: Path, name: str) -> None:
    """The console's form has the four of the original: nobody saves another, by whatever way."""
    (tmp_path / "pepper").write_bytes(b"p" * 32)
    (tmp_path / "routes.yaml").write_text(ROUTES)
    file = tmp_path / "extauthz.yaml"
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
        "oauth": {"managed_by": "console"},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    }
    file.write_text(json.dumps(settings))
    entry = {key: value for key, value in VECTORS[name]["entry"].items() if key in ("provider", "issuer", "client_ids", "audience")}
    with pytest.raises(ConfigurationError) as raised:
        load(file, saved=SavedSettings(1, entry))
    assert f"console, version 1: provider: {name} is for the file: write managed_by: yaml there" in map(str, raised.value.problems)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_data_with_every_guard(name: str) -> None:
    preset = PRESETS[name]
    provider = preset.provider
    assert provider.name == name
    assert provider.id_token_claims >= {"nonce", "at_hash", "c_hash"}
    assert provider.algorithms <= {"RS256", "ES256"}
    assert provider.client_claims
    asks = not provider.of_workloads and name != "cognito"
    assert provider.verifications == ((Verification.JWKS, Verification.INTROSPECTION) if asks else (Verification.JWKS,))
    assert preset.common_audience.fullmatch("https://api.acme.com") is None
    assert not any(provider.issuer.fullmatch(text) for text in ("", "http://sso.acme.com", "https://a@b.c", "https://a.c/x?y"))
