"""Access tokens of Azure, versions 2.0 and 1.0: genuine ones, and what must not pass for one."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.config.issuers import expand_issuer, provider_of
from extauthz.core.provider_table import PROVIDERS
from tests.support.azure_claims import CLAIMS, CLIENT, TENANT, V1, V2
from tests.support.idp_fixtures import published
from tests.support.world import NOW, MakeWorld, World, oauth, sign

OTHER = "99999999-9999-9999-9999-999999999999"
ROUTES = [{"match": "POST /search", "scope": "SEARCH"}]


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


# What is filled in is what stands in angle brackets; a token needs a time to end, which the samples leave out.
TIMES = {"iat": NOW - 60, "exp": NOW + 4000}
FILLED = {"<tid>": TENANT, "<client>": CLIENT}
EMAIL_FIRST = {"user_claim": ["upn", "email", "unique_name"]}


def test_the_published_token_of_version_2_is_accepted(make_world: MakeWorld) -> None:
    sample = published("azure_v2_access_token_claims", FILLED | {"<API client id>": OTHER})
    answer = azure(make_world, V2, audience=OTHER).check("POST /search", oauth(sign(sample | TIMES)))
    assert (answer.reason, answer.headers["x-extauthz-user"]) == ("allowed", "abeli@microsoft.com")


@pytest.mark.parametrize(
    ("home", "changes", "user"),
    [
        (OTHER, {}, "token_user_not_allowed"),
        (OTHER, EMAIL_FIRST, "token_user_not_allowed"),
        (OTHER, {"guests": True}, "abeli@microsoft.com"),
        (OTHER, {"guests": True, "domains": "microsoft.com"}, "abeli@microsoft.com"),
        (OTHER, {"guests": True, "domains": "acme.com"}, "token_user_not_allowed"),
        (OTHER, {"guests": True, "user_claim": ["upn"]}, "token_user_invalid"),
        (TENANT, {}, "abeli@microsoft.com"),
        (TENANT, EMAIL_FIRST, "abeli@microsoft.com"),
        (TENANT, {"user_claim": ["upn"]}, "token_user_invalid"),
    ],
    ids=str,
)
def test_the_published_token_of_version_1_is_a_guests_or_a_members(
    make_world: MakeWorld, home: str, changes: dict[str, Any], user: str
) -> None:
    """It has no upn, but email, unique_name and idp: who it is depends on where the user is at home, and on `user_claim`."""
    sample = published("azure_v1_access_token_claims", FILLED | {"<home tid>": home, "<client id or app id uri>": CLIENT})
    assert "upn" not in sample
    answer = azure(make_world, V1, **changes).check("POST /search", oauth(sign(sample | TIMES)))
    assert (answer.headers["x-extauthz-user"] if answer.allowed else answer.reason) == user


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        (["email"], "ana@acme.com"),
        (["email", "unique_name"], "ana@acme.com"),
        (["unique_name", "email"], "abeli@microsoft.com"),
        (["upn", "unique_name"], "abeli@microsoft.com"),
    ],
    ids=str,
)
def test_the_order_of_user_claims_tells_which_of_the_published_ones_names_a_member(
    make_world: MakeWorld, claims: list[str], user: str
) -> None:
    sample = published("azure_v1_access_token_claims", FILLED | {"<home tid>": TENANT, "<client id or app id uri>": CLIENT})
    token = oauth(sign(sample | TIMES | {"email": "Ana@acme.com"}))
    assert azure(make_world, V1, user_claim=claims).check("POST /search", token).headers["x-extauthz-user"] == user


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
        ({"upn": None, "unique_name": None}, "token_user_invalid"),
        ({"idp": f"https://sts.windows.net/{OTHER}/"}, "token_user_not_allowed"),
    ],
    ids=str,
)
def test_version_1(make_world: MakeWorld, change: dict[str, Any], reason: str) -> None:
    assert azure(make_world, V1).check("POST /search", oauth(token(V1, **change))).reason == reason


HOMES = [
    f"https://sts.windows.net/{OTHER}/{TENANT}/",
    f"https://sts.windows.net/{TENANT}{OTHER}/",
    f"https://sts.windows.net/{TENANT}/{OTHER}/",
    f"https://sts.windows.net/{OTHER}/?{TENANT}",
    f"https://evil.example/{TENANT}/",
    f"https://evil.example/https://sts.windows.net/{TENANT}/",
    f"https://sts.windows.net/{TENANT}/\n",
    f"https://sts.windows.net/{TENANT[:-1]}/",
    TENANT,
]


@pytest.mark.parametrize("issuer", [V2, V1], ids=["v2.0", "v1.0"])
@pytest.mark.parametrize("home", HOMES)
def test_a_home_that_has_the_tenant_somewhere_is_not_this_tenant(make_world: MakeWorld, issuer: str, home: str) -> None:
    """The tenant has to be the one of the issuer, whole, and nothing may stand around it."""
    assert azure(make_world, issuer).check("POST /search", oauth(token(issuer, idp=home))).reason == "token_user_not_allowed"


def test_only_the_algorithm_of_azure_counts(make_world: MakeWorld) -> None:
    signed = sign({"iat": NOW, "exp": NOW + 60} | CLAIMS[V2], algorithm="ES256")
    assert azure(make_world, V2).check("POST /search", oauth(signed)).reason == "token_algorithm"


def test_guests_come_in_where_they_are_let_in(make_world: MakeWorld) -> None:
    guest = token(V2, idp=f"https://sts.windows.net/{OTHER}/", preferred_username="eve@elsewhere.com")
    assert azure(make_world, V2, guests=True).check("POST /search", oauth(guest)).headers["x-extauthz-user"] == "eve@elsewhere.com"
    answer = azure(make_world, V2, guests=True, domains=["acme.com"]).check("POST /search", oauth(guest))
    assert answer.reason == "token_user_not_allowed"


# A guest's name in the tenant that invited them: the address with "_" for "@", then #EXT#; personal accounts are live.com#….
EXT = "#EXT#@acme.onmicrosoft.com"
DECORATED: dict[str, str] = {
    f"bob_partner.com{EXT}": "bob@partner.com",
    f"Bob_Partner.com{EXT}": "bob@partner.com",
    f"bob_partner.com{EXT.lower()}": "bob@partner.com",
    f"bob_smith_partner.com{EXT}": "bob_smith@partner.com",
    f"_bob__partner.com{EXT}": "_bob_@partner.com",
    f"o'neill+x_partner.co.uk{EXT}": "o'neill+x@partner.co.uk",
    "live.com#bob@hotmail.com": "bob@hotmail.com",
    "live.com#bob_smith@hotmail.com": "bob_smith@hotmail.com",
}
NO_ADDRESS = [
    f"bob{EXT}",
    f"bob_partner{EXT}",
    f"_partner.com{EXT}",
    f"bob_{EXT}",
    f"bob_-partner.com{EXT}",
    f"bob_partner.com{EXT}{EXT}",
    f"bob_partner.com#EXT#{EXT}",
    f"live.com#bob_partner.com{EXT}",
    "bob_partner.com#EXT#",
    "bob_partner.com#ext@acme.onmicrosoft.com",
    f"bob@x_partner.com{EXT}",
    "live.com#bob",
    "live.com#@hotmail.com",
    "live.com#eve#bob@hotmail.com",
    "LIVE.COM#live.com#bob@hotmail.com",
    # Whoever may choose an account's name must not become somebody else by it.
    "eve#ceo@acme.com",
    "#ceo@acme.com",
    "google.com#ceo@acme.com",
]


@pytest.mark.parametrize("issuer", [V2, V1], ids=["v2.0", "v1.0"])
@pytest.mark.parametrize("name", [*DECORATED, *NO_ADDRESS])
def test_the_name_of_a_guest_is_never_an_address(make_world: MakeWorld, issuer: str, name: str) -> None:
    guest = oauth(token(issuer, **{"preferred_username" if issuer == V2 else "upn": name}))
    closed, opened = azure(make_world, issuer).check("POST /search", guest), azure(make_world, issuer, guests=True)
    answer = opened.check("POST /search", guest)
    if name in DECORATED:
        assert closed.reason == "token_user_not_allowed"
        assert answer.headers["x-extauthz-user"] == DECORATED[name]
    else:
        assert (closed.reason, answer.reason) == ("token_user_invalid", "token_user_invalid")


@pytest.mark.parametrize(
    ("domains", "reason"),
    [("partner.com", "allowed"), ("acme.onmicrosoft.com", "token_user_not_allowed"), ("acme.com", "token_user_not_allowed")],
)
def test_domains_are_those_of_the_guests_own_address(make_world: MakeWorld, domains: str, reason: str) -> None:
    world = azure(make_world, V2, guests=True, domains=domains)
    assert world.check("POST /search", oauth(token(V2, preferred_username=f"bob_partner.com{EXT}"))).reason == reason


def test_a_map_of_users_takes_the_names_as_they_are(make_world: MakeWorld) -> None:
    world = azure(make_world, V2, users={f"bob_partner.com{EXT}": "bob@acme.com"}, user_claim="upn")
    assert world.check("POST /search", oauth(token(V2, upn=f"bob_partner.com{EXT}"))).headers["x-extauthz-user"] == "bob@acme.com"


@pytest.mark.parametrize(
    ("changes", "user"),
    [
        ({"unique_name": "bob@partner.com"}, "bob@partner.com"),
        ({"unique_name": "live.com#bob@hotmail.com"}, "bob@hotmail.com"),
        ({"unique_name": f"bob_partner.com{EXT}"}, "bob@partner.com"),
        ({"unique_name": None}, "token_user_invalid"),
        ({"unique_name": "bob"}, "token_user_invalid"),
        ({"unique_name": None, "email": "bob@partner.com"}, "token_user_invalid"),
    ],
    ids=str,
)
def test_a_guest_of_version_1_has_no_upn(make_world: MakeWorld, changes: dict[str, Any], user: str) -> None:
    guest = oauth(token(V1, upn=None, idp=f"https://sts.windows.net/{OTHER}/", **changes))
    assert azure(make_world, V1).check("POST /search", guest).reason == "token_user_not_allowed"
    answer = azure(make_world, V1, guests=True).check("POST /search", guest)
    assert (answer.headers["x-extauthz-user"] if answer.allowed else answer.reason) == user


# The first claim that is there decides: what is wrong with it must not open the way to one that may be easier to change.
@pytest.mark.parametrize(
    ("changes", "user"),
    [
        ({"email": "ana@acme.com", "upn": "bob@acme.com"}, "ana@acme.com"),
        ({"upn": "bob@acme.com"}, "bob@acme.com"),
        ({}, "abeli@acme.com"),
        ({"email": "ana", "upn": "bob@acme.com"}, "token_user_invalid"),
        ({"email": "", "upn": "bob@acme.com"}, "token_user_invalid"),
        ({"email": 5, "upn": "bob@acme.com"}, "token_user_invalid"),
        ({"email": ["ana@acme.com"], "upn": "bob@acme.com"}, "token_user_invalid"),
        ({"email": "eve@evil.com", "upn": "bob@acme.com"}, "token_user_not_allowed"),
        ({"email": f"eve_evil.com{EXT}", "upn": "bob@acme.com"}, "token_user_not_allowed"),
        ({"preferred_username": None}, "token_user_invalid"),
    ],
    ids=str,
)
def test_of_several_claims_the_first_that_is_there_decides(make_world: MakeWorld, changes: dict[str, Any], user: str) -> None:
    world = azure(make_world, V2, user_claim=["email", "upn", "preferred_username"], domains="acme.com")
    answer = world.check("POST /search", oauth(token(V2, **changes)))
    assert (answer.headers["x-extauthz-user"] if answer.allowed else answer.reason) == user


def test_several_claims_may_be_one_text_with_commas(make_world: MakeWorld) -> None:
    (rules,) = azure(make_world, V2, user_claim="email, preferred_username").configuration.providers
    assert rules.user_claims == ("email", "preferred_username")


def test_a_claim_that_is_null_is_there(make_world: MakeWorld) -> None:
    world = azure(make_world, V2, user_claim=["email", "preferred_username"])
    claims = {"iat": NOW - 60, "exp": NOW + 4000} | CLAIMS[V2] | {"email": None}
    assert world.check("POST /search", oauth(sign(claims))).reason == "token_user_invalid"


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
    assert expand_issuer("azure", "https://acme.okta.com") == "https://acme.okta.com"


def test_version_1_has_its_discovery_document_elsewhere(make_world: MakeWorld) -> None:
    (rules,) = azure(make_world, V1).configuration.providers
    assert rules.discovery == f"https://login.microsoftonline.com/{TENANT}/.well-known/openid-configuration"


SOVEREIGN = [
    (f"https://login.microsoftonline.us/{TENANT}/v2.0", V2, f"https://login.microsoftonline.us/{TENANT}/v2.0"),
    (f"https://login.partner.microsoftonline.cn/{TENANT}/v2.0", V2, f"https://login.partner.microsoftonline.cn/{TENANT}/v2.0"),
    (f"https://sts.chinacloudapi.cn/{TENANT}/", V1, f"https://login.partner.microsoftonline.cn/{TENANT}"),
]


@pytest.mark.parametrize(("issuer", "like", "discovery"), SOVEREIGN)
def test_the_clouds_of_governments_and_of_china(make_world: MakeWorld, issuer: str, like: str, discovery: str) -> None:
    world = azure(make_world, issuer)
    (rules,) = world.configuration.providers
    assert (rules.tenant, rules.discovery) == (TENANT, f"{discovery}/.well-known/openid-configuration")
    assert world.check("POST /search", oauth(token(like, iss=issuer))).reason == "allowed"
    assert world.check("POST /search", oauth(token(like))).reason == "token_issuer"
    assert world.check("POST /search", oauth(token(like, iss=issuer, tid=OTHER))).reason == "token_issuer"
    assert azure(make_world, like).check("POST /search", oauth(token(like, iss=issuer))).reason == "token_issuer"


@pytest.mark.parametrize(
    "issuer",
    [
        f"https://login.microsoftonline.us/{TENANT}/v2.0/",
        f"https://login.microsoftonline.us/{TENANT}/",
        "https://login.microsoftonline.us/common/v2.0",
        f"https://login.microsoftonline.usa/{TENANT}/v2.0",
        f"https://evil.login.microsoftonline.us/{TENANT}/v2.0",
        f"https://login.microsoftonline.cn/{TENANT}/v2.0",
        f"https://loginXpartner.microsoftonline.cn/{TENANT}/v2.0",
        f"https://stsXchinacloudapi.cn/{TENANT}/",
        f"https://sts.chinacloudapi.cn/{TENANT}",
        f"http://sts.chinacloudapi.cn/{TENANT}/",
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
