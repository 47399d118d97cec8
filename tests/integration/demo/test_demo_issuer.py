"""The local issuer of tests and demo: shapes as recorded from the providers, and every fault as a client sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import jwt
import pytest

from extauthz.demo.issuer import (
    AUDIENCE,
    AZURE_CLIENT,
    CLIENT_ID,
    CLIENT_SECRET,
    GOOGLE_CLIENT,
    ONELOGIN_CLIENT,
    TENANT,
    DemoIssuer,
    Fault,
)
from tests.support.served_issuer import IssuerServer, issuer_server
from tests.support.waiting import until

ANA = "ana@acme.com"
DISCOVERY = "/.well-known/openid-configuration"
OKTA, OKTA_ORG, ONELOGIN = f"/oauth2/default{DISCOVERY}", DISCOVERY, f"/oidc/2{DISCOVERY}"
AZURE, AZURE_V1 = f"/{TENANT}/v2.0{DISCOVERY}", f"/{TENANT}{DISCOVERY}"
INTROSPECT, OKTA_USERINFO = "/oauth2/v1/introspect", "/oauth2/v1/userinfo"
TOKENINFO, GOOGLE_USERINFO, ONELOGIN_USERINFO = "/tokeninfo", "/v1/userinfo", "/oidc/2/me"
OKTA_KEYS, ORG_KEYS = "/oauth2/default/v1/keys", "/oauth2/v1/keys"
KEY_SETS = {
    OKTA_KEYS: {"alg"},
    ORG_KEYS: {"alg"},
    f"/{TENANT}/discovery/v2.0/keys": {"x5t", "issuer"},
    f"/{TENANT}/discovery/keys": {"x5t"},
    "/oidc/2/certs": set(),
}

# The members of documents and tokens as the providers have them, in the order of the alphabet.
OKTA_ORG_MEMBERS = """
    authorization_endpoint id_token_signing_alg_values_supported introspection_endpoint
    introspection_endpoint_auth_methods_supported issuer jwks_uri request_object_signing_alg_values_supported token_endpoint
    userinfo_endpoint
"""
AZURE_MEMBERS = """
    authorization_endpoint claims_supported id_token_signing_alg_values_supported issuer jwks_uri request_uri_parameter_supported
    response_modes_supported response_types_supported scopes_supported subject_types_supported tenant_region_scope token_endpoint
    token_endpoint_auth_methods_supported userinfo_endpoint
"""
ONELOGIN_MEMBERS = """
    claims_supported grant_types_supported id_token_signing_alg_values_supported introspection_endpoint
    introspection_endpoint_auth_methods_supported issuer jwks_uri revocation_endpoint scopes_supported token_endpoint
    userinfo_endpoint userinfo_signing_alg_values_supported
"""
OKTA_CLAIMS = "aud cid exp iat iss jti scp sub uid ver"
AZURE_CLAIMS = "aud azp azpacr exp iat iss nbf oid preferred_username scp sub tid ver"
AZURE_V1_CLAIMS = "appid appidacr aud email exp iat idp iss nbf oid scp sub tid unique_name upn ver"
TOKENINFO_MEMBERS = "access_type aud azp email email_verified exp expires_in scope sub"
MAKERS = ("token", "okta_org_token", "azure_token", "azure_v1_token", "gsuite_token", "onelogin_token")
JWTS = {"token": OKTA, "azure_token": AZURE, "azure_v1_token": AZURE_V1, "onelogin_token": ONELOGIN}
ONLINE = {
    OKTA_USERINFO: "okta_org_token",
    INTROSPECT: "okta_org_token",
    TOKENINFO: "gsuite_token",
    GOOGLE_USERINFO: "gsuite_token",
    ONELOGIN_USERINFO: "onelogin_token",
}


class Served:
    """The issuer on a free port, and a client of it."""

    def __init__(self, base: str) -> None:
        self.issuer = DemoIssuer(base)
        self.base = base
        authorities = httpx2.create_ssl_context(trust_env=False)
        self.client = httpx2.AsyncClient(base_url=base, timeout=10, trust_env=False, verify=authorities)

    async def document(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        return answer.json()

    async def keys(self, path: str) -> dict[str, dict[str, Any]]:
        return {key["kid"]: key for key in (await self.document(path))["keys"]}

    async def present(self, path: str, token: str) -> httpx2.Response:
        """Show a token to an endpoint as its clients do."""
        if path == INTROSPECT:
            form = {"token": token, "token_type_hint": "access_token"}
            return await self.client.post(path, data=form, auth=(CLIENT_ID, CLIENT_SECRET))
        return await self.client.request("POST" if path == TOKENINFO else "GET", path, headers={"authorization": f"Bearer {token}"})

    async def accepts(self, path: str, token: str) -> bool:
        """Tell whether an endpoint vouches for a token; it says no in its own way."""
        answer = await self.present(path, token)
        if answer.status_code == 200 and answer.json().get("active", True):
            return True
        match path:
            case "/oauth2/v1/introspect":
                assert (answer.status_code, answer.json()) == (200, {"active": False})
            case "/tokeninfo":
                assert answer.status_code == 400
                assert answer.json() == {"error": "invalid_token", "error_description": "Invalid Value"}
            case _:
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == f'Bearer realm="{self.base}", error="invalid_token"'
        return False


@pytest.fixture(scope="module")
def server() -> Iterator[IssuerServer]:
    with issuer_server() as made:
        yield made


@pytest.fixture
async def served(server: IssuerServer) -> AsyncIterator[Served]:
    made = Served(server.base)
    server.issuer = made.issuer
    yield made
    await made.client.aclose()


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})  # type: ignore[no-any-return]


def is_signed_by(token: str, key: dict[str, Any]) -> bool:
    try:
        jwt.decode(token, jwt.PyJWK(key, algorithm="RS256"), algorithms=["RS256"], options={"verify_aud": False})
    except jwt.InvalidSignatureError:
        return False
    return True


# --- documents


@pytest.mark.parametrize(
    ("path", "members"),
    [
        (OKTA, "issuer jwks_uri"),
        (OKTA_ORG, OKTA_ORG_MEMBERS),
        (AZURE, AZURE_MEMBERS),
        (AZURE_V1, AZURE_MEMBERS),
        (ONELOGIN, ONELOGIN_MEMBERS),
    ],
)
async def test_discovery_has_the_members_of_the_provider(served: Served, path: str, members: str) -> None:
    document = await served.document(path)

    assert sorted(document) == members.split()
    assert document["jwks_uri"].removeprefix(served.base) in KEY_SETS


async def test_discovery_names_its_issuer_and_endpoints(served: Served) -> None:
    issuer, base = served.issuer, served.base
    named = {path: (await served.document(path))["issuer"] for path in (OKTA, OKTA_ORG, AZURE, AZURE_V1, ONELOGIN)}

    assert named == {
        OKTA: issuer.issuer,
        OKTA_ORG: issuer.org_issuer,
        AZURE: issuer.azure_issuer,
        AZURE_V1: issuer.azure_v1_issuer,
        ONELOGIN: issuer.onelogin_issuer,
    }
    assert (issuer.issuer, issuer.org_issuer, issuer.onelogin_issuer) == (f"{base}/oauth2/default", base, f"{base}/oidc/2")
    assert issuer.azure_issuer == f"https://login.microsoftonline.com/{TENANT}/v2.0"
    assert issuer.azure_v1_issuer == f"https://sts.windows.net/{TENANT}/"
    org, onelogin = await served.document(OKTA_ORG), await served.document(ONELOGIN)
    assert (org["userinfo_endpoint"], org["introspection_endpoint"]) == (base + OKTA_USERINFO, base + INTROSPECT)
    assert onelogin["userinfo_endpoint"] == base + ONELOGIN_USERINFO
    assert onelogin["id_token_signing_alg_values_supported"] == ["HS256", "RS256", "PS256"]


@pytest.mark.parametrize("path", KEY_SETS)
async def test_a_key_set_has_the_members_of_the_provider(served: Served, path: str) -> None:
    (key,) = (await served.keys(path)).values()

    assert set(key) == {"kty", "use", "kid", "n", "e"} | KEY_SETS[path]
    assert (key["kty"], key["use"]) == ("RSA", "sig")
    assert key.get("x5t", key["kid"]) == key["kid"]
    assert key.get("issuer", served.issuer.azure_issuer) == served.issuer.azure_issuer


async def test_nothing_else_is_there(served: Served) -> None:
    for path in ("/", "/oauth2", f"/oauth2/other{DISCOVERY}", "/oauth2/v1/token", "/oidc/2/token/introspection"):
        assert (await served.client.get(path)).status_code == 404
    assert (await served.client.post(OKTA, json={})).status_code == 404
    assert (await served.client.head(OKTA)).status_code == 200


# --- access tokens


@pytest.mark.parametrize(
    ("maker", "header", "claims", "clients"),
    [
        ("token", "alg kid", OKTA_CLAIMS, {"cid": CLIENT_ID, "aud": AUDIENCE, "sub": ANA, "scp": ["openid", "email"], "ver": 1}),
        ("okta_org_token", "alg kid", OKTA_CLAIMS, {"cid": CLIENT_ID, "sub": ANA, "scp": ["openid", "email"], "ver": 1}),
        (
            "azure_token",
            "alg kid typ",
            AZURE_CLAIMS,
            {"aud": AZURE_CLIENT, "azp": AZURE_CLIENT, "tid": TENANT, "preferred_username": ANA, "ver": "2.0"},
        ),
        (
            "azure_v1_token",
            "alg kid typ x5t",
            AZURE_V1_CLAIMS,
            {"aud": AZURE_CLIENT, "appid": AZURE_CLIENT, "tid": TENANT, "upn": ANA, "ver": "1.0"},
        ),
        (
            "onelogin_token",
            "alg kid typ",
            "aud exp iat iss jti scope sub",
            {"aud": ONELOGIN_CLIENT, "scope": "openid profile email"},
        ),
    ],
)
async def test_a_token_has_the_members_of_the_provider(maker: str, header: str, claims: str, clients: dict[str, Any]) -> None:
    issuer = DemoIssuer("http://127.0.0.1:9")
    token = getattr(issuer, maker)(ANA, lifetime=60)
    found = claims_of(token)
    issuers = {
        "token": issuer.issuer,
        "okta_org_token": issuer.org_issuer,
        "azure_token": issuer.azure_issuer,
        "azure_v1_token": issuer.azure_v1_issuer,
        "onelogin_token": issuer.onelogin_issuer,
    }

    assert sorted(jwt.get_unverified_header(token)) == header.split()
    assert sorted(found) == claims.split()
    assert {name: found[name] for name in clients} == clients
    assert found["iss"] == issuers[maker]
    assert found["exp"] - found["iat"] == 60
    assert jwt.get_unverified_header(token).get("typ", "JWT") == "JWT"


@pytest.mark.parametrize("maker", ["token", "okta_org_token", "azure_token", "azure_v1_token", "onelogin_token"])
def test_changes_replace_claims_and_none_removes_them(maker: str) -> None:
    issuer = DemoIssuer("http://127.0.0.1:9")
    first = claims_of(getattr(issuer, maker)(ANA))
    changed = claims_of(getattr(issuer, maker)(ANA, sub="x", nonce="n", aud=None))

    assert set(changed) == set(first) - {"aud"} | {"nonce"}
    assert (changed["sub"], changed["nonce"]) == ("x", "n")
    assert claims_of(getattr(issuer, maker)("eve@acme.com")) != first
    assert len({getattr(issuer, maker)(ANA, jti=None, iat=1, exp=2, nbf=None) for _ in range(2)}) == 1


def test_onelogin_does_not_tell_the_address() -> None:
    claims = claims_of(DemoIssuer("http://127.0.0.1:9").onelogin_token(ANA))

    assert ANA not in str(claims)
    assert claims["sub"].isdigit()
    assert len(claims["jti"]) == 21


@pytest.mark.parametrize("maker", JWTS)
async def test_a_signed_token_is_good_by_the_published_key(served: Served, maker: str) -> None:
    token = getattr(served.issuer, maker)(ANA)
    forged = served.issuer.forged(token)
    keys = await served.keys((await served.document(JWTS[maker]))["jwks_uri"])
    header = jwt.get_unverified_header(token)

    assert is_signed_by(token, keys[header["kid"]])
    assert jwt.get_unverified_header(forged) == header
    assert claims_of(forged) == claims_of(token)
    assert forged != token
    assert not is_signed_by(forged, keys[header["kid"]])


async def test_the_org_server_does_not_publish_the_key_of_its_access_tokens(served: Served) -> None:
    token = served.issuer.okta_org_token(ANA)
    keys = await served.keys(ORG_KEYS)

    assert keys
    assert jwt.get_unverified_header(token)["kid"] not in keys
    assert not any(is_signed_by(token, key) for key in keys.values())


def test_a_google_token_is_opaque() -> None:
    issuer = DemoIssuer("http://127.0.0.1:9")
    token = issuer.gsuite_token(ANA)
    forged = issuer.forged(token)

    assert token.startswith("ya29.")
    assert token.count(".") == 1
    assert forged.startswith("ya29.")
    assert (len(forged), forged == token) == (len(token), False)


def test_keys_are_made_when_they_are_needed_and_once() -> None:
    started = time.thread_time()
    issuers = [DemoIssuer("http://127.0.0.1:9") for _ in range(200)]
    assert time.thread_time() - started < 2
    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(issuers[0].token, [ANA] * 8))
    assert len({jwt.get_unverified_header(token)["kid"] for token in tokens}) == 1


# --- endpoints that tell about tokens


@pytest.mark.parametrize(("path", "maker"), ONLINE.items())
async def test_an_endpoint_vouches_for_its_own_living_tokens_alone(served: Served, path: str, maker: str) -> None:
    issuer = served.issuer
    token = getattr(issuer, maker)(ANA)

    assert await served.accepts(path, token)
    assert not await served.accepts(path, getattr(issuer, maker)(ANA, lifetime=-1))
    assert not await served.accepts(path, issuer.forged(token))
    assert not await served.accepts(path, token + "x")
    assert not await served.accepts(path, "x")
    for other in set(MAKERS) - {maker}:
        assert not await served.accepts(path, getattr(issuer, other)(ANA))
    assert not await served.accepts(path, getattr(DemoIssuer(served.base), maker)(ANA))
    issuer.revoke(token)
    assert not await served.accepts(path, token)
    issuer.revoke(token)


async def test_a_token_ends_while_it_is_known(served: Served) -> None:
    served.issuer.okta_org_token(ANA)
    token = served.issuer.okta_org_token(ANA, exp=time.time() + 1.0)  # noqa: TID251
    assert await served.accepts(INTROSPECT, token)

    async def is_over() -> bool:
        return not await served.accepts(INTROSPECT, token)

    await until(is_over, seconds=5)


async def test_introspection_tells_the_claims(served: Served) -> None:
    token = served.issuer.okta_org_token(ANA, sub="00u-login")
    claims = claims_of(token)

    assert (await served.present(INTROSPECT, token)).json() == {
        "active": True,
        "scope": "openid email",
        "username": ANA,
        **{name: claims[name] for name in ("exp", "iat", "sub", "aud", "iss", "jti", "uid")},
        "token_type": "Bearer",
        "client_id": CLIENT_ID,
    }
    app = (await served.present(INTROSPECT, served.issuer.okta_org_token(CLIENT_ID, uid=None))).json()
    assert app["active"]
    assert not {"uid", "username"} & set(app)


async def test_introspection_is_for_the_tokens_of_its_own_client(served: Served) -> None:
    assert not await served.accepts(INTROSPECT, served.issuer.okta_org_token(ANA, cid="0oaother"))
    assert not await served.accepts(INTROSPECT, served.issuer.okta_org_token(ANA, cid=None))


@pytest.mark.parametrize("client", [None, (CLIENT_ID, "x"), ("x", CLIENT_SECRET), (CLIENT_ID, ""), ("", "")])
async def test_introspection_knows_its_client(served: Served, client: tuple[str, str] | None) -> None:
    token = served.issuer.okta_org_token(ANA)
    answer = await served.client.post(INTROSPECT, data={"token": token}, auth=client)

    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("authorization", ["Basic", "Basic !", "Basic /w==", "Bearer x", "x"])
async def test_introspection_refuses_what_is_no_client(served: Served, authorization: str) -> None:
    answer = await served.client.post(INTROSPECT, data={"token": "x"}, headers={"authorization": authorization})

    assert answer.status_code == 401


@pytest.mark.parametrize("form", [{}, {"token": ["x", "y"]}, {"access_token": "x"}])
async def test_introspection_needs_one_token(served: Served, form: dict[str, Any]) -> None:
    answer = await served.client.post(INTROSPECT, data=form, auth=(CLIENT_ID, CLIENT_SECRET))

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert (await served.client.get(INTROSPECT, auth=(CLIENT_ID, CLIENT_SECRET))).status_code == 404


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_tokeninfo_is_strings(served: Served, method: str) -> None:
    token = served.issuer.gsuite_token(ANA, lifetime=600)
    answer = (await served.client.request(method, TOKENINFO, headers={"authorization": f"Bearer {token}"})).json()

    assert sorted(answer) == TOKENINFO_MEMBERS.split()
    assert all(type(value) is str for value in answer.values())
    assert (answer["aud"], answer["azp"], answer["email"]) == (GOOGLE_CLIENT, GOOGLE_CLIENT, ANA)
    assert (answer["email_verified"], answer["access_type"]) == ("true", "offline")
    assert 595 <= int(answer["expires_in"]) <= 600
    assert abs(int(answer["exp"]) - time.time() - 600) < 5  # noqa: TID251
    assert answer["scope"].split(" ")[1] == "https://www.googleapis.com/auth/userinfo.email"


async def test_changes_replace_members_of_tokeninfo(served: Served) -> None:
    changes = {"email_verified": "false", "exp": "1", "expires_in": "5", "azp": None, "scope": "openid", "email": ["x"]}
    answer = (await served.present(TOKENINFO, served.issuer.gsuite_token(ANA, **changes))).json()

    assert {name: answer.get(name) for name in changes} == changes
    assert "azp" not in answer


@pytest.mark.parametrize("name", ["access_token", "id_token", "token"])
@pytest.mark.parametrize("path", [TOKENINFO, GOOGLE_USERINFO, OKTA_USERINFO, ONELOGIN_USERINFO, "/elsewhere"])
async def test_a_token_in_a_query_or_form_is_a_leak(served: Served, path: str, name: str) -> None:
    headers = {"authorization": f"Bearer {served.issuer.gsuite_token(ANA)}"}
    query = await served.client.post(path, params={name: "leaked-1"}, headers=headers)
    form = await served.client.post(path, data={name: "leaked-2"}, headers=headers)

    assert (query.status_code, form.status_code) == (400, 400)
    assert served.issuer.leaks == 2
    assert {"leaked-1", "leaked-2"} < served.issuer.seen_tokens_at[path]


async def test_the_form_of_introspection_is_no_leak_but_its_query_is(served: Served) -> None:
    token = served.issuer.okta_org_token(ANA)
    await served.present(INTROSPECT, token)
    assert served.issuer.leaks == 0
    answer = await served.client.post(INTROSPECT, params={"token": token}, data={"token": token}, auth=(CLIENT_ID, CLIENT_SECRET))
    assert (answer.status_code, served.issuer.leaks) == (400, 1)


async def test_userinfo_tells_the_user(served: Served) -> None:
    issuer = served.issuer
    org, google, onelogin = issuer.okta_org_token(ANA), issuer.gsuite_token(ANA), issuer.onelogin_token(ANA)
    told = (await served.present(TOKENINFO, google)).json()

    assert (await served.present(OKTA_USERINFO, org)).json() == {
        "sub": claims_of(org)["uid"],
        "email": ANA,
        "email_verified": True,
    }
    assert (await served.present(GOOGLE_USERINFO, google)).json() == {
        "sub": told["sub"],
        "hd": "acme.com",
        "email": ANA,
        "email_verified": True,
        "name": "Ana",
    }
    assert (await served.present(ONELOGIN_USERINFO, onelogin)).json() == {
        "sub": claims_of(onelogin)["sub"],
        "email": ANA,
        "preferred_username": "ana",
        "name": "Ana",
    }


async def test_userinfo_follows_the_token(served: Served) -> None:
    issuer = served.issuer
    unverified = (await served.present(GOOGLE_USERINFO, issuer.gsuite_token(ANA, sub="7", email_verified="false"))).json()
    assert (unverified["sub"], unverified["email_verified"]) == ("7", False)
    assert "hd" not in (await served.present(GOOGLE_USERINFO, issuer.gsuite_token("ana@gmail.com"))).json()
    assert set((await served.present(OKTA_USERINFO, issuer.okta_org_token(ANA, scp=["openid"]))).json()) == {"sub"}
    assert set((await served.present(ONELOGIN_USERINFO, issuer.onelogin_token(ANA, scope="openid email"))).json()) == {
        "sub",
        "email",
    }
    without = await served.present(OKTA_USERINFO, issuer.okta_org_token(ANA, scp=["email"]))
    assert (without.status_code, without.json()) == (403, {"error": "insufficient_scope"})
    assert 'scope="openid"' in without.headers["www-authenticate"]


async def test_profiles_change_what_userinfo_says(served: Served) -> None:
    served.issuer.profiles[ANA] = {"email_verified": False, "sub": None, "zoneinfo": "Europe/Berlin"}
    told = (await served.present(OKTA_USERINFO, served.issuer.okta_org_token(ANA))).json()
    assert told == {"email": ANA, "email_verified": False, "zoneinfo": "Europe/Berlin"}
    assert "sub" in (await served.present(OKTA_USERINFO, served.issuer.okta_org_token("eve@acme.com"))).json()


@pytest.mark.parametrize("path", [OKTA_USERINFO, GOOGLE_USERINFO, ONELOGIN_USERINFO])
async def test_userinfo_without_a_token_is_a_challenge_without_an_error(served: Served, path: str) -> None:
    answer = await served.client.get(path)

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, f'Bearer realm="{served.base}"')


# --- rotation of keys


@pytest.mark.parametrize("path", KEY_SETS)
async def test_keys_rotate_in_every_set(served: Served, path: str) -> None:
    issuer = served.issuer
    old = issuer.token(ANA)
    (old_kid,) = await served.keys(path)

    issuer.publish_next_key()
    _, new_kid = await served.keys(path)
    assert jwt.get_unverified_header(issuer.azure_token(ANA))["kid"] == old_kid

    issuer.use_next_key()
    new = issuer.token(ANA)
    keys = await served.keys(path)
    assert (jwt.get_unverified_header(new)["kid"], list(keys)) == (new_kid, [old_kid, new_kid])
    assert is_signed_by(old, keys[old_kid])
    assert is_signed_by(new, keys[new_kid])
    assert not is_signed_by(old, keys[new_kid])

    issuer.withdraw_old_keys()
    assert list(await served.keys(path)) == [new_kid]


async def test_the_next_key_is_published_when_it_is_used(served: Served) -> None:
    issuer = served.issuer
    first = jwt.get_unverified_header(issuer.token(ANA))["kid"]
    issuer.use_next_key()
    second = jwt.get_unverified_header(issuer.onelogin_token(ANA))["kid"]
    assert list(await served.keys(OKTA_KEYS)) == [first, second]
    issuer.publish_next_key()
    issuer.withdraw_old_keys()
    assert list(await served.keys(OKTA_KEYS)) == [second]
    assert jwt.get_unverified_header(issuer.token(ANA))["kid"] == second


async def test_a_rotation_spares_the_org_servers_tokens(served: Served) -> None:
    token = served.issuer.okta_org_token(ANA)
    served.issuer.use_next_key()
    served.issuer.withdraw_old_keys()
    later = served.issuer.okta_org_token(ANA)

    assert jwt.get_unverified_header(token) == jwt.get_unverified_header(later)
    assert await served.accepts(INTROSPECT, token)
    assert jwt.get_unverified_header(later)["kid"] not in await served.keys(ORG_KEYS)


# --- faults


async def test_slow_is_right_but_late(served: Served) -> None:
    served.issuer.slow_seconds = 0.3
    served.issuer.fail(OKTA, Fault.SLOW)
    started = time.monotonic()
    document = await served.document(OKTA)

    assert time.monotonic() - started >= 0.29
    assert document["issuer"] == served.issuer.issuer


async def test_slow_does_not_outlive_its_client(server: IssuerServer, served: Served) -> None:
    assert served.issuer.slow_seconds == 5.0
    served.issuer.slow_seconds = 60.0
    served.issuer.fail("/", Fault.SLOW)
    with pytest.raises(httpx2.TimeoutException):
        await served.client.get(OKTA, timeout=0.2)
    await until(lambda: not server.running, seconds=5)
    assert served.issuer.requests == {OKTA: 1}


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [(Fault.ERROR_500, 500, None), (Fault.TOO_MANY, 429, ("retry-after", "2")), (Fault.MISSING, 404, None)],
)
async def test_a_fault_is_a_status(served: Served, fault: Fault, status: int, header: tuple[str, str] | None) -> None:
    served.issuer.fail(OKTA_KEYS, fault)
    answer = await served.client.get(OKTA_KEYS)

    assert answer.status_code == status
    assert {header} - {None} <= set(answer.headers.items())
    assert "keys" not in answer.json()


async def test_garbage_is_not_json(served: Served) -> None:
    served.issuer.fail(TOKENINFO, Fault.GARBAGE)
    answer = await served.present(TOKENINFO, served.issuer.gsuite_token(ANA))

    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


async def test_truncated_ends_too_soon(served: Served) -> None:
    served.issuer.fail(OKTA_KEYS, Fault.TRUNCATED)
    with pytest.raises(httpx2.RemoteProtocolError):
        await served.client.get(OKTA_KEYS)

    whole = len((await served.client.get(f"{OKTA_KEYS}.moved")).content)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.base.rpartition(":")[2]))
    writer.write(f"GET {OKTA_KEYS} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert f"content-length: {whole}".encode() in head
    assert 0 < len(body) < whole


@pytest.mark.parametrize(("fault", "host"), [(Fault.REDIRECT, "localhost"), (Fault.REDIRECT_SAME, "127.0.0.1")])
async def test_a_redirect_leads_to_the_right_answer(served: Served, fault: Fault, host: str) -> None:
    served.issuer.fail("/", fault)
    answer = await served.client.get(OKTA)
    target = httpx2.URL(answer.headers["location"])

    assert (answer.status_code, target.host) == (302, host)
    assert served.issuer.requests == {OKTA: 1}
    assert (await served.document(target.path))["issuer"] == served.issuer.issuer
    assert (target.path, served.issuer.requests[target.path]) == (f"{OKTA}.moved", 1)


async def test_huge_is_more_than_a_mebibyte(served: Served) -> None:
    right = await served.document(OKTA_KEYS)
    served.issuer.fail(OKTA_KEYS, Fault.HUGE)
    answer = await served.client.get(OKTA_KEYS)

    assert len(answer.content) > 1 << 20
    assert answer.json()["keys"] == right["keys"]


@pytest.mark.parametrize("path", [OKTA, OKTA_ORG, AZURE, AZURE_V1, ONELOGIN])
async def test_wrong_issuer_changes_the_issuer_alone(served: Served, path: str) -> None:
    right, keys = await served.document(path), await served.document(OKTA_KEYS)
    served.issuer.fail("/", Fault.WRONG_ISSUER)
    wrong = await served.document(path)

    assert wrong.pop("issuer") != right.pop("issuer")
    assert wrong == right
    assert await served.document(OKTA_KEYS) == keys


@pytest.mark.parametrize("path", KEY_SETS)
async def test_empty_keys_empties_key_sets_alone(served: Served, path: str) -> None:
    right = await served.document(OKTA)
    served.issuer.fail("/", Fault.EMPTY_KEYS)

    assert await served.document(path) == {"keys": []}
    assert await served.document(OKTA) == right


async def test_a_fault_has_a_prefix_and_the_longest_counts(served: Served) -> None:
    served.issuer.fail("/oauth2", Fault.MISSING)
    served.issuer.fail(OKTA_KEYS, Fault.ERROR_500)
    statuses = {path: (await served.client.get(path)).status_code for path in (OKTA, OKTA_KEYS, ORG_KEYS, OKTA_ORG, ONELOGIN)}
    assert statuses == {OKTA: 404, OKTA_KEYS: 500, ORG_KEYS: 404, OKTA_ORG: 200, ONELOGIN: 200}
    served.issuer.fail("/oauth2", Fault.TOO_MANY)
    assert (await served.client.get(OKTA)).status_code == 429
    served.issuer.heal()
    assert [(await served.client.get(path)).status_code for path in statuses] == [200] * 5


@pytest.mark.parametrize(("prefix", "fault"), [("oauth2", "slow"), ("", "slow"), ("/", "slwo")])
def test_fail_refuses_what_is_no_fault(prefix: str, fault: Any) -> None:
    with pytest.raises(ValueError, match="use"):
        DemoIssuer("http://127.0.0.1:9").fail(prefix, fault)


# --- what was seen


async def test_requests_are_counted_without_their_queries(served: Served) -> None:
    for path in (OKTA, f"{OKTA}?a=b", "/nowhere"):
        await served.client.get(path)

    assert served.issuer.requests == {OKTA: 2, "/nowhere": 1}


async def test_where_a_token_arrived_is_known(served: Served) -> None:
    issuer = served.issuer
    tokens = {path: getattr(issuer, maker)(ANA) for path, maker in ONLINE.items()}
    for path, token in tokens.items():
        await served.present(path, token)
    issuer.fail("/", Fault.ERROR_500)
    await served.client.get("/elsewhere", headers={"authorization": "bearer  a.b.c"})
    await served.client.get("/bare", headers={"authorization": "a.b.c"})

    assert issuer.seen_tokens_at == {path: {token} for path, token in tokens.items()} | {
        "/elsewhere": {"a.b.c"},
        "/bare": {"a.b.c"},
    }
    assert issuer.seen_tokens_at[OKTA_KEYS] == set()


# --- control over HTTP


async def test_faults_over_http(served: Served) -> None:
    answer = await served.client.post("/demo/fault", content=b'{"path": "/oauth2", "fault": "missing"}')
    assert (answer.status_code, answer.json()) == (200, {"faults": {"/oauth2": "missing"}})
    assert (await served.client.get(OKTA)).status_code == 404
    # As curl -d sends it.
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await served.client.post("/demo/fault", content=b'{"path": "/", "fault": "error_500"}', headers=form)
    assert answer.json() == {"faults": {"/oauth2": "missing", "/": "error_500"}}
    assert (await served.client.get(ONELOGIN)).status_code == 500
    answer = await served.client.post("/demo/heal")
    assert (answer.status_code, answer.json()) == (200, {"faults": {}})
    assert (await served.client.get(OKTA)).status_code == 200


async def test_rotation_and_counts_over_http(served: Served) -> None:
    (old,) = await served.keys(OKTA_KEYS)
    answer = await served.client.post("/demo/rotate")
    kid = answer.json()["signing"]
    assert answer.status_code == 200
    assert list(await served.keys(OKTA_KEYS)) == [old, kid]
    assert jwt.get_unverified_header(served.issuer.token(ANA))["kid"] == kid
    assert await served.document("/demo/requests") == {OKTA_KEYS: 2}


@pytest.mark.parametrize(
    ("method", "path", "body", "hint"),
    [
        ("POST", "/demo/fault", b"", '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b"slow", '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b"\xff", '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b"[" * 100_000, '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b"[]", '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b'{"path": "/"}', '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b'{"path": 1, "fault": "slow"}', '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b'{"path": "/", "fault": "slow", "x": 1}', '{"path": "/oauth2", "fault": "slow"}'),
        ("POST", "/demo/fault", b'{"path": "oauth2", "fault": "slow"}', "use '/' for every path"),
        ("POST", "/demo/fault", b'{"path": "/", "fault": "slwo"}', f"use one of {', '.join(Fault)}"),
        ("GET", "/demo/fault", b"", "POST /demo/fault"),
        ("POST", "/demo/requests", b"", "GET /demo/requests"),
        ("POST", "/demo/faults", b"", "POST /demo/fault, POST /demo/heal, POST /demo/rotate, GET /demo/requests"),
    ],
)
async def test_bad_control_names_a_hint(served: Served, method: str, path: str, body: bytes, hint: str) -> None:
    answer = await served.client.request(method, path, content=body)

    assert answer.status_code == 400
    assert hint in answer.json()["error"]
    assert (await served.client.post("/demo/heal")).json() == {"faults": {}}
    assert served.issuer.requests == {}


def test_every_fault_has_a_name_of_its_own() -> None:
    names = "slow error_500 garbage truncated redirect redirect_same huge wrong_issuer empty_keys too_many missing"

    assert [str(fault) for fault in Fault] == names.split()
