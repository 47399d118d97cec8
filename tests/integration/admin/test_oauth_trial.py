"""OAuth settings that are tried out: what is asked of an issuer over HTTP, and that nobody else is asked."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.admin.oauth_trial import TrialFinding, try_out
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.config.loader import Configuration, load
from extauthz.demo.wiring import write_certificates
from tests.support.http_faults import DISCOVERY, FaultyServer, Page, document, faulty_server
from tests.support.world import StillClock, public_jwk, rsa_key

SUPER_ADMIN, VIEWER = Actor("sue@acme.com", Role.SUPER_ADMIN), Actor("bea@acme.com", Role.VIEWER)
ISSUER = "/oauth2/default"


LOOPBACK = ("127.0.0.0/8",)


def configured(folder: Path, *, networks: Sequence[str] = LOOPBACK, **oauth: Any) -> Configuration:
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "oauth": {"managed_by": "console", **oauth},
        "tokens": {"enabled": False, "store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "scopes": ["SEARCH"],
        "console": {"issuer_networks": list(networks)},
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


async def tried(configuration: Configuration, settings: dict[str, Any], actor: Actor = SUPER_ADMIN, **more: Any) -> Any:
    return await try_out(configuration, actor, settings, clock=StillClock(), environment={}, **more)


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


@pytest.mark.parametrize("networks", [(), ("10.0.0.0/8",)])
async def test_this_machine_is_asked_only_where_the_file_lists_it(tmp_path: Path, networks: tuple[str, ...]) -> None:
    async with faulty_server() as server:
        server.pages = pages(server)
        (finding,) = await tried(configured(tmp_path, networks=networks), wanted(server))
        assert (finding.is_good, "console.issuer_networks" in finding.text) == (False, True)
        assert server.connections == 0


@pytest.mark.parametrize("jwks_uri", ["https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/keys", "https://[::1]:1/keys"])
async def test_what_an_issuer_names_is_no_way_inside(tmp_path: Path, jwks_uri: str) -> None:
    async with faulty_server() as server:
        server.pages = pages(server, jwks_uri=jwks_uri)
        findings = await tried(configured(tmp_path, networks=("127.0.0.1/32",)), wanted(server))
        assert "console.issuer_networks" in findings[-1].text
        assert [finding.is_good for finding in findings] == [True, False]


async def test_a_name_is_resolved_for_each_connection_and_what_was_looked_at_is_connected_to(tmp_path: Path) -> None:
    """A name server that gives a public address first, and one within to whoever asks again (DNS rebinding)."""
    answers = [["127.0.0.1"], ["192.0.2.1", "10.0.0.1"]]
    named: list[str] = []

    async def resolver(host: str, port: int) -> Sequence[str]:
        named.append(host)
        return answers[len(named) - 1]

    write_certificates(tmp_path, "login.test")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    async with faulty_server(tls) as server:
        origin = f"https://login.test:{server.port}"
        settings = {"provider": "okta", "issuer": f"{origin}{ISSUER}", "client_ids": "0oa1", "audience": "api://default"}
        server.pages = {
            ISSUER + DISCOVERY: document({"issuer": origin + ISSUER, "jwks_uri": f"https://other.test:{server.port}/keys"})
        }
        first, second = await tried(configured(tmp_path, ca_file="ca.crt"), settings, resolver=resolver)
        assert (first.is_good, second.is_good) == (True, False)
        assert "other.test is at no public address" in second.text
        assert "10.0.0.1" not in second.text
        assert named == ["login.test", "other.test"]
        assert b"\r\nhost: login.test" in server.heads[0].lower()


async def test_no_redirect_is_followed(tmp_path: Path) -> None:
    async with faulty_server() as server:
        moved = Page(b"", 302, (("location", f"{server.origin}/moved"),))
        server.pages = pages(server) | {ISSUER + DISCOVERY: moved, "/moved": pages(server)[ISSUER + DISCOVERY]}
        (finding,) = await tried(configured(tmp_path), wanted(server))
        assert (finding.is_good, "status 302" in finding.text) == (False, True)
        assert dict(server.requests) == {ISSUER + DISCOVERY: 1}


async def test_what_an_answer_says_is_shown_in_part_and_on_one_line(tmp_path: Path) -> None:
    async with faulty_server() as server:
        server.pages = pages(server, jwks_uri="http://\x1b[31m\n" + "x" * 9000)
        findings = await tried(configured(tmp_path), wanted(server))
        assert [(len(finding.text) <= 501, finding.text.isprintable()) for finding in findings] == [(True, True)] * 2


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
