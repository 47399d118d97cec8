"""A local issuer that plays every provider, in each role that `providers` lists, for tests and the demo."""

from __future__ import annotations

import secrets
import time
from collections import Counter, defaultdict
from functools import cached_property
from typing import Any

import jwt

from extauthz.demo import discovery, providers
from extauthz.demo.faults import MOVED, Fault, Faults, IssuerRequest, Reply, pause, spoiled
from extauthz.demo.keys import IssuerKey, KeyRing
from extauthz.demo.login import LOGIN, LoginProvider
from extauthz.demo.providers import (
    AUDIENCE,
    AZURE_CLIENT,
    CLIENT_ID,
    CLIENT_SECRET,
    GOOGLE_CLIENT,
    ONELOGIN_CLIENT,
    TENANT,
    IssuerRole,
)
from extauthz.demo.wrong_tokens import WrongToken, wrong_token

__all__ = [
    "AUDIENCE",
    "AZURE_CLIENT",
    "CLIENT_ID",
    "CLIENT_SECRET",
    "GOOGLE_CLIENT",
    "ONELOGIN_CLIENT",
    "TENANT",
    "DemoIssuer",
    "Fault",
    "respond",
]

_CONTROLS = ("POST /demo/fault", "POST /demo/heal", "POST /demo/rotate", "GET /demo/requests")
_OPAQUE_PREFIX, _OPAQUE_BYTES = "ya29.", 120


class DemoIssuer:
    """All issuers at one address as an ASGI application, tokens of each for the asking, and faults on demand.

    `requests` counts paths and `seen_tokens_at` keeps which tokens came to them; `leaks` counts requests with a token where it
    does not belong: in a query, or in any form but that of introspection. `profiles` changes what userinfo says of a user,
    None removes a member. `login` is where people log in. Requests to /demo/ control the issuer; they are not counted, and no fault
    reaches them.
    """

    def __init__(self, base: str) -> None:
        """Play the issuers that are reached at `base`, as http://127.0.0.1:9002; keys are made when they are needed."""
        self.issuer = base + providers.OKTA
        self.org_issuer = base
        self.azure_issuer, self.azure_v1_issuer = providers.AZURE_ISSUER, providers.AZURE_V1_ISSUER
        self.onelogin_issuer = base + providers.ONELOGIN
        self.requests: Counter[str] = Counter()
        self.seen_tokens_at: defaultdict[str, set[str]] = defaultdict(set)
        self.leaks = 0
        self.profiles: dict[str, dict[str, Any]] = {}
        self.slow_seconds = 5.0
        self._base = base
        self._keys = KeyRing()
        self.login = LoginProvider(base, self._keys)
        self._issued: dict[str, providers.Issued] = {}
        self._faults = Faults()

    def issue(self, role: IssuerRole, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue an access token that lives `lifetime` seconds; `changes` replace claims, None removes one."""
        now = int(_now())
        claims = providers.present(providers.claims_of(role, self._base, user, now, now + lifetime) | changes)
        if role is IssuerRole.GSUITE:
            token = _opaque()
        else:
            key = self._org_key if role is IssuerRole.OKTA_ORG else self._keys.signing()
            token = jwt.encode(claims, key.private, algorithm="RS256", headers=providers.headers_of(role, key.kid))
        expiry = claims.get("exp")
        expires_at = expiry if isinstance(expiry, int | float) else now + lifetime
        self._issued[token] = providers.Issued(role, user, claims, expires_at)
        return token

    def token(self, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue an access token of the Okta custom server."""
        return self.issue(IssuerRole.OKTA, user, lifetime=lifetime, **changes)

    def okta_org_token(self, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue an access token of the Okta org server, signed with a key that no set holds."""
        return self.issue(IssuerRole.OKTA_ORG, user, lifetime=lifetime, **changes)

    def azure_token(self, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue an Azure access token of version 2.0."""
        return self.issue(IssuerRole.AZURE, user, lifetime=lifetime, **changes)

    def azure_v1_token(self, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue an Azure access token of version 1.0."""
        return self.issue(IssuerRole.AZURE_V1, user, lifetime=lifetime, **changes)

    def gsuite_token(self, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue an opaque Google access token; `changes` replace members of what tokeninfo says, as they are given."""
        return self.issue(IssuerRole.GSUITE, user, lifetime=lifetime, **changes)

    def onelogin_token(self, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue a OneLogin access token, which does not hold the user's address."""
        return self.issue(IssuerRole.ONELOGIN, user, lifetime=lifetime, **changes)

    def wrong_token(self, wrong: WrongToken, user: str) -> str:
        """Issue a token that no API should take."""
        now = int(_now())
        return wrong_token(providers.claims_of(wrong.role, self._base, user, now, now + 3600), wrong, self._keys.signing())

    def examples(self, user: str) -> dict[str, str]:
        """Issue a token of every role, and every wrong one, by the shell variable that holds it in the demo."""
        genuine = {role.variable: self.issue(role, user) for role in IssuerRole}
        return genuine | {wrong.variable: self.wrong_token(wrong, user) for wrong in WrongToken}

    def forged(self, token: str) -> str:
        """Return the same header and claims signed with nobody's key; for an opaque token another one of its shape."""
        if token.count(".") != 2:
            return _opaque()
        signed = token.rpartition(".")[0]
        algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
        signature = algorithm.sign(signed.encode("ascii"), self._nobodys_key.private)
        return f"{signed}.{jwt.utils.base64url_encode(signature).decode('ascii')}"

    def revoke(self, token: str) -> None:
        """Let no endpoint accept a token any more; its signature stays good."""
        self._issued.pop(token, None)

    @cached_property
    def _org_key(self) -> IssuerKey:
        return IssuerKey.generate()

    @cached_property
    def _nobodys_key(self) -> IssuerKey:
        return IssuerKey.generate()

    def publish_next_key(self) -> None:
        """Add a key to every set; tokens are still signed with the one before."""
        self._keys.publish_next()

    def use_next_key(self) -> None:
        """Sign with the newest key from now on; it is published if it was not."""
        self._keys.use_next()

    def withdraw_old_keys(self) -> None:
        """Remove every key but the signing one from the sets."""
        self._keys.withdraw_old()

    def fail(self, path_prefix: str, fault: Fault) -> None:
        """Let every path that starts so fail, until `heal`; of several prefixes the longest counts."""
        self._faults.add(path_prefix, fault)

    def heal(self) -> None:
        """End all faults."""
        self._faults.clear()

    def document(self, path: str) -> dict[str, Any] | None:
        """Return what stands at a path: discovery, keys, or nothing."""
        if path in discovery.KEY_SETS:
            return {"keys": [key.published(discovery.KEY_SETS[path]) for key in self._keys.published()]}
        return discovery.discovery_documents(self._base).get(path)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer an HTTP request (ASGI)."""
        request = await IssuerRequest.from_asgi(scope, receive)
        path = request.path
        if path.startswith("/demo/"):
            await self._control(request).send(send)
            return
        self.requests[path] += 1
        if request.tokens:
            self.seen_tokens_at[path] |= request.tokens
        fault = self._faults.at(path)
        if fault is Fault.SLOW:
            await pause(receive, self.slow_seconds)
        reply = self._answer(request, path.removesuffix(MOVED))
        await (reply if fault is None else spoiled(fault, reply, self._base, path)).send(send)

    def _answer(self, request: IssuerRequest, path: str) -> Reply:
        if request.tokens_in_query or (request.tokens_in_form and path != providers.INTROSPECTION):
            self.leaks += 1
            return Reply(400, {"error": "invalid_request", "error_description": "A token belongs in the Authorization header"})
        match request.method, path:
            case "POST", providers.INTROSPECTION:
                return self._introspect(request)
            case "GET" | "POST", providers.TOKENINFO:
                return self._tokeninfo(request)
            case "GET" | "POST", _ if path in providers.USERINFO:
                return self._userinfo(providers.USERINFO[path], request)
            case _ if path.startswith(f"{LOGIN}/"):
                return self.login.answer(request, path, _now())
            case "GET" | "HEAD", _ if (document := self.document(path)) is not None:
                return Reply(200, document)
        return Reply(404, {"error": "not_found"})

    def _introspect(self, request: IssuerRequest) -> Reply:
        if request.client != (CLIENT_ID, CLIENT_SECRET):
            return Reply(401, {"error": "invalid_client"}, {"www-authenticate": f'Basic realm="{self._base}"'})
        if len(request.form.get("token", ())) != 1:
            return Reply(400, {"error": "invalid_request", "error_description": "The parameter token is needed, once"})
        token = self._valid_token(IssuerRole.OKTA_ORG, request.form["token"][0])
        if token is None or token.claims.get("cid") != CLIENT_ID:
            return Reply(200, {"active": False})
        return Reply(200, providers.introspection(token))

    def _tokeninfo(self, request: IssuerRequest) -> Reply:
        token = self._valid_token(IssuerRole.GSUITE, request.credentials("bearer"))
        if token is None:
            return Reply(400, {"error": "invalid_token", "error_description": "Invalid Value"})
        return Reply(200, providers.tokeninfo(token, _now()))

    def _userinfo(self, role: IssuerRole, request: IssuerRequest) -> Reply:
        token = self._valid_token(role, request.credentials("bearer"))
        challenge = f'Bearer realm="{self._base}"'
        if not request.authorization:
            return Reply(401, {"error": "invalid_request"}, {"www-authenticate": challenge})
        if token is None:
            return Reply(401, {"error": "invalid_token"}, {"www-authenticate": f'{challenge}, error="invalid_token"'})
        if "openid" not in token.scopes:
            scope_challenge = f'{challenge}, error="insufficient_scope", scope="openid"'
            return Reply(403, {"error": "insufficient_scope"}, {"www-authenticate": scope_challenge})
        return Reply(200, providers.present(providers.userinfo(token) | self.profiles.get(token.user, {})))

    def _valid_token(self, role: IssuerRole, text: str) -> providers.Issued | None:
        token = self._issued.get(text)
        return token if token is not None and token.role is role and _now() < token.expires_at else None

    def _control(self, request: IssuerRequest) -> Reply:
        try:
            match request.method, request.path:
                case "POST", "/demo/fault":
                    self._faults.add_json(request.body)
                case "POST", "/demo/heal":
                    self.heal()
                case "POST", "/demo/rotate":
                    self.publish_next_key()
                    self.use_next_key()
                    return Reply(200, {"signing": self._keys.signing().kid})
                case "GET", "/demo/requests":
                    return Reply(200, dict(self.requests))
                case _:
                    raise ValueError("no such control; use " + ", ".join(_CONTROLS))
        except ValueError as error:
            return Reply(400, {"error": str(error)})
        return Reply(200, {"faults": self._faults.by_path()})


async def respond(send: Any, status: int, document: Any) -> None:
    """Send a JSON document (ASGI)."""
    await Reply(status, document).send(send)


def _now() -> float:
    return time.time()  # noqa: TID251 - a token is issued, and ends, now


def _opaque() -> str:
    return _OPAQUE_PREFIX + secrets.token_urlsafe(_OPAQUE_BYTES)
