"""The internal token through the real Envoy: whose filter for JWTs takes it, with the keys that the sidecar serves."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

from extauthz.demo.launcher import Demo
from extauthz.demo.wiring import Wiring
from extauthz.responses.internal_tokens import new_key
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.running import RunningDemo, running_demo

pytestmark = pytest.mark.envoy

DOCUMENT = ROOT / "docs" / "internal-token.md"
AUDIENCE = "https://api.acme.internal"
CHAT, SEARCH = "POST /rest/api/v1/chat", "POST /rest/api/v1/search"


def shown(start: str) -> str:
    """Return the YAML block of the document that starts like this."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if block.startswith(start))


@dataclass(frozen=True, slots=True)
class Verifying(Wiring):
    """Envoy verifies the token behind the check, as the Envoy of an upstream does, with the filter that the document shows."""

    jwks: int = 0

    def changes(self, port: int, folder: Path) -> Iterator[tuple[str, str]]:
        """Put the filter behind ext_authz, and the cluster of the keys beside the others."""
        yield from super(Verifying, self).changes(port, folder)
        router, clusters = "          - name: envoy.filters.http.router\n", "  clusters:\n"
        verifier = shown("- name: envoy.filters.http.jwt_authn").replace("prefix: /}", "prefix: /rest}")
        cluster = shown("- name: extauthz-jwks").replace("9092", str(self.jwks))
        cluster = cluster.replace("extauthz.acme.internal", "127.0.0.1").replace("STRICT_DNS", "STATIC")
        yield router, textwrap.indent(verifier, " " * 10) + router
        yield clusters, clusters + textwrap.indent(cluster, "  ")


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """An Envoy that lets only verified internal tokens go on."""
    folder, port = Path(tmp_path_factory.mktemp("t")), free_port()
    for name in ("k1.pem", "k2.pem"):
        (folder / name).write_bytes(new_key("ES256"))
    section = {
        "issuer": "https://extauthz.acme.internal",
        "audience": AUDIENCE,
        "keys": [{"id": name, "file": f"{name}.pem"} for name in ("k1", "k2")],
        "jwks": f"127.0.0.1:{port}",
    }

    async def prepare(demo: Demo) -> None:
        demo.tokens["FORGED"] = jwt.encode({"sub": "ceo@acme.com", "aud": AUDIENCE}, new_key("ES256"), algorithm="ES256")

    settings = f"internal_token: {json.dumps(section)}\n"
    with running_demo(folder, prepare, wiring=Verifying(jwks=port), settings=settings) as demo:
        yield demo


def test_the_upstream_sees_a_token_that_its_envoy_verified(envoy: RunningDemo) -> None:
    headers = {"Authorization": f"Bearer {envoy.demo.tokens['USER_TOKEN']}", "X-Extauthz-Token": envoy.demo.tokens["FORGED"]}
    seen = [envoy.send(CHAT, headers) for _ in range(2)]
    assert [reply.status for reply in seen] == [200, 200], seen[0].text
    told = jwt.decode(seen[0].upstream["x-extauthz-token"], options={"verify_signature": False})
    assert (told["sub"], told["aud"], told["scope"]) == ("bob@acme.com", AUDIENCE, "CHAT")
    assert seen[0].upstream["x-extauthz-token"] == seen[1].upstream["x-extauthz-token"]
    assert envoy.demo.tokens["FORGED"] not in seen[0].text


def test_every_kind_of_credential_gets_one(envoy: RunningDemo) -> None:
    cases = {
        "GLOBAL": ({"X-Scio-ActAs": "ana@acme.com"}, "ana@acme.com"),
        "ANONYMOUS": ({}, f"token:{envoy.demo.ids['ANONYMOUS']}"),
        "OAUTH": ({"X-Glean-Auth-Type": "OAUTH"}, "ana@acme.com"),
    }
    for name, (more, subject) in cases.items():
        reply = envoy.send(SEARCH, {"Authorization": f"Bearer {envoy.demo.tokens[name]}", **more})
        assert reply.status == 200, reply.text
        assert jwt.decode(reply.upstream["x-extauthz-token"], options={"verify_signature": False})["sub"] == subject


def test_a_forged_one_does_not_reach_the_upstream_on_a_public_route(envoy: RunningDemo) -> None:
    """Where no token is set, a client's is removed."""
    reply = envoy.send("GET /healthz", {"x-extauthz-token": envoy.demo.tokens["FORGED"]})
    assert reply.status == 200
    assert "x-extauthz-token" not in reply.upstream
