"""Providers by OpenID Connect beside each other and beside the four: who gets a token to see, and whose rules it meets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.core.tokens import ENTROPY_BYTES, mint
from tests.support import remote, vectors
from tests.support.remote import Remote, Told, check
from tests.support.world import NOW, SETTINGS, StillKeys, World, claims, key_set, oauth, public_jwk, rsa_key, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}]
TENANTS = ("88888888-8888-8888-8888-888888888888", "99999999-9999-9999-9999-999999999999")
VECTORS: dict[str, dict[str, Any]] = {each["of"]: each for each in vectors.load("openid")["providers"]}
OPAQUE = "aVyjHoSLcN9tPzmVzYcxV9ayiFqHnG8mbDcJ1Q"
ISSUER = "https://sso.acme.com/as/"
ASKED = VECTORS["oidc"]["entry"] | {
    "client_secret": {"env": "A"},
    "introspection_client": "api",
    "opaque_tokens": True,
    "name": "asked",
}
ANSWER = {
    "active": True,
    "token_type": "Bearer",
    "client_id": "web",
    "aud": "https://api.acme.com",
    "sub": "248289761001",
    "email": "ana@acme.com",
    "exp": NOW + 60,
}


def genuine(name: str, **changes: Any) -> str:
    """Sign the genuine token of a provider, with changes."""
    provider = VECTORS[name]
    payload = {**provider["claims"], "sub": str(provider["claims"]["sub"]), **changes}
    return sign({key: value for key, value in payload.items() if value is not None}, header=provider["header"])


def world_of(folder: Path, *entries: dict[str, Any], introspection: Remote | None = None, **more: Any) -> World:
    asked = {(ISSUER, Verification.INTROSPECTION): introspection} if introspection else {}
    return World(folder, ROUTES, {"oauth": {"providers": list(entries)}}, introspectors={**asked, **more.pop("asked", {})}, **more)


async def test_every_preset_is_accepted_beside_all_others(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(each["entry"] for each in VECTORS.values()))
    for name, each in VECTORS.items():
        answer = world.check("POST /search", oauth(genuine(name)))
        assert (answer.reason, answer.headers["x-extauthz-user"]) == ("allowed", each["user"])
        assert answer.headers["x-extauthz-actor"].startswith(f"oauth:{name}:")


@pytest.mark.parametrize(
    ("name", "other"), [(name, other) for name in VECTORS for other in VECTORS if name != other and other != "spiffe"]
)
def test_no_issuer_speaks_for_another(tmp_path: Path, name: str, other: str) -> None:
    """A token that only names another issuer meets that one's rules, and none of them fits."""
    world = world_of(tmp_path, VECTORS[name]["entry"], VECTORS[other]["entry"])
    answer = world.check("POST /search", oauth(genuine(name, iss=VECTORS[other]["claims"]["iss"])))
    assert (answer.allowed, answer.status) == (False, 401)


def test_each_issuer_has_its_own_keys(tmp_path: Path) -> None:
    others = StillKeys(key_set({"keys": [public_jwk(rsa_key("other"), "rsa-1")]}, ("RS256",)), NOW + 3600)
    entries = VECTORS["oidc"]["entry"], VECTORS["keycloak"]["entry"]
    world = world_of(tmp_path, *entries, sources={VECTORS["keycloak"]["entry"]["issuer"]: others})
    assert world.check("POST /search", oauth(genuine("oidc"))).reason == "allowed"
    assert world.check("POST /search", oauth(genuine("keycloak"))).reason == "token_signature"


# --- asking


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ANSWER, "allowed"),
        (ANSWER | {"iss": ISSUER}, "allowed"),
        (ANSWER | {"aud": ["https://api.acme.com", "x"]}, "allowed"),
        (ANSWER | {"iss": "https://sso.acme.com/as"}, "token_issuer"),
        (ANSWER | {"aud": "https://other.acme.com"}, "token_audience"),
        (ANSWER | {"client_id": "other"}, "token_client"),
        (ANSWER | {"azp": "web", "client_id": "other"}, "token_client"),
        (ANSWER | {"token_type": "DPoP"}, "token_kind_wrong"),
        (ANSWER | {"token_type": None}, "token_kind_wrong"),
        (ANSWER | {"typ": "Refresh"}, "token_kind_wrong"),
        (ANSWER | {"cnf": {"jkt": "x"}}, "token_header_forbidden"),
        (ANSWER | {"exp": NOW}, "token_expired"),
        (ANSWER | {"exp": None}, "token_claims_malformed"),
        (ANSWER | {"active": "true"}, "token_inactive"),
        (ANSWER | {"email": None}, "token_user_invalid"),
        (ANSWER | {"email_verified": False}, "token_user_invalid"),
        (Reason.TOKEN_INACTIVE, "token_inactive"),
        *(({key: value for key, value in ANSWER.items() if key != name}, reason) for name, reason in [
            ("aud", "token_audience"),
            ("client_id", "token_client"),
            ("token_type", "token_kind_wrong"),
            ("exp", "token_claims_malformed"),
            ("active", "token_inactive"),
            ("email", "token_user_invalid"),
        ]),
    ],
    ids=str,
)  # fmt: skip
async def test_an_opaque_token_is_what_introspection_says(tmp_path: Path, answer: Told, reason: str) -> None:
    world = world_of(tmp_path, ASKED, introspection=Remote({OPAQUE: answer}))
    assert (await check(world, OPAQUE)).reason == reason


async def test_a_jwt_is_asked_about_only_if_it_names_the_issuer_and_fits(tmp_path: Path) -> None:
    good, unlisted, of_another = genuine("oidc"), genuine("oidc", client_id="other"), genuine("oidc", iss="https://evil.example/")
    expired, other_kind = genuine("oidc", exp=NOW), genuine("oidc", nonce="n")
    issuer = Remote({good: ANSWER}, otherwise=ANSWER)
    world = world_of(tmp_path, ASKED, introspection=issuer)
    reasons = [(await check(world, token)).reason for token in (good, unlisted, of_another, expired, other_kind)]
    assert reasons == ["allowed", "token_client", "token_issuer", "token_expired", "token_kind_wrong"]
    assert issuer.asked == [good]


# What a token says of itself was signed by nobody when the issuer is asked: a stranger may have written it.
@pytest.mark.parametrize(
    ("entry", "payload", "answer", "reason"),
    [
        ({}, {}, {}, "allowed"),
        ({}, {"aud": "https://api.acme.com"}, {"aud": None}, "token_audience"),
        ({}, {"sub": "248289761001"}, {"sub": None}, "token_claims_malformed"),
        ({}, {"email": "ceo@acme.com"}, {"email": None}, "token_user_invalid"),
        ({}, {"email_verified": True}, {"email_verified": False}, "token_user_invalid"),
        ({}, {"email_verified": False}, {}, "token_user_invalid"),
        ({}, {"email_verified": False}, {"email_verified": True}, "allowed"),
        ({"required_claims": {"tenant": "acme"}}, {"tenant": "acme"}, {}, "token_user_not_allowed"),
        ({"required_claims": {"tenant": "acme"}}, {"tenant": "other"}, {"tenant": "acme"}, "allowed"),
        ({"required_claims": {"iat": NOW - 60}}, {"iat": NOW - 60}, {}, "token_user_not_allowed"),
        ({"required_claims": {"typ": "x"}}, {"typ": "x"}, {}, "token_user_not_allowed"),
        ({"required_claims": {"email_verified": False}}, {"email_verified": False}, {}, "token_user_not_allowed"),
        ({"scopes": "claim"}, {"scope": "SEARCH"}, {}, "scope_missing"),
        ({"scopes": "claim"}, {"scope": ""}, {"scope": "SEARCH"}, "allowed"),
        ({"scopes": None, "scope_claim": "roles"}, {"roles": ["SEARCH"]}, {}, "scope_missing"),
        ({"scopes": None, "scope_claim": "roles"}, {}, {"roles": ["SEARCH"]}, "allowed"),
        ({"scopes": None, "scope_claim": "typ"}, {"typ": "SEARCH"}, {}, "scope_missing"),
        ({"audience": "web"}, {"aud": "web", "scope": "SEARCH"}, {"aud": "web"}, "token_kind_wrong"),
        ({"users": {"248289761001": "ana@acme.com"}}, {}, {"sub": "5"}, "token_user_not_allowed"),
        # What refuses a token, whoever wrote it, is not taken back by silence.
        ({}, {"cnf": {"jkt": "x"}}, {}, "token_header_forbidden"),
        ({}, {"typ": "Refresh"}, {}, "token_kind_wrong"),
        ({}, {"token_use": "refresh"}, {}, "token_kind_wrong"),
        ({}, {"nbf": NOW + 120}, {}, "token_not_yet_valid"),
        ({}, {"iat": NOW + 120}, {}, "token_not_yet_valid"),
        ({}, {"exp": NOW}, {}, "token_expired"),
    ],
    ids=str,
)
async def test_what_decides_about_a_jwt_stands_in_the_answer(
    tmp_path: Path, entry: dict[str, Any], payload: dict[str, Any], answer: dict[str, Any], reason: str
) -> None:
    token = genuine("oidc", **payload)
    told = {name: value for name, value in (ANSWER | answer).items() if value is not None}
    changed = {name: value for name, value in (ASKED | entry).items() if value is not None}
    world = world_of(tmp_path, changed, introspection=Remote({token: told}))
    assert (await check(world, token)).reason == reason


async def test_opaque_tokens_go_to_nobody_unless_it_is_said(tmp_path: Path) -> None:
    issuer = Remote(otherwise=ANSWER)
    world = world_of(tmp_path, ASKED | {"opaque_tokens": False}, introspection=issuer)
    for token in (OPAQUE, "ya29.x", "a.b", "a.b.c", "a.b.c.d.e"):
        assert (await check(world, token)).reason == "token_malformed"
    assert issuer.asked == []


def own_tokens(world: World) -> list[str]:
    """Return issued tokens and admin keys of this service, whole, cut, in other letters, and under prefixes of the past."""
    token, past = world.token("GLOBAL", "SEARCH"), mint("past", bytes(range(ENTROPY_BYTES))).text
    key = mint("exadm", bytes(range(ENTROPY_BYTES))).text
    return [
        *(token, token[:-1], "glean_aaaaaaaa", token.upper(), token.replace("glean", "Glean"), f"{token}.x", f"{token}.x.y"),
        *(past, past.replace("past", "PAST"), f"x{token}", f"X{token}", f"{'x' * 40}{token}"),
        *(key, key[:-1], key.upper(), f"exadm_{'a' * 40}"),
    ]


@pytest.mark.parametrize("auth_type", [None, "by_token", {"header": "X-Acme-Type", "oauth": "oauth"}])
@pytest.mark.parametrize("has_tokens", [True, False])
async def test_a_token_of_this_service_is_shown_to_no_issuer(tmp_path: Path, auth_type: object, has_tokens: bool) -> None:
    """A client that writes the wrong header must not hand a live token to somebody else."""
    issuer, google = Remote(otherwise=ANSWER), Remote(otherwise=remote.tokeninfo())
    gsuite = {"provider": "gsuite", "client_ids": [remote.GOOGLE_CLIENT], "domains": ["acme.com"]}
    world = world_of(tmp_path, ASKED, gsuite, introspection=issuer, asked={(remote.GOOGLE, Verification.TOKENINFO): google})
    texts = own_tokens(world)
    changes = ({"auth_type": auth_type} if auth_type else {}) | ({} if has_tokens else {"tokens": None})
    world.reconfigure(**changes)
    # Sent by token, what begins with the prefix is of the other family.
    reasons = {
        (await check(world, text, x_acme_type="oauth")).reason
        for text in texts
        if auth_type != "by_token" or not has_tokens or not text.startswith("glean_")
    }
    assert reasons == {"token_malformed"}
    assert (issuer.asked, google.asked) == ([], [])


async def test_the_prefixes_of_a_reload_are_those_that_are_shown_to_nobody(tmp_path: Path) -> None:
    issuer = Remote(otherwise=ANSWER)
    world = world_of(tmp_path, ASKED, introspection=issuer)
    texts = ["fresh_aaaaaaaa", "Fresh_aaaaaaaa", "old_aaaaaaaa"]
    world.reconfigure(tokens=SETTINGS["tokens"] | {"prefix": "fresh", "accept_prefixes": ["old"]})
    assert [(await check(world, text)).reason for text in texts] == ["token_malformed"] * 3
    assert issuer.asked == []


@pytest.mark.parametrize(
    "token", ["exa_aaaaaaaa", "gleaner_aaaaaaaa", "glean-aaaaaaaa", "a_glean_aaaaaaaa", f"a_{'b' * 12}_{'c' * 49}"]
)
async def test_a_token_that_is_only_like_one_of_this_service_is_asked_about(tmp_path: Path, token: str) -> None:
    issuer = Remote(otherwise=ANSWER)
    assert (await check(world_of(tmp_path, ASKED, introspection=issuer), token)).reason == "allowed"
    assert issuer.asked == [token]


async def test_a_token_of_google_is_shown_to_google_alone(tmp_path: Path) -> None:
    google, issuer = Remote({"ya29.good": remote.tokeninfo()}), Remote({OPAQUE: ANSWER})
    entry = {"provider": "gsuite", "client_ids": [remote.GOOGLE_CLIENT], "domains": ["acme.com"]}
    for order in ((ASKED, entry), (entry, ASKED)):
        asked = {(remote.GOOGLE, Verification.TOKENINFO): google}
        world = world_of(tmp_path / str(order[0]["provider"]), *order, introspection=issuer, asked=asked)
        assert (await check(world, "ya29.good")).headers["x-extauthz-actor"].startswith("oauth:gsuite:")
        assert (await check(world, OPAQUE)).headers["x-extauthz-actor"] == "oauth:asked:248289761001"
    assert (set(google.asked), set(issuer.asked)) == ({"ya29.good"}, {OPAQUE})
    assert (await check(world_of(tmp_path / "alone", ASKED, introspection=issuer), "ya29.good")).reason == "token_malformed"
    assert set(issuer.asked) == {OPAQUE}


@pytest.mark.parametrize(
    ("answer", "reason", "user"),
    [
        ({"sub": "auth0|5f7c8ec7c33c6c004bbafe82", "email": "eva@acme.com", "email_verified": True}, "allowed", "eva@acme.com"),
        ({"sub": "auth0|5f7c8ec7c33c6c004bbafe82", "email": "eva@acme.com", "email_verified": False}, "token_user_invalid", None),
        ({"sub": "auth0|other", "email": "eva@acme.com"}, "token_user_invalid", None),
        ({"email": "eva@acme.com"}, "token_user_invalid", None),
        ({"sub": "auth0|5f7c8ec7c33c6c004bbafe82"}, "token_user_invalid", None),
        (Reason.TOKEN_INACTIVE, "token_inactive", None),
    ],
    ids=str,
)
async def test_userinfo_tells_the_address_of_a_token_that_is_good(
    tmp_path: Path, answer: Told, reason: str, user: str | None
) -> None:
    entry = {name: value for name, value in VECTORS["auth0"]["entry"].items() if name != "user_claim"} | {"userinfo": True}
    token, bad = genuine("auth0", email="ceo@acme.com"), genuine("auth0", aud="https://acme.eu.auth0.com/userinfo")
    asked = Remote({token: answer, bad: answer})
    world = world_of(tmp_path, entry, asked={(entry["issuer"], Verification.USERINFO): asked})
    found = await check(world, token)
    assert (found.reason, found.headers.get("x-extauthz-user")) == (reason, user)
    assert (await check(world, bad)).allowed is False


# --- several issuers at one name


def test_workloads_of_google_stand_beside_its_people(tmp_path: Path) -> None:
    entry = {"provider": "gsuite", "client_ids": [remote.GOOGLE_CLIENT], "domains": ["acme.com"]}
    world = world_of(tmp_path, entry, VECTORS["google"]["entry"], asked={(remote.GOOGLE, Verification.TOKENINFO): Remote()})
    assert world.check("POST /search", oauth(genuine("google"))).headers["x-extauthz-actor"].startswith("oauth:google:")


def test_an_id_token_of_google_is_nothing_to_gsuite(tmp_path: Path) -> None:
    entry = {"provider": "gsuite", "client_ids": [remote.GOOGLE_CLIENT], "domains": ["acme.com"]}
    world = world_of(tmp_path, entry, asked={(remote.GOOGLE, Verification.TOKENINFO): Remote()})
    assert world.check("POST /search", oauth(genuine("google"))).reason == "token_issuer"


def test_a_workload_belongs_to_its_trust_domain(tmp_path: Path) -> None:
    other = {
        **VECTORS["spiffe"]["entry"],
        "name": "other",
        "issuer": "spiffe://other.org",
        "users": {"spiffe://other.org/x": "x@acme.com"},
        "client_ids": ["spiffe://other.org/x"],
    }
    world = world_of(tmp_path, VECTORS["spiffe"]["entry"], other, VECTORS["oidc"]["entry"])
    expected = {
        genuine("spiffe"): "oauth:spiffe:spiffe://acme.org/ns/shop/sa/cart",
        genuine("spiffe", sub="spiffe://other.org/x"): "oauth:other:spiffe://other.org/x",
    }
    assert {token: world.check("POST /search", oauth(token)).headers["x-extauthz-actor"] for token in expected} == expected
    # One that names an issuer of ours is that issuer's, and has to be one of its access tokens.
    assert world.check("POST /search", oauth(genuine("spiffe", iss=ISSUER))).reason == "token_client"
    assert world.check("POST /search", oauth(genuine("oidc", sub="spiffe://acme.org/ns/shop/sa/cart"))).reason == "allowed"


def azure(tenant: str, **changes: Any) -> str:
    issuer = f"https://login.microsoftonline.com/{tenant}/v2.0"
    plain = {"iss": issuer, "aud": "a", "azp": "a", "tid": tenant, "ver": "2.0", "scp": "x", "sub": "s", "oid": "o"}
    return sign(plain | {"preferred_username": "eve@acme.com", "iat": NOW, "exp": NOW + 60} | changes)


def test_each_tenant_of_a_list_is_let_in_and_no_other(tmp_path: Path) -> None:
    entry = {"provider": "azure", "issuer": "{tenant}/v2.0", "tenants": list(TENANTS), "client_ids": ["a"]}
    world = world_of(tmp_path, entry)
    actors = [world.check("POST /search", oauth(azure(tenant))).headers["x-extauthz-actor"] for tenant in TENANTS]
    assert actors == [f"oauth:azure.{tenant}:s" for tenant in TENANTS]
    third = "77777777-7777-7777-7777-777777777777"
    refused = [
        azure(third),
        azure(TENANTS[0], tid=TENANTS[1]),
        azure(TENANTS[0], tid=third),
        azure("{tenant}"),
        azure("common"),
        azure(TENANTS[0], iss=f"https://login.microsoftonline.com/{TENANTS[0]}/v2.0/"),
    ]
    assert {world.check("POST /search", oauth(token)).reason for token in refused} == {"token_issuer"}
    assert len(world.configuration.providers) == len(TENANTS)


def test_realms_are_tenants_too(tmp_path: Path) -> None:
    changes = {"issuer": "https://sso.acme.com/realms/{tenant}", "tenants": ["acme", "acme-eu"]}
    world = world_of(tmp_path, VECTORS["keycloak"]["entry"] | changes)
    issuers = {name: f"https://sso.acme.com/realms/{name}" for name in ("acme", "acme-eu", "other")}
    reasons = {name: world.check("POST /search", oauth(genuine("keycloak", iss=issuer))).reason for name, issuer in issuers.items()}
    assert reasons == {"acme": "allowed", "acme-eu": "allowed", "other": "token_issuer"}


def test_what_the_four_say_of_themselves_is_not_changed_by_the_others(tmp_path: Path) -> None:
    okta = {"provider": "okta", "issuer": claims()["iss"], "client_ids": [claims()["cid"]], "audience": "api://default"}
    alone, beside = world_of(tmp_path / "1", okta), world_of(tmp_path / "2", okta, *(each["entry"] for each in VECTORS.values()))
    for token in (sign(claims()), sign(claims(cid="x")), sign(claims(typ="ID")), sign(claims(scp=None)), OPAQUE):
        request = ("POST /search", oauth(token))
        assert alone.check(*request).message == beside.check(*request).message


def test_a_check_with_a_slow_algorithm_takes_more_of_the_budget(tmp_path: Path) -> None:
    """What strangers may cause is bounded by time: one of P-384 takes as long as four of P-256."""
    key = ec.generate_private_key(ec.SECP384R1())
    jwk = pyjwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "p384", "alg": "ES384"}
    keys = StillKeys(key_set({"keys": [jwk, public_jwk(rsa_key(), "rsa-1")]}, ("RS256", "ES384")))
    entry = VECTORS["oidc"]["entry"] | {"algorithms": ["RS256", "ES384"]}
    world = World(tmp_path, ROUTES, {"oauth": {"providers": [entry]}, "limits": {"signatures_per_second": 9}}, keys=keys)
    payload = VECTORS["oidc"]["claims"] | {"sub": "1"}
    slow = [sign(payload | {"jti": str(one)}, algorithm="ES384", key=key, header={"kid": "p384"}) for one in range(3)]
    assert [world.check("POST /search", oauth(token)).reason for token in slow] == ["allowed", "allowed", "overloaded"]
    assert [world.check("POST /search", oauth(genuine("oidc", jti=one))).reason for one in "ab"] == ["allowed", "overloaded"]


def test_a_small_budget_is_enough_for_one_check_of_any_algorithm(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    jwk = pyjwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "p384", "alg": "ES384"}
    keys = StillKeys(key_set({"keys": [jwk]}, ("ES384",)))
    entry = VECTORS["oidc"]["entry"] | {"algorithms": ["ES384"]}
    world = World(tmp_path, ROUTES, {"oauth": {"providers": [entry]}, "limits": {"signatures_per_second": 1}}, keys=keys)
    token = sign(VECTORS["oidc"]["claims"] | {"sub": "1"}, algorithm="ES384", key=key, header={"kid": "p384"})
    assert world.check("POST /search", oauth(token)).reason == "allowed"
