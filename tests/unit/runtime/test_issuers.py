"""What is built to verify the tokens of each provider: keys, or somebody who is asked, or both."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.oauth.introspection import Introspection
from extauthz.adapters.oauth.signed_answers import SignedAnswerFetcher
from extauthz.config.loader import Configuration, load
from extauthz.config.secrets import Secrets
from extauthz.core.providers import Verification
from extauthz.runtime.oauth import Issuers
from tests.support.world import StillClock

ENTRY = {
    "provider": "oidc",
    "issuer": "https://sso.acme.com/",
    "client_ids": ["web"],
    "audience": "api",
    "name": "sso",
    "scopes": "all",
}
ASKED = ENTRY | {"client_secret": {"env": "A"}, "introspection_client": "api"}
SECRETS = Secrets(client_secrets={"sso": b"secret"})
TENANTS = ["88888888-8888-8888-8888-888888888888", "99999999-9999-9999-9999-999999999999"]


def loaded(folder: Path, entry: dict[str, Any]) -> Configuration:
    (folder / "routes.yaml").write_text("routes: [{match: GET /a, scope: SEARCH}]\n")
    oauth = {"providers": [entry]}
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
        "oauth": oauth,
    }
    (folder / "extauthz.yaml").write_text(json.dumps(settings))
    return load(folder / "extauthz.yaml")


@pytest.fixture
async def issuers() -> AsyncIterator[Issuers]:
    made = Issuers(StillClock())
    yield made
    await made.retire(None, SECRETS)


def introspection(issuers: Issuers, configuration: Configuration) -> Introspection:
    (sources,) = issuers.prepare(configuration, SECRETS)
    (found,) = [each for each in sources.introspections if each.method is Verification.INTROSPECTION]
    return found


async def test_keys_verify_unless_a_secret_says_who_is_asked(tmp_path: Path, issuers: Issuers) -> None:
    (by_keys,) = issuers.prepare(loaded(tmp_path, ENTRY), SECRETS)
    (asked,) = issuers.prepare(loaded(tmp_path, ASKED), SECRETS)
    assert (by_keys.keys is None, list(by_keys.introspectors)) == (False, [])
    assert (asked.keys, asked.jwks, list(asked.introspectors)) == (None, None, [Verification.INTROSPECTION])


async def test_keys_of_signed_answers_are_fetched_and_verify_no_tokens(tmp_path: Path, issuers: Issuers) -> None:
    configuration = loaded(tmp_path, ASKED | {"signed_introspection": True, "jwks_uri": "https://sso.acme.com/keys"})
    (sources,) = issuers.prepare(configuration, SECRETS)
    assert sources.jwks is not None
    assert sources.keys is None
    (asked,) = sources.introspections
    assert isinstance(asked._fetcher, SignedAnswerFetcher)
    assert asked._signed is not None
    assert asked._signed.keys is sources.jwks


@pytest.mark.parametrize(("client", "asks"), [("api", "api"), (None, "web")])
async def test_the_client_that_asks_is_its_own_or_the_first(
    tmp_path: Path, issuers: Issuers, client: str | None, asks: str
) -> None:
    entry = {name: value for name, value in (ASKED | {"introspection_client": client}).items() if value is not None}
    assert introspection(issuers, loaded(tmp_path, entry))._credentials == (asks, "secret")


async def test_userinfo_is_asked_beside_the_keys(tmp_path: Path, issuers: Issuers) -> None:
    (sources,) = issuers.prepare(loaded(tmp_path, ENTRY | {"userinfo": True}), SECRETS)
    assert (sources.keys is None, list(sources.introspectors)) == (False, [Verification.USERINFO])


async def test_each_tenant_has_its_own_keys(tmp_path: Path, issuers: Issuers) -> None:
    entry = {"provider": "azure", "issuer": "{tenant}/v2.0", "tenants": TENANTS, "client_ids": ["a"]}
    found = issuers.prepare(loaded(tmp_path, entry), SECRETS)
    assert [each.rules.tenant for each in found] == TENANTS
    assert len({each.digest for each in found}) == len({id(each.jwks) for each in found}) == len(TENANTS)
    assert [each.rules.discovery for each in found] == [
        f"https://login.microsoftonline.com/{tenant}/v2.0/.well-known/openid-configuration" for tenant in TENANTS
    ]


async def test_http_clients_of_signed_answers_are_kept_as_long_as_they_are_needed(tmp_path: Path, issuers: Issuers) -> None:
    signed = loaded(tmp_path, ASKED | {"signed_introspection": True})
    fetcher = introspection(issuers, signed)._fetcher
    await issuers.retire(signed, SECRETS)
    assert not fetcher._client.is_closed
    await issuers.retire(loaded(tmp_path, ASKED), SECRETS)
    assert fetcher._client.is_closed
