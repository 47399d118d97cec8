"""Access tokens of Azure, versions 2.0 and 1.0: genuine ones, and what must not pass for one."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.config.oauth import expanded, provider_of
from extauthz.core.providers import PROVIDERS
from tests.support.world import NOW, MakeWorld, World, oauth, sign

TENANT = "88888888-8888-8888-8888-888888888888"
OTHER = "99999999-9999-9999-9999-999999999999"
CLIENT = "33333333-3333-3333-3333-333333333333"
V2 = f"https://login.microsoftonline.com/{TENANT}/v2.0"
V1 = f"https://sts.windows.net/{TENANT}/"
ROUTES = [{"match": "POST /search", "scope": "SEARCH"}]

# The claims of Microsoft's published sample tokens, with the names of this test.
CLAIMS: dict[str, dict[str, Any]] = {
    V2: {
        "iss": V2,
        "aud": CLIENT,
        "azp": CLIENT,
        "azpacr": "0",
        "preferred_username": "abeli@acme.com",
        "scp": "access_as_user",
        "oid": "00000000-0000-0000-0000-000000000001",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "tid": TENANT,
        "ver": "2.0",
    },
    V1: {
        "iss": V1,
        "aud": f"api://{CLIENT}",
        "appid": CLIENT,
        "appidacr": "0",
        "upn": "abeli@acme.com",
        "unique_name": "abeli@acme.com",
        "scp": "user_impersonation other",
        "oid": "00000000-0000-0000-0000-000000000001",
        "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA",
        "tid": TENANT,
        "ver": "1.0",
    },
}


def azure(make_world: MakeWorld, issuer: str, **changes: Any) -> World:
    """Return a world whose OAuth provider is Azure."""
    return make_world(ROUTES, oauth={"provider": "azure", "issuer": issuer, "client_ids": [CLIENT], "audience": None} | changes)


def token(issuer: str, **changes: Any) -> str:
    """Return a genuine token with changes; None removes a claim."""
    claims = {"iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 4000} | CLAIMS[issuer] | changes
    return sign({name: value for name, value in claims.items() if value is not None})


@pytest.mark.parametrize("issuer", [V2, V1], ids=["v2.0", "v1.0"])
def test_a_genuine_token_is_accepted(make_world: MakeWorld, issuer: str) -> None:
    answer = azure(make_world, issuer).check("POST /search", oauth(token(issuer)))
    assert answer.reason == "allowed"
    assert answer.headers["x-extauthz-user"] == "abeli@acme.com"
    assert answer.headers["x-extauthz-client-id"] == CLIENT
    assert answer.headers["x-extauthz-actor"] == f"oauth:azure:{CLAIMS[issuer]['sub']}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"aud": f"api://{CLIENT}"}, "allowed"),
        ({"aud": [CLIENT, "x"]}, "allowed"),
        ({"aud": "00000003-0000-0000-c000-000000000000"}, "token_audience"),
        ({"aud": "https://graph.microsoft.com"}, "token_audience"),
        ({"aud": f"api://{CLIENT}/x"}, "token_audience"),
        ({"aud": None}, "token_audience"),
        ({"iss": V2.replace(TENANT, OTHER)}, "token_issuer"),
        ({"iss": V2.replace(TENANT, OTHER), "tid": OTHER}, "token_issuer"),
        ({"iss": V2 + "/"}, "token_issuer"),
        ({"iss": V1}, "token_issuer"),
        ({"iss": V1, "ver": "1.0", "appid": CLIENT}, "token_issuer"),
        ({"tid": OTHER}, "token_issuer"),
        ({"tid": None}, "token_issuer"),
        ({"ver": "1.0"}, "token_issuer"),
        ({"ver": 2.0}, "token_issuer"),
        ({"ver": None}, "token_issuer"),
        ({"azp": OTHER}, "token_client"),
        ({"azp": None}, "token_client"),
        ({"azp": None, "appid": CLIENT}, "token_client"),
        ({"scp": None}, "token_kind_wrong"),
        ({"scp": ""}, "token_kind_wrong"),
        ({"scp": None, "roles": ["all"]}, "token_kind_wrong"),
        ({"idtyp": "app"}, "token_kind_wrong"),
        ({"idtyp": "user"}, "allowed"),
        ({"nonce": "n"}, "token_kind_wrong"),
        ({"at_hash": "h"}, "token_kind_wrong"),
        ({"preferred_username": None}, "token_user_invalid"),
        ({"preferred_username": None, "email": "abeli@acme.com"}, "token_user_invalid"),
        ({"preferred_username": "+1 555 0100"}, "token_user_invalid"),
        ({"preferred_username": ["abeli@acme.com"]}, "token_user_invalid"),
        ({"xms_edov": True}, "allowed"),
        ({"xms_edov": 1}, "allowed"),
        ({"xms_edov": "true"}, "allowed"),
        ({"xms_edov": "1"}, "allowed"),
        ({"xms_edov": False}, "token_user_invalid"),
        ({"xms_edov": 0}, "token_user_invalid"),
        ({"xms_edov": "false"}, "token_user_invalid"),
        ({"xms_edov": "0"}, "token_user_invalid"),
        ({"xms_edov": []}, "token_user_invalid"),
        ({"idp": f"https://sts.windows.net/{TENANT}/"}, "allowed"),
        ({"idp": V2}, "allowed"),
        ({"idp": f"https://sts.windows.net/{OTHER}/"}, "token_user_not_allowed"),
        ({"idp": "live.com"}, "token_user_not_allowed"),
        ({"idp": ""}, "token_user_not_allowed"),
        ({"idp": [V2]}, "token_user_not_allowed"),
        ({"exp": NOW}, "token_expired"),
        ({"nbf": NOW + 61}, "token_not_yet_valid"),
        ({"cnf": {"kid": "x"}}, "token_header_forbidden"),
    ],
    ids=str,
)
def test_version_2(make_world: MakeWorld, change: dict[str, Any], reason: str) -> None:
    assert azure(make_world, V2).check("POST /search", oauth(token(V2, **change))).reason == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"aud": CLIENT}, "allowed"),
        ({"iss": V1.rstrip("/")}, "token_issuer"),
        ({"ver": "2.0"}, "token_issuer"),
        ({"appid": None, "azp": CLIENT}, "token_client"),
        ({"upn": None}, "token_user_invalid"),
        ({"idp": f"https://sts.windows.net/{OTHER}/"}, "token_user_not_allowed"),
    ],
    ids=str,
)
def test_version_1(make_world: MakeWorld, change: dict[str, Any], reason: str) -> None:
    assert azure(make_world, V1).check("POST /search", oauth(token(V1, **change))).reason == reason


def test_only_the_algorithm_of_azure_counts(make_world: MakeWorld) -> None:
    signed = sign({"iat": NOW, "exp": NOW + 60} | CLAIMS[V2], algorithm="ES256")
    assert azure(make_world, V2).check("POST /search", oauth(signed)).reason == "token_algorithm"


def test_guests_come_in_where_they_are_let_in(make_world: MakeWorld) -> None:
    guest = token(V2, idp=f"https://sts.windows.net/{OTHER}/", preferred_username="eve@elsewhere.com")
    assert azure(make_world, V2, guests=True).check("POST /search", oauth(guest)).headers["x-extauthz-user"] == "eve@elsewhere.com"
    answer = azure(make_world, V2, guests=True, domains=["acme.com"]).check("POST /search", oauth(guest))
    assert answer.reason == "token_user_not_allowed"


def test_a_configured_audience_replaces_the_client_id(make_world: MakeWorld) -> None:
    world = azure(make_world, V2, audience="api://acme")
    assert world.check("POST /search", oauth(token(V2))).reason == "token_audience"
    assert world.check("POST /search", oauth(token(V2, aud="api://acme"))).allowed


def test_another_claim_can_name_the_user(make_world: MakeWorld) -> None:
    world = azure(make_world, V2, user_claim="email")
    assert world.check("POST /search", oauth(token(V2, email="Ana@acme.com"))).headers["x-extauthz-user"] == "ana@acme.com"


def test_the_short_issuer_of_the_admin_form_is_written_out(make_world: MakeWorld) -> None:
    world = azure(make_world, f"{TENANT}/v2.0")
    (rules,) = world.configuration.providers
    assert (rules.issuer, rules.tenant) == (V2, TENANT)
    assert rules.discovery == f"{V2}/.well-known/openid-configuration"
    assert expanded("azure", "https://acme.okta.com") == "https://acme.okta.com"


def test_version_1_has_its_discovery_document_elsewhere(make_world: MakeWorld) -> None:
    (rules,) = azure(make_world, V1).configuration.providers
    assert rules.discovery == f"https://login.microsoftonline.com/{TENANT}/.well-known/openid-configuration"


@pytest.mark.parametrize(
    "issuer",
    [
        "https://login.microsoftonline.com/common/v2.0",
        "https://login.microsoftonline.com/organizations/v2.0",
        f"https://login.microsoftonline.com/{TENANT}/v2.0/",
        f"https://login.microsoftonline.com/{TENANT}",
        f"https://sts.windows.net/{TENANT}",
        f"http://sts.windows.net/{TENANT}/",
        f"https://evil.com/{TENANT}/v2.0",
        f"https://loginXmicrosoftonline.com/{TENANT}/v2.0",
    ],
)
def test_no_issuer_of_many_tenants_is_taken(issuer: str) -> None:
    assert provider_of("azure", issuer) is None


def test_every_row_is_named_after_its_provider() -> None:
    assert {row.name for rows in PROVIDERS.values() for row in rows} == set(PROVIDERS)
