"""Logins at the local issuer: an OpenID provider with a page of its own, and ID tokens that are forged on demand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlencode

from extauthz.demo.faults import IssuerRequest, Reply
from extauthz.demo.forgeries import Forgery, id_token, userinfo
from extauthz.demo.keys import IssuerKey, KeyRing
from extauthz.demo.providers import Document, present

LOGIN = "/login"
CONSOLE_CLIENT, CONSOLE_SECRET = "0oa1console", "demo-console-secret"
USERS: Mapping[str, str] = MappingProxyType(
    {
        "Super admin": "cto@acme.com",
        "Admin": "ana@acme.com",
        "Viewer": "audit@acme.com",
        "Somebody without a role": "stranger@acme.com",
    }
)
"""Whom the page offers to log in as."""
CODE_LIFETIME = 60.0
"""Seconds."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Demo login</title>
<style>body {{ font: 16px system-ui; margin: 10vh auto; width: 20rem }}
button {{ display: block; font: inherit; margin: .5rem 0; padding: .6rem; width: 100% }}</style></head>
<body><main><h1>Demo login</h1><p>Log in to <b>{client}</b> as</p>
<form method="post" action="{action}">{buttons}</form></main></body></html>
"""
_BUTTON = '<button name="user" value="{user}">{name} ({user})</button>'
_PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


@dataclass(frozen=True, slots=True)
class LoginClient:
    """A client, which may be sent back to these addresses exactly; a public one has no secret."""

    secret: str | None
    redirect_uris: frozenset[str]


@dataclass(frozen=True, slots=True)
class Login:
    """A user who logged in for a client, at a time."""

    client_id: str
    user: str
    nonce: str
    authenticated_at: int


@dataclass(frozen=True, slots=True)
class _Grant:
    login: Login
    redirect_uri: str
    challenge: str


class LoginProvider:
    """The OpenID provider below LOGIN; `forgery` says what is wrong with the ID tokens that it gives, None for nothing.

    With `names_itself` its answers in the browser say whose they are (RFC 9207), with `names_keys` its keys have a `kid`.
    `changes` replace members of its discovery document, None removes one.

    A page is shown at each login, nobody stays logged in: so `prompt=login` and `max_age` are honoured.
    """

    def __init__(self, base: str, keys: KeyRing) -> None:
        """Be reached at `base`, and sign with these keys."""
        self.issuer = base + LOGIN
        self.forgery: Forgery | None = None
        self.names_itself = self.names_keys = True
        self.changes: Document = {}
        self._keys = keys
        self._clients: dict[str, LoginClient] = {}
        self._grants: dict[str, _Grant] = {}
        self._logins: dict[str, Login] = {}

    def register(self, client_id: str, secret: str | None, redirect_uris: Collection[str]) -> None:
        """Know a client."""
        self._clients[client_id] = LoginClient(secret, frozenset(redirect_uris))

    def answer(self, request: IssuerRequest, path: str, now: float) -> Reply:
        """Answer a request to a path below LOGIN."""
        match request.method, path.removeprefix(LOGIN):
            case "GET" | "HEAD", "/.well-known/openid-configuration":
                return Reply(200, self._discovery())
            case "GET" | "HEAD", "/keys":
                return Reply(200, {"keys": [self._published(key) for key in self._keys.published()]})
            case "GET" | "POST", "/authorize":
                return self._authorize(request, now)
            case "POST", "/token":
                return self._token(request, now)
            case "GET", "/userinfo":
                return self._userinfo(request)
        return Reply(404, {"error": "not_found"})

    def _published(self, key: IssuerKey) -> Document:
        members: Document = {**key.published({"alg": "RS256"})}
        return members if self.names_keys else present(members | {"kid": None})

    def _discovery(self) -> Document:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            # A client that took its algorithms from here would let everybody in.
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": self.names_itself,
        }
        return present(document | self.changes)

    def _authorize(self, request: IssuerRequest, now: float) -> Reply:
        client_id, redirect_uri = _one(request.query, "client_id"), _one(request.query, "redirect_uri")
        client = self._clients.get(client_id)
        if client is None or redirect_uri not in client.redirect_uris:
            # Who is not known is sent nowhere (RFC 6749 4.1.2.1).
            return Reply(400, {"error": "invalid_request", "error_description": "Unknown client_id or redirect_uri"})
        if error := _request_error(request.query):
            return self._back(request, redirect_uri, {"error": error})
        if request.method == "GET":
            return _page(client_id, request)
        if (user := _one(request.form, "user")) not in USERS.values():
            return self._back(request, redirect_uri, {"error": "access_denied"})
        code = secrets.token_urlsafe(32)
        login = Login(client_id, user, _one(request.query, "nonce"), int(now))
        self._grants[code] = _Grant(login, redirect_uri, _one(request.query, "code_challenge"))
        return self._back(request, redirect_uri, {"code": code})

    def _back(self, request: IssuerRequest, redirect_uri: str, answer: Mapping[str, str]) -> Reply:
        state = _one(request.query, "state")
        named = {"iss": self.issuer} if self.names_itself else {}
        query = urlencode({**answer, **named} | ({"state": state} if state else {}))
        return Reply(303, {}, {"location": f"{redirect_uri}?{query}", "cache-control": "no-store"})

    def _token(self, request: IssuerRequest, now: float) -> Reply:
        client_id, is_known = self._authenticate(request)
        if not is_known:
            return Reply(401, {"error": "invalid_client"}, {"www-authenticate": f'Basic realm="{self.issuer}"'})
        if _one(request.form, "grant_type") != "authorization_code":
            return Reply(400, {"error": "unsupported_grant_type"})
        grant = self._grants.pop(_one(request.form, "code"), None)
        if grant is None or not _is_for(grant, client_id, request.form) or now - grant.login.authenticated_at > CODE_LIFETIME:
            return Reply(400, {"error": "invalid_grant"})
        access_token = f"demo-{secrets.token_urlsafe(32)}"
        self._logins[access_token] = grant.login
        answer = {"access_token": access_token, "token_type": "Bearer", "expires_in": 300}
        if self.forgery is not Forgery.NO_ID_TOKEN:
            secret = self._clients[client_id].secret
            login = grant.login
            claims = self._claims(login, now)
            answer["id_token"] = id_token(claims, self.forgery, self._keys.signing(), secret)
        return Reply(200, answer, {"cache-control": "no-store"})

    def _authenticate(self, request: IssuerRequest) -> tuple[str, bool]:
        """Return the client that a request names, and whether it is that client (RFC 6749 2.3.1)."""
        by_header = bool(request.authorization)
        client_id, secret = request.client if by_header else (_one(request.form, "client_id"), _one(request.form, "client_secret"))
        client = self._clients.get(client_id)
        if client is None or (by_header and "client_secret" in request.form):
            return client_id, False
        return client_id, hmac.compare_digest(secret.encode(), (client.secret or "").encode())

    def _claims(self, login: Login, now: float) -> Document:
        return {
            "iss": self.issuer,
            "sub": subject(login.user),
            "aud": login.client_id,
            "iat": int(now),
            "exp": int(now) + 300,
            "auth_time": login.authenticated_at,
            "nonce": login.nonce,
            "email": login.user,
            "email_verified": True,
        }

    def _userinfo(self, request: IssuerRequest) -> Reply:
        login = self._logins.get(request.credentials("bearer"))
        if login is None:
            return Reply(401, {"error": "invalid_token"}, {"www-authenticate": 'Bearer error="invalid_token"'})
        claims = {"sub": subject(login.user), "email": login.user, "email_verified": True}
        return Reply(200, userinfo(claims, self.forgery))


def subject(user: str) -> str:
    """Return the `sub` of a user, which says nothing of the address."""
    return hashlib.sha256(f"{LOGIN} {user}".encode()).hexdigest()[:20]


def _request_error(query: Mapping[str, list[str]]) -> str:
    """Return what is wrong with a request for a code, or "" (RFC 6749 4.1.2.1, OpenID Connect Core 3.1.2.6)."""
    if _one(query, "response_type") != "code":
        return "unsupported_response_type"
    if "openid" not in _one(query, "scope").split():
        return "invalid_scope"
    if not _one(query, "code_challenge") or _one(query, "code_challenge_method") != "S256":
        return "invalid_request"
    if _one(query, "response_mode") not in ("", "query") or not (_one(query, "max_age") or "0").isdigit():
        return "invalid_request"
    return "login_required" if _one(query, "prompt") == "none" else ""


def _is_for(grant: _Grant, client_id: str, form: Mapping[str, list[str]]) -> bool:
    challenge = hashlib.sha256(_one(form, "code_verifier").encode()).digest()
    right_verifier = base64.urlsafe_b64encode(challenge).rstrip(b"=").decode() == grant.challenge
    return right_verifier and (grant.login.client_id, grant.redirect_uri) == (client_id, _one(form, "redirect_uri"))


def _page(client_id: str, request: IssuerRequest) -> Reply:
    action = f"{request.path}?{urlencode(request.query, doseq=True)}"
    buttons = "".join(_BUTTON.format(name=html.escape(name), user=html.escape(user)) for name, user in USERS.items())
    page = _PAGE.format(client=html.escape(client_id), action=html.escape(action), buttons=buttons)
    return Reply(200, {}, _PAGE_HEADERS, raw=page.encode())


def _one(fields: Mapping[str, list[str]], name: str) -> str:
    """Return the value of a field that came once, else ""."""
    values = fields.get(name, [])
    return values[0] if len(values) == 1 else ""
