"""Entries for several tenants: each of them has its own keys and its own name, and what they share is worth a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extauthz.config.loader import Configuration, load
from extauthz.errors import ConfigurationError

REALMS = {
    "name": "kc",
    "provider": "keycloak",
    "scopes": "all",
    "issuer": "https://sso.acme.com/realms/{tenant}",
    "tenants": ["a", "b"],
    "client_ids": ["web"],
    "audience": "api",
}
ONE = REALMS | {"name": "one", "issuer": "https://sso.acme.com/realms/one", "tenants": None}
OIDC = ONE | {"provider": "oidc", "issuer": "https://sso.acme.com"}
DOMAINS = REALMS | {
    "provider": "spiffe",
    "issuer": "spiffe://{tenant}",
    "tenants": ["acme.org", "other.org"],
    "client_ids": ["spiffe://acme.org/a"],
    "users": {"spiffe://acme.org/a": "a@acme.com"},
}
DIRECTORIES = {
    "name": "az",
    "provider": "azure",
    "issuer": "{tenant}/v2.0",
    "tenants": ["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"],
    "client_ids": ["33333333-3333-3333-3333-333333333333"],
}
TENANTS_OF_ONELOGIN = DIRECTORIES | {
    "provider": "onelogin",
    "issuer": "https://{tenant}.onelogin.com/oidc/2",
    "tenants": ["acme", "other"],
}
KEYS = "https://sso.acme.com/realms/{tenant}/certs"


def loaded(folder: Path, *entries: dict[str, Any]) -> Configuration:
    """Load a configuration with these providers; None leaves a key out."""
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
        "oauth": {"providers": [{key: value for key, value in entry.items() if value is not None} for entry in entries]},
    }
    (folder / "routes.yaml").write_text("routes: [{match: GET /a, scope: SEARCH}]\n")
    file = folder / "extauthz.yaml"
    file.write_text(json.dumps(settings))
    return load(file)


def problems(folder: Path, *entries: dict[str, Any]) -> list[str]:
    """Return the problems of a configuration with these providers."""
    with pytest.raises(ConfigurationError) as raised:
        loaded(folder, *entries)
    return [f"{each.path.removeprefix('oauth.')}: {each.message}" for each in raised.value.problems]


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        (REALMS | {"jwks_uri": "https://sso.acme.com/realms/a/certs"}, "jwks_uri"),
        (DOMAINS | {"jwks_uri": "https://spire.acme.com/keys"}, "jwks_uri"),
        (REALMS | {"userinfo": True, "userinfo_uri": "https://sso.acme.com/realms/a/userinfo"}, "userinfo_uri"),
        (TENANTS_OF_ONELOGIN | {"jwks_uri": "https://acme.onelogin.com/keys"}, "jwks_uri"),
    ],
)  # fmt: skip
def test_an_address_for_all_tenants_is_an_error(tmp_path: Path, entry: dict[str, Any], key: str) -> None:
    """Whoever has a key of one tenant could sign for the others."""
    message = "is the same for all of `tenants`, so that one could speak for another: write {tenant} where theirs differ"
    assert problems(tmp_path, entry) == [f"providers[0].{key}: {message}"]


@pytest.mark.parametrize("key", ["jwks_uri", "userinfo_uri"])
def test_a_tenant_in_an_address_of_one_is_an_error(tmp_path: Path, key: str) -> None:
    changes = {key: KEYS, "userinfo": True}
    assert problems(tmp_path, ONE | changes) == [
        f"providers[0].{key}: {{tenant}} stands for each of `tenants`: list them, or write one tenant here"
    ]


@pytest.mark.parametrize("uri", ["https://sso.acme.com/certs#{tenant}", "https://sso.acme.com/certs?#{tenant}"])
def test_a_tenant_that_is_not_sent_is_none(tmp_path: Path, uri: str) -> None:
    assert any(problem.startswith("providers[0].jwks_uri: ") for problem in problems(tmp_path, REALMS | {"jwks_uri": uri}))


def test_each_tenant_has_its_own_addresses(tmp_path: Path) -> None:
    uris = {"jwks_uri": KEYS, "userinfo": True, "userinfo_uri": "https://{tenant}.acme.com/userinfo"}
    oauth = loaded(
        tmp_path, REALMS | uris, DOMAINS | {"name": "workloads", "jwks_uri": "https://spire.{tenant}/keys"}
    ).settings.oauth
    assert oauth is not None
    assert [(each.issuer, each.jwks_uri, each.userinfo_uri) for each in oauth.of_each_tenant] == [
        ("https://sso.acme.com/realms/a", "https://sso.acme.com/realms/a/certs", "https://a.acme.com/userinfo"),
        ("https://sso.acme.com/realms/b", "https://sso.acme.com/realms/b/certs", "https://b.acme.com/userinfo"),
        ("spiffe://acme.org", "https://spire.acme.org/keys", None),
        ("spiffe://other.org", "https://spire.other.org/keys", None),
    ]


def test_directories_of_azure_share_their_keys(tmp_path: Path) -> None:
    """Its tokens name their tenant beside the issuer."""
    keys = "https://login.microsoftonline.com/common/discovery/v2.0/keys"
    oauth = loaded(tmp_path, DIRECTORIES | {"jwks_uri": keys}).settings.oauth
    assert oauth is not None
    assert [each.jwks_uri for each in oauth.of_each_tenant] == [keys, keys]


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ((REALMS, ONE | {"name": "kc.a"}), "kc.a"),
        ((ONE | {"name": "kc.a"}, REALMS), "kc.a"),
        ((REALMS | {"name": None}, ONE | {"name": "keycloak.b"}), "keycloak.b"),
        ((REALMS, REALMS | {"issuer": "https://other.acme.com/realms/{tenant}"}), "kc.a"),
        ((REALMS | {"tenants": ["b.c"]}, OIDC | {"name": "kc.b", "issuer": "https://{tenant}.eu", "tenants": ["c"]}), "kc.b.c"),
    ],
)  # fmt: skip
def test_no_two_tenants_have_one_name(tmp_path: Path, entries: tuple[dict[str, Any], ...], name: str) -> None:
    """The name is part of the actor: two users would be one."""
    assert problems(tmp_path, *entries) == [f"providers[1].name: another provider above is named {name!r}: give each its own name"]


def test_an_entry_may_be_named_as_another_without_its_tenant(tmp_path: Path) -> None:
    assert len(loaded(tmp_path, REALMS, ONE | {"name": "kc"}).providers) == 3


@pytest.mark.parametrize(
    ("issuer", "tenants"),
    [
        ("https://{tenant}.actions.githubusercontent.com", ["token"]),
        ("https://{tenant}.actions.githubusercontent.com", ["other", "token"]),
        ("https://{tenant}.com", ["acme", "gitlab"]),
    ],
)
def test_a_public_issuer_is_found_among_the_tenants(tmp_path: Path, issuer: str, tenants: list[str]) -> None:
    found = problems(tmp_path, OIDC | {"issuer": issuer, "tenants": tenants, "client_ids": "any"})
    message = "any would let in strangers, because everybody can get tokens of this issuer: name your clients"
    assert found == [f"providers[0].client_ids: {message}"]


@pytest.mark.parametrize(
    ("provider", "issuer"),
    [
        ("oidc", f"https://{host}/11111111-1111-1111-1111-111111111111/{version}")
        for host, version in [
            ("login.microsoftonline.com", "v2.0"),
            ("login.microsoftonline.us", "v2.0"),
            ("login.partner.microsoftonline.cn", "v2.0"),
            ("login.chinacloudapi.cn", "v2.0"),
            ("login.microsoftonline.de", "v2.0"),
            ("sts.windows.net", ""),
            ("sts.windows.net", "x"),
            ("sts.chinacloudapi.cn", ""),
            ("login.windows.net", "v2.0"),
            ("login.microsoft.com", "v2.0"),
            ("LOGIN.microsoftonline.com", "v2.0"),
            ("login.microsoftonline.com:443", "v2.0"),
        ]
    ]
    + [("ping", "https://login.microsoftonline.com/common/v2.0"), ("oidc", "https://login.microsoftonline.com")],
)
def test_an_issuer_of_microsoft_is_for_azure(tmp_path: Path, provider: str, issuer: str) -> None:
    """Its users and admins write the e-mail address themselves."""
    found = problems(tmp_path, OIDC | {"provider": provider, "issuer": issuer, "user_claim": "email"})
    assert found == [
        "providers[0].issuer: this is an issuer of azure, whose guests and tenants need rules of their own: write provider: azure"
    ]


@pytest.mark.parametrize("provider", ["oidc", "gitlab", "ping", "zitadel"])
def test_an_issuer_of_google_is_for_its_workloads(tmp_path: Path, provider: str) -> None:
    users = {"client_claim": "azp", "users": {"1": "a@acme.com"}}
    found = problems(tmp_path, OIDC | {"provider": provider, "issuer": "https://accounts.google.com"} | users)
    message = "this is the issuer of Google: write provider: google for its workloads, or provider: gsuite for people"
    assert found == [f"providers[0].issuer: {message}"]


@pytest.mark.parametrize("issuer", ["https://login.microsoftonline.com.acme.com/x", "https://sso.acme.com/login.windows.net"])
def test_a_host_that_only_looks_like_one_of_microsoft_is_like_any_other(tmp_path: Path, issuer: str) -> None:
    assert loaded(tmp_path, OIDC | {"issuer": issuer}).providers[0].issuer == issuer


def shared(folder: Path, *entries: dict[str, Any]) -> list[str]:
    """Return the warnings about what tenants share."""
    return [f"{each.path}: {each.message}" for each in loaded(folder, *entries).warnings if "each of `tenants`" in each.message]


@pytest.mark.parametrize(("key", "value"), [("users", {"u1": "ceo@acme.com"}), ("domains", ["acme.com"])])
def test_what_tenants_share_is_a_warning(tmp_path: Path, key: str, value: object) -> None:
    message = (
        "counts for each of `tenants`, so that whoever runs one can name users of the others: "
        "write one entry for each, unless they are all yours"
    )
    assert shared(tmp_path, REALMS | {key: value}) == [f"oauth.providers[0].{key}: {message}"]
    assert shared(tmp_path, REALMS | {key: value, "tenants": ["a"]}) == []
    assert shared(tmp_path, ONE | {key: value}) == []


@pytest.mark.parametrize(("key", "value"), [("users", {"u1": "ceo@acme.com"}), ("domains", ["acme.com"])])
def test_directories_of_azure_choose_no_ids_and_prove_their_domains(tmp_path: Path, key: str, value: object) -> None:
    assert shared(tmp_path, DIRECTORIES | {key: value}) == []


def test_every_domain_is_nothing_that_tenants_share(tmp_path: Path) -> None:
    assert shared(tmp_path, REALMS | {"domains": "*"}) == []
