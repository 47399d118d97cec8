"""OAuth settings that are tried out: what is asked of an issuer over HTTP, and that nobody else is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.admin.oauth_trial import TrialFinding, try_out
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.config.loader import Configuration, load
from tests.support.http_faults import DISCOVERY, FaultyServer, Page, document, faulty_server
from tests.support.world import StillClock, public_jwk, rsa_key

SUPER_ADMIN, VIEWER = Actor("sue@acme.com", Role.SUPER_ADMIN), Actor("bea@acme.com", Role.VIEWER)
ISSUER = "/oauth2/default"


def configured(folder: Path, **oauth: Any) -> Configuration:
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "oauth": {"managed_by": "console", **oauth},
        "tokens": {"enabled": False, "store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
    }
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return load(folder / "extauthz.yaml")


def wanted(server: FaultyServer, **changes: Any) -> dict[str, Any]:
    usual = {"provider": "okta", "issuer": server.origin + ISSUER, "client_ids": "0oa1", "audience": "api://default"}
    return {"enabled": False, **usual, **changes}


def pages(server: FaultyServer, **changes: Any) -> dict[str, Page]:
    discovery = {"issuer": server.origin + ISSUER, "jwks_uri": f"{server.origin}/keys"}
    keys = {"keys": [public_jwk(rsa_key(), "k1"), {"kty": "oct", "kid": "k2", "k": "AAAA"}]}
    return {ISSUER + DISCOVERY: document(discovery | changes), "/keys": document(keys)}


async def tried(configuration: Configuration, settings: dict[str, Any], actor: Actor = SUPER_ADMIN) -> Any:
    return await try_out(configuration, actor, settings, clock=StillClock(), environment={})


async def test_an_issuer_tells_its_addresses_and_keys(tmp_path: Path) -> None:
    async with faulty_server() as server:
        server.pages = pages(server)
        assert await tried(configured(tmp_path), wanted(server)) == (
            TrialFinding(True, f"{server.origin}{ISSUER}{DISCOVERY} is the discovery document of {server.origin}{ISSUER}"),
            TrialFinding(True, f"{server.origin}/keys: usable keys for ES256, RS256: 1; left out: 'k2': it holds a secret part"),
        )
        assert dict(server.requests) == {ISSUER + DISCOVERY: 1, "/keys": 1}
        assert [b"authorization" in head.lower() for head in server.heads] == [False, False]


async def test_an_address_of_the_file_is_asked_in_place_of_the_issuer(tmp_path: Path) -> None:
    async with faulty_server() as server:
        server.pages = {"/pinned": pages(server)["/keys"]}
        (finding,) = await tried(configured(tmp_path, jwks_uri=f"{server.origin}/pinned"), wanted(server))
        assert finding.is_good
        assert dict(server.requests) == {"/pinned": 1}


@pytest.mark.parametrize(
    ("changes", "good", "words"),
    [
        ({"issuer": "http://127.0.0.1:1"}, [False], "names another issuer"),
        ({"jwks_uri": None}, [True, False], "has no jwks_uri"),
        ({"jwks_uri": "http://10.0.0.1/keys"}, [True, False], "only https is asked, or http on a loopback address"),
        ({"jwks_uri": "file:///etc/passwd"}, [True, False], "only https is asked, or http on a loopback address"),
    ],
)
async def test_what_is_wrong_with_an_issuer_is_said(tmp_path: Path, changes: Any, good: list[bool], words: str) -> None:
    async with faulty_server() as server:
        server.pages = pages(server, **changes)
        findings = await tried(configured(tmp_path), wanted(server))
        assert [finding.is_good for finding in findings] == good
        assert words in findings[-1].text


@pytest.mark.parametrize("page", [Page(b"{}", 404), Page(b"no JSON"), document([]), document({"keys": []})], ids=repr)
async def test_keys_that_verify_nothing_are_no_good(tmp_path: Path, page: Page) -> None:
    async with faulty_server() as server:
        server.pages = pages(server) | {"/keys": page}
        findings = await tried(configured(tmp_path), wanted(server))
        assert [finding.is_good for finding in findings] == [True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://169.254.169.254/latest"},
        {"issuer": "http://10.0.0.1/oauth2/default"},
        {"issuer": "file:///etc/passwd"},
        {"issuer": "gopher://127.0.0.1/oauth2/default"},
        {"provider": "azure"},
        {"jwks_uri": "http://127.0.0.1:1/keys"},
        {"client_ids": ""},
    ],
    ids=str,
)
async def test_settings_that_could_not_be_saved_are_not_tried(tmp_path: Path, changes: Any) -> None:
    async with faulty_server() as server:
        assert isinstance(await tried(configured(tmp_path), wanted(server, **changes)), Refused)
        assert server.connections == 0


async def test_nobody_else_makes_the_console_ask_an_issuer(tmp_path: Path) -> None:
    async with faulty_server() as server:
        outcome = await tried(configured(tmp_path), wanted(server), VIEWER)
        assert isinstance(outcome, Refused)
        assert outcome.refusals[0].field == "actor"
        assert server.connections == 0


async def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    async with faulty_server() as server:
        (finding,) = await tried(configured(tmp_path, ca_file="ca.pem"), wanted(server))
        assert not finding.is_good
        assert "not a bundle of certificates" in finding.text
        assert server.connections == 0
