"""Several providers at once: the issuer of a token picks one, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extauthz.core import jwt
from tests.support.world import CLIENT, ISSUER, NOW, StillKeys, World, claims, jwks, key_set, oauth, public_jwk, rsa_key, sign

TENANT = "88888888-8888-8888-8888-888888888888"
AZURE = f"https://login.microsoftonline.com/{TENANT}/v2.0"
OTHER = "https://acme.okta.com/oauth2/other"
ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "POST /chat", "scope": "CHAT"}]
PROVIDERS = [
    {"name": "staff", "provider": "okta", "issuer": ISSUER, "client_ids": [CLIENT], "audience": "api://default"},
    {
        "name": "guests",
        "provider": "okta",
        "issuer": OTHER,
        "client_ids": ["0oaother"],
        "audience": "api://other",
        "scopes": ["SEARCH"],
    },
    {"provider": "azure", "issuer": f"{TENANT}/v2.0", "client_ids": ["azure-client"]},
]
GUEST = {"iss": OTHER, "cid": "0oaother", "aud": "api://other"}


def azure(**changes: Any) -> dict[str, Any]:
    """Return the claims of an Azure token."""
    plain = {"iss": AZURE, "aud": "azure-client", "azp": "azure-client", "tid": TENANT, "ver": "2.0", "scp": "x", "sub": "s"}
    return plain | {"preferred_username": "eve@acme.com", "iat": NOW, "exp": NOW + 60} | changes


def a_world(folder: Path, **sources: StillKeys) -> World:
    """Return a world of three providers; without `sources` their keys are the same, so that only the issuer tells them apart."""
    by_name = {"staff": ISSUER, "guests": OTHER, "azure": AZURE}
    return World(
        folder, ROUTES, {"oauth": {"providers": PROVIDERS}}, sources={by_name[name]: source for name, source in sources.items()}
    )


@pytest.mark.parametrize(
    ("payload", "actor"),
    [
        (claims(), "oauth:staff:ana@acme.com"),
        (claims(**GUEST), "oauth:guests:ana@acme.com"),
        (azure(), "oauth:azure:s"),
    ],
    ids=["staff", "guests", "azure"],
)
def test_the_issuer_picks_the_provider(tmp_path: Path, payload: dict[str, Any], actor: str) -> None:
    assert a_world(tmp_path).check("POST /search", oauth(sign(payload))).headers["x-extauthz-actor"] == actor


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (claims(iss="https://acme.okta.com/oauth2/third"), "token_issuer"),
        (claims(iss=ISSUER + "/"), "token_issuer"),
        (claims(iss=OTHER), "token_client"),
        (claims(**GUEST | {"aud": "api://default"}), "token_audience"),
        (claims(cid="0oaother"), "token_client"),
        (claims(cid="azure-client"), "token_client"),
        (azure(azp=CLIENT), "token_client"),
        (azure(iss=ISSUER), "token_client"),
        (azure(aud="api://default"), "token_audience"),
    ],
    ids=str,
)
def test_what_one_provider_accepts_is_nothing_to_another(tmp_path: Path, payload: dict[str, Any], reason: str) -> None:
    assert a_world(tmp_path).check("POST /search", oauth(sign(payload))).reason == reason


def test_each_provider_has_its_own_ceiling(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    assert world.check("POST /chat", oauth(sign(claims()))).reason == "allowed"
    assert world.check("POST /chat", oauth(sign(claims(**GUEST)))).reason == "scope_missing"


def test_a_token_is_verified_with_the_keys_of_its_own_issuer(tmp_path: Path) -> None:
    others = StillKeys(key_set({"keys": [public_jwk(rsa_key("other"), "rsa-1")]}, ("RS256",)))
    world = a_world(tmp_path, guests=others)
    assert world.check("POST /search", oauth(sign(claims(**GUEST)))).reason == "token_signature"
    assert world.check("POST /search", oauth(sign(claims(**GUEST), key=rsa_key("other")))).reason == "allowed"
    assert world.check("POST /search", oauth(sign(claims(), key=rsa_key("other")))).reason == "token_signature"


def test_keys_that_one_issuer_removes_void_its_verdicts(tmp_path: Path) -> None:
    guests = StillKeys(key_set({"keys": [public_jwk(rsa_key("other"), "rsa-1")]}, ("RS256",)))
    world = a_world(tmp_path, guests=guests)
    token = oauth(sign(claims(**GUEST), key=rsa_key("other")))
    assert world.check("POST /search", token).allowed
    guests.key_set, guests.fetched_at = key_set({"keys": [public_jwk(rsa_key("third"), "third")]}, ("RS256",)), NOW + 100
    assert world.check("POST /search", token).reason == "token_key_unknown"
    assert world.check("POST /search", oauth(sign(claims()))).allowed


class CountedKeys(StillKeys):
    """A key source that counts how often it is looked at."""

    looks = 0

    def keys(self) -> jwt.KeySet | None:
        self.looks += 1
        return super().keys()


def test_a_warm_check_looks_at_the_keys_of_its_own_issuer_alone(tmp_path: Path) -> None:
    """Its cost must not grow with the number of issuers."""
    sources = {name: CountedKeys(key_set(jwks())) for name in ("staff", "guests", "azure")}
    world = a_world(tmp_path, **sources)
    token = oauth(sign(claims(**GUEST)))
    assert world.check("POST /search", token).allowed
    before = {name: source.looks for name, source in sources.items()}
    assert world.check("POST /search", token).allowed
    assert {name: source.looks - before[name] for name, source in sources.items()} == {"staff": 0, "guests": 1, "azure": 0}


@pytest.mark.parametrize("between", ["nothing", "another issuer", "the same issuer"])
def test_a_refused_token_is_verified_anew_when_the_keys_of_its_issuer_change(tmp_path: Path, between: str) -> None:
    """Also when the check of another token has noticed it before."""
    guests = StillKeys(key_set({"keys": [public_jwk(rsa_key("third"), "rsa-1")]}, ("RS256",)))
    world = a_world(tmp_path, guests=guests)
    token = oauth(sign(claims(**GUEST), key=rsa_key("other")))
    known = {"another issuer": oauth(sign(claims())), "the same issuer": oauth(sign(claims(**GUEST), key=rsa_key("third")))}
    assert all(world.check("POST /search", each).allowed for each in known.values())
    assert [world.check("POST /search", token).reason for _ in range(2)] == ["token_signature"] * 2
    guests.key_set = key_set({"keys": [public_jwk(rsa_key("other"), "rsa-1")]}, ("RS256",))
    if between in known:
        assert world.check("POST /search", known[between]).allowed == (between == "another issuer")
    assert world.check("POST /search", token).reason == "allowed"
