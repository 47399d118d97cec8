"""Logins at the local issuer: it refuses what a provider must refuse, and forges nothing but what it was told to forge."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlencode

import jwt
import pytest

from extauthz.demo.faults import IssuerRequest, Reply
from extauthz.demo.forgeries import Forgery
from extauthz.demo.keys import KeyRing
from extauthz.demo.login import CODE_LIFETIME, CONSOLE_CLIENT, CONSOLE_SECRET, USERS, LoginProvider, subject
from tests.support.world import NOW

BASE = "http://127.0.0.1:9002"
ISSUER = f"{BASE}/login"
REDIRECT = "http://127.0.0.1:9003/login/callback"
VERIFIER = "v" * 43
ANA = "ana@acme.com"
KEYS = KeyRing()
ASKED = {
    "response_type": "code",
    "client_id": CONSOLE_CLIENT,
    "redirect_uri": REDIRECT,
    "scope": "openid email",
    "state": "s",
    "nonce": "n",
    "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode(),
    "code_challenge_method": "S256",
}


@pytest.fixture
def provider() -> LoginProvider:
    made = LoginProvider(BASE, KEYS)
    made.register(CONSOLE_CLIENT, CONSOLE_SECRET, [REDIRECT])
    made.register("public", None, [REDIRECT])
    made.register("other", "secret", [f"{REDIRECT}/other"])
    return made


def fields(given: dict[str, str | None]) -> dict[str, list[str]]:
    return parse_qs(urlencode({name: value for name, value in given.items() if value is not None}), keep_blank_values=True)


def authorize(provider: LoginProvider, user: str | None = ANA, **changes: str | None) -> Reply:
    """Ask for a code as a browser does: for the page, or with a user as what is pressed there."""
    path = "/login/authorize"
    query, form = fields({**ASKED, **changes}), fields({"user": user})
    request = IssuerRequest("GET" if user is None else "POST", path, "", query, form, b"")
    return provider.answer(request, path, NOW)


def answered(reply: Reply) -> dict[str, str]:
    """Return what a browser is sent back with."""
    assert reply.status == 303
    address, _, query = reply.headers["location"].partition("?")
    assert address == REDIRECT
    return {name: value for name, (value,) in parse_qs(query).items()}


def basic(client_id: str, secret: str) -> str:
    return f"Basic {base64.b64encode(f'{client_id}:{secret}'.encode()).decode()}"


CONSOLE = basic(CONSOLE_CLIENT, CONSOLE_SECRET)


def exchange(provider: LoginProvider, code: str, authorization: str = CONSOLE, now: float = NOW, **changes: str | None) -> Reply:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER, **changes}
    request = IssuerRequest("POST", "/login/token", authorization, {}, fields(form), b"")
    return provider.answer(request, "/login/token", now)


def code_of(provider: LoginProvider, **changes: str | None) -> str:
    return answered(authorize(provider, **changes))["code"]


def error_of(reply: Reply) -> tuple[int, Any]:
    return reply.status, reply.document["error"]


def test_a_login_ends_in_an_id_token_that_the_published_key_verifies(provider: LoginProvider) -> None:
    tokens = exchange(provider, code_of(provider)).document
    request = IssuerRequest("GET", "/login/keys", "", {}, {}, b"")
    (key,) = provider.answer(request, request.path, NOW).document["keys"]
    header = jwt.get_unverified_header(tokens["id_token"])
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(tokens["id_token"], jwt.PyJWK(key), ["RS256"], audience=CONSOLE_CLIENT, issuer=ISSUER, options=options)

    assert header == {"alg": "RS256", "kid": key["kid"], "typ": "JWT"}
    assert claims == {
        "iss": ISSUER,
        "sub": subject(ANA),
        "aud": CONSOLE_CLIENT,
        "iat": int(NOW),
        "exp": int(NOW) + 300,
        "auth_time": int(NOW),
        "nonce": "n",
        "email": ANA,
        "email_verified": True,
    }
    asking = IssuerRequest("GET", "/login/userinfo", f"Bearer {tokens['access_token']}", {}, {}, b"")
    assert provider.answer(asking, asking.path, NOW).document == {"sub": subject(ANA), "email": ANA, "email_verified": True}


def test_the_page_offers_every_user_and_repeats_nothing_as_markup(provider: LoginProvider) -> None:
    page = authorize(provider, user=None, state='"><script>')
    text = page.body.decode()

    assert (page.status, page.headers["content-type"], page.headers["cache-control"]) == (
        200,
        "text/html; charset=utf-8",
        "no-store",
    )
    assert all(f'value="{user}"' in text for user in USERS.values())
    assert "<script" not in text
    assert "state=%22%3E%3Cscript%3E" in text


def test_an_answer_brings_state_and_issuer(provider: LoginProvider) -> None:
    assert set(answered(authorize(provider))) == {"code", "state", "iss"}
    assert answered(authorize(provider, state=None)).keys() == {"code", "iss"}
    provider.names_itself = False
    assert answered(authorize(provider)).keys() == {"code", "state"}


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "unknown"},
        {"client_id": None},
        {"client_id": "other"},
        {"redirect_uri": None},
        {"redirect_uri": f"{REDIRECT}/"},
        {"redirect_uri": f"{REDIRECT}?next=/"},
        {"redirect_uri": "http://localhost:9003/login/callback"},
        {"redirect_uri": "https://evil.com/login/callback"},
    ],
)
def test_who_is_not_known_is_sent_nowhere(provider: LoginProvider, changes: dict[str, str | None]) -> None:
    for user in (None, ANA):
        assert error_of(authorize(provider, user, **changes)) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"scope": "email"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"user": "eve@acme.com"}, "access_denied"),
    ],
)
def test_a_wrong_request_is_sent_back_as_an_error(provider: LoginProvider, changes: dict[str, str | None], error: str) -> None:
    assert answered(authorize(provider, **changes)) == {"error": error, "state": "s", "iss": ISSUER}


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "made-up"},
        {"redirect_uri": f"{REDIRECT}/"},
        {"redirect_uri": None},
        {"code_verifier": "w" * 43},
        {"code_verifier": None},
        {"now": NOW + CODE_LIFETIME + 1},
        {"authorization": basic("other", "secret")},
    ],
)
def test_a_code_is_for_one_client_one_address_and_one_verifier(provider: LoginProvider, changes: dict[str, Any]) -> None:
    code = code_of(provider)
    assert error_of(exchange(provider, **{"code": code} | changes)) == (400, "invalid_grant")


def test_a_code_is_taken_once(provider: LoginProvider) -> None:
    code = code_of(provider)
    assert exchange(provider, code, now=NOW + CODE_LIFETIME).status == 200
    assert error_of(exchange(provider, code)) == (400, "invalid_grant")
    spoiled = code_of(provider)
    assert error_of(exchange(provider, spoiled, code_verifier="w")) == (400, "invalid_grant")
    assert error_of(exchange(provider, spoiled)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("client_id", "authorization", "form", "status"),
    [
        (CONSOLE_CLIENT, CONSOLE, {}, 200),
        (CONSOLE_CLIENT, "", {"client_id": CONSOLE_CLIENT, "client_secret": CONSOLE_SECRET}, 200),
        (CONSOLE_CLIENT, "", {"client_id": CONSOLE_CLIENT}, 401),
        (CONSOLE_CLIENT, "", {"client_id": CONSOLE_CLIENT, "client_secret": "wrong"}, 401),
        (CONSOLE_CLIENT, basic(CONSOLE_CLIENT, "wrong"), {}, 401),
        (CONSOLE_CLIENT, "Bearer abc", {"client_id": CONSOLE_CLIENT}, 401),
        (CONSOLE_CLIENT, CONSOLE, {"client_id": CONSOLE_CLIENT, "client_secret": CONSOLE_SECRET}, 401),
        (CONSOLE_CLIENT, "", {}, 401),
        ("public", "", {"client_id": "public"}, 200),
        ("public", "", {"client_id": "public", "client_secret": "guess"}, 401),
        ("public", "", {"client_id": "unknown"}, 401),
    ],
)
def test_a_client_authenticates(
    provider: LoginProvider, client_id: str, authorization: str, form: dict[str, str], status: int
) -> None:
    assert exchange(provider, code_of(provider, client_id=client_id), authorization, **form).status == status


def test_nothing_else_is_answered(provider: LoginProvider) -> None:
    for method, path in (("GET", "/login/token"), ("POST", "/login/keys"), ("PUT", "/login/authorize"), ("GET", "/login/other")):
        assert provider.answer(IssuerRequest(method, path, "", {}, {}, b""), path, NOW).status == 404
    assert error_of(exchange(provider, code_of(provider), grant_type="password")) == (400, "unsupported_grant_type")
    asking = IssuerRequest("GET", "/login/userinfo", "Bearer made-up", {}, {}, b"")
    assert error_of(provider.answer(asking, asking.path, NOW)) == (401, "invalid_token")


# What each forgery changes: of the header (with the signature), and of the claims.
OF_THE_HEADER = {
    Forgery.ALG_NONE: {"alg": "none"},
    Forgery.HS256: {"alg": "HS256"},
    Forgery.NO_KEY_ID: {"kid": None},
    Forgery.ACCESS_TOKEN: {"typ": "at+jwt"},
    Forgery.CRITICAL_HEADER: {"crit": ["exp"]},
}
NOT_IN_THE_CLAIMS = {*OF_THE_HEADER, Forgery.OTHER_KEY, Forgery.UNKNOWN_KEY}
WITHOUT_A_TOKEN = {Forgery.NO_ID_TOKEN, Forgery.NOT_A_TOKEN}


@pytest.mark.parametrize("forgery", sorted(set(Forgery) - WITHOUT_A_TOKEN))
def test_a_forgery_changes_what_it_names_and_nothing_else(provider: LoginProvider, forgery: Forgery) -> None:
    good = exchange(provider, code_of(provider)).document["id_token"]
    provider.forgery = forgery
    forged = exchange(provider, code_of(provider)).document["id_token"]
    (header, claims, signature), (other_header, other_claims, other_signature) = parts(good), parts(forged)

    changed = {name: other_header.get(name) for name in header | other_header if header.get(name) != other_header.get(name)}
    if forgery is Forgery.UNKNOWN_KEY:
        assert changed.keys() == {"kid"}
    else:
        assert changed == OF_THE_HEADER.get(forgery, {})
    assert (claims == other_claims) is (forgery in NOT_IN_THE_CLAIMS)
    assert other_signature != signature


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, claims, signature = token.split(".")
    read = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, claims)]
    return read[0], read[1], signature


def test_a_forgery_can_be_that_there_is_no_token(provider: LoginProvider) -> None:
    for forgery, expected in ((Forgery.NO_ID_TOKEN, None), (Forgery.NOT_A_TOKEN, "demo")):
        provider.forgery = forgery
        assert exchange(provider, code_of(provider)).document.get("id_token") == expected
