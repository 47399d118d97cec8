"""What the providers publish, as it is: tokens and answers are decided right, discovery documents read. Azure: test_azure.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.config.issuers import provider_of
from extauthz.core.providers import Verification
from tests.support.http_faults import document, faulty_server
from tests.support.idp_fixtures import FOLDER, published
from tests.support.remote import GOOGLE, ONELOGIN, Remote, check
from tests.support.world import MakeWorld, StillClock, World, oauth, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}]


@pytest.mark.parametrize(
    ("seconds", "audience", "reason"),
    [
        (0, "https://api.example.com", "allowed"),
        (3599, "https://api.example.com", "allowed"),
        (3600, "https://api.example.com", "token_expired"),
        (-61, "https://api.example.com", "token_not_yet_valid"),
        (0, "https://other.example.com", "token_audience"),
    ],
)
def test_the_published_token_of_okta(make_world: MakeWorld, seconds: int, audience: str, reason: str) -> None:
    """Its header has alg and kid only."""
    filled = {"<random>": "1", "<org>": "acme.okta.com", "<asid>": "default", "<login name, or id>": "Ana@acme.com"}
    sample = published("okta_access_token_claims", filled | {"<client id>": "0oa1"})
    world = make_world(ROUTES, oauth={"issuer": sample["iss"], "client_ids": ["0oa1"], "audience": audience})
    world.clock.wall = sample["iat"] + seconds
    answer = world.check("POST /search", oauth(sign(sample)))
    assert answer.reason == reason
    if answer.allowed:
        assert (answer.headers["x-extauthz-user"], answer.headers["x-extauthz-client-id"]) == ("ana@acme.com", "0oa1")


@pytest.mark.parametrize(
    ("seconds", "domains", "reason"),
    [
        (-3543, "example.com", "allowed"),
        (-1, "example.com", "allowed"),
        (0, "example.com", "token_expired"),
        (-3543, "acme.com", "token_user_not_allowed"),
    ],
)
async def test_the_published_answer_of_google(tmp_path: Path, seconds: int, domains: str, reason: str) -> None:
    sample = published("google_tokeninfo_shape", {"<client_id>": "1-a.apps.googleusercontent.com", "<google user id>": "110"})
    settings = {"provider": "gsuite", "issuer": None, "audience": None, "client_ids": [sample["aud"]], "domains": [domains]}
    remotes = {(GOOGLE, Verification.TOKENINFO): Remote(otherwise=sample)}
    world = World(tmp_path, ROUTES, {"oauth": settings}, introspectors=dict(remotes))
    world.clock.wall = int(sample["exp"]) + seconds
    answer = await check(world, "ya29.a0AfB_byDzx")
    assert answer.reason == reason
    if answer.allowed:
        assert answer.headers["x-extauthz-user"] == "user@example.com"


@pytest.mark.parametrize(("now", "reason"), [(0, "allowed"), (3599, "allowed"), (3600, "token_expired")])
async def test_the_published_token_of_onelogin(tmp_path: Path, now: int, reason: str) -> None:
    """It has neither address nor azp: userinfo tells the address."""
    filled = {"<sub>": "acme", "<OIDC client id>": "ed6dd790", "<numeric OneLogin user id>": "36343940", "<21 chars>": "F" * 21}
    sample = published("onelogin_access_token_claims", filled)
    assert sample["iss"] == ONELOGIN
    settings = {"provider": "onelogin", "issuer": ONELOGIN, "client_ids": ["ed6dd790"], "audience": None}
    userinfo = Remote(otherwise={"sub": "36343940", "email": "ana@acme.com"})
    world = World(tmp_path, ROUTES, {"oauth": settings}, introspectors={(ONELOGIN, Verification.USERINFO): userinfo})
    world.clock.wall = now
    answer = await check(world, sign(sample))
    assert answer.reason == reason
    if answer.allowed:
        assert answer.headers["x-extauthz-user"] == "ana@acme.com"


DOCUMENTS = [
    ("azure_v2_discovery", "azure", ["jwks_uri", "userinfo_endpoint"]),
    ("google_discovery", "gsuite", ["jwks_uri", "userinfo_endpoint"]),
    ("okta_org_discovery", "okta", ["jwks_uri", "userinfo_endpoint", "introspection_endpoint"]),
    ("onelogin_discovery", "onelogin", ["jwks_uri", "userinfo_endpoint", "introspection_endpoint"]),
]


@pytest.mark.parametrize(("name", "provider", "endpoints"), DOCUMENTS)
async def test_a_published_discovery_document_is_that_of_its_issuer(name: str, provider: str, endpoints: list[str]) -> None:
    sample: dict[str, Any] = published(name)
    found = provider_of(provider, sample["issuer"])
    assert found is not None
    assert not found.algorithms.isdisjoint(sample["id_token_signing_alg_values_supported"])
    fetcher = JsonFetcher(timeout=20.0)
    async with faulty_server() as server:
        server.pages["/document"] = document(sample)
        discovery = Discovery(sample["issuer"], f"{server.origin}/document", fetcher, clock=StillClock())
        assert [await discovery.endpoint(endpoint) for endpoint in endpoints] == [sample[endpoint] for endpoint in endpoints]
        await fetcher.close()


def test_every_file_names_its_source() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in FOLDER.glob("*.json") if f"`{file.name}`" not in readme] == []
