"""Each operation of the API, by each role and with each credential."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from extauthz.admin import keys
from extauthz.admin.rights import Actor, Role
from extauthz.console.api.operations import BASE
from extauthz.console.api.table import OPERATIONS
from extauthz.console.app import application
from extauthz.console.visits import COOKIE
from extauthz.core import tokens as core_tokens
from tests.support.console_api import ANONYMOUS, FOUNDER, GLOBAL, OKTA, USER, ApiWorld, api_world

Asked = tuple[str, dict[str, Any]]
BODY = {"description": "CI", "scopes": ["SEARCH"], "expires_in": 3600}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    """A world for all cases: each makes what it needs."""
    with api_world(tmp_path_factory.mktemp("api")) as world:
        yield world


def version(api: ApiWorld) -> int:
    """Return the version of the OAuth settings that counts, after one was saved."""
    counting = api.store.settings().version
    return counting or api.settings()


def etag(number: int) -> dict[str, Any]:
    """Return what tells which version a change expects."""
    return {"headers": {"If-Match": f'"{number}"'}}


# What each operation asks for, by a request that nothing but its sender stands against, and the least role that may.
CASES: dict[str, tuple[Role, Callable[[ApiWorld], Asked]]] = {
    "listTokens": (Role.VIEWER, lambda _: ("/tokens", {})),
    "createToken": (Role.ADMIN, lambda _: ("/tokens", {"json": {**BODY, "permission": "ANONYMOUS"}})),
    "readToken": (Role.VIEWER, lambda api: (f"/tokens/{api.token(GLOBAL).record.id}", {})),
    "rotateToken": (Role.ADMIN, lambda api: (f"/tokens/{api.token(USER).record.id}/rotate", {"json": {"overlap": 60}})),
    "revokeToken": (Role.ADMIN, lambda api: (f"/tokens/{api.token(USER).record.id}/revoke", {"json": {}})),
    "readOAuthSettings": (Role.VIEWER, lambda _: ("/settings/oauth", {})),
    "saveOAuthSettings": (
        Role.SUPER_ADMIN,
        lambda api: ("/settings/oauth", {"json": {**OKTA, "client_ids": [f"new{version(api)}"]}, **etag(version(api))}),
    ),
    "listOAuthSettings": (Role.VIEWER, lambda _: ("/settings/oauth/versions", {})),
    "goBackToOAuthSettings": (
        Role.SUPER_ADMIN,
        lambda api: (f"/settings/oauth/versions/{version(api)}/restore", etag(api.settings(version(api)))),
    ),
    "listRoutes": (Role.VIEWER, lambda _: ("/routes", {})),
    "readActivity": (Role.VIEWER, lambda _: ("/activity", {})),
    "listAuditRows": (Role.VIEWER, lambda _: ("/audit", {})),
    "verifyAudit": (Role.VIEWER, lambda _: ("/audit/verification", {})),
    "listSessions": (Role.SUPER_ADMIN, lambda _: ("/sessions", {})),
    "endSession": (Role.SUPER_ADMIN, lambda api: (f"/sessions/{api.session().id}", {})),
    "listKeys": (Role.SUPER_ADMIN, lambda _: ("/keys", {})),
    "revokeKey": (Role.SUPER_ADMIN, lambda api: (f"/keys/{api.key().record.id}/revoke", {})),
}
ROWS = {operation.name: operation for operation in OPERATIONS}
OF_SUPER_ADMINS: dict[str, Callable[[ApiWorld], Asked]] = {
    "createToken": lambda _: ("/tokens", {"json": {**BODY, "permission": "GLOBAL"}}),
    "rotateToken": lambda api: (f"/tokens/{api.token(GLOBAL).record.id}/rotate", {"json": {"overlap": 60}}),
    "revokeToken": lambda api: (f"/tokens/{api.token(GLOBAL).record.id}/revoke", {"json": {"chain": True}}),
}


def test_every_operation_has_a_case() -> None:
    assert CASES.keys() == ROWS.keys()
    assert len(ROWS) == len(OPERATIONS)
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", CASES)
def test_each_role_may_do_what_is_meant_for_it(api: ApiWorld, name: str, role: Role) -> None:
    least, ask = CASES[name]
    path, more = ask(api)
    before = api.store.audit_head()
    answer = api.ask(ROWS[name].method, path, role=role, **more)
    is_allowed = list(Role).index(role) >= list(Role).index(least)
    assert answer.status_code == (ROWS[name].status if is_allowed else 403), answer.text
    assert answer.headers["cache-control"] == "no-store"
    is_change = ROWS[name].method != "GET"
    assert (api.store.audit_head() != before) == (is_allowed and is_change)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", OF_SUPER_ADMINS)
def test_only_a_super_admin_touches_global_tokens(api: ApiWorld, name: str, role: Role) -> None:
    path, more = OF_SUPER_ADMINS[name](api)
    before = api.store.audit_head()
    answer = api.ask("POST", path, role=role, **more)
    assert answer.status_code == (ROWS[name].status if role is Role.SUPER_ADMIN else 403), answer.text
    assert (api.store.audit_head() != before) == (role is Role.SUPER_ADMIN)
    if role is Role.ADMIN:
        assert "GLOBAL needs a super admin" in answer.json()["detail"]
        assert answer.json()["detail"].endswith("use another admin key")


def wrong_secret(api: ApiWorld) -> str:
    """Return the key of a super admin with the secret of somebody else."""
    own, other = (api.keys[role].text.text.split("_") for role in (Role.SUPER_ADMIN, Role.VIEWER))
    body = "_".join((*own[:2], other[2][:43]))
    return body + core_tokens._checksum(body)


def expired(api: ApiWorld) -> str:
    """Return a key that ended."""
    api.now -= 60
    text = api.key(lasts=60).text.text
    api.now += 60
    return text


def revoked(api: ApiWorld) -> str:
    """Return a key that was revoked."""
    new = api.key()
    keys.revoke(api.administration, FOUNDER, new.record.id, int(api.now))
    return new.text.text


def of_nobody(api: ApiWorld) -> str:
    """Return the key of a super admin whose maker has no role."""
    return api.key(maker=Actor("gone@acme.com", Role.SUPER_ADMIN, "a test")).text.text


def good(api: ApiWorld) -> str:
    """Return the key of a super admin."""
    return api.keys[Role.SUPER_ADMIN].text.text


CREDENTIALS: dict[str, Callable[[ApiWorld], list[tuple[str, str]]]] = {
    "none": lambda _: [],
    "a cookie": lambda api: [("Cookie", f"__Host-session={good(api)}; Authorization=Bearer {good(api)}")],
    "another scheme": lambda api: [("Authorization", f"Basic {good(api)}")],
    "no scheme": lambda api: [("Authorization", good(api))],
    "two keys": lambda api: [("Authorization", f"Bearer {good(api)}")] * 2,
    "two in one": lambda api: [("Authorization", f"Bearer {good(api)}, Bearer {good(api)}")],
    "nothing behind the scheme": lambda _: [("Authorization", "Bearer ")],
    "another header": lambda api: [("X-Authorization", f"Bearer {good(api)}"), ("Proxy-Authorization", f"Bearer {good(api)}")],
    "of somebody without a role": lambda api: [("Authorization", f"Bearer {of_nobody(api)}")],
    "wrong secret": lambda api: [("Authorization", f"Bearer {wrong_secret(api)}")],
    "expired": lambda api: [("Authorization", f"Bearer {expired(api)}")],
    "revoked": lambda api: [("Authorization", f"Bearer {revoked(api)}")],
    "a client token": lambda api: [("Authorization", f"Bearer {api.token(GLOBAL).text.text}")],
    "the id alone": lambda api: [("Authorization", f"Bearer {api.keys[Role.SUPER_ADMIN].record.id}")],
    "a session": lambda api: [("Authorization", f"Bearer {api.session().id}")],
}
PATHS = {name: operation.path.format(id="aaaaaaaaaaaa", version=1) for name, operation in ROWS.items()}


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("name", [*PATHS, "document"])
def test_nothing_but_a_key_lets_anybody_in(api: ApiWorld, name: str, credential: str) -> None:
    # Wrong keys of one case do not make the next one wait.
    api.now += 60
    method, path = (ROWS[name].method, PATHS[name]) if name in ROWS else ("GET", "/openapi.json")
    headers = CREDENTIALS[credential](api)
    before = api.store.audit_head()
    answer = api.client.request(method, f"{BASE}{path}", headers=headers, json={} if method == "POST" else None)
    assert answer.status_code == 401, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith('Bearer realm="extauthz console API"')
    sent = [word for _, value in headers for word in value.split() if len(word) > 12]
    assert [word for word in sent if word in answer.text] == []
    assert api.store.audit_head() == before


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_the_scheme_is_read_in_any_case(api: ApiWorld, scheme: str) -> None:
    assert api.ask("GET", "/tokens", role=None, headers={"Authorization": f"{scheme} {good(api)}"}).status_code == 200


def test_a_key_in_the_query_is_none_and_is_not_repeated(api: ApiWorld) -> None:
    answer = api.ask("GET", f"/tokens?access_token={good(api)}", role=None)
    assert (answer.status_code, good(api) in answer.text) == (401, False)


def test_a_client_token_is_no_admin_key_and_a_key_is_no_client_token(api: ApiWorld) -> None:
    token = api.token(ANONYMOUS)
    answer = api.ask("GET", "/tokens", role=None, headers={"Authorization": f"Bearer {token.text.text}"})
    assert answer.status_code == 401
    assert api.ask("GET", f"/tokens/{api.keys[Role.ADMIN].record.id}").status_code == 404
    assert api.ask("POST", f"/tokens/{api.keys[Role.ADMIN].record.id}/revoke", json={}).status_code == 404


def test_a_revoked_key_ends_with_its_next_request(api: ApiWorld) -> None:
    new = api.key()
    headers = {"Authorization": f"Bearer {new.text.text}"}
    assert api.ask("GET", "/audit", role=None, headers=headers).status_code == 200
    keys.revoke(api.administration, FOUNDER, new.record.id, int(api.now))
    answer = api.ask("GET", "/audit", role=None, headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (401, f"the admin key {new.record.id} was revoked: make another one")


def test_the_audit_names_the_key_and_the_address(api: ApiWorld) -> None:
    answer = api.ask("POST", "/tokens", json={**BODY, "permission": "ANONYMOUS"})
    row = api.store.audit_page(api.store.audit_head()[0] - 1)[0]
    assert (row.actor, row.source) == (f"key:{api.keys[Role.SUPER_ADMIN].record.id}", "api unknown")
    assert answer.json()["token"]["created_by"] == row.actor


# --- beside the pages


@pytest.fixture
def console(api: ApiWorld) -> TestClient:
    """The whole console, pages and API, as a browser reaches it."""
    return TestClient(application(api.context, ["https://console.acme.com"]), base_url="https://console.acme.com")


def test_the_api_needs_no_page_of_ours(api: ApiWorld, console: TestClient) -> None:
    body = {**BODY, "permission": "ANONYMOUS"}
    for origin in ({}, {"Origin": "https://evil.com", "Sec-Fetch-Site": "cross-site"}):
        answer = console.post(f"{BASE}/tokens", json=body, headers=api.bearer() | origin)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (201, "nosniff")
        assert "access-control-allow-origin" not in answer.headers
    assert console.post(f"{BASE}/tokens", json=body, headers={**api.bearer(), "Host": "evil.com"}).status_code == 421
    assert console.get(f"{BASE}/nothing%0A").headers["content-type"] == "application/problem+json"
    assert console.get(f"{BASE}/openapi.json", headers=api.bearer()).status_code == 200


def test_a_session_is_no_key(api: ApiWorld, console: TestClient) -> None:
    secret = api.begin_session().secret
    before = api.store.audit_head()
    for headers in ({"Cookie": f"{COOKIE}={secret}"}, {"Authorization": f"Bearer {secret}"}):
        answer = console.post(f"{BASE}/tokens", json={**BODY, "permission": "ANONYMOUS"}, headers=headers)
        assert answer.status_code == 401
    assert api.store.audit_head() == before


@pytest.mark.parametrize("kind", ["key", "token"])
def test_neither_a_key_nor_a_token_is_a_session(api: ApiWorld, console: TestClient, kind: str) -> None:
    text = good(api) if kind == "key" else api.token(GLOBAL).text.text
    for headers in ({"Cookie": f"{COOKIE}={text}"}, {"Authorization": f"Bearer {text}"}):
        answer = console.get("/tokens", headers=headers, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Ftokens")
