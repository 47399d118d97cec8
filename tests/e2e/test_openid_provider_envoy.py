"""A real OpenID provider, whose tokens pass through the real Envoy: `provider: oidc` as a company's own issuer needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extauthz.demo.wrong_tokens import signed_with_secret
from tests.support.envoy import Reply, running_envoy, running_sidecar, running_upstream, send
from tests.support.envoy_config import printed
from tests.support.openid_provider import API, Issuer, OpenIdProvider, new_key, node
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.world import SETTINGS

pytestmark = pytest.mark.envoy

ALGORITHMS = ["RS256", "ES256", "EdDSA"]
OTHER_API = "https://other.acme.com"
ES256, EDDSA, SHORT = (f"{API}/{name}" for name in ("es256", "eddsa", "short"))
OPAQUE, OTHER_OPAQUE = f"{API}/opaque", f"{OTHER_API}/opaque"
USERS = {
    "ana": {"email": "ana@acme.com", "email_verified": True},
    "bob": {"email": "bob@acme.com", "email_verified": False},
    "kim": {"email": "kim@partner.example", "email_verified": True},
}


def signed(algorithm: str, audience: str = API, *, lifetime: int = 600) -> dict[str, Any]:
    """Describe a resource whose access tokens are JWTs (RFC 9068)."""
    form = {"accessTokenFormat": "jwt", "jwt": {"sign": {"alg": algorithm}}}
    return form | {"audience": audience, "accessTokenTTL": lifetime, "scope": "CHAT SEARCH"}


def opaque(audience: str) -> dict[str, Any]:
    """Describe a resource whose access tokens say nothing."""
    return {"accessTokenFormat": "opaque", "audience": audience, "accessTokenTTL": 600, "scope": "CHAT SEARCH"}


@dataclass
class World:
    """The provider, whose first issuer has JWTs and whose second has opaque tokens, and an Envoy with the sidecar beside it."""

    provider: OpenIdProvider
    port: int
    log: Path
    serving: ExitStack
    settings: dict[str, Any]

    @property
    def company(self) -> Issuer:
        """The issuer of JWTs."""
        return self.provider.issuers[0]

    @property
    def asked(self) -> Issuer:
        """The issuer of opaque tokens."""
        return self.provider.issuers[1]

    def log_in(self, user: str = "ana", resource: str = API, client: str = "web", **more: str) -> dict[str, Any]:
        """Get tokens of the issuer of JWTs."""
        return self.provider.log_in(self.company, client, user, resource=resource, **more)

    def send(self, token: str) -> Reply:
        """Send a request with an OAuth token."""
        headers = [("Host", "api.acme.com"), ("Content-Length", "0"), ("X-Glean-Auth-Type", "OAUTH")]
        return send(self.port, "POST /search", [*headers, ("Authorization", f"Bearer {token}")])

    def reason(self, token: str) -> str:
        """Return why a token is refused, as the decision log has it."""
        reply = self.send(token)
        assert reply.status == 401, reply
        eventually(lambda: self._decision(reply.body["decision_id"]), pause=0.01, what=self.log.read_text)
        return str(self._decision(reply.body["decision_id"])["reason"])

    def restart(self, keys: list[dict[str, Any]]) -> None:
        """Start the provider again, which signs with the first of these keys of a kind and publishes all of them."""
        self.serving.close()
        self.company.keys = keys
        self.serving.enter_context(self.provider.serving())

    def reload(self, **changes: Any) -> None:
        """Change the entry of the issuer of opaque tokens, and wait until the sidecar has taken it."""
        self.settings["oauth"]["providers"][1].update(changes)
        before = self.log.read_text().count("configuration reloaded")
        new = self.log.parent / "new.yaml"
        new.write_text(json.dumps(self.settings))
        new.replace(self.log.parent / "extauthz.yaml")
        eventually(lambda: self.log.read_text().count("configuration reloaded") > before, pause=0.02, what=self.log.read_text)

    def _decision(self, decision_id: str) -> dict[str, Any]:
        whole = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        decisions = (json.loads(line) for line in whole if f'"decision_id": "{decision_id}"' in line)
        return next(decisions, {})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start all of them."""
    node()
    folder = tmp_path_factory.mktemp("o")
    resources = {
        API: signed("RS256"),
        ES256: signed("ES256"),
        EDDSA: signed("EdDSA"),
        SHORT: signed("RS256", lifetime=1),
        OTHER_API: signed("RS256", OTHER_API),
        OPAQUE: opaque(API),
        OTHER_OPAQUE: opaque(OTHER_API),
    }
    issuers = [Issuer(resources, [new_key(name) for name in ALGORITHMS]), Issuer(resources, [new_key("RS256")])]
    clients = {"web": "w" * 43, "phone": "p" * 43, "api": "a" * 43, "auditor": "a" * 43}
    provider = OpenIdProvider(folder, issuers, clients, USERS, answers={"auditor": "PS256"})
    ports = {name: free_port() for name in ("sidecar", "ops", "upstream", "envoy")}
    common = {"provider": "oidc", "client_ids": ["web"], "audience": API, "domains": ["acme.com"], "scopes": "claim"}
    asked = {"client_secret": {"file": "secret"}, "introspection_client": "api", "opaque_tokens": True}
    settings = {name: value for name, value in SETTINGS.items() if name != "tokens"} | {
        "server": {
            "listen": f"127.0.0.1:{ports['sidecar']}",
            "ops": f"127.0.0.1:{ports['ops']}",
            "drain": "0s",
            "check_timeout": "900ms",
        },
        # How often strangers may have a provider asked is tried elsewhere; a fast machine sends more here within a second.
        "limits": {"remote_per_second": 1000},
        "oauth": {
            "ca_file": str(provider.authority.file),
            "providers": [
                {"name": "company", "issuer": issuers[0].issuer, "jwt_type": "at+jwt", "algorithms": ALGORITHMS, **common},
                {"name": "asked", "issuer": issuers[1].issuer, **common, **asked},
            ],
        },
    }
    for name, text in (("secret", clients["api"]), ("routes.yaml", 'routes: [{match: "POST /search", scope: SEARCH}]')):
        (folder / name).write_text(text)
    file, admin = folder / "extauthz.yaml", folder / "admin.sock"
    file.write_text(json.dumps(settings))
    flags = [
        "--listener",
        f"127.0.0.1:{ports['envoy']}",
        "--upstream",
        f"127.0.0.1:{ports['upstream']}",
        "--admin",
        f"unix://{admin}",
        "--domain",
        "api.acme.com",
    ]
    with ExitStack() as stack:
        serving = stack.enter_context(ExitStack())
        serving.enter_context(provider.serving())
        stack.enter_context(running_upstream(ports["upstream"]))
        stack.enter_context(running_sidecar(file, ports["ops"]))
        stack.enter_context(running_envoy(folder, printed(file, *flags), admin))
        yield World(provider, ports["envoy"], folder / "sidecar.log", serving, settings)


PARTS = ("user", "actor", "client-id", "auth-type", "scopes")


def test_access_tokens_of_the_provider_reach_the_upstream(world: World) -> None:
    for resource in (API, ES256, EDDSA, OPAQUE):
        issuer, name = (world.asked, "asked") if resource == OPAQUE else (world.company, "company")
        token = world.provider.log_in(issuer, "web", "ana", resource=resource)["access_token"]
        reply = world.send(token)
        assert reply.status == 200, (resource, reply)
        seen = {part: reply.body["headers"].get(f"x-extauthz-{part}") for part in PARTS}
        assert seen == dict(zip(PARTS, ("ana@acme.com", f"oauth:{name}:ana", "web", "OAUTH", "SEARCH"), strict=True))
        assert "authorization" not in reply.body["headers"]


def test_a_token_without_the_scope_may_do_nothing(world: World) -> None:
    reply = world.send(world.log_in(scope="openid email CHAT")["access_token"])
    assert (reply.status, reply.body["reason"]) == (403, "scope_missing")


# Arguments of the login, which token of the answer it is about, and why it is refused.
NOT_FOR_US: dict[str, tuple[dict[str, Any], str, str]] = {
    "ID token": ({}, "id_token", "token_kind_wrong"),
    # Nothing tells it from an access token but that it names no client; the header says nothing of it either.
    "ID token of a login without nonce": ({"nonce": ""}, "id_token", "token_client"),
    "for another API": ({"resource": OTHER_API}, "access_token", "token_audience"),
    "of another client": ({"client": "phone"}, "access_token", "token_client"),
    "of a user whose address is not verified": ({"user": "bob"}, "access_token", "token_user_invalid"),
    "of a user of another domain": ({"user": "kim"}, "access_token", "token_user_not_allowed"),
}


@pytest.mark.parametrize(("asked", "token", "reason"), NOT_FOR_US.values(), ids=NOT_FOR_US)
def test_what_the_provider_gives_for_others_is_refused(world: World, asked: dict[str, Any], token: str, reason: str) -> None:
    assert world.reason(world.log_in(**asked)[token]) == reason


ASKED_ABOUT = {
    "for another API": ("web", "ana", OTHER_OPAQUE, "token_audience"),
    "of another client": ("phone", "ana", OPAQUE, "token_client"),
    "of a user whose address is not verified": ("web", "bob", OPAQUE, "token_user_invalid"),
}


@pytest.mark.parametrize(("client", "user", "resource", "reason"), ASKED_ABOUT.values(), ids=ASKED_ABOUT)
def test_what_introspection_says_is_for_others_is_refused(world: World, client: str, user: str, resource: str, reason: str) -> None:
    assert world.reason(world.provider.log_in(world.asked, client, user, resource=resource)["access_token"]) == reason


def test_a_client_without_a_user_is_refused(world: World) -> None:
    for issuer, resource, reason in ((world.company, API, "token_kind_wrong"), (world.asked, OPAQUE, "token_user_invalid")):
        assert world.reason(world.provider.client_credentials(issuer, "web", resource)["access_token"]) == reason


def test_jwts_that_the_provider_does_not_introspect_let_nobody_in_and_stop_nobody_else(world: World) -> None:
    """It answers 400 about them: whoever gets such tokens must not keep others out."""
    for _ in range(12):
        reply = world.send(world.provider.log_in(world.asked, "web", "ana", resource=API)["access_token"])
        assert (reply.status, reply.body["reason"]) == (503, "issuer_unavailable")
    # The log is written by a thread.
    eventually(lambda: "it refuses this client, or it introspects no such tokens (400)" in world.log.read_text())
    assert world.send(world.provider.log_in(world.asked, "web", "ana", resource=OPAQUE)["access_token"]).status == 200


def test_a_revoked_token_is_refused(world: World) -> None:
    token = world.provider.log_in(world.asked, "web", "ana", resource=OPAQUE)["access_token"]
    world.provider.revoke(world.asked, "web", token)
    assert world.reason(token) == "token_inactive"


def test_answers_count_that_the_provider_signs_with_a_listed_algorithm(world: World) -> None:
    """Tokens are new ones, so that no verdict of before counts."""

    def opaque_token(user: str = "ana", resource: str = OPAQUE) -> str:
        return str(world.provider.log_in(world.asked, "web", user, resource=resource)["access_token"])

    world.reload(signed_introspection=True)
    reply = world.send(opaque_token())
    assert (reply.status, reply.body["headers"]["x-extauthz-user"]) == (200, "ana@acme.com")
    assert world.reason(opaque_token(resource=OTHER_OPAQUE)) == "token_audience"
    revoked = opaque_token()
    world.provider.revoke(world.asked, "web", revoked)
    assert world.reason(revoked) == "token_inactive"
    world.reload(introspection_client="auditor")
    assert world.send(opaque_token()).body["reason"] == "issuer_unavailable"
    world.reload(introspection_client="api", signed_introspection=False)


def test_an_expired_token_is_refused(world: World) -> None:
    token = world.log_in(resource=SHORT)["access_token"]
    eventually(lambda: world.send(token).status == 401, pause=0.05)
    assert world.reason(token) == "token_expired"


def test_forgeries_of_its_tokens_are_refused(world: World) -> None:
    token = world.log_in()["access_token"]
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    more = {name: header[name] for name in ("kid", "typ")}
    public = jwt.PyJWK(world.company.keys[0] | {"alg": "RS256"}).key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    forged = {
        "token_algorithm": [jwt.encode(claims, "", algorithm="none", headers=more), signed_with_secret(claims, public, more)],
        "token_signature": [jwt.encode(claims, jwt.PyJWK(new_key("RS256") | {"alg": "RS256"}), headers=more)],
        "token_issuer": [
            jwt.encode(claims | {"iss": f"{claims['iss']}/"}, jwt.PyJWK(world.company.keys[0] | {"alg": "RS256"}), headers=more)
        ],
    }
    assert {reason: {world.reason(each) for each in tokens} for reason, tokens in forged.items()} == {
        reason: {reason} for reason in forged
    }
    assert world.send(token).status == 200


def test_a_new_key_of_the_provider_counts_at_once_and_the_old_one_while_it_is_published(world: World) -> None:
    old = world.log_in()["access_token"]
    assert world.send(old).status == 200
    keys = [new_key("RS256"), *world.company.keys]
    world.restart(keys)
    new = world.log_in()["access_token"]
    assert jwt.get_unverified_header(new)["kid"] == keys[0]["kid"] != jwt.get_unverified_header(old)["kid"]
    eventually(lambda: world.send(new).status == 200, pause=0.05, what=lambda: world.log.read_text()[-3000:])
    assert world.send(old).status == 200
